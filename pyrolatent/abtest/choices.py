"""What draws of the means of arms say of the choice between them.

The expected loss of an arm is what is given up by choosing it, E[max_k mean_k - mean_j]: nothing if it is
certain to be the best.  Larger outcomes are better.
"""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyrolatent.errors import ArgumentError

Draws = NDArray[np.float64]
Range = tuple[float, float]

INTERVAL = (0.05, 0.95)
NEAR_ZERO = 0.05  # of the width of its interval, closer to which to 0 a mean is no unit for others


def arm_table(means: Draws, names: Sequence[Any]) -> pd.DataFrame:
    """Return what is known of each arm.

    Args:
        means: Draws of the mean outcome of each arm `(S, K)`.
        names: Of the arms.

    Returns:
        By arm: `mean` and its 90 % interval `low` to `high`, `p_best`, the probability that no other arm
        has a higher mean, where equal ones share a draw, and `expected_loss` of choosing it, in units of the
        outcome.
    """
    low, high = np.quantile(means, INTERVAL, axis=0)
    best = means.max(1, keepdims=True)
    highest = means == best
    columns = {
        "mean": means.mean(0),
        "low": low,
        "high": high,
        "p_best": (highest / highest.sum(1, keepdims=True)).mean(0),
        "expected_loss": (best - means).mean(0),
    }
    return pd.DataFrame(columns, index=pd.Index(names, name="arm"))


def lift_table(means: Draws, names: Sequence[Any], control: Any, rope: Range | None) -> pd.DataFrame:
    """Return how much each other arm is above the control.

    Args:
        means: Draws of the mean outcome of each arm `(S, K)`.
        names: Of the arms.
        control: The one that others are compared with.
        rope: Differences that are as good as none, from and to, in units of the outcome.

    Returns:
        By arm: `absolute` and `relative` uplift with their 90 % intervals, `p_better`, where equal means
        count half, and with a range `p_in_rope`.  `relative` is the mean of `absolute` by that of the
        control, and its interval that of the ratio in each draw; nan where `is_unit` says no.
    """
    base = means[:, list(names).index(control)]
    rows = {name: lift(means[:, k], base, rope) for k, name in enumerate(names) if name != control}
    return pd.DataFrame(rows).T.rename_axis("arm")


def lift(means: Draws, base: Draws, rope: Range | None) -> dict[str, float]:
    """Return one line of the table, from draws `(S,)` of an arm and of the control."""
    absolute = means - base
    found = {"absolute": float(absolute.mean()), **ends("absolute", absolute)}
    if is_unit(base):
        ratio = found["absolute"] / float(abs(base.mean()))
        found |= {"relative": ratio, **ends("relative", absolute / np.abs(base))}
    else:
        found |= dict.fromkeys(("relative", "relative_low", "relative_high"), np.nan)
    found["p_better"] = float((absolute > 0).mean() + (absolute == 0).mean() / 2)
    if rope is not None:
        found["p_in_rope"] = float(((absolute >= rope[0]) & (absolute <= rope[1])).mean())
    return found


def ends(name: str, values: Draws) -> dict[str, float]:
    """Return the ends of the 90 % interval of draws `(S,)`, by name."""
    low, high = np.quantile(values, INTERVAL)
    return {f"{name}_low": float(low), f"{name}_high": float(high)}


def is_unit(base: Draws) -> bool:
    """Return whether draws `(S,)` of a mean are far enough from 0 to divide by.

    All have the same sign, and the 90 % interval ends farther from 0 than a twentieth of its width.  Where it
    comes closer, as with no success at all, a ratio may have no mean, and its interval says next to nothing.
    """
    low, high = np.quantile(base, INTERVAL)
    one_sign = bool((base > 0).all() or (base < 0).all())
    return one_sign and bool(np.isfinite(base).all()) and min(abs(low), abs(high)) > NEAR_ZERO * (high - low)


def as_range(rope: float | Range | None) -> Range | None:
    """Return a range from its half width, or from its ends.

    Raises:
        ArgumentError: It is empty, or has no two ends that are finite numbers.
    """
    if rope is None:
        return None
    ends: Any = (-rope, rope) if isinstance(rope, Real) and not isinstance(rope, bool) else rope
    plain = isinstance(ends, Sequence | np.ndarray) and len(ends) == 2
    if not (plain and all(map(is_finite, ends)) and ends[0] < ends[1]):
        raise ArgumentError(
            "rope is no range", why=f"got {rope!r}", remedy="pass its half width, or (low, high)"
        )
    return float(ends[0]), float(ends[1])


def is_finite(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, Real) and not isinstance(value, bool) and bool(np.isfinite(float(value)))
