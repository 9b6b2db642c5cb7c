"""Where public data sets are looked for, and whether what is found there is what was published."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from pyrolatent.errors import DataError, StoreError

VARIABLE = "PYROLATENT_DATA"


class Content(NamedTuple):
    """What a data set holds, free of how its file is compressed or laid out."""

    size: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.size} with SHA-256 {self.sha256}"


def measure(size: str, data: bytes) -> Content:
    """Return the content of `data`, whose size is told in words."""
    return Content(size, hashlib.sha256(data).hexdigest())


def locate(candidates: tuple[str, ...], source: str) -> Path:
    """Return the first of some files or folders that is there.

    Args:
        candidates: Where it may be, inside the folder that PYROLATENT_DATA names.
        source: A sentence: where to get it, and how to make the file.

    Raises:
        StoreError: The variable is not set, or names no folder, or none of `candidates` is in it.
    """
    folder = os.environ.get(VARIABLE, "")
    wanted = " or ".join(candidates)
    if not folder:
        why = f"it names the folder that {wanted} is looked for in"
        raise StoreError("the environment variable is not set", where=VARIABLE, why=why, remedy=source)
    if not Path(folder).is_dir():
        why = f"{VARIABLE} names it, and {wanted} is looked for in it"
        raise StoreError("is no folder", where=folder, why=why, remedy=source)
    paths = [Path(folder) / candidate for candidate in candidates]
    found = [path for path in paths if path.exists()]
    if not found:
        raise StoreError("is missing", where=" or ".join(map(str, paths)), remedy=source)
    return found[0]


def check_content(path: Path, found: Content, expected: Content, source: str) -> None:
    """Refuse a file that does not hold what was published.

    Raises:
        DataError: It does not.
    """
    if found != expected:
        why = f"it holds {found}, expected {expected}"
        raise DataError("is not the published data set", where=str(path), why=why, remedy=source)
