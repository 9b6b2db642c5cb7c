"""MNIST and a sample of it, from files as they were published."""

import gzip
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from pyrolatent.datasets import handwriting, mnist, mnist_small
from pyrolatent.datasets.handwriting import IdxRecord
from pyrolatent.datasets.sources import Content
from pyrolatent.errors import ArgumentError, DataError, StoreError
from tests.public_data import needs

PAGE = Path(__file__).parent.parent / "docs" / "datasets.md"
PIXELS = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
LABELS = np.array([7, 2], dtype=np.uint8)
IMAGES_IDX = b"\0\0\x08\x03" + np.array([2, 28, 28], ">i4").tobytes() + PIXELS.tobytes()
LABELS_IDX = b"\0\0\x08\x01" + np.array([2], ">i4").tobytes() + LABELS.tobytes()


def check_digits(images: torch.Tensor, labels: torch.Tensor) -> None:
    assert images.shape == (2, 1, 28, 28) and images.dtype == torch.uint8
    assert (images[:, 0].numpy() == PIXELS).all()
    assert labels.tolist() == [7, 2] and labels.dtype == torch.int64


@pytest.fixture
def mnist_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a test set of two images, published as such."""
    monkeypatch.setenv("PYROLATENT_DATA", str(tmp_path))
    records = (
        IdxRecord("t10k-images-idx3-ubyte", (2, 28, 28), sha256(IMAGES_IDX).hexdigest()),
        IdxRecord("t10k-labels-idx1-ubyte", (2,), sha256(LABELS_IDX).hexdigest()),
    )
    monkeypatch.setitem(handwriting.IDX_FILES, "test", records)
    folder = tmp_path / "mnist"
    folder.mkdir()
    (folder / "t10k-images-idx3-ubyte").write_bytes(IMAGES_IDX)
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(LABELS_IDX))
    return folder


def test_mnist_is_read_packed_or_not(mnist_folder: Path) -> None:
    check_digits(*mnist("test"))


@pytest.mark.parametrize(
    ("data", "size"), [(IMAGES_IDX[:-1], 1583), (IMAGES_IDX[:-1] + b"!", 1584), (b"", 0)]
)
def test_a_file_that_is_not_the_published_one_is_refused(mnist_folder: Path, data: bytes, size: int) -> None:
    (mnist_folder / "t10k-images-idx3-ubyte").write_bytes(data)
    expected = rf"t10k-images-idx3-ubyte: is not the published.* it holds {size} bytes.*expected 1584 bytes"
    with pytest.raises(DataError, match=expected):
        mnist("test")


@pytest.mark.parametrize(
    "data", [gzip.compress(LABELS_IDX)[:-9], b"text", gzip.compress(LABELS_IDX)[:10] + b"\xff" * 30]
)
def test_a_damaged_archive_is_refused(mnist_folder: Path, data: bytes) -> None:
    (mnist_folder / "t10k-labels-idx1-ubyte.gz").write_bytes(data)
    with pytest.raises(StoreError, match=r"t10k-labels-idx1-ubyte\.gz: cannot be read"):
        mnist("test")


def test_absent_files_of_mnist_come_with_an_address(mnist_folder: Path) -> None:
    with pytest.raises(StoreError, match=r"train-images-idx3-ubyte\.gz: is missing\. Download https://.*gz"):
        mnist("train")


@pytest.mark.parametrize("function", [mnist, mnist_small])
def test_another_split_is_refused(function: Callable) -> None:
    with pytest.raises(ArgumentError, match="split must be 'train' or 'test': got 'valid'"):
        function("valid")


@pytest.fixture
def small_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the sample of MNIST is looked for, after its test part was published as two images."""
    monkeypatch.setenv("PYROLATENT_DATA", str(tmp_path))
    content = Content(
        "images (2, 28, 28) and labels (2,)", sha256(PIXELS.tobytes() + LABELS.tobytes()).hexdigest()
    )
    monkeypatch.setitem(handwriting.SMALL, "test", content)
    (tmp_path / "mnist_small").mkdir()
    return tmp_path / "mnist_small" / "mnist_small.npz"


def test_the_sample_of_mnist_is_read(small_file: Path) -> None:
    np.savez_compressed(small_file, x_test=PIXELS, y_test=LABELS)
    check_digits(*mnist_small("test"))
    with pytest.raises(StoreError, match=r"cannot be read.*x_train"):
        mnist_small("train")


def test_another_sample_of_mnist_is_refused(small_file: Path) -> None:
    np.savez(small_file, x_test=PIXELS[:1], y_test=LABELS[:1])
    with pytest.raises(DataError, match=r"holds images \(1, 28, 28\).*expected images \(2, 28, 28\)"):
        mnist_small("test")


@pytest.mark.parametrize("data", [b"", b"text", b"PK\3\4 cut short"])
def test_a_damaged_sample_of_mnist_is_refused(small_file: Path, data: bytes) -> None:
    with pytest.raises(StoreError, match=r"mnist_small\.npz: is missing\. Draw it"):
        mnist_small("test")
    small_file.write_bytes(data)
    with pytest.raises(StoreError, match=r"mnist_small\.npz: cannot be read"):
        mnist_small("test")


def test_a_single_array_is_no_sample_of_mnist(small_file: Path) -> None:
    with small_file.open("wb") as file:
        np.save(file, PIXELS)
    with pytest.raises(StoreError, match=r"mnist_small\.npz: cannot be read"):
        mnist_small("test")


@needs("mnist/train-images", "mnist/train-labels", "mnist/t10k-images", "mnist/t10k-labels")
@pytest.mark.parametrize(("split", "num_images"), [("train", 60_000), ("test", 10_000)])
def test_the_real_mnist_is_the_published_one(split: str, num_images: int) -> None:
    images, labels = mnist(split)
    assert images.shape == (num_images, 1, 28, 28)
    assert labels.bincount().shape == (10,)


@needs("mnist_small/mnist_small.npz")
@pytest.mark.parametrize(("split", "each"), [("train", 200), ("test", 50)])
def test_the_real_sample_of_mnist_is_the_published_one(split: str, each: int) -> None:
    images, labels = mnist_small(split)
    assert images.shape == (10 * each, 1, 28, 28)
    assert labels.bincount().tolist() == [each] * 10


@needs("mnist/t10k-images", "mnist/t10k-labels")
def test_the_page_tells_how_to_draw_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = mnist("test")
    monkeypatch.setattr("pyrolatent.datasets.mnist", lambda split: (images, labels))
    monkeypatch.setenv("PYROLATENT_DATA", str(tmp_path))
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    exec(block, {})
    for split, each in (("train", 200), ("test", 50)):
        assert mnist_small(split)[1].bincount().tolist() == [each] * 10
