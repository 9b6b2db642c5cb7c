"""The cases as PyMC models, for PyMC's own NUTS and for nutpie."""

from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from benchmarks.peers.worker import Data, Sites

NUM_CHAINS = 4
NUM_DRAWS = 1_000
CORES = 2


def normal_prior(dim: int) -> tuple[Any, Any]:
    mean = pm.Normal("mean", 0.0, 1.0, shape=dim)
    packed = pm.LKJCholeskyCov("packed", n=dim, eta=1.0, sd_dist=pm.HalfNormal.dist(1.0), compute_corr=False)
    return mean, pm.expand_packed_triangular(dim, packed)


def mvn(x: np.ndarray) -> None:
    mean, cholesky = normal_prior(x.shape[1])
    pm.MvNormal("x", mu=mean, chol=cholesky, observed=x)


def mvn_missing(x: np.ndarray, mask: np.ndarray) -> None:
    """Missing cells as latents with a flat density of their own: that of the completed rows counts."""
    mean, cholesky = normal_prior(x.shape[1])
    hidden = pm.Flat("hidden", shape=int((~mask).sum()), initval=np.zeros(int((~mask).sum())))
    completed = pt.set_subtensor(pt.as_tensor(x)[np.nonzero(~mask)], hidden)
    pm.Potential("x", pm.logp(pm.MvNormal.dist(mu=mean, chol=cholesky), completed).sum())


def eight_schools(y: np.ndarray, sigma: np.ndarray) -> None:
    mu, tau = pm.Normal("mu", 0.0, 5.0), pm.HalfCauchy("tau", 5.0)
    theta = pm.Deterministic("theta", mu + tau * pm.Normal("standard", 0.0, 1.0, shape=len(y)))
    pm.Normal("y", theta, sigma, observed=y)


def radon(y: np.ndarray, floor: np.ndarray, uranium: np.ndarray, group: np.ndarray) -> None:
    mean, slope = pm.Normal("mean", 0.0, 10.0), pm.Normal("slope", 0.0, 10.0, shape=2)
    group_scale, scale = pm.HalfNormal("group_scale", 1.0), pm.HalfNormal("scale", 1.0)
    shift = pm.Normal("shift", 0.0, 1.0, shape=len(uranium))
    intercept = pm.Deterministic("intercept", mean + slope[0] * uranium + group_scale * shift)
    pm.Normal("y", intercept[group] + slope[1] * floor, scale, observed=y)


def logistic(x: np.ndarray, y: np.ndarray) -> None:
    weights = pm.Normal("weights", 0.0, 1.0, shape=x.shape[1])
    pm.Bernoulli("y", logit_p=pt.dot(x, weights), observed=y)


MODELS = {
    "mvn": mvn, "mvn missing": mvn_missing, "eight schools": eight_schools, "radon": radon,
    "logistic": logistic,
}  # fmt: skip


def build(case: str, data: Data) -> pm.Model:
    with pm.Model() as model:
        MODELS[case](**data)
    return model


def sites(posterior: Any) -> Sites:
    """Return the draws by site; the packed factor of a covariance as a matrix."""
    drawn = {name: values.to_numpy() for name, values in posterior.data_vars.items()}
    if "packed" in drawn:
        packed, dim = drawn.pop("packed"), drawn["mean"].shape[-1]
        drawn["cholesky"] = np.zeros((*packed.shape[:2], dim, dim))
        drawn["cholesky"][..., *np.tril_indices(dim)] = packed
    return drawn
