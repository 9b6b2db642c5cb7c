"""Observed and drawn values counted in the same bins.

Bins are levels where there are few of them, else intervals of equal length in the values or, where
these are positive and far apart, in their logs.  They hold all observed values and, as far as these
do not lie far off, most of the drawn ones.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

MOST_LEVELS = 30  # drawn as bars of their own
FEWEST_BINS, MOST_BINS = 10, 40
FEW = 10  # observed values that are marked one by one
WIDE = 100.0  # largest over smallest value, from which on logs are binned
TAIL = 0.01  # of the draws on each side that need not be seen

Array = NDArray[np.float64]


@final
@dataclass(frozen=True, eq=False)
class Values:
    """Observed values of one quantity `(M,)` and predictive draws of them `(S, M)`, as numbers.

    `levels` are the labels whose codes the numbers are; empty for numbers.
    """

    name: str
    observed: Array
    posterior: Array
    prior: Array | None
    levels: tuple[str, ...] = ()


@final
@dataclass(frozen=True, eq=False)
class Check:
    """Shares of the values in bins.

    Attributes:
        name: Of the column or site.
        edges: Ends of the bins `(bins + 1,)`; of levels, halfway between them.
        levels: What the bins are called, where they are levels; else empty.
        logs: Whether the bins are of equal length in the logs.
        observed: Shares of the observed values `(bins,)`.
        marks: The observed values themselves, where they are few; else empty.
        posterior: Shares of each posterior predictive draw `(S, bins)`.
        prior: The same of the prior, if it can be drawn from.
    """

    name: str
    edges: Array
    levels: tuple[str, ...]
    logs: bool
    observed: Array
    marks: Array
    posterior: Array
    prior: Array | None

    @property
    def distance(self) -> float:
        """Total variation distance of the observed shares from those of all posterior draws together."""
        return float(np.abs(self.observed - self.posterior.mean(0)).sum() / 2)


def check(values: Values) -> Check:
    """Return the shares of the values in bins that show the observed ones and most of the draws."""
    edges, levels, logs = bins(values)
    observed = shares(values.observed[None], edges)[0]
    marks = values.observed if values.observed.size < FEW and not levels else np.empty(0)
    prior = None if values.prior is None else shares(values.prior, edges)
    return Check(values.name, edges, levels, logs, observed, marks, shares(values.posterior, edges), prior)


def bins(values: Values) -> tuple[Array, tuple[str, ...], bool]:
    """Return the ends of the bins, what they are called if they are levels, and whether they suit logs."""
    if values.levels:
        halfway = np.arange(len(values.levels) + 1, dtype=np.float64) - 0.5
        return halfway, values.levels, False
    drawn = values.posterior[np.isfinite(values.posterior)]
    low, high = limits(values.observed, drawn)
    number = int(np.clip(2 * np.cbrt(values.observed.size), FEWEST_BINS, MOST_BINS))  # Rice's rule
    if is_whole(values.observed) and is_whole(drawn):
        low, high = np.floor(low), np.ceil(high)
        width = 1.0 if high - low < MOST_LEVELS else np.ceil((high - low + 1) / number)
        edges: Array = np.arange(low, high + width + 1, width) - 0.5
        levels = [f"{low + k:.0f}" for k in range(len(edges) - 1)] if width == 1 else []
        return edges, tuple(levels), False
    positive = min(values.observed.min(), drawn.min(initial=np.inf)) > 0
    if positive and values.observed.max() > WIDE * values.observed.min():
        return np.geomspace(low, high, number + 1).astype(np.float64), (), True
    return np.linspace(low, high, number + 1).astype(np.float64), (), False


def limits(observed: Array, drawn: Array) -> tuple[float, float]:
    """Return a range with all observed values and, if they do not lie far off, most of the drawn ones."""
    least, most = float(observed.min()), float(observed.max())
    if drawn.size:
        first, lower, upper, last = np.quantile(drawn, (TAIL, 0.25, 0.75, 1 - TAIL))
        slack = max(most - least, 3 * (upper - lower))
        least, most = min(least, max(first, least - slack)), max(most, min(last, most + slack))
    return (least, most) if most > least else (least - 0.5, most + 0.5)


def is_whole(values: Array) -> bool:
    """True for whole numbers."""
    return bool((values == np.rint(values)).all())


def shares(values: Array, edges: Array) -> Array:
    """Return the shares of `values (S, M)` in each bin `(S, bins)`; those outside count to none."""
    rows, number = len(values), len(edges) - 1
    place = np.searchsorted(edges, values, side="right") - 1
    place = np.where(values == edges[-1], number - 1, place)
    inside = (place >= 0) & (place < number)
    flat = (np.arange(rows)[:, None] * number + place)[inside]
    return np.bincount(flat, minlength=rows * number).reshape(rows, number) / values.shape[1]
