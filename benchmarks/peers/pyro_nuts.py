"""Pyro's own NUTS: one chain, since chains of its own take turns or processes; fewer draws, since it is slow.

Modes: "plain" and "jit" (`jit_compile=True`).  The first, uncounted run is a short one, as nothing is
compiled that the counted run would reuse: with "jit" its tracing is counted, a second of many.
"""

import numpy as np
import pyro
import torch
from pyro.infer import MCMC, NUTS

from benchmarks.peers.pyro_models import MODELS, tensors
from benchmarks.peers.worker import Data, Run, Sampled, Sites

NUM_WARMUP = 500
NUM_DRAWS = 500
SHORT = 5


def prepare(mode: str, case: str, data: Data, draws: int | None) -> Run:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    model, inputs = MODELS[case], tensors(data)

    def run(seed: int, num_warmup: int, num_draws: int) -> MCMC:
        pyro.set_rng_seed(seed)
        kernel = NUTS(model, jit_compile=mode == "jit", ignore_jit_warnings=True)
        mcmc = MCMC(kernel, num_samples=num_draws, warmup_steps=num_warmup, disable_progbar=True)
        mcmc.run(**inputs)
        return mcmc

    def sampled(mcmc: MCMC) -> Sampled:
        drawn = mcmc.get_samples(group_by_chain=True)
        return Sampled(sites({name: values.numpy() for name, values in drawn.items()}, data))

    return Run(lambda: run(0, SHORT, SHORT), lambda seed: run(seed, NUM_WARMUP, draws or NUM_DRAWS), sampled)


def sites(drawn: dict[str, np.ndarray], data: Data) -> Sites:
    """Add what Pyro's samples leave out, the deterministic sites."""
    if "theta_trans" in drawn:
        drawn["theta"] = drawn["mu"][..., None] + drawn["tau"][..., None] * drawn["theta_trans"]
    if "shift" in drawn:
        group = drawn["slope"][..., :1] * data["uranium"] + drawn["group_scale"][..., None] * drawn["shift"]
        drawn["intercept"] = drawn["mean"][..., None] + group
    if "correlation" in drawn:
        drawn["cholesky"] = drawn["scale"][..., None] * drawn["correlation"]
    return drawn
