"""Do latents stand for one thing each: on a table whose factors are known, and on credit-card clients.

Run as `python -m benchmarks.disentanglement`; `credit` needs `PYROLATENT_DATA` (docs/datasets.md).

- `factors`: 10,000 rows of 20 columns, curves of random mixtures of five independent factors of five levels
  each, with noise. The FactorVAE score and the MIG on the known factors, of a VAE and of the beta-TCVAE.
- `credit`: the clients of a bank in Taiwan, 23 columns, all taken as numbers, in the architecture of the
  thesis 512-256-128-64 with 5 latents. Its latent-fixing score with sampled latents, and the MIG of posterior
  means in 20 bins with SEX, EDUCATION, MARRIAGE and AGE as factors, with beta 2 and 0.1, of the untrained
  network, and of the same model with a head for each kind of column.

Settings were chosen on seeds 100 to 102; 0 to 4 are scored.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

import pyrolatent as pyl
from benchmarks.options import cases_and_seeds
from benchmarks.record import append
from pyrolatent import metrics
from pyrolatent.objectives import Objective
from pyrolatent.result import Fit

BATCH_SIZE = 256
ROWS, FACTORS, LEVELS, COLUMNS, CURVES, NOISE = 10_000, 5, 5, 20, 30, 0.15
DEMOGRAPHIC = ["SEX", "EDUCATION", "MARRIAGE", "AGE"]
VOTES = 1_000
ROWS_OF_VOTE = 1_000  # of the latent-fixing score, whose votes each decode and encode all rows
RISE = 1_000  # steps over which the weight of the divergence rises: deep decoders learn to do without latents

Results = list[dict[str, Any]]


def main() -> None:
    options = cases_and_seeds(__doc__, CASES)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", pyl.FitWarning)
    for case in options.cases:
        for seed in options.seeds:
            append("disentanglement", [{"case": case, "seed": seed, **row} for row in CASES[case](seed)])


def factors(seed: int) -> Results:
    """Score a VAE and the beta-TCVAE on known factors."""
    frame, known = mixed_factors(seed)
    pair = pyl.models.VAE(pyl.infer_schema(frame), latent_dim=10, hidden=(64, 64))
    objectives: dict[str, Objective] = {
        "VAE": pyl.elbo(),
        "beta-TCVAE, beta 4": pyl.tc_elbo(pyl.linear(1.0, 4.0, 500)),
    }
    rows = []
    for name, objective in objectives.items():
        fit = trained(pair, frame, objective, epochs=60, lr=3e-3, seed=seed)
        latents = pyl.encode(fit)
        row = {"model": name, **gap_and_units(fit, latents, known)}
        row["factor_vae_score"] = metrics.factor_vae_score(latents, known, seed=seed).evaluation
        print(row, flush=True)
        rows.append(row)
    return rows


def mixed_factors(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return columns that five factors of five levels make together, and the factors."""
    random = np.random.default_rng([seed, 77])
    levels = random.integers(LEVELS, size=(ROWS, FACTORS))
    standard = (levels - (LEVELS - 1) / 2) / np.sqrt((LEVELS**2 - 1) / 12)
    curves = np.tanh(standard @ random.normal(size=(FACTORS, CURVES)) / np.sqrt(FACTORS))
    columns = curves @ random.normal(size=(CURVES, COLUMNS))
    noisy = columns / columns.std(0) + NOISE * random.normal(size=(ROWS, COLUMNS))
    return pd.DataFrame(noisy).add_prefix("x"), pd.DataFrame(levels).add_prefix("factor ")


def credit(seed: int) -> Results:
    """Score the thesis' architecture on the clients."""
    frame = clients()
    numbers = pyl.infer_schema(frame, kinds=dict.fromkeys(frame, "real"))
    deep = pyl.models.VAE(numbers, latent_dim=5, hidden=(64, 128, 256, 512))
    kinds = pyl.models.VAE(pyl.infer_schema(frame), latent_dim=5, hidden=(64, 128, 256, 512))
    rise = pyl.linear(0.0, 1.0, RISE)
    contenders = {
        "beta 2": (deep, pyl.tc_elbo(2.0, rise, rise), 20.0),
        "beta 0.1": (deep, pyl.tc_elbo(0.1, rise, rise), 20.0),
        "untrained": (deep, pyl.tc_elbo(2.0), 0.0),
        "beta 2, a head for each kind": (kinds, pyl.tc_elbo(2.0, rise, rise), 20.0),
    }
    some = frame.sample(ROWS_OF_VOTE, random_state=seed)
    rows = []
    for name, (pair, objective, epochs) in contenders.items():
        fit = trained(pair, frame, objective, epochs, lr=1e-3, seed=seed)
        row = {"model": name, **gap_and_units(fit, pyl.encode(fit), frame[DEMOGRAPHIC])}
        row["latent_fixing_score"] = metrics.latent_fixing_score(fit, some, VOTES, VOTES, seed).evaluation
        print(row, flush=True)
        rows.append(row)
    return rows


def clients() -> pd.DataFrame:
    """Return the 23 columns that describe the clients of the bank."""
    return pyl.datasets.table("credit_default").drop(columns=pyl.datasets.targets("credit_default"))


def trained(
    pair: pyl.models.VAE, frame: pd.DataFrame, objective: Objective, epochs: float, lr: float, seed: int
) -> Fit:
    """Return a fit; without epochs of one step that goes nowhere."""
    steps = max(1, round(epochs * len(frame) / BATCH_SIZE))
    method = pyl.SVI(
        objective, num_steps=steps, lr=lr if epochs else 1e-12, batch_size=BATCH_SIZE, num_draws=1
    )
    return pyl.fit(pair, frame, method, seed=seed, progress=False)


def gap_and_units(fit: Fit, latents: pd.DataFrame, known: pd.DataFrame) -> dict[str, Any]:
    """Return the MIG of posterior means, factor by factor too, and what each latent says in nats."""
    gaps = metrics.mig(latents, known)
    return {
        "mig": round(float(gaps.mean()), 4),
        "gaps": {name: round(float(gap), 4) for name, gap in gaps.items()},
        "kl": metrics.active_units(fit)["kl"].round(2).tolist(),
    }


CASES: dict[str, Callable[[int], Results]] = {"factors": factors, "credit": credit}


if __name__ == "__main__":
    main()
