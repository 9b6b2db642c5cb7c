"""The normal distribution function and its inverse; SciPy, which is slow to import, comes when asked for."""

from typing import Any

from numpy.typing import ArrayLike


def normal_cdf(value: ArrayLike) -> Any:
    """Return the probability of a standard normal number below `value`, a number or an array."""
    from scipy.special import ndtr

    return ndtr(value)


def normal_quantile(share: ArrayLike) -> Any:
    """Return the inverse of that."""
    from scipy.special import ndtri

    return ndtri(share)
