"""Links: how the values of a bounded kind go to the whole line, where models are at home, and back.

A positive value goes to its log, a proportion to its log-odds log(p / (1 - p)); all other values stay
as they are.  A proportion of exactly 0 or 1 has no finite log-odds.  Where some of the n training cells
are, the interval is widened on both sides by `margin` = 1 / (2 (n - 1)), which is the transformation
(p (n - 1) + 1/2) / n of Smithson and Verkuilen (2006, "A better lemon squeezer?", Psychological Methods
11, 54-71), and what comes back from beyond 0 or 1 is 0 or 1.  Where none is, `margin` is 0, nothing is
changed, and new cells of exactly 0 or 1 are refused.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

LINKED = ("positive", "unit")
ROUNDING = 1e-6  # of a margin: an observed 0 comes back as 0 and not as 1e-19


def squeeze_margin(values: NDArray[np.float64]) -> float:
    """Return by how much the unit interval is widened for `values (N,)`, NaN where missing."""
    ends = (values == 0) | (values == 1)
    return float(0.5 / (np.isfinite(values).sum() - 1)) if ends.any() else 0.0


def without_image(kind: str, values: NDArray[np.float64], margin: float) -> NDArray[np.bool_]:
    """Return which of `values (N,)` have no finite place on the line; never a missing one."""
    if kind == "positive":
        return values <= 0
    if kind == "unit":
        return (values < 0) | (values > 1) if margin else (values <= 0) | (values >= 1)
    return np.zeros(values.shape, dtype=bool)


def to_line(kind: str, values: NDArray[np.float64], margin: float) -> NDArray[np.float64]:
    """Return the places of `values (...)` on the line."""
    if kind == "positive":
        return np.log(values)
    if kind == "unit":
        inner = (values + margin) / (1 + 2 * margin)
        return np.log(inner) - np.log1p(-inner)
    return values


def from_line(kind: str, line: Tensor, margin: float) -> Tensor:
    """Return the values of places `line (...)`."""
    if kind == "positive":
        return line.exp()
    if kind == "unit":
        values = line.sigmoid() * (1 + 2 * margin) - margin
        at_zero, at_one = values < ROUNDING * margin, values > 1 - ROUNDING * margin
        return torch.where(at_zero, 0.0, torch.where(at_one, 1.0, values))
    return line


def log_slope(kind: str, line: Tensor, margin: float) -> Tensor:
    """Return log |d line / d value| at places `line (...)`."""
    if kind == "positive":
        return -line
    if kind == "unit":
        return softplus(line) + softplus(-line) - math.log1p(2 * margin)
    return torch.zeros_like(line)
