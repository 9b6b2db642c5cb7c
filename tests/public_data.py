"""Data sets that are too large or not ours to ship: tests of the real ones run where they are at hand."""

import os
from pathlib import Path

import pytest


def needs(*files: str) -> pytest.MarkDecorator:
    """Skip a test where the folder PYROLATENT_DATA, as it was at the start, lacks one of `files`."""
    folder = os.environ.get("PYROLATENT_DATA", "")
    absent = [file for file in files if not (folder and any(Path(folder).glob(f"{file}*")))]
    return pytest.mark.skipif(bool(absent), reason=f"PYROLATENT_DATA has no {', '.join(absent)}")
