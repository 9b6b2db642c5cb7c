"""How many rows a test needs, before it runs.

    plan(effect=0.5, sd=10.0, expected_loss=0.01).rows_per_arm

A test of two arms ends with the choice of the arm with the higher mean outcome.  With n rows an arm, the
difference d of sample means is normal around the true difference, with standard error s = sqrt(V / n),
where V adds up the variances of outcomes in both arms; with a flat prior the posterior of the difference is
normal around d, with the same s.  So all that is asked here has a closed form, and nothing is simulated.
The expected loss of a choice is that of `choices`; as a stopping rule it is due to Stucchio (2015).
"""

import math
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pyrolatent.abtest.gaussian import normal_cdf, normal_quantile
from pyrolatent.errors import ArgumentError
from pyrolatent.infer.method import check_fraction, check_number

Array = NDArray[np.float64]

FEWEST = 2  # rows an arm, of which a variance can be told
NUM_POINTS = 60  # of the curve
SMALLEST = 5e-324  # loss that is above 0
MOST = 2**52  # of which twice as many are whole numbers still
FAMILIES = ("normal", "bernoulli")


@final
@dataclass(frozen=True)
class Plan:
    """How many rows each arm needs.

    Attributes:
        rows_per_arm: With which the choice at the end has at most the expected loss asked for; where none
            was, `rows_for_power`.
        rows_for_power: With which P(better) passes the threshold with the probability `power`.
        curve: By rows per arm, up to twice the larger of both: `expected_loss` of the choice at the end, the
            mean over tests, in units of the outcome; `power`; and `p_wrong`, the probability that the worse
            arm is chosen.
        sentence: The result in words.
    """

    rows_per_arm: int
    rows_for_power: int
    curve: pd.DataFrame
    sentence: str


def plan(
    *,
    effect: float,
    sd: float | None = None,
    mean: float | None = None,
    family: Literal["normal", "bernoulli"] = "normal",
    expected_loss: float | None = None,
    threshold: float = 0.95,
    power: float = 0.8,
) -> Plan:
    """Say how many rows each of two arms needs, if they differ by `effect`.

    The expected loss is the one that the test will state of the arm it chooses, as `analyze` does, on
    average over tests.  Priors count as flat, and outcomes as so many that their means are normal.

    Args:
        effect: The true difference of the mean outcomes, in units of the outcome; of rates, as a difference
            (0.01 is one percentage point).  If it is negative, the other arm is worse.
        sd: Standard deviation of outcomes in an arm, for normal outcomes.
        mean: Rate of the control, for "bernoulli" outcomes; the other arm has `mean + effect`, and both have
            the variance rate (1 - rate).
        family: The distribution of outcomes in an arm.
        expected_loss: Of the choice at the end, at most, in units of the outcome.
        threshold: Of P(better), between 0.5 and 1: to be passed, or for a negative effect, 1 - threshold to
            be fallen below.
        power: The probability of that.

    Raises:
        ArgumentError: A setting has no meaning, is not for this family, or asks for more rows than can be
            counted.
    """
    check_effect(effect)
    check_threshold(threshold)
    check_fraction("power", power)
    check_loss(expected_loss)
    variance, size = variance_of_both(family, effect, sd, mean), abs(effect)
    for_power = rows_for_power(size, variance, threshold, power)
    needed = for_power if expected_loss is None else rows_for_loss(size, variance, expected_loss)
    curve = curve_of(size, variance, threshold, (needed, for_power))
    passed = f"passes {threshold:g}" if effect > 0 else f"falls below {1 - threshold:g}"
    sentence = in_words(curve, needed, for_power, passed)
    return Plan(needed, for_power, curve, sentence)


# What is asked for


def check_effect(effect: float) -> None:
    """Refuse no difference.

    Raises:
        ArgumentError: It is no number, 0, or not finite.
    """
    check_number("effect", effect)
    if effect == 0 or not math.isfinite(effect):
        raise ArgumentError(
            "effect must be a difference", why=f"got {effect}",
            remedy="pass the smallest difference of mean outcomes that you would act on",
        )  # fmt: skip


