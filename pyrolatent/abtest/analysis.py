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
from pyrolatent.abtest.trial import MISMATCH, Trial, as_trial
from pyrolatent.errors import FitWarning
from pyrolatent.export import to_inference_data
from pyrolatent.fit import fit
from pyrolatent.folders import write_text
from pyrolatent.infer.em import EM
from pyrolatent.infer.method import Method
from pyrolatent.models.abtest import ADDED, Family, Priors
from pyrolatent.result import Fit
from pyrolatent.schema import listing

MOST_TOLD = 0.5  # share of rows with a label
NUM_DRAWS = 10_000  # of a normal approximation, which are cheap
FEW = 30  # outcomes of an arm below which a normal approximation is rough


@final
@dataclass(frozen=True)
class ABResult:
    """What a test says.

    Attributes:
        arms: By arm: `rows` with its label, `mean` outcome with its 90 % interval `low` to `high`, `sd` of
            outcomes, `share` of all rows, `p_best`, and `expected_loss` of choosing it.
        lift: By other arm: `absolute` and `relative` uplift over the control with 90 % intervals, `p_better`,
            `p_in_rope` where a range was given, and Welch's `t`, `df` and `p` of rows with label and outcome.
        sentence: The result in words.
        warnings: What makes it weaker than it looks, with what to do.
        control: The arm that others are compared with.
        outcome: What was measured.
        fit: Of the model.
    """

    arms: pd.DataFrame
    lift: pd.DataFrame
    sentence: str
    warnings: tuple[str, ...]
    control: Any
    outcome: str
    fit: Fit

    def plot(self) -> Any:
        """Return a matplotlib figure: the mean of each arm, and the uplift over the control."""
        from pyrolatent.plots.arms import arm_plot

        return arm_plot(self.arms, self.lift, self.outcome)

    def to_inference_data(self) -> Any:
        """Return the fit as an object of ArviZ."""
        return to_inference_data(self.fit)

    def report(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return the result as a page of HTML that needs no other file, and write it to `path`.

        Raises:
            StoreError: The page cannot be written.
        """
        import jinja2  # slow to import, as matplotlib is

        from pyrolatent.plots.figures import png_uri

        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("pyrolatent"), autoescape=True, undefined=jinja2.StrictUndefined
        )
        page = environment.get_template("abtest.html").render(
            result=self,
            arms=self.arms.to_html(float_format=plain_number, border=0, index_names=False),
            lift=self.lift.to_html(float_format=plain_number, border=0, index_names=False),
            picture=png_uri(self.plot()),
            version=self.fit.info["versions"]["pyrolatent"],
        )
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
        method: By default `EM`, whose intervals are normal approximations; those of `HMC()` are not.
        family: The distribution of outcomes in an arm (`models.ABTest`).
        covariates: Columns of numbers that move the outcome alike in all arms, best those from before the
            test: they narrow the intervals.
        control: The arm that others are compared with; by default the one that is called so, else the first.
        rope: Differences that are as good as none: their half width, or from and to.
        shares: The planned share of each arm; by default equal ones.
        num_arms: Where no label is known.
        priors: Of the model.
        seed: Of the fit.

    Raises:
        DataError: A column cannot be used, with rows and values; an arm has fewer than two outcomes.
        ArgumentError: A setting has no meaning.
    """
    limits = as_range(rope)
    trial = as_trial(frame, outcome, group, covariates, family, num_arms, priors or Priors())
    chosen = trial.control(control)
    check_shares(shares, trial.names, trial.group is not None)
    found = fit(trial.pair, trial.table, method or default_method(trial), seed=seed, progress=False)
    draws = {name: value.double().numpy() for name, value in found.flat_samples().items()}
    arms = arm_table(draws["mean"], trial.names)
    arms.insert(0, "rows", trial.counts)
    arms = arms.assign(sd=draws["sd"].mean(0), share=draws["share"].mean(0))
    lift = lift_table(draws["mean"], trial.names, chosen, limits)
    lift = lift if trial.group is None else lift.join(trial.welch(chosen))
    doubts = doubts_of(trial, found.method, shares)
    for message in doubts:
        warnings.warn(message, FitWarning, stacklevel=2)
    doubts = (*found.warnings, *doubts)
    sentence = in_words(arms, lift, chosen) + (" Read the warnings first." if doubts else "")
    return ABResult(arms, lift, sentence, doubts, chosen, outcome, found)


def default_method(trial: Trial) -> EM:
    """Return the method that is chosen for a test."""
    told = sum(trial.counts) >= MOST_TOLD * len(trial.table)  # labels leave one peak, so one start will do
    dear = trial.pair.covariates and trial.pair.family not in ADDED  # a mean is one over all rows
    return EM(num_starts=1 if told else EM.num_starts, num_draws=EM.num_draws if dear else NUM_DRAWS)


def doubts_of(trial: Trial, method: Method, shares: Mapping[Any, float] | None) -> tuple[str, ...]:
    """Return what makes the result weaker than it looks, besides what the fit says."""
    if trial.group is None:
        return (
            "No label is known: arms are told apart by their outcomes alone, and come in the order of their "
            "locations. They are components of a mixture, which need not be those of the test. Label some "
            "rows.",
        )
    found = []
    few = [name for name, outcomes in trial.outcomes.items() if len(outcomes) < FEW]
    if few and isinstance(method, EM):
        found.append(
            f"Arms {listing(few)} have fewer than {FEW} outcomes: intervals by EM are normal approximations, "
            "and too narrow there. Pass method=HMC()."
        )
    if (p := trial.mismatch(shares)) < MISMATCH:
        counts = ", ".join(f"{n!r}: {c}" for n, c in zip(trial.names, trial.counts, strict=True))
        found.append(
            f"Labels are not in the planned shares (sample ratio mismatch, p = {p:.1e}; {counts}): something "
            "decides who is labelled or counted. Look for it before you believe the result, or pass shares=."
        )
    found += [
        f"Covariate {name!r} differs between arms (p = {p:.1e}): the test may have moved it, which one from "
        "before the test cannot be, and an effect that goes through it is taken away. Leave it out if it was "
        "measured later; else look for what decides who is in which arm."
        for name, p in trial.imbalances.items()
    ]
    if trial.look_alikes:
        found.append(
            f"Labels {listing(trial.look_alikes)} differ by spaces or capitals alone, and count as arms of "
            "their own. Write them alike, as by frame[group].str.strip(), if they are the same."
        )
    if trial.num_silent:
        found.append(f"{trial.num_silent} rows have neither outcome nor label and say nothing.")
    return tuple(found)


def in_words(arms: pd.DataFrame, lift: pd.DataFrame, control: Any) -> str:
    """Return the result in a sentence."""
    best: Any = arms["p_best"].idxmax()
    other: Any = lift["p_better"].idxmax() if best == control else best
    line, loss = lift.loc[other], float(arms.loc[best, "expected_loss"])
    relative = "" if np.isnan(line["relative"]) else f", {line['relative']:+.1%}"
    lost = f"{loss:.2g}" if loss else "next to nothing"
    return (
        f"{plain(other)} is {line['absolute']:+.4g} against {plain(control)} (90 % interval "
        f"{line['absolute_low']:+.4g} to {line['absolute_high']:+.4g}{relative}) and better with probability "
        f"{probability(line['p_better'])}. Choosing {plain(best)} is expected to lose {lost}."
    )


def plain(name: Any) -> str:
    """Return the name of an arm; labels that are whole numbers without a fraction."""
    return f"{name:g}" if isinstance(name, float) else str(name)


def probability(value: float) -> str:
    """Return a probability in words, as far as draws tell."""
    if 0.001 <= value <= 0.999:
        return f"{value:.3f}"
    return "above 0.999" if value > 0.5 else "below 0.001"


def plain_number(value: float) -> str:
    """Return a number for a table."""
    return f"{value:.4g}"
