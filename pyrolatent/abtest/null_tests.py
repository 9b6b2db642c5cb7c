"""Tests in which arms do not differ: labels are permuted among the rows, and the rule is applied."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyrolatent.abtest.estimates import (
    Array,
    Estimates,
    moments,
    of_amounts,
    of_mean,
    of_rate,
    of_share,
    standardised,
)
from pyrolatent.abtest.gaussian import normal_cdf
from pyrolatent.abtest.one_step import of_overdispersed, of_student
from pyrolatent.abtest.trial import Trial
from pyrolatent.models.abtest import Family, column_of

CELLS = 2**21  # rows times simulations at once


@final
@dataclass(frozen=True, eq=False)
class KnownRows:
    """The rows that have both label and outcome, in their order.

    Attributes:
        arms: Codes of their arms `(M,)`; 0 is the control.
        num_arms: K.
        seen: How many of them each look has seen `(L,)`.
        ranks: Of their outcomes among the different ones, from -1 to 1 `(M,)`: which outcomes are alike.
        estimates: What is summed of them, and what the sums of an arm say of it.
    """

    arms: NDArray[np.int8]
    num_arms: int
    seen: tuple[int, ...]
    ranks: Array
    estimates: Estimates


@final
@dataclass(frozen=True)
class Rates:
    """How often the rule stops at some look, or would at the last alone, and the threshold suggested."""

    of_looks: float
    of_last: float
    suggested: float


def known_rows(trial: Trial, control: Any, numbers: Sequence[int]) -> KnownRows:
    """Return the rows of a test that have both label and outcome."""
    rows = trial.table[[trial.outcome, trial.group]]
    known = rows.notna().all(axis=1).to_numpy()
    names = [control, *(name for name in trial.names if name != control)]
    arms = pd.Categorical(rows.loc[known, trial.group], categories=names).codes.astype(np.int8)
    outcomes = column_of(trial.pair.columns, trial.outcome).values(rows.loc[known, trial.outcome])
    seen = tuple(int(known[:number].sum()) for number in numbers)
    return KnownRows(arms, len(names), seen, ranks_of(outcomes), estimates_of(trial.pair.family, outcomes))


def ranks_of(outcomes: Array) -> Array:
    """Return the ranks of outcomes among the different ones, from -1 to 1 `(M,)`."""
    different, places = np.unique(outcomes, return_inverse=True)
    return 2 * places / max(len(different) - 1, 1) - 1.0


def null_scores(rows: KnownRows, num_simulations: int, random: np.random.Generator) -> Array:
    """Return the score of the rule at each look of tests whose labels are permuted `(S, L)`."""
    size = max(1, CELLS // len(rows.arms))
    parts = [min(size, num_simulations - first) for first in range(0, num_simulations, size)]
    return np.concatenate(
        [scores(random.permuted(np.tile(rows.arms, (number, 1)), axis=1), rows) for number in parts]
    )


def rates_of(null: Array, threshold: float) -> Rates:
    """Return how often the rule stops, from scores without a difference `(S, L)`."""
    highest = null.max(1)
    of_looks, of_last = (float((normal_cdf(score) > threshold).mean()) for score in (highest, null[:, -1]))
    return Rates(of_looks, of_last, float(normal_cdf(np.quantile(highest, threshold, method="higher"))))


def scores(arms: NDArray[np.int8], rows: KnownRows) -> Array:
    """Return the largest difference of an arm from the control, in its standard errors, at each look.

    Draws of a difference are normal around that of the estimates, with the sum of their variances, so that
    P(better) is the normal distribution function of this score.

    Args:
        arms: Codes of the arms of the rows, by simulation `(S, M)`.
        rows: The rows.

    Returns:
        Scores `(S, L)`, never negative; 0 where an arm has no two different outcomes.
    """
    terms = np.column_stack([rows.estimates.terms, rows.ranks, rows.ranks**2])
    sums = np.stack([running_sums(arms == arm, terms, rows.seen) for arm in range(rows.num_arms)])
    with np.errstate(divide="ignore", invalid="ignore"):
        _, _, spread = moments(sums[..., [0, -2, -1]])
        value, variance = rows.estimates.from_sums(sums[..., :-2])  # each (K, S, L)
        score = np.abs(value[1:] - value[0]) / np.sqrt(variance[1:] + variance[0])
    usable = np.isfinite(score) & (spread > 0).all(0)
    return np.where(usable, score, 0.0).max(0)


def running_sums(members: NDArray[np.bool_], terms: Array, seen: Sequence[int]) -> Array:
    """Return the sums of `terms (M, P)` of `members (S, M)` by each look `(S, L, P)`."""
    spans = [slice(first, last) for first, last in zip((0, *seen), seen, strict=False)]
    between = [members[:, span].astype(np.float64) @ terms[span] for span in spans]
    return np.cumsum(np.stack(between, axis=1), axis=1)


def estimates_of(family: Family, outcomes: Array) -> Estimates:
    """Return what estimates arms of these rows.

    Args:
        family: The distribution of outcomes in an arm.
        outcomes: Of all rows, in their units `(M,)`.
    """
    match family:
        case "normal":
            standard = standardised(outcomes)
            return Estimates(np.stack([np.ones_like(standard), standard, standard**2], 1), of_mean)
        case "bernoulli" | "poisson":
            of_total = of_share if family == "bernoulli" else of_rate
            return Estimates(np.stack([np.ones_like(outcomes), outcomes], 1), of_total)
        case "negative_binomial":
            return of_overdispersed(outcomes)
        case "student":
            return of_student(standardised(outcomes))
    return of_amounts(outcomes)  # of log-normal outcomes all are above zero
