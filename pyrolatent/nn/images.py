"""Convolutional networks of images: halved in size until they are small, and doubled back.

Each layer has kernels of 4 pixels, stride 2 and padding 1, so that it halves height and width, rounding
down; where a size was odd the layer back adds the pixel.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import final

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import softplus

from pyrolatent.images import Images
from pyrolatent.nn.encoders import NormalHead
from pyrolatent.nn.network import mlp
from pyrolatent.pixels import DiscretisedLogistic

SMALL = 7  # height or width that is not halved any more
FIRST_FEATURES, MOST_FEATURES = 32, 64  # of a pixel: twice as many a layer
SCALE_FLOOR = 1e-3  # of the logistic of a level, a quarter of a level
FIRST_SCALE = 0.1

Size = tuple[int, int]


def halvings(shape: Sequence[int]) -> list[Size]:
    """Return the heights and widths of an image `(C, H, W)` before each layer and after the last."""
    sizes = [(shape[1], shape[2])]
    while min(sizes[-1]) > SMALL:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    return sizes


def features_of(layers: int, channels: int) -> list[int]:
    """Return the features of a pixel before each layer and after the last."""
    return [channels, *(min(FIRST_FEATURES * 2**k, MOST_FEATURES) for k in range(layers))]


def convolutions(images: Images, channels: int) -> tuple[nn.Sequential, int]:
    """Return the layers that halve images of so many channels, flattened, and the features they make."""
    sizes = halvings(images.shape)
    features = features_of(len(sizes) - 1, channels)
    parts: list[nn.Module] = []
    for before, after in pairwise(features):
        parts += [nn.Conv2d(before, after, 4, 2, 1), nn.SiLU()]
    return nn.Sequential(*parts, nn.Flatten()), features[-1] * sizes[-1][0] * sizes[-1][1]


def over_batch(layers: nn.Module, images: Tensor) -> Tensor:
    """Return what layers make of images `(..., N, C, H, W)`, which they take `(N, C, H, W)`."""
    batch = images.shape[:-3]
    return layers(images.flatten(0, -4)).unflatten(0, batch) if len(batch) > 1 else layers(images)


@final
class ImageEncoder(nn.Module):
    """From images and which of their pixels are observed to latent vectors."""

    def __init__(self, images: Images, hidden: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        self.body, width = convolutions(images, 2 * images.shape[0])
        self.dense = mlp([width, *hidden])
        self.head = NormalHead(hidden[-1] if hidden else width, latent_dim)

    def forward(self, x: Tensor, mask: Tensor, minus: Tensor | None = None) -> dist.TorchDistribution:
        """Return the distribution `(..., N)` of vectors `(L,)` of `x (N, C, H, W)`, observed at `mask`.

        `minus (..., N, C, H, W)` is taken away from the images; without it, their middle brightness.
        """
        seen = mask.to(x)
        values = (x - (0.5 if minus is None else minus)) * seen
        planes = torch.cat([values, seen.expand(values.shape)], -3)
        return self.head(self.dense(over_batch(self.body, planes)))


@final
class ImageDecoder(nn.Module):
    """From latent vectors to the distributions of pixels.

    Args:
        images: Their shape and pixels.
        hidden: Features of each dense layer.
        latent_dim: L.
        given: Whether images are refined that another model made: these enter beside the latent vector,
            and again beside what the last layer made of both.
    """

    def __init__(self, images: Images, hidden: Sequence[int], latent_dim: int, given: bool = False) -> None:
        super().__init__()
        self.images, channels, sizes = images, images.shape[0], halvings(images.shape)
        features = features_of(len(sizes) - 1, channels)
        features[0] = FIRST_FEATURES if given else channels
        self.small = (features[-1], *sizes[-1])
        self.of_given: nn.Module
        self.of_given, width = convolutions(images, channels) if given else (nn.Identity(), 0)
        self.dense = mlp([latent_dim + width, *hidden])
        self.widen = nn.Linear(hidden[-1] if hidden else latent_dim + width, math.prod(self.small))
        self.body = doublings(sizes[::-1], features[::-1])
        self.beside = nn.Conv2d(FIRST_FEATURES + channels, channels, 3, padding=1) if given else None
        raw = torch.full((channels, 1, 1), FIRST_SCALE).expm1().log()
        self.raw_scale = nn.Parameter(raw) if images.pixels == "levels" else None

    def forward(self, z: Tensor, given: Tensor | None = None) -> Distribution:
        """Return the distribution `(..., N, C, H, W)` of pixels, from `z (..., N, L)` and images `given`."""
        if given is not None:
            z = torch.cat([over_batch(self.of_given, given), z], -1)
        pixels = over_batch(self.body, self.widen(self.dense(z)).unflatten(-1, self.small))
        if given is not None and self.beside is not None:
            pixels = over_batch(self.beside, torch.cat([pixels, given], -3))
        if self.raw_scale is not None:
            return DiscretisedLogistic(pixels.sigmoid(), SCALE_FLOOR + softplus(self.raw_scale))
        kind = dist.Bernoulli if self.images.pixels == "binary" else dist.ContinuousBernoulli
        return kind(logits=pixels)


def doublings(sizes: Sequence[Size], features: Sequence[int]) -> nn.Sequential:
    """Return the layers from the smallest of `sizes` to the largest, without a SiLU after the last."""
    parts: list[nn.Module] = []
    for (before, after), (_, size) in zip(pairwise(features), pairwise(sizes), strict=True):
        odd = (size[0] % 2, size[1] % 2)
        parts += [nn.SiLU(), nn.ConvTranspose2d(before, after, 4, 2, 1, output_padding=odd)]
    return nn.Sequential(*parts)
