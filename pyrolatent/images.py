"""Images: their shape, what their pixels are, and the way from arrays to tensors.

Models see images as `(N, C, H, W)` with values from 0 to 1.

| pixels | what a value is |
|---|---|
| "binary" | 0 or 1, Bernoulli |
| "continuous" | a number from 0 to 1, continuous Bernoulli |
| "levels" | one of 256 levels, k / 255, discretised logistic |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrolatent.errors import ArgumentError, DataError

Pixels = Literal["binary", "continuous", "levels"]

CHANNELS = (1, 3, 4)  # of what is taken for an image with channels last
BRIGHTEST = 255


@final
@dataclass(frozen=True)
class Images:
    """Images of one shape.

    Args:
        shape: `(C, H, W)`, as `as_images(...).shape[1:]` is.
        pixels: What their values are: "binary", "continuous" or "levels".

    Raises:
        ArgumentError: The shape is none of an image, or there are no such pixels.
    """

    shape: tuple[int, int, int]
    pixels: Pixels = "continuous"

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            why = f"got {tuple(self.shape)}"
            raise ArgumentError("the shape is none of an image", why=why, remedy="pass (C, H, W)")
        if self.pixels not in get_args(Pixels):
            remedy = f"choose one of {get_args(Pixels)}"
            raise ArgumentError("there are no such pixels", why=f"got {self.pixels!r}", remedy=remedy)

    @property
    def num_pixels(self) -> int:
        """Values of an image, over all channels."""
        return int(np.prod(self.shape))


def as_images(pictures: Any) -> Tensor:
    """Return images as models see them, `(N, C, H, W)` with values from 0 to 1.

    Args:
        pictures: An array or tensor `(N, H, W)`, `(N, C, H, W)` or `(N, H, W, C)`, or a list of images
            `(H, W)`, `(C, H, W)` or `(H, W, C)`, those of Pillow among them.  Whole numbers go from 0 to
            255, truth values are 0 and 1, other numbers from 0 to 1.

    Raises:
        DataError: The images differ in size, they are no images, or a value is out of range.
    """
    array = pictures.cpu().numpy() if isinstance(pictures, Tensor) else stack(pictures)
    if array.ndim not in (3, 4) or not array.size or array.dtype.kind not in "biuf":
        why = f"got shape {array.shape} of {array.dtype}"
        raise DataError("these are no images", why=why, remedy="pass (N, H, W) or (N, C, H, W)")
    check_range(array)
    if array.ndim == 3:
        array = array[:, None]
    elif array.shape[1] not in CHANNELS and array.shape[3] in CHANNELS:
        array = np.moveaxis(array, 3, 1)
    brightest = BRIGHTEST if array.dtype.kind in "iu" else 1
    return torch.tensor(np.ascontiguousarray(array, dtype=np.float32) / brightest)


def stack(pictures: Sequence[Any]) -> NDArray[Any]:
    """Return images of one size as one array `(N, ...)`.

    Raises:
        DataError: One has another size than the first.
    """
    if isinstance(pictures, np.ndarray):
        return pictures
    arrays = [np.asarray(picture) for picture in pictures]
    for number, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise DataError(
                "images differ in size",
                where=f"image {number}",
                why=f"it is {array.shape}, the first {arrays[0].shape}",
                remedy="crop or resize them to one size",
            )
    return np.stack(arrays) if arrays else np.empty(0)


def check_range(array: NDArray[Any]) -> None:
    """Refuse values that are no brightness.

    Raises:
        DataError: With the first image that has one, and the value.
    """
    highest = BRIGHTEST if array.dtype.kind in "iu" else 1
    wrong = ~((array >= 0) & (array <= highest))
    if wrong.any():
        first = tuple(int(k) for k in np.argwhere(wrong)[0])
        raise DataError(
            f"a value is not from 0 to {highest}",
            where=f"image {first[0]}, at {first[1:]}",
            why=f"got {array[first]}",
            remedy="whole numbers go from 0 to 255, others from 0 to 1; leave out what is missing by mask=",
        )
