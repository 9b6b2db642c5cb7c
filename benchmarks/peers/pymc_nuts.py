"""PyMC's own NUTS, 4 chains of 1,000 + 1,000 in 2 processes, on PyTensor's Numba backend.

Numba, since PyTensor as pip installs it has no BLAS to compile C against.  PyMC times each transition itself
(`process_time_diff`, warm-up kept), so that what it compiles anew in each call is left out.
"""

import multiprocessing
from typing import Any

import pymc as pm

from benchmarks.peers.pymc_models import CORES, NUM_CHAINS, NUM_DRAWS, build, sites
from benchmarks.peers.worker import Data, Run, Sampled

NUM_WARMUP = 1_000


def prepare(mode: str, case: str, data: Data, draws: int | None) -> Run:
    model = build(case, data)

    def sample(seed: int) -> Any:
        return pm.sample(
            draws or NUM_DRAWS, tune=NUM_WARMUP, chains=NUM_CHAINS, cores=CORES, random_seed=seed,
            model=model, mp_ctx=multiprocessing.get_context("fork"), compile_kwargs={"mode": "NUMBA"},
            quiet=True, progressbar=False, compute_convergence_checks=False, discard_tuned_samples=False,
        )  # fmt: skip

    return Run(lambda: sample(0), sample, sampled)


def sampled(trace: Any) -> Sampled:
    stats = (trace.warmup_sample_stats, trace.sample_stats)
    seconds = sum(float(part["perf_counter_diff"].sum()) for part in stats) / CORES
    cpu_seconds = sum(float(part["process_time_diff"].sum()) for part in stats)
    return Sampled(sites(trace.posterior), 1, seconds, cpu_seconds)
