"""ChEES climbs to the path lengths that its criterion, known exactly for a normal, calls best."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pyrolatent.kernels.adaptation import PATH_FACTOR, PATH_JITTER, path_length
from pyrolatent.kernels.chees import RATE, PathAscent, chees_gradient, path_ascent
from pyrolatent.kernels.hmc import HMCInfo, HMCState, metric, start, transition
from pyrolatent.kernels.leapfrog import leapfrog_step

SCALES = torch.tensor([1.0, 10.0], dtype=torch.float64)
UNIT = metric(torch.ones(2, dtype=torch.float64))
JITTER = np.linspace(*PATH_JITTER, 1_001)
PATHS = np.arange(0.5, 2.5, 0.001)  # in standard deviations, around the first peak


def gaussian(position: Tensor) -> tuple[Tensor, Tensor]:
    """log N(0, diag(SCALES^2)) up to a constant, and its gradient."""
    gradient = -position / SCALES**2
    return 0.5 * (position * gradient).sum(-1), gradient


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def info_of(proposal: Tensor, momentum: Tensor, acceptance: Tensor | None = None) -> HMCInfo:
    rate = torch.ones(len(proposal), dtype=proposal.dtype) if acceptance is None else acceptance
    return HMCInfo(rate, rate < 0, rate, proposal, momentum)


def state_at(position: Tensor) -> HMCState:
    return HMCState(position, position[:, 0], position)


def flow(position: Tensor, momentum: Tensor, time: float) -> tuple[Tensor, Tensor]:
    """Where the exact dynamics of `gaussian` lead, a rotation of each coordinate."""
    cos, sin = torch.cos(time / SCALES), torch.sin(time / SCALES)
    return position * cos + SCALES * momentum * sin, momentum * cos - position / SCALES * sin


def criterion(path: float | np.ndarray) -> np.ndarray:
    """ChEES(path) under jitter: after time t a normal coordinate of the flow gives s^4 sin(t / s)^2."""
    time = np.multiply.outer(path, JITTER)
    return sum(s**4 * np.mean(np.sin(time / s) ** 2, -1) for s in SCALES.tolist())


def learnt(path: float, num_transitions: int) -> list[PathAscent]:
    """Return the ascent from this path on, after each transition of 64 chains."""
    random, size = torch.Generator().manual_seed(1), scalar(1.0)
    state, ascents = start(gaussian, normals(64, 2) * SCALES), [path_ascent(scalar(path))]
    low, high = PATH_JITTER
    for _ in range(num_transitions):
        noise = torch.randn(64, 2, generator=random, dtype=torch.float64)
        uniform = torch.rand(64, generator=random, dtype=torch.float64)
        jitter = low + (high - low) * float(torch.rand((), generator=random))
        num_steps = max(round(float(ascents[-1].path) * jitter), 1)
        before = state
        state, info = transition(leapfrog_step(gaussian), state, UNIT, size, num_steps, noise, uniform)
        ascents.append(ascents[-1].update(before, info, UNIT, num_steps * size))
    return ascents


def test_the_criterion_of_a_normal_is_the_sum_of_its_directions() -> None:
    """The formula that the other tests stand on, against its definition by draws."""
    position, momentum = normals(400_000, 2) * SCALES, normals(400_000, 2, seed=1)
    end = flow(position, momentum, 7.0)[0]
    squares = ((end**2).sum(-1) - (position**2).sum(-1)) ** 2 / 4
    exact = float((SCALES**4 * torch.sin(7.0 / SCALES) ** 2).sum())
    assert float(squares.mean()) == pytest.approx(exact, abs=5 * float(squares.std()) / math.sqrt(400_000))


def test_the_gradient_is_the_derivative_of_the_criterion_by_the_log_path() -> None:
    """With every chain's mirror image beside it the mean is 0 at all times, so the equality is exact."""
    position, momentum = (torch.cat([x, -x]) for x in (normals(20, 2) * SCALES, normals(20, 2, seed=1)))
    path, jitter = 6.0, 0.7

    def sampled(log_path: float) -> float:
        end = flow(position, momentum, jitter * math.exp(log_path))[0]
        return float((((end**2).sum(-1) - (position**2).sum(-1)) ** 2).mean() / 4)

    info = info_of(*flow(position, momentum, jitter * path))
    width = 1e-5
    difference = (sampled(math.log(path) + width) - sampled(math.log(path) - width)) / (2 * width)
    gradient = chees_gradient(position, info, UNIT, scalar(jitter * path))
    assert float(gradient) == pytest.approx(difference, rel=1e-7)


