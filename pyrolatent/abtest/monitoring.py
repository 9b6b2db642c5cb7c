"""Looks at a test while it runs, and how often a rule that stops it at one of them is wrong.

    watched = monitor(frame, "sales", "group", looks=10, threshold=0.95)
    watched.looks, watched.stopped_at, watched.false_positive_rate, watched.suggested_threshold

A posterior probability says the same however often it is looked at, but a rule that stops a test at the
first look where it is high has more chances to be wrong (Armitage, McPherson and Rowe 1969).  How often it
is wrong where arms do not differ is simulated with the rows themselves: labels are permuted among them.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyrolatent.abtest.analysis import NUM_DRAWS, ABResult, analyze, plain, probability
from pyrolatent.abtest.checks import check_named, ranges
from pyrolatent.abtest.choices import Range, as_range
from pyrolatent.abtest.gaussian import normal_cdf
from pyrolatent.abtest.planning import check_threshold
from pyrolatent.abtest.trial import Trial, as_trial
from pyrolatent.errors import ArgumentError, DataError, FitWarning
from pyrolatent.infer.method import check_least
from pyrolatent.models.abtest import Family, Priors
from pyrolatent.schema import listing
from pyrolatent.seeds import fresh_seed, numpy_generator

Array = NDArray[np.float64]

CELLS = 2**21  # rows times simulations at once
NO_SPREAD = 1e-12  # of the variance of all outcomes: rounding of outcomes that are all equal
FEW_WRONG = 20  # simulations beyond the suggested threshold, below which it is rough
UPLIFT = ("absolute", "absolute_low", "absolute_high", "p_better", "p_in_rope")


@final
@dataclass(frozen=True)
class Monitoring:
    """What looks at a test say, and how often the rule that stops it is wrong.

    Attributes:
        looks: By number of rows, one line for each look.  Columns are quantity and arm: for each other arm
            its `absolute` uplift over the control with the 90 % interval `absolute_low` to `absolute_high`,
            `p_better`, and `p_in_rope` where a range was given; `expected_loss` of choosing each arm; and
            `stop`, whether the rule stops there.
        stopped_at: Rows at the first look where the rule stops; None if it does at none.
        false_positive_rate: How often it stops at some look where arms do not differ.  The standard error
            of this and of the next is sqrt(rate (1 - rate) / num_simulations).
        single_look_rate: How often at the last look, had there been no other; 2 (1 - threshold) for two arms
            with many rows.
        suggested_threshold: With which the first of these rates would be 1 - threshold.
        sentence: The result in words.
        warnings: Looks that were left out, and what makes the looks that stop or end the test, or the rates,
            weaker than they look, with what to do.
    """

    looks: pd.DataFrame
    stopped_at: int | None
    false_positive_rate: float
    single_look_rate: float
    suggested_threshold: float
    sentence: str
    warnings: tuple[str, ...]


def monitor(
    frame: pd.DataFrame,
    outcome: str,
    group: str,
    *,
    order: str | None = None,
    looks: int | Sequence[int] = 10,
    family: Family = "normal",
    control: Any = None,
    threshold: float = 0.95,
    rope: float | Range | None = None,
    num_simulations: int = 1_000,
    seed: int | None = None,
) -> Monitoring:
    """Look at a test several times while its rows come in, and say how often stopping early is wrong.

    The rule stops the test when the probability that some other arm is better than the control is above
    `threshold`, or below 1 - `threshold`.  Each look is an `analyze` of the rows so far.  Where an arm has
    fewer than two different outcomes by then, the look is left out, with a warning.

    The rates come from tests with these looks, these outcomes and as many rows in each arm, whose labels are
    permuted, so that arms do not differ.  For the sake of speed these use no model: for every family, the
    difference of the mean outcomes of two arms is taken to be normal, with the variances of both arms and
    flat priors.  That is what `EM` gives for normal outcomes.  Rows without a label or without an outcome
    are left out of these simulations, while the looks themselves use them.

    Args:
        frame: The table, one row for each unit; outcomes and labels may be missing.
        outcome: The column of the outcome; more is better.
        group: The column of the labels.
        order: The column in whose order rows came in; by default that of the table.
        looks: The number of equally spaced looks, the last at all rows; or the numbers of rows at which to
            look.
        family: The distribution of outcomes in an arm (`models.ABTest`).
        control: The arm that others are compared with; by default the one that is called so, else the first.
        threshold: Of the rule, between 0.5 and 1.
        rope: Differences that are as good as none: their half width, or from and to.
        num_simulations: Tests without a difference.
        seed: Of the fits, which share it, and of the simulations.

    Raises:
        DataError: A column cannot be used, an arm has fewer than two outcomes, no label is known, or no look
            has enough rows.
        ArgumentError: A setting has no meaning.
    """
    limits = as_range(rope)
    check_threshold(threshold)
    check_least("num_simulations", num_simulations, 1)
    trial = as_trial(in_order(frame, outcome, group, order), outcome, group, (), family, 2, Priors())
    chosen, numbers = trial.control(control), as_numbers(looks, len(frame))
    seed = fresh_seed() if seed is None else seed
    if trial.group is None:
        raise DataError("no label is known", where=f"column {group!r}", remedy="label rows of each arm")

    found = results_at(numbers, trial, family, chosen, limits, seed)
    table = look_table(found, threshold)
    rows = known_rows(trial, chosen, numbers)
    rates = rates_of(null_scores(rows, num_simulations, numpy_generator(seed, "monitor")), threshold)
    stopped_at = first_stop(table, threshold)
    doubts = (
        *left_out(numbers, found),
        *doubts_of(found, stopped_at),
        *doubts_of_rates(rates, num_simulations, threshold),
    )
    for message in doubts:
        warnings.warn(message, FitWarning, stacklevel=2)
    sentence = in_words(table, rates, threshold, chosen)
    return Monitoring(table, stopped_at, rates.of_looks, rates.of_last, rates.suggested, sentence, doubts)


# Rows and looks


def in_order(frame: pd.DataFrame, outcome: str, group: str, order: str | None) -> pd.DataFrame:
    """Return the rows as they came in; those of one time in the order of the table.

    Raises:
        DataError: The column is absent, has holes, or values that cannot be ordered.
    """
    if order is None:
        return frame
    check_named(frame, [outcome, group, order])
    where = f"column {order!r}"
    if number := int(frame[order].isna().sum()):
        why = f"{number} of {len(frame)} rows have none"
        raise DataError("the order of rows is not known", where=where, why=why, remedy="leave these rows out")
    try:
        return frame.sort_values(order, kind="stable")
    except TypeError as error:
        remedy = "make them all numbers, or all dates"
        raise DataError("values cannot be ordered", where=where, why=str(error), remedy=remedy) from error


def as_numbers(looks: int | Sequence[int], num_rows: int) -> list[int]:
    """Return the numbers of rows at which to look, rising.

    Raises:
        ArgumentError: There is no look, or one at more rows than there are, or at none.
    """
    if isinstance(looks, int):
        check_least("looks", looks, 1)
        if looks > num_rows:
            raise ArgumentError("there are more looks than rows", why=f"{looks} looks at {num_rows} rows")
        return [round(num_rows * k / looks) for k in range(1, looks + 1)]
    for number in looks:
        check_least("looks", number, 1)
    numbers = sorted({int(number) for number in looks})
    if not numbers or numbers[-1] > num_rows:
        raise ArgumentError(
            "looks are no numbers of rows", why=f"got {looks!r}, and the table has {num_rows}",
            remedy=f"pass numbers from 1 to {num_rows}, or how many looks there are to be",
        )  # fmt: skip
    return numbers


def results_at(
    numbers: Sequence[int], trial: Trial, family: Family, control: Any, rope: Range | None, seed: int
) -> dict[int, ABResult]:
    """Return number of rows -> the analysis of so many, without looks that come too early.

    Raises:
        DataError: All of them do.
    """
    parts = {number: trial.table.iloc[:number] for number in numbers}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # those of the looks that decide are told at the end
        found = {
            number: analyze(
                part, trial.outcome, trial.group, family=family, control=control, rope=rope, seed=seed
            )
            for number, part in parts.items()
            if enough(part, trial)
        }
    if not found:
        raise DataError(
            "no look has two different outcomes in each arm",
            where=f"columns {listing([trial.outcome, trial.group])}",
            why=f"looks are at {listing(numbers)} rows",
            remedy="look later",
        )
    return found


def enough(part: pd.DataFrame, trial: Trial) -> bool:
    """Return whether each arm of the test has two different outcomes among these rows."""
    found = ranges(part[trial.outcome], part[trial.group], trial.pair.family)
    return bool((found.reindex(trial.names) > 0).all())


def look_table(found: dict[int, ABResult], threshold: float) -> pd.DataFrame:
    """Return one line for each look, by quantity and arm, and whether the rule stops there."""
    lines = {}
    for number, result in found.items():
        uplift = result.lift[[name for name in UPLIFT if name in result.lift]].unstack()
        lines[number] = pd.concat([uplift, result.arms[["expected_loss"]].unstack()])
    table = pd.DataFrame(lines).T.rename_axis("rows").rename_axis(["quantity", "arm"], axis=1)
    table["stop", ""] = stops(table, threshold)
    return table


def stops(table: pd.DataFrame, threshold: float) -> NDArray[np.bool_]:
    """Return at which looks the rule stops `(L,)`."""
    better = table["p_better"].to_numpy(float)
    return np.any((better > threshold) | (better < 1 - threshold), axis=1)


def first_stop(table: pd.DataFrame, threshold: float) -> int | None:
    """Return the rows at the first look where the rule stops, or None."""
    return next((int(number) for number in table.index[stops(table, threshold)]), None)


# Tests in which arms do not differ


@final
@dataclass(frozen=True, eq=False)
class KnownRows:
    """The rows that have both label and outcome, in their order.

    Attributes:
        outcomes: Less their mean `(M,)`.
        arms: Codes of their arms `(M,)`; 0 is the control.
        num_arms: K.
        seen: How many of them each look has seen `(L,)`.
    """

    outcomes: Array
    arms: NDArray[np.int8]
    num_arms: int
    seen: tuple[int, ...]


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
    outcomes = rows.loc[known, trial.outcome].to_numpy(float)
    names = [control, *(name for name in trial.names if name != control)]
    arms = pd.Categorical(rows.loc[known, trial.group], categories=names).codes.astype(np.int8)
    seen = tuple(int(known[:number].sum()) for number in numbers)
    return KnownRows(outcomes - outcomes.mean(), arms, len(names), seen)


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

    The posterior of the difference of two means, with flat priors and the variances v of both arms taken as
    known, is normal around the difference of sample means, with variance v_1 / n_1 + v_0 / n_0.  So P(better)
    is the normal distribution function of this score.

    Args:
        arms: Codes of the arms of the rows, by simulation `(S, M)`.
        rows: Their outcomes.

    Returns:
        Scores `(S, L)`, never negative; 0 where an arm has no two different outcomes.
    """
    sums = np.stack([running_sums(arms == arm, rows) for arm in range(rows.num_arms)])
    number, total, squares = np.moveaxis(sums, -1, 0)  # each (K, S, L)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / number
        variance = squares / number - mean**2  # with divisor n, as by maximum likelihood
        errors = variance / number
        score = np.abs(mean[1:] - mean[0]) / np.sqrt(errors[1:] + errors[0])
    usable = (variance > NO_SPREAD * rows.outcomes.var()).all(0)
    return np.where(usable, score.max(0), 0.0)


