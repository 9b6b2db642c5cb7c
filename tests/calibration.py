"""Are ranks uniform?  Simultaneous bands for their empirical distribution function.

Where a simulation and what it is compared with come from one distribution, the rank of one number
among L independent ones is uniform on 0..L.  Säilynoja, Bürkner and Vehtari (2022, "Graphical test for
discrete uniformity and its applications in goodness-of-fit evaluation and multiple sample comparison")
put a band around the empirical distribution function of N ranks: at each point an interval between two
binomial quantiles, all of one tail probability, which is chosen so that the whole function stays inside
with the probability wanted.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom, poisson

LEVEL = 0.99  # of the bands
BROKEN = 1e-4  # p-value of what must fail: no accident
ROUNDING = 1e-15  # tails below it say no more


def joint_p_value(ranks: ArrayLike, num_draws: int) -> float:
    """Return the p-value of all quantities together, `ranks (N, Q)`, by Bonferroni's bound."""
    return min(1.0, min(p_values(ranks, num_draws)) * np.shape(ranks)[1])


def p_values(ranks: ArrayLike, num_draws: int) -> list[float]:
    """Return the p-value of each quantity, of `ranks (N, Q)`."""
    return [p_value(of_one, num_draws) for of_one in np.transpose(ranks)]


def p_value(ranks: ArrayLike, num_draws: int) -> float:
    """Return the probability that N uniform ranks do worse: p < 0.01 where they leave the 99 % band.

    Args:
        ranks: `(N,)`, each among `num_draws` independent draws: 0 to `num_draws`.
        num_draws: L; the band has a point after each rank but the last.
    """
    ranks = np.sort(ranks)
    share = np.arange(1, num_draws + 1) / (num_draws + 1)
    below = np.searchsorted(ranks, np.arange(1, num_draws + 1))
    tails = np.minimum(binom.cdf(below, len(ranks), share), binom.sf(below - 1, len(ranks), share))
    return max(0.0, 1 - probability_inside(len(ranks), num_draws, max(tails.min(), ROUNDING)))


def probability_inside(count: int, num_draws: int, tail: float) -> float:
    """Return the probability that at every point both binomial tails of the `count` ranks exceed `tail`.

    Numbers of uniform ranks below each point are a Poisson process, given its total: a path from point
    to point adds an independent Poisson number, and paths that leave the band are dropped.  The paper's
    recursion (section 2.1) has binomial steps instead; the result is the same.
    """
    share = np.arange(1, num_draws + 1) / (num_draws + 1)
    tail *= 1 + 1e-9  # equal tails at two points differ by rounding
    lowest = [0, *binom.ppf(tail, count, share).astype(int), count]
    highest = [0, *(count - binom.ppf(tail, count, 1 - share)).astype(int), count]
    if (np.array(lowest) > highest).any():
        return 0.0
    step = poisson.pmf(np.arange(count + 1), count / (num_draws + 1))
    paths = np.ones(1)
    for point in range(num_draws + 1):
        begin, low, high = lowest[point], lowest[point + 1], highest[point + 1]
        grown = np.convolve(paths, step[: high - begin + 1])
        paths = grown[low - begin : high - begin + 1]
    return float(paths[0] / poisson.pmf(count, count))