def check_threshold(threshold: float) -> None:
    """Refuse a threshold of P(better) that one of two arms always passes, or none ever.

    Raises:
        ArgumentError: It is no number between 0.5 and 1.
    """
    check_number("threshold", threshold)
    if not 0.5 < threshold < 1:
        raise ArgumentError(
            "threshold must lie between 0.5 and 1", why=f"got {threshold}",
            remedy="pass the P(better) from which on you would act, such as 0.95",
        )  # fmt: skip


def check_loss(expected_loss: float | None) -> None:
    """Refuse a loss that no test reaches.

    Raises:
        ArgumentError: It is no number, or not positive and finite.
    """
    if expected_loss is None:
        return
    check_number("expected_loss", expected_loss)
    if not 0 < expected_loss < math.inf:
        raise ArgumentError(
            "expected_loss must be positive", why=f"got {expected_loss}",
            remedy="pass the loss, in units of the outcome, that you would put up with",
        )  # fmt: skip


def variance_of_both(family: str, effect: float, sd: float | None, mean: float | None) -> float:
    """Return the sum of the variances of outcomes in both arms.

    Raises:
        ArgumentError: What tells them is missing, impossible, or not for this family.
    """
    if family not in FAMILIES:
        remedy = f"choose one of {', '.join(FAMILIES)}"
        raise ArgumentError("the family cannot be planned for", why=f"got {family!r}", remedy=remedy)
    if family == "normal":
        return 2 * float(checked_sd(sd, mean)) ** 2
    return sum(rate * (1 - rate) for rate in checked_rates(sd, mean, effect))


def checked_sd(sd: float | None, mean: float | None) -> float:
    """Return the standard deviation of normal outcomes.

    Raises:
        ArgumentError: It is no number, or not positive and finite, or so is its square; or a mean was given,
            which says nothing.
    """
    if mean is not None:
        remedy = 'leave it out, or pass family="bernoulli" for a rate'
        raise ArgumentError("mean is for bernoulli outcomes", why=f"got {mean}", remedy=remedy)
    if sd is not None:
        check_number("sd", sd)
    if sd is None or sd < 0 or not 0 < sd * sd < math.inf:
        remedy = "pass the standard deviation of outcomes in an arm"
        raise ArgumentError("sd must be positive", why=f"got {sd}", remedy=remedy)
    return sd


def checked_rates(sd: float | None, mean: float | None, effect: float) -> tuple[float, float]:
    """Return the rates of both arms.

    Raises:
        ArgumentError: One is not between 0 and 1, or a spread was given, which follows from them.
    """
    if sd is not None:
        remedy = "leave it out: the mean of bernoulli outcomes tells it"
        raise ArgumentError("sd is for normal outcomes", why=f"got {sd}", remedy=remedy)
    if mean is not None:
        check_number("mean", mean)
    if mean is None or not 0 < mean < 1:
        remedy = "pass the rate of the control"
        raise ArgumentError("mean must lie between 0 and 1", why=f"got {mean}", remedy=remedy)
    if not 0 < mean + effect < 1:
        raise ArgumentError(
            "the rate of the other arm must lie between 0 and 1",
            why=f"{mean} and {effect} give {mean + effect:g}",
            remedy="pass the effect as a difference of rates, 0.01 for one percentage point",
        )
    return mean, mean + effect


# Closed forms


def unit_loss(x: ArrayLike) -> Array:
    """Return E[max(0, z - x)] of a standard normal z, the unit normal loss (Raiffa and Schlaifer 1961)."""
    x = np.asarray(x, dtype=np.float64)
    return np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) - x * normal_cdf(-x)


def mean_loss(rows: ArrayLike, effect: float, variance: float) -> Array:
    """Return the posterior expected loss of the chosen arm, on average over tests.

    In standard errors s, let u be the observed difference, u ~ N(m, 1) with m = effect / s.  The loss stated
    of the chosen arm is s g(|u|), with g the unit normal loss, and g(|u|) = g(u) - max(0, -u), since
    g(-u) = g(u) + u.  Now g(u) = E[max(0, z - u)], and z - u is normal around -m with variance 2, so that
    the mean over u is s (sqrt(2) g(m / sqrt(2)) - g(m)).

    Args:
        rows: In each arm, of any shape.
        effect: The true difference, positive.
        variance: The sum of the variances of outcomes in both arms.

    Returns:
        Losses in units of the outcome, of the shape of `rows`.
    """
    error = np.sqrt(variance / np.asarray(rows, dtype=np.float64))
    m = effect / error
    return error * np.maximum(math.sqrt(2) * unit_loss(m / math.sqrt(2)) - unit_loss(m), 0.0)


