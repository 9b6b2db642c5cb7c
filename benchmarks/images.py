"""How probable held-out digits are under an autoencoder that has seen 2,000.

Run as `python -m benchmarks.images`, with `PYROLATENT_DATA` (docs/datasets.md).  `datasets.mnist_small`:
2,000 images to learn from and 500 to score, 28 x 28 pixels, each 1 with the probability that is its
brightness, drawn once by the seed.  log p(x) of an image in nats by importance sampling with 500 draws,
from below.  A tenth of the 2,000 is held out to say when to stop.

Settings are a first guess that nothing was tuned on.
"""

import argparse
import time
import warnings
from typing import Any

import torch

import pyrolatent as pyl
from benchmarks.record import append

LATENT_DIM, HIDDEN = 20, (128,)
METHOD = pyl.SVI(
    pyl.elbo(), num_steps=1_000, lr=2e-3, batch_size=100, validation_fraction=0.1, patience=25, num_draws=1
)
NUM_DRAWS, NUM_TRAIN = 500, 200  # draws of an image, images scored that were learnt from


def main() -> None:
    options = parse_options()
    warnings.simplefilter("ignore", pyl.FitWarning)
    for seed in options.seeds:
        row = {"case": "mnist_small", "seed": seed, **measured(seed)}
        print(row, flush=True)
        append("images", [row])


def measured(seed: int) -> dict[str, Any]:
    """Return the mean log p(x) of held-out images, and of the images that were learnt from."""
    random = torch.Generator().manual_seed(seed)
    train, test = (
        torch.bernoulli(pyl.as_images(pyl.datasets.mnist_small(split)[0]), generator=random)
        for split in ("train", "test")
    )
    pair = pyl.models.VAE(pyl.Images((1, 28, 28), "binary"), LATENT_DIM, HIDDEN)
    start = time.perf_counter()
    fit = pyl.fit(pair, {"x": train}, METHOD, seed=seed, progress=False)
    seconds = time.perf_counter() - start
    scores = {
        "held_out": pyl.score(fit, {"x": test}, NUM_DRAWS),
        "train": pyl.score(fit, {"x": train[:NUM_TRAIN]}, NUM_DRAWS),
    }
    row: dict[str, Any] = {name: round(float(nats.mean()), 2) for name, nats in scores.items()}
    row["standard_error"] = round(float(scores["held_out"].sem()), 2)
    return row | {"steps": fit.losses["train"].shape[1], "seconds": round(seconds, 1)}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    return parser.parse_args()


if __name__ == "__main__":
    main()
