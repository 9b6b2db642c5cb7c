"""The analysis of a test of several arms, in one call: which arm, by how much, how sure.

    result = analyze(frame, outcome="sales", group="group")
    result.sentence, result.arms, result.lift, result.warnings

Rows without a label, and rows without an outcome, count for what they say (`models.ABTest`).  Beside it
stand Welch's t test of the rows that have both, and whether the labels are as many as they should be.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pandas as pd

from pyrolatent.abtest.checks import check_shares
from pyrolatent.abtest.choices import Range, arm_table, as_range, lift_table
from pyrolatent.abtest.doubts import Outcomes, doubts_of, short_arms
from pyrolatent.abtest.page import page_of
from pyrolatent.abtest.trial import Trial, as_trial
from pyrolatent.abtest.words import components_in_words, no_result, plain, sentence_of
from pyrolatent.errors import ArgumentError, FitWarning
from pyrolatent.export import to_inference_data
from pyrolatent.fit import fit
from pyrolatent.folders import write_text
from pyrolatent.infer.em import EM
from pyrolatent.infer.hmc import HMC
from pyrolatent.infer.method import Method
from pyrolatent.models.abtest import ADDED, Family, Priors
from pyrolatent.result import Fit

MOST_TOLD = 0.5  # share of rows with a label
NUM_DRAWS = 10_000  # of a normal approximation, which are cheap
MOST_SAMPLED = 10_000  # rows
SAMPLED = HMC(num_chains=16, num_warmup=100, num_draws=500)  # seconds; P(better) within 0.01


@final
@dataclass(frozen=True)
class ABResult:
    """What a test says.

    Attributes:
        arms: By arm: `rows` with its label, `mean` outcome with its 90 % interval `low` to `high`, `sd` of
            outcomes (the median of draws, which may have no mean), `share` of all rows, `p_best`, and
            `expected_loss` of choosing it.
        lift: By other arm: `absolute` and `relative` uplift over the control with 90 % intervals, `p_better`,
            `p_in_rope` where a range was given, and Welch's `t`, `df` and `p` of rows with label and outcome.
        sentence: The result in words.
        warnings: What makes it weaker than it looks, with what to do.
        control: The arm that others are compared with.
        outcome: What was measured.
        rope: Differences that are as good as none, from and to.
        shares: The planned ones; None for equal ones.
        fit: Of the model; `fit.method` ran.

    Where no label is known, `p_best`, `expected_loss`, `p_better` and Welch's test are left out: components
    come in order, so the last is always the best.
    """

    arms: pd.DataFrame
    lift: pd.DataFrame
    sentence: str
    warnings: tuple[str, ...]
    control: Any
    outcome: str
    rope: Range | None
    shares: Mapping[Any, float] | None
    fit: Fit

    def plot(self) -> Any:
        """Return a matplotlib figure: the mean of each arm, and the uplift over the control."""
        from pyrolatent.plots.arms import arm_plot

        arms, lift = self.arms.rename(index=plain), self.lift.rename(index=plain)
        return arm_plot(arms, lift, self.outcome, plain(self.control), self.rope)

    def to_inference_data(self) -> Any:
        """Return the fit as an object of ArviZ."""
        return to_inference_data(self.fit)

    def report(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return the result as a page of HTML that needs no other file, and write it to `path`.

        Raises:
            StoreError: The page cannot be written.
        """
        page = page_of(vars(self), self.plot())
        if path is not None:
            write_text(path, page)
        return page


