"""Images of handwritten digits: MNIST as it was published, and a small sample of it."""

import gzip
import math
import zipfile
import zlib
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from pyrolatent.datasets.sources import Content, check_content, locate, measure
from pyrolatent.errors import ArgumentError, StoreError

Split = Literal["train", "test"]
UNPACK_ERRORS = (OSError, EOFError, zlib.error)
ARRAY_ERRORS = (*UNPACK_ERRORS, ValueError, KeyError, TypeError, zipfile.BadZipFile)
SMALL_SOURCE = "Draw it from the test set of MNIST by the code in docs/datasets.md"


class IdxRecord(NamedTuple):
    """A published file of bytes in IDX format: its name, shape and, unpacked, its checksum."""

    name: str
    shape: tuple[int, ...]
    sha256: str

    def header(self) -> int:
        """Return the length of what comes before the data: the format, and 4 bytes for each dimension."""
        return 4 + 4 * len(self.shape)

    def source(self) -> str:
        """Return where to get the file."""
        address = f"https://ossci-datasets.s3.amazonaws.com/mnist/{self.name}.gz"
        return f"Download {address}, a mirror of http://yann.lecun.com/exdb/mnist/, and save it under mnist"


# Files of other mirrors are packed anew, so the checksums are those of the unpacked ones.
IDX_FILES = {
    "train": (
        IdxRecord(
            "train-images-idx3-ubyte",
            (60_000, 28, 28),
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        IdxRecord(
            "train-labels-idx1-ubyte",
            (60_000,),
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
    ),
    "test": (
        IdxRecord(
            "t10k-images-idx3-ubyte",
            (10_000, 28, 28),
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        IdxRecord(
            "t10k-labels-idx1-ubyte",
            (10_000,),
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
}
SMALL = {
    "train": Content(
        "images (2000, 28, 28) and labels (2000,)",
        "7e5a64139eb831e01b71c47fdbda4a90dc41c91402c555a3cd3088dd7fdfacd9",
    ),
    "test": Content(
        "images (500, 28, 28) and labels (500,)",
        "618e6e41dd2ea581a2cdc94754e27ad99646d4ca37c8e0e62f55ebd6bb2e9c46",
    ),
}


def mnist(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    """Read MNIST, 60,000 images of handwritten digits for training and 10,000 for tests.

    The four original files, packed (.gz) or not, are looked for in the folder mnist of the one that
    PYROLATENT_DATA names.

    Args:
        split: "train" or "test".

    Returns:
        Images (N, 1, 28, 28), uint8 from 0 to 255, and labels (N,), int64 from 0 to 9.

    Raises:
        ArgumentError: Another `split`.
        StoreError: A file is absent or cannot be read; the message tells where to get it.
        DataError: A file is truncated, or not the published one.
    """
    _check_split(split)
    images, labels = (_read_idx(record) for record in IDX_FILES[split])
    return _tensors(images, labels)


def mnist_small(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    """Read a sample of MNIST: of each digit 200 images for training and 50 for tests.

    Both are drawn from the test set of MNIST, so results do not compare with published ones.  The file
    is mnist_small/mnist_small.npz in the folder that PYROLATENT_DATA names.

    Args:
        split: "train" or "test".

    Returns:
        Images (N, 1, 28, 28), uint8 from 0 to 255, and labels (N,), int64 from 0 to 9.

    Raises:
        ArgumentError: Another `split`.
        StoreError: The file is absent or cannot be read; the message tells how to make it.
        DataError: It holds other images.
    """
    _check_split(split)
    path = locate(("mnist_small/mnist_small.npz",), SMALL_SOURCE)
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
    except ARRAY_ERRORS as error:
        raise _unreadable(path, error, SMALL_SOURCE) from error
    size = f"images {images.shape} and labels {labels.shape}"
    check_content(path, measure(size, images.tobytes() + labels.tobytes()), SMALL[split], SMALL_SOURCE)
    return _tensors(images, labels)


def _check_split(split: str) -> None:
    if split not in IDX_FILES:
        raise ArgumentError("split must be 'train' or 'test'", why=f"got {split!r}")


def _read_idx(record: IdxRecord) -> np.ndarray:
    """Return the bytes of a published file in their shape."""
    source = record.source()
    path = locate((f"mnist/{record.name}", f"mnist/{record.name}.gz"), source)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except UNPACK_ERRORS as error:
        raise _unreadable(path, error, source) from error
    num_bytes = record.header() + math.prod(record.shape)
    check_content(
        path, measure(f"{len(data)} bytes", data), Content(f"{num_bytes} bytes", record.sha256), source
    )
    return np.frombuffer(data, np.uint8, offset=record.header()).reshape(record.shape)


def _unreadable(path: Path, error: Exception, source: str) -> StoreError:
    return StoreError("cannot be read", where=str(path), why=str(error), remedy=source)


def _tensors(images: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images (N, 28, 28) with a channel, and labels (N,) as torch wants them for an index."""
    return torch.from_numpy(images[:, None].copy()), torch.from_numpy(labels.astype(np.int64))
