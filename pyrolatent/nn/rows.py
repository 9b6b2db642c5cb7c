"""What differs between the rows of a table and images, for models of both.

| | table | images |
|---|---|---|
| encoder | dense, on cells and mask | convolutional, on pixels and mask |
| decoder | a head for every kind of column | convolutional, a distribution of pixels |
| what is expected | features `(N, F)`: numbers, probabilities of labels | mean pixels `(N, C, H, W)` |
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrolatent.columnwise import ColumnwiseDistribution
from pyrolatent.errors import DataError
from pyrolatent.images import Images
from pyrolatent.nn.encoders import EmbeddingEncoder, RowEncoder, expected_features, num_features
from pyrolatent.nn.heads import RowDecoder
from pyrolatent.nn.images import ImageDecoder, ImageEncoder
from pyrolatent.schema import Schema

Rows = Schema | Images
Encoder = Literal["cells", "embedding"]


def encoder_of(
    rows: Rows, hidden: Sequence[int], latent_dim: int, encoder: Encoder = "cells"
) -> Callable[[], nn.Module]:
    """Return what makes an encoder `(x, mask, minus=None) -> distribution (N,) of (L,)`."""
    if isinstance(rows, Images):
        return lambda: ImageEncoder(rows, hidden, latent_dim)
    if encoder == "embedding":
        return lambda: EmbeddingEncoder(rows.modelled, hidden[-1], latent_dim)
    return lambda: RowEncoder(rows.modelled, hidden, latent_dim)


def decoder_of(
    rows: Rows, hidden: Sequence[int], latent_dim: int, heavy_tails: bool = False, given: bool = False
) -> Callable[[], nn.Module]:
    """Return what makes a decoder `(z, given=None) -> cells`, for `observed` and `expected`.

    With `given` it refines rows as `expected` returns them.
    """
    if isinstance(rows, Images):
        return lambda: ImageDecoder(rows, hidden, latent_dim, given)
    width = num_features(rows.modelled) if given else 0
    return lambda: RowDecoder(rows.modelled, hidden, width + latent_dim, heavy_tails)


def seen_in(rows: Rows, x: Tensor, mask: Tensor | None) -> Tensor:
    """Return which entries of `x` are observed, all of them where there is no mask.

    Raises:
        DataError: `x` holds rows of another shape, or the mask is of another than `x`.
    """
    shape = rows.shape if isinstance(rows, Images) else (len(rows.names),)
    found = torch.ones(x.shape, dtype=torch.bool, device=x.device) if mask is None else mask
    if tuple(x.shape[1:]) != tuple(shape) or found.shape != x.shape:
        why = f"x is {tuple(x.shape)}, mask {tuple(found.shape)}, expected (N, {', '.join(map(str, shape))})"
        raise DataError("the rows have another shape than those of the model", why=why)
    return found


def observed(rows: Rows, cells: Any, mask: Tensor) -> dist.TorchDistribution:
    """Return the distribution `(N,)` of rows, from what a decoder returned and which are observed."""
    if isinstance(rows, Images):
        return cells.mask(mask).to_event(len(rows.shape))
    return ColumnwiseDistribution(cells, mask, rows.names)


def expected(rows: Rows, cells: Any) -> Tensor:
    """Return what a decoder expects of rows, as an encoder can take it away from them."""
    return cells.mean if isinstance(rows, Images) else expected_features(rows.modelled, cells)