def power_at(rows: ArrayLike, effect: float, variance: float, threshold: float) -> Array:
    """Return the probability that P(better) = F(d / s) is above the threshold, for d ~ N(effect, s^2)."""
    return normal_cdf(
        effect / np.sqrt(variance / np.asarray(rows, dtype=np.float64)) - normal_quantile(threshold)
    )


def p_wrong(rows: ArrayLike, effect: float, variance: float) -> Array:
    """Return the probability that the worse arm has the higher sample mean."""
    return normal_cdf(-effect / np.sqrt(variance / np.asarray(rows, dtype=np.float64)))


def rows_for_power(effect: float, variance: float, threshold: float, power: float) -> int:
    """Return the fewest rows per arm with that power: (z_threshold + z_power)^2 V / effect^2.

    Raises:
        ArgumentError: There are more than can be counted.
    """
    score = max(0.0, normal_quantile(threshold) + normal_quantile(power))
    ratio = float(score) * math.sqrt(variance) / effect
    return whole(ratio * ratio)


def whole(rows: float) -> int:
    """Return the whole number of rows.

    Raises:
        ArgumentError: There are more than can be counted.
    """
    if rows > MOST:
        raise ArgumentError(
            f"a test would need more than {MOST:.2g} rows in each arm", why="what is asked for is too small",
            remedy="pass a larger effect or expected_loss, in units of the outcome",
        )  # fmt: skip
    return max(FEWEST, math.ceil(rows))


def rows_for_loss(effect: float, variance: float, expected_loss: float) -> int:
    """Return the fewest rows per arm with at most that mean loss, which falls as rows are added.

    It is at most what it would be without a difference, s (sqrt(2) - 1) g(0), so that the root lies below the
    rows where this is small enough.  Logs of rows and losses are compared, which differ by powers of ten.

    Raises:
        ArgumentError: There are more than can be counted.
    """

    def excess(log_rows: float) -> float:
        loss = float(mean_loss(math.exp(log_rows), effect, variance))
        return math.log(max(loss, SMALLEST)) - math.log(expected_loss)

    least = math.log(FEWEST)
    if excess(least) <= 0:
        return FEWEST
    bound = math.log((math.sqrt(2) - 1) * float(unit_loss(0.0)))
    most = math.log(variance) + 2 * (bound - math.log(expected_loss)) + 0.01
    from scipy.optimize import brentq  # slow to import

    if most > math.log(MOST) and excess(math.log(MOST)) > 0:
        return whole(math.inf)
    found = whole(math.exp(brentq(excess, least, min(most, math.log(MOST)))))
    near = (found - 1, found, found + 1)  # a root is rounded
    return next(rows for rows in near if mean_loss(rows, effect, variance) <= expected_loss)


def curve_of(effect: float, variance: float, threshold: float, wanted: tuple[int, ...]) -> pd.DataFrame:
    """Return loss, power and wrong choices over rows per arm, those wanted among them."""
    spaced = np.geomspace(max(FEWEST, min(wanted) / 20), 2 * max(wanted), NUM_POINTS)
    rows = np.unique([*np.rint(spaced), *wanted]).astype(np.int64)
    columns = {
        "expected_loss": mean_loss(rows, effect, variance),
        "power": power_at(rows, effect, variance, threshold),
        "p_wrong": p_wrong(rows, effect, variance),
    }
    return pd.DataFrame(columns, index=pd.Index(rows, name="rows_per_arm"))


def in_words(curve: pd.DataFrame, needed: int, for_power: int, passed: str) -> str:
    """Return the result in a sentence; `passed` says what P(better) does."""
    loss, power, wrong = (dict(curve[name]) for name in ("expected_loss", "power", "p_wrong"))
    told = (
        f"With {needed:,} rows in each arm the choice at the end is expected to lose {loss[needed]:.2g}, and "
        f"is wrong with probability {wrong[needed]:.2g}; P(better) {passed} with probability "
        f"{power[needed]:.2g}"
    )
    return (
        f"{told}." if needed == for_power else f"{told}, and with {for_power:,} rows, {power[for_power]:.2g}."
    )
