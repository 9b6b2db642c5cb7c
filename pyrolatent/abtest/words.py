"""Numbers and sentences of a test.

A number has as many decimals as its interval bears: two digits of half its width.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pyrolatent.infer.em import EM
from pyrolatent.infer.em_doubts import WORTH
from pyrolatent.result import Fit
from pyrolatent.schema import listing

MOST_DECIMALS = 12

Draws = Mapping[str, Any]


def plain(name: Any) -> str:
    """Return the name of an arm; labels that are whole numbers without a fraction."""
    return f"{name:g}" if isinstance(name, float) else str(name)


def probability(value: float) -> str:
    """Return a probability in words, as far as draws tell."""
    if 0.001 <= value <= 0.999:
        return f"{value:.3f}"
    return "above 0.999" if value > 0.5 else "below 0.001"


def decimals_of(low: float, high: float) -> int:
    """Return the decimals that numbers with an interval of this width bear."""
    half = (high - low) / 2
    if not (math.isfinite(half) and half > 0):
        return 2
    return min(max(1 - math.floor(math.log10(half)), 0), MOST_DECIMALS)


def two_digits(value: float) -> str:
    """Return a number without an interval; large ones in full."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}"


def method_in_words(fit: Fit) -> str:
    """Return by what method the result came about, and what its intervals are."""
    name = type(fit.method).__name__
    if not isinstance(fit.method, EM):
        return f"{name}, {fit.num_draws:,} draws"
    counted = " with priors" if fit.method.penalised else ""
    return f"{name}{counted}: intervals are normal approximations, {fit.num_draws:,} draws"


def no_result(arms: pd.DataFrame, lift: pd.DataFrame) -> str:
    """Return why there is no result where draws of means are not finite, else nothing."""
    finite = np.isfinite(arms[["mean", "low", "high"]].to_numpy()).all(axis=1)
    if finite.all() and np.isfinite(lift[["absolute", "absolute_low", "absolute_high"]].to_numpy()).all():
        return ""
    which = [name for name, told in zip(arms.index, finite, strict=True) if not told] or list(arms.index)
    return f"No result: draws of the mean of {listing(which)} are not finite."


def sentence_of(arms: pd.DataFrame, lift: pd.DataFrame, control: Any) -> str:
    """Return the result in words: the best arm, or the best other one, against the control."""
    best: Any = arms["p_best"].idxmax()
    other: Any = lift["p_better"].idxmax() if best == control else best
    line, loss = lift.loc[other], float(arms.loc[best, "expected_loss"])
    decimals = decimals_of(line["absolute_low"], line["absolute_high"])
    middle, low, high = (
        f"{line[name]:+z,.{decimals}f}" for name in ("absolute", "absolute_low", "absolute_high")
    )
    relative = "" if np.isnan(line["relative"]) else f", {line['relative']:+,.1%}"
    among = f"{plain(best)} is the best of {len(arms)} arms with probability "
    ranked = f" {among}{probability(float(arms.loc[best, 'p_best']))}." if len(arms) > 2 else ""
    lost = two_digits(loss) if loss else "next to nothing"
    return (
        f"{plain(other)} is {middle} against {plain(control)} (90 % interval {low} to {high}{relative}) "
        f"and better with probability {probability(line['p_better'])}.{ranked} Choosing {plain(best)} is "
        f"expected to lose {lost}."
    )


def components_in_words(draws: Draws, arms: pd.DataFrame, info: Mapping[str, Any]) -> str:
    """Return what outcomes alone say, where no label is known: medians of draws `(S, K)`."""
    number, gain = len(arms), float(info.get("nats_over_one_component", math.inf))
    if gain < WORTH:
        return (
            f"No result: a mixture of {number} components is {gain:.1f} nats more likely than a single one "
            f"(< {WORTH:g}), so the outcomes do not tell that there are several."
        )
    intervals = zip(arms["low"], arms["high"], strict=True)
    means = (
        f"{value:z,.{decimals_of(*ends)}f}"
        for value, ends in zip(np.median(draws["mean"], axis=0), intervals, strict=True)
    )
    shares = (f"{value:.2f}" for value in np.median(draws["share"], axis=0))
    return (
        f"Outcomes look like a mixture of {number} components with means {joined(means)} and shares "
        f"{joined(shares)}. Nothing says which arm of the test each of them is."
    )


def joined(parts: Any) -> str:
    """Return words in a row."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
