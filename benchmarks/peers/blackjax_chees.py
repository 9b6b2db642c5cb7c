"""BlackJAX: ChEES-HMC on 64 chains with hand-written log densities, as its documentation has it.

Chains start within 0.1 of the origin of the unconstrained space, four from each point, so that nested R-hat
can judge them.  Learning rate and decay of Adam are those of BlackJAX's own tests.  The mode is the length
of the warm-up: 1,000 is its default, 200 what an expert finds enough for a normal's posterior.
"""

from collections.abc import Callable
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import blackjax
import jax.numpy as jnp
import numpy as np
import optax
from blackjax.adaptation.base import get_filter_adapt_info_fn

from benchmarks.peers.worker import Data, Run, Sampled

NUM_CHAINS = 64
SUPERCHAIN = 4
NUM_DRAWS = 150
START_RADIUS = 0.1
STEP_SIZE = 0.1
LEARNING_RATE = 0.5

Density = Callable[[Any], Any]


def lkj_factor(free: Any, dim: int) -> tuple[Any, Any]:
    """Return the Cholesky factor of a correlation matrix from tanh of `free`, and log-Jacobian plus LKJ(1).

    Row i of the factor holds z_ij sqrt(prod_k<j (1 - z_ik^2)) (Stan reference manual, Cholesky factors of
    correlation matrices); the LKJ(1) density of the factor is prod_i L_ii^(dim - 1 - i), rows from 0.
    """
    low = jnp.tril_indices(dim, -1)
    z = jnp.zeros((dim, dim)).at[low].set(jnp.tanh(free))
    log_rest = jnp.zeros((dim, dim)).at[low].set(2 * (jnp.log(2.0) - free - jax.nn.softplus(-2 * free)))
    before = jnp.cumsum(log_rest, axis=1) - log_rest
    root = jnp.exp(0.5 * before)
    factor = jnp.tril(z * root, -1) + jnp.diag(jnp.diag(root))
    log_diagonal = 0.5 * jnp.diag(before)
    jacobian = log_rest[low].sum() + 0.5 * before[low].sum()
    return factor, jacobian + ((dim - 1 - jnp.arange(dim)) * log_diagonal).sum()


def mvn(data: Data) -> tuple[int, Density, Callable[[Any], dict[str, Any]]]:
    """Return dimension, log density and named sites; the scatter of the rows stands for them."""
    x = data["x"]
    (n, dim), centre = x.shape, x.mean(0)
    scatter = np.linalg.cholesky((x - centre).T @ (x - centre))

    def unpack(position: Any) -> tuple[Any, Any, Any]:
        return position[:dim], position[dim : 2 * dim], position[2 * dim :]

    def log_density(position: Any) -> Any:
        mean, log_scale, free = unpack(position)
        scale = jnp.exp(log_scale)
        factor, log_prior = lkj_factor(free, dim)
        residuals = jnp.concatenate([scatter, jnp.sqrt(n) * (centre - mean)[:, None]], axis=1)
        white = jax.scipy.linalg.solve_triangular(scale[:, None] * factor, residuals, lower=True)
        log_likelihood = -n * (log_scale + jnp.log(jnp.diag(factor))).sum() - 0.5 * (white**2).sum()
        return log_likelihood + log_prior - 0.5 * (mean**2).sum() + (log_scale - 0.5 * scale**2).sum()

    def sites(position: Any) -> dict[str, Any]:
        mean, log_scale, free = unpack(position)
        return {"mean": mean, "cholesky": jnp.exp(log_scale)[:, None] * lkj_factor(free, dim)[0]}

    return 2 * dim + dim * (dim - 1) // 2, log_density, sites


CASES = {"mvn": mvn}


def prepare(mode: str, case: str, data: Data, draws: int | None) -> Run:
    dim, log_density, sites = CASES[case](data)
    num_draws = draws or NUM_DRAWS

    @jax.jit
    def run(key: Any) -> Any:
        start, tune, draw = jax.random.split(key, 3)
        near = jax.random.uniform(start, (NUM_CHAINS // SUPERCHAIN, dim), minval=-1.0, maxval=1.0)
        warmup = blackjax.chees_adaptation(
            log_density, NUM_CHAINS, adaptation_info_fn=get_filter_adapt_info_fn()
        )
        (state, parameters), _ = warmup.run(
            tune, START_RADIUS * jnp.repeat(near, SUPERCHAIN, axis=0), STEP_SIZE,
            optax.adam(LEARNING_RATE, b1=0, b2=0.95), int(mode), max_sampling_steps=num_draws,
        )  # fmt: skip
        kernel = jax.vmap(blackjax.dhmc(log_density, **parameters).step)

        def step(state: Any, key: Any) -> Any:
            state, _ = kernel(jax.random.split(key, NUM_CHAINS), state)
            return state, state.position

        return jax.lax.scan(step, state, jax.random.split(draw, num_draws))[1]

    def sample(seed: int) -> Any:
        return jax.block_until_ready(run(jax.random.key(seed)))

    def sampled(positions: Any) -> Sampled:
        drawn = jax.jit(jax.vmap(jax.vmap(sites)))(positions.swapaxes(0, 1))
        return Sampled({name: np.asarray(values) for name, values in drawn.items()}, SUPERCHAIN)

    return Run(lambda: sample(0), sample, sampled)
