"""What a second stage adds to a beta-TCVAE: on credit-card clients, and on images of digits.

Run as `python -m benchmarks.stages`, with `PYROLATENT_DATA` (docs/datasets.md).

`clients`: 23 columns, taken as numbers; c and z have 5 dimensions.  `digits`: 1,797 images of 8 x 8 pixels; c
and z have 8.  The first stage is trained by `tc_elbo(beta)`, the second by `elbo(0.1)`: what is left of a row
are details of single columns, which cost a bound with beta 1 as much as they bring.  The error is the mean
square of rows less their reconstruction from sampled latents, of clients in standard deviations; `held out`
is that of a tenth of the rows, which no stage has seen.

Settings were chosen on seeds 100 to 102; 0 to 4 are scored.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

import pyrolatent as pyl
from benchmarks.disentanglement import DEMOGRAPHIC, RISE, clients
from benchmarks.options import cases_and_seeds
from benchmarks.record import append
from pyrolatent import metrics
from pyrolatent.latents import decoded, guide_draws
from pyrolatent.predict import with_data
from pyrolatent.result import Fit

HELD_OUT = 0.1
SECOND = pyl.elbo(0.1)

Data = pd.DataFrame | Mapping[str, Tensor]


class Case(NamedTuple):
    """A first stage, the rows, and how both stages are trained."""

    pair: pyl.models.VAE
    train: Data
    held_out: Data
    beta: float
    hidden: tuple[int, ...]
    num_steps: int


def main() -> None:
    options = cases_and_seeds(__doc__, CASES)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", pyl.FitWarning)
    for name in options.cases:
        for seed in options.seeds:
            row = {"case": name, "seed": seed, **measured(CASES[name](seed), seed)}
            print(row, flush=True)
            if seed < 100:
                append("stages", [row])


def of_clients(seed: int) -> Case:
    frame = clients()
    held_out = frame.sample(frac=HELD_OUT, random_state=seed)
    train = frame.drop(index=held_out.index)
    schema = pyl.infer_schema(train, kinds=dict.fromkeys(frame, "real"))
    pair = pyl.models.VAE(schema, latent_dim=5, hidden=(64, 128, 256, 512))
    return Case(pair, train, held_out, 2.0, (256, 256), 2_000)


def of_digits(seed: int) -> Case:
    table = pyl.datasets.table("digits").drop(columns=pyl.datasets.targets("digits"))
    images = pyl.as_images(table.to_numpy().reshape(-1, 8, 8) / 16)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    held_out = round(HELD_OUT * len(images))
    pair = pyl.models.VAE(pyl.Images((1, 8, 8)), latent_dim=8, hidden=(128,))
    train, rest = images[order[held_out:]], images[order[:held_out]]
    return Case(pair, {"x": train}, {"x": rest}, 4.0, (256,), 2_000)


CASES = {"clients": of_clients, "digits": of_digits}


def measured(case: Case, seed: int) -> dict[str, Any]:
    """Return errors of both stages, and what their latents say."""
    rise = pyl.linear(0.0, 1.0, RISE)
    method = pyl.SVI(num_steps=case.num_steps, lr=1e-3, batch_size=256, num_draws=1)
    first = fitted(case.pair, case, replace(method, objective=pyl.tc_elbo(case.beta, rise, rise)), seed)
    pair = pyl.models.MultiStageVAE(first, hidden=case.hidden)
    second = fitted(pair, case, replace(method, objective=SECOND, lr=2e-3), seed)
    units = metrics.active_units(second)
    row: dict[str, Any] = {
        "kl_c": units["kl"].filter(like="c[").round(2).tolist(),
        "kl_z": units["kl"].filter(like="z[").round(2).tolist(),
        "active": units["active"].tolist(),
        "same_c": same_latents(first, second),
    }
    for name, rows in (("train", case.train), ("held_out", case.held_out)):
        errors = [error(with_data(fit, rows), seed) for fit in (first, second)]
        row |= {f"{name}_errors": errors, f"{name}_ratio": round(errors[1] / errors[0], 3)}
    return row | gaps(first, second, case.train)


def fitted(pair: pyl.Pair, case: Case, method: pyl.SVI, seed: int) -> Fit:
    return pyl.fit(pair, case.train, method, seed=seed, progress=False)


def error(fit: Fit, seed: int) -> float:
    """Return the mean squared error of rows decoded from sampled latents, in units of the model."""
    rows = decoded(fit, guide_draws(fit, seed))["x"]
    return round(float((rows - fit.data["x"]).square().mean()), 5)


def same_latents(first: Fit, second: Fit) -> bool:
    """True where the latents of the first stage are those of c."""
    before, after = pyl.encode(first), pyl.encode(second).filter(like="c[")
    return bool((before.to_numpy() == after.to_numpy()).all())


def gaps(first: Fit, second: Fit, rows: Data) -> dict[str, float]:
    """Return the MIG of the clients before, and of c after."""
    if not isinstance(rows, pd.DataFrame):
        return {}
    latents = {"mig_first": pyl.encode(first), "mig_c": pyl.encode(second).filter(like="c[")}
    return {name: round(float(metrics.mig(z, rows[DEMOGRAPHIC]).mean()), 4) for name, z in latents.items()}


if __name__ == "__main__":
    main()
