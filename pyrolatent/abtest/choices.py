"""What draws of the means of arms say of the choice between them.

The expected loss of an arm is what is given up by choosing it, E[max_k mean_k - mean_j]: nothing if it is
certain to be the best.  Larger outcomes are better.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyrolatent.errors import ArgumentError

Draws = NDArray[np.float64]
Range = tuple[float, float]

INTERVAL = (0.05, 0.95)


def arm_table(means: Draws, names: Sequence[Any]) -> pd.DataFrame:
    """Return what is known of each arm.

    Args:
        means: Draws of the mean outcome of each arm `(S, K)`.
        names: Of the arms.

    Returns:
        By arm: `mean` and its 90 % interval `low` to `high`, `p_best`, the probability that no other arm
        has a higher mean, and `expected_loss` of choosing it, in units of the outcome.
    """
    low, high = np.quantile(means, INTERVAL, axis=0)
    best = means.max(1, keepdims=True)
    columns = {
        "mean": means.mean(0),
        "low": low,
        "high": high,
        "p_best": (means == best).mean(0),
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
        By arm: `absolute` and `relative` uplift with their 90 % intervals, `p_better`, and with a range
        `p_in_rope`.  A relative uplift over a control whose mean may be 0 is nan.
    """
    base = means[:, list(names).index(control)]
    rows = {name: lift(means[:, k], base, rope) for k, name in enumerate(names) if name != control}
    return pd.DataFrame(rows).T.rename_axis("arm")


def lift(means: Draws, base: Draws, rope: Range | None) -> dict[str, float]:
    """Return one line of the table, from draws `(S,)` of an arm and of the control."""
    absolute = means - base
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        relative = absolute / np.abs(base)
        certain = ((base > 0).all() or (base < 0).all()) and np.isfinite(relative.sum())
    relative = relative if certain else np.full_like(base, np.nan)
    found: dict[str, float] = {}
    for name, values in (("absolute", absolute), ("relative", relative)):
        low, high = np.quantile(values, INTERVAL)
        found |= {name: values.mean(), f"{name}_low": low, f"{name}_high": high}
    found["p_better"] = (absolute > 0).mean()
    if rope is not None:
        found["p_in_rope"] = ((absolute >= rope[0]) & (absolute <= rope[1])).mean()
    return found


def as_range(rope: float | Range | None) -> Range | None:
    """Return a range from its half width, or from its ends.

    Raises:
        ArgumentError: It is empty.
    """
    if rope is None:
        return None
    low, high = (-rope, rope) if isinstance(rope, int | float) else rope
    if not low < high:
        raise ArgumentError(
            "rope is no range", why=f"got {rope!r}", remedy="pass its half width, or (low, high)"
        )
    return float(low), float(high)
