"""Looks at a test while it runs, and how often a rule that stops it at one of them is wrong.

    watched = monitor(frame, "sales", "group", looks=10, threshold=0.95)
    watched.looks, watched.stopped_at, watched.false_positive_rate, watched.suggested_threshold

A posterior probability says the same however often it is looked at, but a rule that stops a test at the
first look where it is high has more chances to be wrong (Armitage, McPherson and Rowe 1969).  How often it
is wrong where arms do not differ is simulated with the rows themselves: labels are permuted among them.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import pandas as pd

from pyrolatent.abtest.analysis import NUM_DRAWS, ABResult, analyze
from pyrolatent.abtest.choices import Range, as_range
from pyrolatent.abtest.looks import as_numbers, first_stop, in_order, left_out, look_table, results_at
from pyrolatent.abtest.null_tests import Rates, known_rows, null_scores, rates_of
from pyrolatent.abtest.planning import check_threshold
from pyrolatent.abtest.trial import as_trial
from pyrolatent.abtest.words import plain, probability
from pyrolatent.errors import DataError, FitWarning
from pyrolatent.infer.method import check_least
from pyrolatent.models.abtest import Family, Priors
from pyrolatent.seeds import fresh_seed, numpy_generator

FEW_WRONG = 20  # simulations beyond the suggested threshold, below which it is rough
FINEST = 1 - 10 / NUM_DRAWS  # threshold that draws tell from 1
OFTEN = 1.5  # times the rate that a family has that fits, from which on that is worth a word


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
            with many rows, if the family fits their outcomes.
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
    shares: Mapping[Any, float] | None = None,
    num_simulations: int = 1_000,
    seed: int | None = None,
) -> Monitoring:
    """Look at a test several times while its rows come in, and say how often stopping early is wrong.

    The rule stops the test when the probability that some other arm is better than the control is above
    `threshold`, or below 1 - `threshold`.  Each look is an `analyze` of the rows so far.  Where an arm has
    fewer than two different outcomes by then, the look is left out, with a warning.

    The rates come from tests with these looks, these outcomes and as many rows in each arm, whose labels are
    permuted, so that arms do not differ.  They are rates of the same rule: P(better) of such a test is what
    `EM` gives with this family, so that a family whose spread the outcomes exceed (counts that vary more than
    "poisson" allows) is wrong more often.  For the sake of speed nothing is fitted in them: the estimates
    of arms and their standard errors have closed forms; for "negative_binomial" and "student" they are one
    Newton step from those of all rows.  Early looks with few events, which `analyze` takes by `HMC`, are
    a little more careful than that.  Rows without a label or without an outcome are left out of these
    simulations, while the looks themselves use them.

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
        shares: The planned share of each arm; by default equal ones.
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

    each = partial(analyze, family=family, control=chosen, rope=limits, shares=shares, seed=seed)
    found = results_at(numbers, trial, each)
    table = look_table(found, threshold)
    rows = known_rows(trial, chosen, numbers)
    rates = rates_of(null_scores(rows, num_simulations, numpy_generator(seed, "monitor")), threshold)
    stopped_at = first_stop(table, threshold)
    doubts = (
        *left_out(numbers, found),
        *doubts_of(found, stopped_at),
        *doubts_of_rates(rates, num_simulations, threshold, len(trial.names)),
    )
    for message in doubts:
        warnings.warn(message, FitWarning, stacklevel=2)
    sentence = in_words(table, rates, threshold, chosen)
    return Monitoring(table, stopped_at, rates.of_looks, rates.of_last, rates.suggested, sentence, doubts)


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


def doubts_of(found: dict[int, ABResult], stopped_at: int | None) -> tuple[str, ...]:
    """Return the warnings of the look that stops the test, and of the last one."""
    last = max(found)
    looks = sorted({last if stopped_at is None else stopped_at, last})
    return tuple(f"At {number:,} rows: {message}" for number in looks for message in found[number].warnings)


def doubts_of_rates(
    rates: Rates, num_simulations: int, threshold: float, num_arms: int = 2
) -> tuple[str, ...]:
    """Return what makes the rule wrong too often, and the suggested threshold rough."""
    doubts = []
    nominal = min(1.0, 2 * (1 - threshold) * (num_arms - 1))  # at most, if the family fits
    noise = 4 * math.sqrt(nominal * (1 - nominal) / num_simulations)
    if rates.of_last > OFTEN * nominal + noise:
        doubts.append(
            f"One look stops {rates.of_last:.1%} of tests without a difference, and {nominal:.1%} at most if "
            "the family fits: outcomes vary more than it allows, or rows are few. Pass another family, such "
            'as "negative_binomial" for counts, or look later.'
        )
    if num_simulations * (1 - threshold) < FEW_WRONG:
        doubts.append(
            f"The suggested threshold rests on fewer than {FEW_WRONG} of {num_simulations} simulations. "
            f"Pass num_simulations={round(FEW_WRONG / (1 - threshold)):_} or more."
        )
    if threshold > FINEST:
        doubts.append(f"The threshold, {threshold:.7g}, is closer to 1 than {NUM_DRAWS:,} draws tell.")
    if rates.suggested > FINEST:
        doubts.append(
            f"The suggested threshold, {rates.suggested:.7g}, is closer to 1 than {NUM_DRAWS:,} draws tell: "
            "early looks have too few rows in an arm, or the family does not fit. Look later."
        )
    return tuple(doubts)
