"""What makes the result of a test weaker than it looks, besides what the fit says, with what to do."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyrolatent.abtest.trial import MISMATCH, Trial
from pyrolatent.infer.em import EM
from pyrolatent.infer.method import Method
from pyrolatent.models.abtest import KINDS, Priors
from pyrolatent.schema import listing

FEW = 30  # events of an arm, below which a normal approximation is rough
SILENT = 0.01  # share of rows that say nothing, from which it is worth a warning
NEARLY_ALL = 0.95  # share of outcomes with a label, from which the mean of these is that of the arm
ERRORS = 4.0  # standard errors between two means of an arm that fits
SKEWED = 25.0  # times the squared skewness: rows that make a mean about normal (Cochran 1977, section 2.15)
UNLIKELY = 1e-3  # probability of counts that vary as much

Outcomes = Mapping[Any, NDArray[np.float64]]

USE_HMC = "Use HMC (method=pyl.HMC(), or --method hmc)."


def doubts_of(
    trial: Trial,
    outcomes: Outcomes,
    arms: pd.DataFrame,
    method: Method,
    shares: Mapping[Any, float] | None,
) -> tuple[str, ...]:
    """Return warnings of a result.

    Args:
        trial: The rows.
        outcomes: Those of `trial`, by label.
        arms: By arm: `mean` and `sd`.
        method: That ran.
        shares: The planned ones.
    """
    found = tails(arms)
    if trial.group is None:
        return (
            *found,
            "No label is known: components of a mixture are told apart by outcomes alone, and come in the "
            "order of their locations. They need not be the arms of the test. Label some rows.",
        )
    if isinstance(method, EM) and (few := short_arms(trial, outcomes)):
        found.append(
            f"Arms {listing(few)} have fewer than {FEW} {EVENTS[trial.pair.family]}: intervals by EM are "
            f"normal approximations, and wrong there. {USE_HMC}"
        )
    if not trial.pair.covariates:
        found += overdispersion(trial, outcomes) + misfit(trial, outcomes, arms)
    return (*found, *doubts_of_labels(trial, shares))


def doubts_of_labels(trial: Trial, shares: Mapping[Any, float] | None) -> list[str]:
    """Return what is odd about labels, covariates and rows."""
    found = []
    if (p := trial.mismatch(shares)) < MISMATCH:
        counts = ", ".join(f"{n!r}: {c}" for n, c in zip(trial.names, trial.counts, strict=True))
        found.append(
            f"Labels are not in the planned shares (sample ratio mismatch, p = {p:.1e}; {counts}): something "
            "decides who is labelled or counted. Look for it before you believe the result, or say what was "
            "planned (shares=, or --shares)."
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
            "their own. Write them alike in the table, if they are the same."
        )
    if trial.num_silent >= SILENT * len(trial.table):
        found.append(f"{trial.num_silent} rows have neither outcome nor label and say nothing.")
    return found


def tails(arms: pd.DataFrame) -> list[str]:
    """Return warnings of arms whose moments are not finite, or made by a few draws."""
    found = []
    if few := arms.index[(arms["mean"] < arms["low"]) | (arms["mean"] > arms["high"])].tolist():
        found.append(
            f"The mean of {listing(few)} lies outside its 90 % interval, since a few draws have very large "
            "values: the outcomes of the arm hardly tell it. Take another family, or wait for more events."
        )
    for name, what in (("mean", "mean"), ("sd", "standard deviation")):
        if endless := arms.index[~np.isfinite(arms[name])].tolist():
            found.append(
                f"The {what} of {listing(endless)} is not finite: tails are as heavy as if it had none. "
                "Take another family, or label more rows."
            )
    return found


# Few events

EVENTS = {
    **dict.fromkeys(("normal", "student", "lognormal"), "outcomes"),
    **dict.fromkeys(("poisson", "negative_binomial"), "events, the sum of their counts"),
    "bernoulli": "successes, or failures",
    "revenue": "positive amounts, or zeros",
}


def short_arms(trial: Trial, outcomes: Outcomes) -> list[Any]:
    """Return the arms with few events."""
    return [name for name, values in outcomes.items() if events(values, trial.pair.family) < FEW]


def events(values: NDArray[np.float64], family: str) -> float:
    """Return how many events tell the parameters of an arm with these outcomes `(n,)`.

    They are the outcomes; where these are yes or no, or zero or not, the rarer of the two; the sum of counts.
    """
    if family in ("bernoulli", "revenue"):
        positive = int((values > 0).sum())
        return min(positive, len(values) - positive)
    return float(values.sum()) if KINDS[family] == "count" else len(values)


# Families that do not fit


def overdispersion(trial: Trial, outcomes: Outcomes) -> list[str]:
    """Return a warning of counts that vary more than a Poisson distribution does."""
    if trial.pair.family == "poisson" and dispersion(outcomes) < UNLIKELY:
        return [
            f"Counts vary more than Poisson ones do (dispersion within arms, p < {UNLIKELY:g}): intervals "
            'are too narrow. Take the family "negative_binomial".'
        ]
    return []


def dispersion(outcomes: Outcomes) -> float:
    """Return the probability that Poisson counts vary as much within arms.

    By the test of Fisher (1950), whose chi-squared distribution is rough where counts are nearly all 0 or 1;
    and, rough where rows are few, by the number of pairs of events in one row, which is about Poisson given
    the number of events T in n rows, with mean T (T - 1) / 2 n.  The larger of the two is returned.
    """
    from scipy.stats import chi2, poisson  # slow to import

    number, total, squares = np.array([(len(y), y.sum(), (y**2).sum()) for y in outcomes.values()]).T
    some = total > 0
    if not some.any():
        return 1.0
    number, total, squares = number[some], total[some], squares[some]
    pairs, expected = (squares - total).sum() / 2, (total * (total - 1) / number).sum() / 2
    spread = (number * squares / total - total).sum()
    return float(max(chi2.sf(spread, (number - 1).sum()), poisson.sf(pairs - 1, expected)))


def misfit(trial: Trial, outcomes: Outcomes, arms: pd.DataFrame) -> list[str]:
    """Return a warning of arms whose mean by the model is far from that of their outcomes.

    Arms with few outcomes, or so skewed ones that their mean is not about normal, are no evidence, and no
    arm is while many outcomes have no label.
    """
    known = sum(len(values) for values in outcomes.values())
    if known < NEARLY_ALL * int(trial.table[trial.outcome].notna().sum()):
        return []
    means = arms["mean"].to_dict()
    off = [
        f"{name!r}: {means[name]:.4g} against {values.mean():.4g}"
        for name, values in outcomes.items()
        if tells_its_mean(values) and errors_between(means[name], values) > ERRORS
    ]
    if not off:
        return []
    cause, remedy = (
        f"The family {trial.pair.family!r} does not fit",
        ('Take another family; where rows are many, "normal" has the right mean whatever the outcomes are.'),
    )
    if trial.pair.priors != Priors():
        cause, remedy = f"The priors, or the family {trial.pair.family!r}, do not fit", "Widen the priors."
    return [
        f"{cause}: the mean by the model is more than {ERRORS:g} standard errors from that of the outcomes "
        f"({', '.join(off)}). {remedy}"
    ]


def tells_its_mean(values: NDArray[np.float64]) -> bool:
    """Return whether the mean of outcomes `(n,)` is about normal around that of their distribution."""
    from scipy.stats import skew  # slow to import

    if len(values) < FEW or np.ptp(values) == 0:
        return False
    return bool(len(values) >= SKEWED * skew(values) ** 2)


def errors_between(mean: float, values: NDArray[np.float64]) -> float:
    """Return the distance of a mean from that of outcomes `(n,)`, in standard errors of the latter."""
    return float(abs(mean - values.mean()) / (values.std(ddof=1) / np.sqrt(len(values))))
