"""Autoencoders and what is done with their latents, on a device that refuses to meet the CPU."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch

import pyrolatent as pyl
from pyrolatent import metrics
from tests.fake_device import DEVICE, moved
from tests.test_devices import HOST, at, away, quick  # noqa: F401, a fixture
from tests.test_images import bars
from tests.test_nn import table
from tests.test_vae import holes

STEPS = 10
FRAME = holes(table(60), 0.2)


def of_table(place: torch.device) -> tuple[pyl.Fit, Any]:
    pair = pyl.models.VAE(pyl.infer_schema(FRAME), 3, (8,), heavy_tails=True)
    return quick(pair, FRAME, pyl.SVI(pyl.tc_elbo(2.0), num_steps=STEPS, batch_size=20), device=place), FRAME


def of_images(pixels: str) -> Callable[[torch.device], tuple[pyl.Fit, Any]]:
    def run(place: torch.device) -> tuple[pyl.Fit, Any]:
        images = bars(40)
        pair = pyl.models.VAE(pyl.Images((1, 8, 8), pixels), 3, (8,))
        data = moved({"x": images, "mask": images.roll(1, 0) == 0}, place)
        return quick(pair, data, pyl.SVI(num_steps=STEPS, batch_size=20), device=place), data

    return run


def second_stage(
    first: Callable[[torch.device], tuple[pyl.Fit, Any]],
) -> Callable[[torch.device], tuple[pyl.Fit, Any]]:
    def run(place: torch.device) -> tuple[pyl.Fit, Any]:
        fit, data = first(place)
        pair = pyl.models.MultiStageVAE(fit, 2, (8,))
        return quick(pair, data, pyl.SVI(num_steps=STEPS, batch_size=20), device=place), data

    return run


FITS = {
    "table": of_table,
    "binary": of_images("binary"),
    "levels": of_images("levels"),
    "two stages of a table": second_stage(of_table),
    "two stages of images": second_stage(of_images("continuous")),
}


def verbs(fit: pyl.Fit, data: Any) -> dict[str, Any]:
    one = data.iloc[[0]] if isinstance(data, pd.DataFrame) else {n: v[:1] for n, v in data.items()}
    found = {
        "encode": pyl.encode(fit, data),
        "sample": pyl.encode(fit, data, sample=True),
        "generate": pyl.generate(fit, 5),
        "reconstruct": pyl.reconstruct(fit, data),
        "traverse": pyl.traverse(fit, one, 0, [-1.0, 1.0]),
        "score": pyl.score(fit, data, 50),
        "fixing": metrics.latent_fixing_score(fit, data, 3, 3),
        "units": metrics.active_units(fit, data, threshold=0.0),
    }
    if isinstance(fit.pair, pyl.models.MultiStageVAE):
        found["mixup"] = pyl.mixup(fit, data, data)
    else:
        found["total correlation"] = metrics.total_correlation(fit, data)
    return found


def as_tensors(found: dict[str, Any]) -> dict[str, torch.Tensor]:
    """All numbers that verbs returned, each of which has to be on the host."""
    tensors: dict[str, torch.Tensor] = {}
    for name, value in found.items():
        parts = value if isinstance(value, dict) else {"": value}
        for key, part in parts.items():
            if isinstance(part, pd.DataFrame):
                part = part.select_dtypes("number").to_numpy(copy=True)
            tensors[f"{name} {key}"] = part if isinstance(part, torch.Tensor) else torch.tensor(part)
    return tensors


@pytest.mark.filterwarnings("ignore::pyrolatent.FitWarning")
@pytest.mark.parametrize("name", FITS)
def test_autoencoders_stay_on_their_device(name: str, away: torch.device) -> None:  # noqa: F811
    with at(away):
        found = as_tensors(verbs(*FITS[name](away)))
    expected = as_tensors(verbs(*FITS[name](HOST)))
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert value.device == HOST, key
        assert value.shape == expected[key].shape, key
        if away == DEVICE:
            torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=1e-3, msg=key)
