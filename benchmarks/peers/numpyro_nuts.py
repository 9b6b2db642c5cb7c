"""NumPyro's NUTS, 4 chains of 1,000 + 1,000, as its documentation writes these models.

All of a run is one jitted function, since `MCMC.run` would trace and compile its start in each call.  Modes:
chains "vectorized" or "sequential" (whose CPU-seconds are those of "parallel").  Missing cells are latents:
integrating them out takes a factorisation for each row, which is many times slower.
"""

from typing import Any

import jax
import numpyro

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

from benchmarks.peers.worker import Data, Run, Sampled

NUM_CHAINS = 4
NUM_WARMUP = 1_000
NUM_DRAWS = 1_000


def normal_prior(dim: int) -> tuple[Any, Any]:
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0).expand([dim]).to_event(1))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0).expand([dim]).to_event(1))
    correlation = numpyro.sample("correlation", dist.LKJCholesky(dim, 1.0))
    return mean, scale[:, None] * correlation


def mvn(x: Any) -> None:
    mean, cholesky = normal_prior(x.shape[1])
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.MultivariateNormal(mean, scale_tril=cholesky), obs=x)


def mvn_latent(x: Any, row: Any, column: Any) -> None:
    """Missing cells as latents with a flat density of their own: that of the completed row counts."""
    mean, cholesky = normal_prior(x.shape[1])
    hidden = numpyro.sample("hidden", dist.ImproperUniform(dist.constraints.real, (), (len(row),)))
    completed = x.at[row, column].set(hidden)
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.MultivariateNormal(mean, scale_tril=cholesky), obs=completed)


def eight_schools(y: Any, sigma: Any) -> None:
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("data", len(y)):
        standard = numpyro.sample("standard", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * standard)
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def radon(y: Any, floor: Any, uranium: Any, group: Any) -> None:
    mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
    group_scale = numpyro.sample("group_scale", dist.HalfNormal(1.0))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("groups", len(uranium)):
        shift = numpyro.sample("shift", dist.Normal(0.0, 1.0))
        intercept = numpyro.deterministic("intercept", mean + slope[0] * uranium + group_scale * shift)
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(intercept[group] + slope[1] * floor, scale), obs=y)


def logistic(x: Any, y: Any) -> None:
    weights = numpyro.sample("weights", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("data", len(x)):
        numpyro.sample("y", dist.Bernoulli(logits=x @ weights), obs=y)


MODELS = {"mvn": mvn, "eight schools": eight_schools, "radon": radon, "logistic": logistic}


def arguments(case: str, data: Data) -> tuple[Any, Data]:
    """Return the model of `case` and its arguments."""
    if case != "mvn missing":
        return MODELS[case], {name: jnp.asarray(values) for name, values in data.items()}
    row, column = np.nonzero(~data["mask"])
    return mvn_latent, {"x": jnp.asarray(data["x"]), "row": jnp.asarray(row), "column": jnp.asarray(column)}


def prepare(mode: str, case: str, data: Data, draws: int | None) -> Run:
    model, inputs = arguments(case, data)
    mcmc = MCMC(
        NUTS(model), num_warmup=NUM_WARMUP, num_samples=draws or NUM_DRAWS, num_chains=NUM_CHAINS,
        chain_method=mode, progress_bar=False,
    )  # fmt: skip

    @jax.jit
    def run(key: Any) -> dict[str, Any]:
        mcmc.run(key, **inputs)
        return mcmc.get_samples(group_by_chain=True)

    def sample(seed: int) -> dict[str, Any]:
        return jax.block_until_ready(run(jax.random.key(seed)))

    return Run(lambda: sample(0), sample, lambda drawn: Sampled(sites(drawn)))


def sites(samples: dict[str, Any]) -> dict[str, np.ndarray]:
    drawn = {name: np.asarray(values) for name, values in samples.items()}
    if "correlation" in drawn:
        drawn["cholesky"] = drawn["scale"][..., None] * drawn.pop("correlation")
    return drawn
