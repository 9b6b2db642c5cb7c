"""CelebA: aligned photographs of faces, cropped and scaled, and what was noted about each.

An unpacked archive has no checksum to compare with, so the number of its images and the size of each that
is read are checked instead.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pyrolatent.datasets.sources import locate
from pyrolatent.errors import ArgumentError, DataError, StoreError
from pyrolatent.tables import READ_ERRORS

NUM_IMAGES = 202_599
NUM_ATTRIBUTES = 40
WIDTH, HEIGHT, SQUARE = 178, 218, 148
SOURCE = (
    "Download img_align_celeba.zip (Align&Cropped Images) and list_attr_celeba.txt (Attributes) from "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, and unpack them in the folder celeba"
)


def celeba(n: int, size: int = 64) -> torch.Tensor:
    """Read the first `n` aligned images of CelebA, faces in colour.

    They are looked for as celeba/img_align_celeba/000001.jpg and so on, in the folder that
    PYROLATENT_DATA names.  Of 178 x 218 pixels the central 148 x 148 are kept, as is common, and
    scaled by Pillow's antialiased bilinear filter.

    Args:
        n: Number of images N, from 1 to 202,599.
        size: Width and height S of the result in pixels.

    Returns:
        Images (N, 3, S, S), uint8 from 0 to 255.

    Raises:
        ArgumentError: There is no such number of images, or `size` is less than 1.
        StoreError: The folder or an image is absent or cannot be read.
        DataError: The folder does not hold 202,599 images, or one is not 178 x 218 in colour.
    """
    _check_number(n)
    if size < 1:
        raise ArgumentError("size must be at least 1", why=f"got {size!r}")
    folder = locate(("celeba/img_align_celeba",), SOURCE)
    _check_count("images", sum(1 for _ in folder.glob("*.jpg")), folder)
    images = np.empty((n, 3, size, size), np.uint8)
    for image, name in zip(images, _names(n), strict=True):
        image[:] = _read_square(folder / name, size).transpose(2, 0, 1)
    return torch.from_numpy(images)


def celeba_attributes(n: int) -> pd.DataFrame:
    """Read what was noted about the first `n` images of CelebA, such as Smiling or Eyeglasses.

    The file is celeba/list_attr_celeba.txt in the folder that PYROLATENT_DATA names.

    Args:
        n: Number of images N, from 1 to 202,599.

    Returns:
        One row for each image of `celeba(n)`, named by its file, and 40 columns of bools, (N, 40).

    Raises:
        ArgumentError: There is no such number of images.
        StoreError: The file is absent or cannot be read.
        DataError: The file has not 202,599 rows, or does not say 1 or -1 of 40 attributes of each image.
    """
    _check_number(n)
    path = locate(("celeba/list_attr_celeba.txt",), SOURCE)
    try:
        frame = pd.read_csv(path, sep=r"\s+", skiprows=1)
    except READ_ERRORS as error:
        raise StoreError("cannot be read", where=str(path), why=str(error), remedy=SOURCE) from error
    _check_count("rows", len(frame), path)
    first = frame.head(n)
    _check_attributes(path, first)
    return first == 1


def _names(n: int) -> list[str]:
    return [f"{number:06}.jpg" for number in range(1, n + 1)]


def _check_number(n: int) -> None:
    if not 1 <= n <= NUM_IMAGES:
        raise ArgumentError(f"n must be from 1 to {NUM_IMAGES}", why=f"got {n!r}")


def _check_count(what: str, count: int, path: Path) -> None:
    if count != NUM_IMAGES:
        why = f"it holds {count} {what}, expected {NUM_IMAGES}"
        raise DataError("is not the whole data set", where=str(path), why=why, remedy=SOURCE)


def _check_attributes(path: Path, frame: pd.DataFrame) -> None:
    named = frame.index.tolist() == _names(len(frame))
    if not named or frame.shape[1] != NUM_ATTRIBUTES or not frame.isin([-1, 1]).all(axis=None):
        why = f"expected {NUM_ATTRIBUTES} columns of 1 and -1 beside 000001.jpg and so on"
        raise DataError("does not hold the attributes of CelebA", where=str(path), why=why, remedy=SOURCE)


def _read_square(path: Path, size: int) -> np.ndarray:
    """Return the centre of an image, (size, size, 3)."""
    from PIL import Image

    left, top = (WIDTH - SQUARE) // 2, (HEIGHT - SQUARE) // 2
    try:
        with Image.open(path, formats=["JPEG"]) as image:
            _check_image(path, image.size, image.mode)
            square = image.crop((left, top, left + SQUARE, top + SQUARE))
    except OSError as error:
        raise StoreError("cannot be read as JPEG", where=str(path), why=str(error), remedy=SOURCE) from error
    return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))


def _check_image(path: Path, size: tuple[int, int], mode: str) -> None:
    if (size, mode) != ((WIDTH, HEIGHT), "RGB"):
        why = f"it is {size[0]} x {size[1]} pixels, {mode}; expected {WIDTH} x {HEIGHT}, RGB"
        raise DataError("is not an aligned image of CelebA", where=str(path), why=why, remedy=SOURCE)