def analyze(
    frame: pd.DataFrame,
    outcome: str,
    group: str | None = None,
    *,
    method: Method | None = None,
    family: Family = "normal",
    covariates: Sequence[str] = (),
    control: Any = None,
    rope: float | Range | None = None,
    shares: Mapping[Any, float] | None = None,
    num_arms: int = 2,
    priors: Priors | None = None,
    seed: int | None = None,
) -> ABResult:
    """Say which arm of a test is better, by how much, and how sure that is.

    Args:
        frame: The table, one row for each unit; outcomes and labels may be missing.
        outcome: The column of the outcome; more is better.
        group: The column of the labels; None, or a column without any, if no label is known.
        method: By default `EM`, whose intervals are normal approximations, and `HMC`, whose intervals are
            not, where an arm has fewer than 30 events and the table at most 10,000 rows.  `result.fit.method`
            says which.
        family: The distribution of outcomes in an arm (`models.ABTest`).
        covariates: Columns of numbers that move the outcome alike in all arms, best those from before the
            test: they narrow the intervals.
        control: The arm that others are compared with; by default the one that is called so, else the first.
        rope: Differences that are as good as none: their half width, or from and to.
        shares: The planned share of each arm; by default equal ones.
        num_arms: Where no label is known.
        priors: Of the model; the default is then `EM(penalised=True)`.
        seed: Of the fit.

    Raises:
        DataError: A column cannot be used, with rows and values; an arm has fewer than two outcomes.
        ArgumentError: A setting has no meaning, or none for this method.
    """
    check_priors(priors, method)
    limits = as_range(rope)
    trial = as_trial(frame, outcome, group, covariates, family, num_arms, priors or Priors())
    chosen, outcomes = trial.control(control), trial.outcomes
    check_shares(shares, trial.names, trial.group is not None)
    chosen_method = default_method(trial, outcomes, priors) if method is None else method
    found = fit(trial.pair, trial.table, chosen_method, seed=seed, progress=False)
    draws = {name: value.double().numpy() for name, value in found.flat_samples().items()}
    with np.errstate(invalid="ignore", over="ignore"):  # draws that are not finite, which the sentence tells
        arms, lift = arms_of(trial, draws), lift_table(draws["mean"], trial.names, chosen, limits)
    doubts = (*found.warnings, *told(doubts_of(trial, outcomes, arms, found.method, shares)))
    sentence = no_result(arms, lift)
    if trial.group is None:
        arms, lift = arms.drop(columns=["p_best", "expected_loss"]), lift.drop(columns="p_better")
        sentence = sentence or components_in_words(draws, arms, found.info)
    else:
        sentence, lift = sentence or sentence_of(arms, lift, chosen), lift.join(trial.welch(chosen))
    sentence += " Read the warnings first." if doubts else ""
    return ABResult(arms, lift, sentence, doubts, chosen, outcome, limits, shares, found)


def check_priors(priors: Any, method: Any) -> None:
    """Refuse priors that are none, or that would not count.

    Raises:
        ArgumentError: They are.
    """
    if not isinstance(priors, Priors | None):
        remedy = "pass pyrolatent.models.abtest.Priors(...)"
        raise ArgumentError("priors are no priors of a test", why=f"got {priors!r}", remedy=remedy)
    if priors is not None and isinstance(method, EM) and not method.penalised:
        remedy = "pass EM(penalised=True) or HMC()"
        raise ArgumentError(
            "priors do not count by this method", why="EM maximises the likelihood", remedy=remedy
        )


def default_method(trial: Trial, outcomes: Outcomes, priors: Priors | None) -> Method:
    """Return the method that is chosen for a test."""
    family, rows = trial.pair.family, len(trial.table)
    if rows <= MOST_SAMPLED and short_arms(trial, outcomes):
        return SAMPLED
    labelled = sum(trial.counts) >= MOST_TOLD * rows  # labels leave one peak, so one start will do
    dear = trial.pair.covariates and family not in ADDED  # a mean is one over all rows
    return EM(
        num_starts=1 if labelled else EM.num_starts,
        penalised=priors is not None,
        num_draws=EM.num_draws if dear else NUM_DRAWS,
    )


def arms_of(trial: Trial, draws: Mapping[str, Any]) -> pd.DataFrame:
    """Return the table of the arms, from draws `(S, K)`."""
    arms = arm_table(draws["mean"], trial.names)
    arms.insert(0, "rows", trial.counts)
    return arms.assign(sd=np.median(draws["sd"], axis=0), share=draws["share"].mean(0))


def told(doubts: tuple[str, ...]) -> tuple[str, ...]:
    """Return doubts, said aloud."""
    for message in doubts:
        warnings.warn(message, FitWarning, stacklevel=3)
    return doubts