def running_sums(members: NDArray[np.bool_], rows: KnownRows) -> Array:
    """Return number, sum and sum of squares of the outcomes of `members (S, M)` by each look `(S, L, 3)`."""
    powers = np.stack([np.ones_like(rows.outcomes), rows.outcomes, rows.outcomes**2], axis=1)
    spans = [slice(first, last) for first, last in zip((0, *rows.seen), rows.seen, strict=False)]
    between = [members[:, span].astype(np.float64) @ powers[span] for span in spans]
    return np.cumsum(np.stack(between, axis=1), axis=1)


# In words


def in_words(table: pd.DataFrame, rates: Rates, threshold: float, control: Any) -> str:
    """Return the result in three sentences."""
    stopped_at, later = first_stop(table, threshold), first_stop(table, rates.suggested)
    told = "The rule stops at no look."
    if stopped_at is not None:
        better = dict(table["p_better"].loc[stopped_at])
        arm = max(better, key=lambda name: better[name])
        arm = arm if better[arm] > threshold else min(better, key=lambda name: better[name])
        told = (
            f"The rule stops at {stopped_at:,} rows, where {plain(arm)} is better than {plain(control)} with "
            f"probability {probability(better[arm])}."
        )
    where = (
        "" if stopped_at is None else f", and this one {'never' if later is None else f'at {later:,} rows'}"
    )
    return (
        f"{told} Where arms do not differ, looks with a threshold of {threshold:g} stop "
        f"{rates.of_looks:.1%} of tests, and one look at the end {rates.of_last:.1%}. A threshold of "
        f"{rates.suggested:.5g} would stop {1 - threshold:.1%} of them{where}."
    )


