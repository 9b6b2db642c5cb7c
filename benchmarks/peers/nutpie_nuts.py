"""nutpie on the PyMC models: 4 chains of 1,000 draws after the warm-up that it does by default, 2 threads."""

from typing import Any

import nutpie

from benchmarks.peers.pymc_models import CORES, NUM_CHAINS, NUM_DRAWS, build, sites
from benchmarks.peers.worker import Data, Run, Sampled


def prepare(mode: str, case: str, data: Data, draws: int | None) -> Run:
    compiled = nutpie.compile_pymc_model(build(case, data))

    def sample(seed: int) -> Any:
        return nutpie.sample(
            compiled, draws=draws or NUM_DRAWS, chains=NUM_CHAINS, cores=CORES, seed=seed, progress_bar=False,
            save_warmup=False,
        )  # fmt: skip

    return Run(lambda: sample(0), sample, lambda trace: Sampled(sites(trace.posterior)))
