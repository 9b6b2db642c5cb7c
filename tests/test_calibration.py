"""The bands of ranks: their probability by enumeration, their level under uniformity, their power."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom

from tests.calibration import BROKEN, LEVEL, joint_p_value, p_value, probability_inside


@pytest.mark.parametrize("tail", [0.02, 0.1, 0.2])
def test_the_probability_of_a_band_is_that_of_all_paths_inside(tail: float) -> None:
    """5 ranks among 3 draws: all 4^5 outcomes, one by one."""
    count, num_draws = 5, 3
    inside = 0
    for ranks in itertools.product(range(num_draws + 1), repeat=count):
        below = np.array([sum(rank < i for rank in ranks) for i in range(1, num_draws + 1)])
        share = np.arange(1, num_draws + 1) / (num_draws + 1)
        tails = np.minimum(binom.cdf(below, count, share), binom.sf(below - 1, count, share))
        inside += bool((tails > tail * (1 + 1e-9)).all())
    assert probability_inside(count, num_draws, tail) == pytest.approx(inside / 4**count, abs=1e-12)


def test_uniform_ranks_leave_the_band_as_often_as_it_says() -> None:
    random, trials = np.random.default_rng(0), 2_000
    found = np.array([p_value(random.integers(0, 20, 200), 19) for _ in range(trials)])
    for level in (1 - LEVEL, 0.1):
        error = math.sqrt(level * (1 - level) / trials)
        # Ranks are discrete, so the share is a little below the level; 4 standard errors.
        assert level / 2 - 4 * error < (found < level).mean() < level + 4 * error


@pytest.mark.parametrize("power", [0.7, 1.4])
def test_ranks_that_lean_to_one_side_leave_it(power: float) -> None:
    """U^1.4 lies below 1/2 with probability .61, 10 standard errors of 2,000 ranks from 1/2."""
    ranks = np.floor(100 * np.random.default_rng(1).random(2_000) ** power)
    assert p_value(ranks, 99) < BROKEN


def test_ranks_that_crowd_the_middle_leave_it() -> None:
    """Means of two uniform numbers: a kernel whose draws are too wide."""
    ranks = np.floor(100 * np.random.default_rng(2).random((500, 2)).mean(1))
    assert p_value(ranks, 99) < BROKEN


def test_ranks_that_are_all_the_same_leave_it_by_far() -> None:
    """As when every draw is nan, and compares as not below."""
    assert p_value(np.zeros(4_000), 99) < 1e-9
    one_of_three = np.random.default_rng(3).integers(0, 100, (4_000, 3))
    assert joint_p_value(one_of_three, 99) > 1 - LEVEL
    one_of_three[:, 1] = 0
    assert joint_p_value(one_of_three, 99) < 1e-9
