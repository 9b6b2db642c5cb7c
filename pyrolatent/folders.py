"""Output folders and files: checked before the work, filled aside, put in place whole.

What exists is never overwritten unless the caller says `force`, and even then a folder that holds
anything but files of this package is left alone.  The checksums of a saved fit tell whether its files
are still what was written.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from uuid import uuid4

from pyrolatent.errors import StoreError

SUMS = "SHA256SUMS"  # put in place last: a folder without it holds no finished fit
OUTPUTS = (
    SUMS,
    "fit.json",
    "frame.json",
    "tensors.safetensors",
    "posterior.nc",
    "summary.csv",
    "report.html",
    "cells.csv",
    "arms.csv",
    "lift.csv",
    "imputed_*.csv",
    "imputed_*.parquet",
)


def prepare_folder(path: str | os.PathLike[str], force: bool = False) -> Path:
    """Check that a folder can be written, before the work whose result goes there.

    Args:
        path: A folder that does not exist, in one that does, or an empty one.  Files whose names
            begin with a dot do not count.
        force: Accept a folder that holds files of this package, which will be replaced.

    Returns:
        The absolute path.

    Raises:
        StoreError: The folder holds files, or cannot be written.
    """
    target = Path(path).resolve()
    check_free(target, force)
    aside = make_aside(target)
    aside.rmdir()
    return target


def check_free(target: Path, force: bool) -> None:
    """Refuse a folder with files that must not be lost."""
    if target.exists() and not target.is_dir():
        raise StoreError("is a file, not a folder", where=str(target), remedy="Choose another name")
    held = visible(target) if target.is_dir() else []
    foreign = [file.name for file in held if file.is_dir() or not any(fnmatch(file.name, o) for o in OUTPUTS)]
    if held and not force:
        remedy = "Choose another name, or pass --force on the command line to replace files of pyrolatent"
        raise StoreError("already exists and is not empty", where=str(target), remedy=remedy)
    if foreign:
        why = f"it holds {foreign[:5]}, which pyrolatent did not write"
        remedy = "Choose another name, or move them away"
        raise StoreError("will not be replaced", where=str(target), why=why, remedy=remedy)


def visible(folder: Path) -> list[Path]:
    """Return what a folder holds, names with a leading dot left out."""
    return sorted(file for file in folder.iterdir() if not file.name.startswith("."))


def make_aside(target: Path) -> Path:
    """Return a new folder from which files can be renamed into `target`.

    It lies beside `target`, or inside if that exists already, since it may be a mounted volume.
    """
    aside = (target if target.is_dir() else target.parent) / f".{target.name}.{uuid4().hex[:8]}"
    try:
        aside.mkdir()
    except OSError as error:
        where, why = str(target), f"no folder can be made in {aside.parent}: {error.strerror}"
        remedy = "Create the parent folder, change its permissions, or choose another place"
        raise StoreError("cannot be written", where=where, why=why, remedy=remedy) from error
    return aside


@contextlib.contextmanager
def output_folder(path: str | os.PathLike[str], force: bool = False) -> Iterator[Path]:
    """Give an empty folder to write into; what it holds at the end is put at `path`.

    If the block raises, nothing is put there.

    Raises:
        StoreError: As `prepare_folder`; or the files, kept aside, cannot be put in place.
    """
    target = prepare_folder(path, force)
    aside = make_aside(target)
    try:
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    try:
        put_in_place(aside, target)
    except OSError as error:
        remedy = f"The new files are kept in {aside}"
        raise StoreError("cannot be replaced", where=str(target), why=str(error), remedy=remedy) from error


def put_in_place(aside: Path, target: Path) -> None:
    """Rename the new folder, or, where there is one already, its files, checksums last."""
    if aside.parent != target:
        aside.replace(target)
        return
    for old in sorted(visible(target), key=lambda file: file.name != SUMS):
        old.unlink()
    for new in sorted(aside.iterdir(), key=lambda file: file.name == SUMS):
        new.replace(target / new.name)
    aside.rmdir()


def prepare_file(path: str | os.PathLike[str], force: bool = False) -> Path:
    """Check that a file can be written, before the work whose result goes there.

    Raises:
        StoreError: It exists and `force` is False, or its folder cannot be written.
    """
    target = Path(path).resolve()
    if target.is_dir():
        raise StoreError("is a folder, not a file", where=str(target), remedy="Choose another name")
    if target.exists() and not force:
        remedy = "Choose another name, or pass --force on the command line to replace it"
        raise StoreError("already exists", where=str(target), remedy=remedy)
    make_aside(target).rmdir()
    return target


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in full or not at all; one that exists is replaced.

    Raises:
        StoreError: It cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file in full or not at all, even if the process or the machine dies; it replaces another.

    Raises:
        StoreError: It cannot be written.
    """
    target = Path(path)
    aside = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
    except OSError as error:
        raise StoreError("cannot be written", where=str(target), why=str(error.strerror)) from error
    finally:
        aside.unlink(missing_ok=True)


def check_sums(folder: Path, required: tuple[str, ...]) -> None:
    """Refuse a folder whose files, the `required` ones among them, are not those that were saved."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        why = f"{SUMS} cannot be read: {error.strerror}"
        remedy = "Give the folder that save, or pyrolatent fit --out, wrote"
        raise StoreError("holds no saved fit", where=str(folder), why=why, remedy=remedy) from error
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in dict.fromkeys((*required, *sums)):
        check_file(folder / name, sums.get(name))


def check_file(file: Path, expected: str | None) -> None:
    """Refuse a file that is absent or whose checksum is not the one expected."""
    if file.is_file() and digest(file) == expected:
        return
    what = "was truncated or edited since it was saved" if file.is_file() else "is missing from the saved fit"
    why = f"its checksum is not the one in {SUMS}" if file.is_file() else ""
    remedy = "Copy the folder again from where it was saved, or fit again"
    raise StoreError(what, where=str(file), why=why, remedy=remedy)


def digest(file: Path) -> str:
    """Return the SHA-256 checksum of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