def left_out(numbers: Sequence[int], found: dict[int, ABResult]) -> tuple[str, ...]:
    """Return a warning of looks that came too early."""
    early = [number for number in numbers if number not in found]
    if not early:
        return ()
    return (
        f"Looks at {listing(early)} rows are left out: an arm has no two different outcomes by then. "
        "Look later.",
    )


def doubts_of(found: dict[int, ABResult], stopped_at: int | None) -> tuple[str, ...]:
    """Return the warnings of the look that stops the test, and of the last one."""
    last = max(found)
    looks = sorted({last if stopped_at is None else stopped_at, last})
    return tuple(f"At {number:,} rows: {message}" for number in looks for message in found[number].warnings)


def doubts_of_rates(rates: Rates, num_simulations: int, threshold: float) -> tuple[str, ...]:
    """Return what makes the suggested threshold rough."""
    doubts = []
    if num_simulations * (1 - threshold) < FEW_WRONG:
        doubts.append(
            f"The suggested threshold rests on fewer than {FEW_WRONG} of {num_simulations} simulations. "
            f"Pass num_simulations={round(FEW_WRONG / (1 - threshold)):_} or more."
        )
    if rates.suggested > 1 - 10 / NUM_DRAWS:
        doubts.append(
            f"The suggested threshold, {rates.suggested:.7g}, is closer to 1 than {NUM_DRAWS:,} draws tell: "
            "early looks have too few rows in an arm. Look later."
        )
    return tuple(doubts)
