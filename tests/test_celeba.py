"""CelebA, from small folders that look like it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from pyrolatent.datasets import celeba, celeba_attributes, faces
from pyrolatent.errors import ArgumentError, DataError, StoreError
from tests.public_data import needs


def save_face(path: Path, size: tuple[int, int] = (178, 218), mode: str = "RGB") -> None:
    """Write a photograph that is black but for the central 148 x 148 pixels, in four colours."""
    colours = [["red", "lime"], ["blue", "white"]]
    image = Image.new(mode, size)
    for row in range(2):
        for column in range(2):
            left, top = 15 + 74 * column, 35 + 74 * row
            image.paste(colours[row][column], (left, top, left + 74, top + 74))
    image.save(path, quality=100, subsampling=0)


@pytest.fixture
def faces_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a CelebA of three images and three attributes."""
    monkeypatch.setenv("PYROLATENT_DATA", str(tmp_path))
    monkeypatch.setattr(faces, "NUM_IMAGES", 3)
    monkeypatch.setattr(faces, "NUM_ATTRIBUTES", 3)
    folder = tmp_path / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    for number in (1, 2, 3):
        save_face(folder / f"00000{number}.jpg")
    lines = ["3", "Bald Smiling Young ", "000001.jpg -1  1 -1", "000002.jpg  1  1  1", "000003.jpg -1 -1 -1"]
    (folder.parent / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_the_central_square_of_a_face_is_kept(faces_folder: Path) -> None:
    images = celeba(2, size=148)
    assert images.shape == (2, 3, 148, 148) and images.dtype == torch.uint8
    quarters = images[0].reshape(3, 2, 74, 2, 74).permute(1, 3, 0, 2, 4).reshape(4, 3, 74, 74)
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]])
    # JPEG of the best quality rounds 64 coefficients of a block, and colours on the way to and from YCbCr.
    assert (quarters - colours[:, :, None, None]).abs().max() <= 8


def test_faces_are_scaled(faces_folder: Path) -> None:
    images = celeba(3)
    assert images.shape == (3, 3, 64, 64)
    assert (images[:, :, 2, 2] - torch.tensor([255, 0, 0])).abs().max() <= 8


def test_an_incomplete_celeba_is_refused(faces_folder: Path) -> None:
    (faces_folder / "000003.jpg").unlink()
    with pytest.raises(DataError, match="is not the whole data set: it holds 2 images, expected 3"):
        celeba(1)


@pytest.mark.parametrize(
    ("size", "mode", "found"), [((218, 178), "RGB", "218 x 178 pixels, RGB"), ((178, 218), "L", "L")]
)
def test_an_image_of_another_size_is_refused(
    faces_folder: Path, size: tuple[int, int], mode: str, found: str
) -> None:
    Image.new(mode, size).save(faces_folder / "000002.jpg")
    assert celeba(1).shape == (1, 3, 64, 64)
    with pytest.raises(
        DataError, match=rf"000002\.jpg: is not an aligned image.*{found}; expected 178 x 218"
    ):
        celeba(2)


def test_a_truncated_image_is_refused(faces_folder: Path) -> None:
    path = faces_folder / "000001.jpg"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(StoreError, match=r"000001\.jpg: cannot be read as JPEG"):
        celeba(1)


def test_the_attributes_of_faces_are_bools(faces_folder: Path) -> None:
    frame = celeba_attributes(2)
    assert frame.columns.tolist() == ["Bald", "Smiling", "Young"]
    assert frame.index.tolist() == ["000001.jpg", "000002.jpg"]
    assert set(frame.dtypes.astype(str)) == {"bool"}
    assert frame.to_numpy().tolist() == [[False, True, False], [True, True, True]]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("000003.jpg -1 -1 -1\n", "", "it holds 2 rows, expected 3"),
        ("000001.jpg -1  1", "000001.jpg  0  1", "does not hold the attributes of CelebA"),
        ("000002", "000004", "does not hold the attributes of CelebA"),
        ("Bald ", "", "does not hold the attributes of CelebA"),
    ],
)
def test_other_attributes_are_refused(faces_folder: Path, old: str, new: str, message: str) -> None:
    path = faces_folder.parent / "list_attr_celeba.txt"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        celeba_attributes(2)


def test_attributes_that_are_no_table_are_refused(faces_folder: Path) -> None:
    (faces_folder.parent / "list_attr_celeba.txt").write_bytes(b"3\n\xff\xfe 1\n")
    with pytest.raises(StoreError, match=r"list_attr_celeba\.txt: cannot be read"):
        celeba_attributes(1)


@pytest.mark.parametrize("n", [0, 4])
@pytest.mark.parametrize("function", [celeba, celeba_attributes])
def test_a_number_of_faces_that_is_not_there_is_refused(
    faces_folder: Path, function: Callable, n: int
) -> None:
    with pytest.raises(ArgumentError, match=f"n must be from 1 to 3: got {n}"):
        function(n)


def test_an_empty_size_is_refused() -> None:
    with pytest.raises(ArgumentError, match="size must be at least 1: got 0"):
        celeba(1, size=0)


@needs("celeba/img_align_celeba", "celeba/list_attr_celeba.txt")
def test_the_real_celeba_is_whole() -> None:
    assert celeba(100).shape == (100, 3, 64, 64)
    attributes = celeba_attributes(100)
    assert attributes.shape == (100, 40)
    assert 0 < attributes["Smiling"].mean() < 1