@pytest.mark.parametrize("dense", [True, False])
def test_the_users_coordinates_have_no_say(dense: bool) -> None:
    """Positions L z with the metric L L' are whitened to z, so nothing changes."""
    position, end, momentum = normals(10, 2), normals(10, 2, seed=1), normals(10, 2, seed=2)
    factor = torch.tensor([[3.0, 0.0], [1.0 if dense else 0.0, 0.2]], dtype=torch.float64)
    covariance = factor @ factor.T if dense else factor.diagonal() ** 2
    info = info_of(end @ factor.T, momentum @ torch.linalg.inv(factor))
    mapped = chees_gradient(position @ factor.T, info, metric(covariance), scalar(2.0))
    expected = chees_gradient(position, info_of(end, momentum), UNIT, scalar(2.0))
    torch.testing.assert_close(mapped, expected, rtol=1e-10, atol=0)


def test_proposals_that_failed_count_for_nothing() -> None:
    position, end, momentum = normals(10, 2), normals(10, 2, seed=1), normals(10, 2, seed=2)
    never = torch.linspace(0, 1, 10, dtype=torch.float64)  # the first proposal is never accepted
    expected = float(chees_gradient(position, info_of(end, momentum, never), UNIT, scalar(2.0)))
    failed = torch.where(never[:, None] == 0, torch.nan, end)
    for rate in (never, torch.where(never == 0, 1.0, never)):
        assert float(chees_gradient(position, info_of(failed, momentum, rate), UNIT, scalar(2.0))) == expected
    assert expected != 0


def test_a_path_that_takes_no_chain_anywhere_stays() -> None:
    nowhere = info_of(torch.full((10, 2), torch.nan, dtype=torch.float64), normals(10, 2))
    ascent = path_ascent(scalar(3.0)).update(state_at(normals(10, 2)), nowhere, UNIT, scalar(2.0))
    assert float(ascent.path) == float(ascent.average_path) == pytest.approx(3.0, rel=1e-12)


def test_the_learnt_path_is_the_known_optimum() -> None:
    """N(0, diag(1, 100)): from either side to 13.75, not far from a quarter of the period, 5 pi.

    Near the optimum the log path x moves by RATE (noise - slope x), where the noise has variance 1 and
    the slope is the criterion's curvature over the root mean square of the gradient: Adam divides by
    that.  So x comes to have the variance RATE / (2 slope), and its mean over n transitions 1 / (n
    slope^2).  That the noise of jitter is all the noise makes the slope a little too large: a factor
    of 2 in the variances allows for it, then five standard deviations.
    """
    values = criterion(10 * PATHS)
    best = 10 * float(PATHS[values.argmax()])
    assert best == pytest.approx(13.75, abs=0.05)
    below, at, above = criterion(best * np.exp([-0.01, 0.0, 0.01]))
    phase = best * JITTER / 10
    noise = math.sqrt(np.mean((1e4 * phase * np.sin(2 * phase)) ** 2))
    slope = (2 * at - below - above) / 0.01**2 / noise
    for begin in (3.0, 22.0):
        ascents = learnt(begin, 300)
        mean = float(torch.stack([ascent.log_path for ascent in ascents[-200:]]).mean())
        assert mean == pytest.approx(math.log(best), abs=5 * math.sqrt(2 / 200) / slope)
        kept = float(ascents[-1].average_path.log())
        assert kept == pytest.approx(math.log(best), abs=5 * math.sqrt(RATE / slope))


def efficiency(path: float | np.ndarray) -> np.ndarray:
    """Effective draws per unit of path of one coordinate of the exact flow, in standard deviations.

    x' = x cos(h T) + noise: the coordinate has autocorrelations r^k with r = E cos(h T), its square
    with r = E cos(h T)^2.  (1 - r) / (1 + r) draws in one, capped at 1, and the smaller of the two.
    """
    time = np.multiply.outer(path, JITTER)
    draws = [(1 - r) / (1 + r) for r in (np.cos(time).mean(-1), (np.cos(time) ** 2).mean(-1))]
    result: np.ndarray = np.minimum(np.minimum(*draws), 1) / path
    return result


def test_the_path_rule_is_near_the_optimum() -> None:
    draws = normals(100_000, 2) * SCALES
    # A sample standard deviation of 100,000 draws has a relative error of 1 / sqrt(200,000).
    assert path_length(draws, UNIT) / 10 == pytest.approx(PATH_FACTOR, rel=5 / math.sqrt(200_000))
    best = PATHS[efficiency(PATHS).argmax()]
    assert best == pytest.approx(1.32, abs=0.01)
    assert efficiency(PATH_FACTOR) > 0.85 * efficiency(best)
