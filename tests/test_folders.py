import os
from pathlib import Path

import pytest

from pyrolatent.errors import StoreError
from pyrolatent.folders import output_folder, prepare_file, prepare_folder, write_text


def contents(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def write(folder: Path, text: str, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(text)


@pytest.mark.parametrize("exists", [True, False])
def test_a_new_or_empty_folder_is_filled(tmp_path: Path, exists: bool) -> None:
    if exists:
        write(tmp_path / "run", "hidden files do not count", ".DS_Store")
    with output_folder(tmp_path / "run") as folder:
        assert list(folder.iterdir()) == []
        write(folder, "new", "fit.json", "SHA256SUMS")
        assert "fit.json" not in contents(tmp_path / "run")
    assert {n: t for n, t in contents(tmp_path).items() if ".DS_Store" not in n} == {
        "run/fit.json": "new",
        "run/SHA256SUMS": "new",
    }


def test_a_check_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        prepare_folder(tmp_path / name)
    assert [file.name for file in tmp_path.rglob("*")] == ["empty"]


def test_an_existing_folder_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "run", "old", "fit.json")
    with pytest.raises(StoreError, match=r"run: already exists and is not empty.*--force"):
        prepare_folder(tmp_path / "run")
    with pytest.raises(StoreError, match="already exists"), output_folder(tmp_path / "run"):
        pytest.fail("the block must not run")
    assert contents(tmp_path) == {"run/fit.json": "old"}


def test_force_replaces_files_of_this_package_and_leaves_none_of_them(tmp_path: Path) -> None:
    write(tmp_path / "run", "old", "fit.json", "SHA256SUMS", "imputed_21.csv", "report.html")
    prepare_folder(tmp_path / "run", force=True)
    with output_folder(tmp_path / "run", force=True) as folder:
        write(folder, "new", "fit.json", "SHA256SUMS")
        assert contents(tmp_path / "run")["report.html"] == "old"
    assert contents(tmp_path) == {"run/fit.json": "new", "run/SHA256SUMS": "new"}


@pytest.mark.parametrize("foreign", ["thesis.docx", "imputed_1.csv.bak", "nested"])
def test_force_never_replaces_what_is_not_ours(tmp_path: Path, foreign: str) -> None:
    write(tmp_path / "run", "old", "fit.json")
    if foreign == "nested":
        (tmp_path / "run" / foreign).mkdir()
    else:
        write(tmp_path / "run", "mine", foreign)
    with pytest.raises(StoreError, match=rf"will not be replaced: it holds \['{foreign}'\]"):
        prepare_folder(tmp_path / "run", force=True)
    assert contents(tmp_path)["run/fit.json"] == "old"


@pytest.mark.parametrize("exists", [True, False])
def test_a_failing_block_changes_nothing(tmp_path: Path, exists: bool) -> None:
    if exists:
        write(tmp_path / "run", "old", "fit.json")
    before = contents(tmp_path)
    with pytest.raises(KeyboardInterrupt), output_folder(tmp_path / "run", force=True) as folder:
        write(folder, "half", "fit.json")
        raise KeyboardInterrupt
    assert contents(tmp_path) == before
    assert len(list(tmp_path.rglob("*"))) == 2 * exists


def test_new_files_are_kept_where_they_cannot_be_put_in_place(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match=r"run: cannot be replaced.*The new files are kept in") as caught,
        output_folder(tmp_path / "run") as folder,
    ):
        write(folder, "new", "fit.json")
        write(tmp_path / "run", "made meanwhile", "other.txt")
    kept = caught.value.remedy.removeprefix("The new files are kept in ")
    assert contents(Path(kept)) == {"fit.json": "new"}
    assert contents(tmp_path / "run") == {"other.txt": "made meanwhile"}


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "text", "run")
    with pytest.raises(StoreError, match="run: is a file, not a folder"):
        prepare_folder(tmp_path / "run", force=True)
    with pytest.raises(StoreError, match=r"below: cannot be written: no folder can be made in .*run"):
        prepare_folder(tmp_path / "run" / "below")


def test_the_parent_must_exist(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot be written.*No such file.*Create the parent folder"):
        prepare_folder(tmp_path / "a" / "b")


def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not bind a test that runs as root, so the refusal is the system's in name only.
    def refuse(path: Path, mode: int = 0o777) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(StoreError, match=r"cannot be written.*Permission denied.*change its permissions"):
        prepare_folder(tmp_path / "run")
    with pytest.raises(StoreError, match=r"cannot be written.*Permission denied"):
        prepare_file(tmp_path / "holes.csv")


def test_files_are_checked_too(tmp_path: Path) -> None:
    write(tmp_path, "old", "holes.csv")
    assert prepare_file(tmp_path / "new.csv") == tmp_path / "new.csv"
    assert prepare_file(tmp_path / "holes.csv", force=True) == tmp_path / "holes.csv"
    with pytest.raises(StoreError, match=r"holes.csv: already exists.*--force"):
        prepare_file(tmp_path / "holes.csv")
    with pytest.raises(StoreError, match="is a folder, not a file"):
        prepare_file(tmp_path, force=True)
    with pytest.raises(StoreError, match="cannot be written: no folder can be made"):
        prepare_file(tmp_path / "a" / "new.csv")
    assert contents(tmp_path) == {"holes.csv": "old"}


def test_text_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write(tmp_path, "old", "page.html")
    write_text(tmp_path / "page.html", "naïve β")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "naïve β"
    with pytest.raises(StoreError, match=r"page.html: cannot be written: No such file"):
        write_text(tmp_path / "a" / "page.html", "text")
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
