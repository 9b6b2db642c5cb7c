"""What is judged of each case, from the sites that every contender draws.

Nothing constant is among the quantities, so that an effective sample size that is not a number means
chains that never moved.
"""

from collections.abc import Mapping

import numpy as np

Sites = Mapping[str, np.ndarray]

QUANTITIES = {
    "eight schools": ("mu", "tau", "theta"),
    "radon": ("mean", "slope", "group_scale", "scale", "intercept"),
    "logistic": ("weights",),
}


def quantities(case: str, sites: Sites) -> np.ndarray:
    """Return the quantities of `case`, `(chain, draw, Q)`, from its sites `(chain, draw, *site)`."""
    if case.startswith("mvn"):
        return normal_quantities(sites["mean"], sites["cholesky"])
    return np.concatenate([flat(sites[name]) for name in QUANTITIES[case]], axis=2)


def normal_quantities(mean: np.ndarray, cholesky: np.ndarray) -> np.ndarray:
    """Return means, covariances and correlations off the diagonal from the factor of the covariance."""
    covariance = cholesky @ cholesky.swapaxes(-1, -2)
    scale = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    correlation = covariance / (scale[..., :, None] * scale[..., None, :])
    size = mean.shape[-1]
    rows, columns = np.tril_indices(size)
    below, left = np.tril_indices(size, -1)
    return np.concatenate([mean, covariance[..., rows, columns], correlation[..., below, left]], axis=2)


def flat(values: np.ndarray) -> np.ndarray:
    """Return `(chain, draw, *site)` as `(chain, draw, entries)`."""
    return values.reshape(*values.shape[:2], -1)
