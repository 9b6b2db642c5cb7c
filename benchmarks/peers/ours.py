"""This package, by its defaults: `pyrolatent.fit(model, data, pyrolatent.HMC())`.

Modes: "auto" and "compiled" are the values of `compile`; "user auto" and "user compiled" the multivariate
normal as a user writes it in plain Pyro, in place of our own.  Stages are counted by the fit itself, since
capture and compilation are not sampling.
"""

import pandas as pd
import torch

import pyrolatent as pyl
from benchmarks.peers.pyro_models import MODELS, tensors
from benchmarks.peers.worker import Data, Run, Sampled

STAGES = ("warmup", "sampling")


def prepare(mode: str, case: str, data: Data, draws: int | None) -> Run:
    compile = True if mode.endswith("compiled") else "auto"

    def sample(seed: int) -> pyl.Fit:
        model, inputs = problem(mode, case, data)
        method = pyl.HMC(num_draws=draws)
        return pyl.fit(model, inputs, method, seed=seed, compile=compile, progress=False)

    return Run(lambda: sample(0), sample, sampled)


def problem(mode: str, case: str, data: Data) -> tuple[object, object]:
    """Return model and data: a table for our multivariate normal, tensors for what users write."""
    if case == "mvn missing" or (case == "mvn" and not mode.startswith("user")):
        frame = pd.DataFrame(data["x"]).rename(columns="x{}".format)
        frame = frame.where(data["mask"]) if "mask" in data else frame
        return pyl.models.BayesianMVN(pyl.infer_schema(frame), standardise=False), frame
    return MODELS[case], tensors(data)


def sampled(fit: pyl.Fit) -> Sampled:
    drawn = dict(fit.samples)
    if "covariance" in drawn:
        drawn["cholesky"] = torch.linalg.cholesky(drawn["covariance"])
    elif "correlation" in drawn:
        drawn["cholesky"] = drawn["scale"].unsqueeze(-1) * drawn["correlation"]
    seconds, cpu = (sum(fit.info[clock][stage] for stage in STAGES) for clock in ("seconds", "cpu_seconds"))
    return Sampled({name: v.numpy() for name, v in drawn.items()}, fit.info["superchain_size"], seconds, cpu)
