"""Tables on disk: CSV files in and out, so that what was observed comes back as it was."""

import os
from pathlib import Path

import pandas as pd

from pyrolatent.errors import DataError, StoreError

READ_ERRORS = (OSError, UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError)
PLAIN = {"b": "bool", "i": "int64", "u": "uint64", "f": "float64", "O": "str"}


def read_frame(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a CSV file (comma, header line, UTF-8 with or without a byte order mark).

    What pandas takes for missing is missing: empty cells, NA, N/A, NaN, null, None and the like.
    No column is taken for an index.

    Args:
        path: The file; .gz and other compressed files are read as they are.

    Returns:
        The table with a RangeIndex.  Integers with holes are Int64, booleans with holes boolean,
        so that a completed table holds 3 and not 3.0.

    Raises:
        StoreError: If the file is absent, empty, or not such a CSV.
        DataError: If a column name occurs twice.
    """
    try:
        header = pd.read_csv(path, encoding="utf-8-sig", header=None, nrows=1, dtype="str").iloc[0]
        frame = pd.read_csv(path, encoding="utf-8-sig", dtype_backend="numpy_nullable", low_memory=False)
    except READ_ERRORS as error:
        raise StoreError("cannot be read as CSV", where=str(path), why=str(error)) from error
    _check(frame, header, str(path))
    return frame.apply(_plain) if len(frame.columns) else frame


def write_frame(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write `frame` as CSV, in full or not at all.

    Args:
        frame: The table; its index is written unless it is a RangeIndex.
        path: The file, replaced if it exists.

    Raises:
        StoreError: If the file cannot be written.
    """
    target = Path(path)
    aside = target.with_name(f".part-{target.name}")
    try:
        frame.to_csv(aside, index=not isinstance(frame.index, pd.RangeIndex), lineterminator="\n")
        os.replace(aside, target)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise StoreError("cannot be written", where=str(target), why=str(error)) from error


def _check(frame: pd.DataFrame, header: pd.Series, path: str) -> None:
    repeated = header[header.duplicated() & header.notna()].unique().tolist()
    if repeated:
        remedy = "Rename or drop the repeated columns"
        raise DataError(f"duplicate column name(s) {repeated!r}", where=path, remedy=remedy)
    if not isinstance(frame.index, pd.RangeIndex):
        remedy = "Quote cells that contain commas, or remove trailing commas"
        raise StoreError("rows have more cells than the header", where=path, remedy=remedy)
    separators = [mark for mark in (";", "\t") if mark in str(header.iloc[0])]
    if len(header) == 1 and separators:
        remedy = "Save the table with commas"
        raise StoreError(f"cells are separated by {separators[0]!r}", where=path, remedy=remedy)


def _plain(series: pd.Series) -> pd.Series:
    """Return the numpy dtype where it can hold the column as it is, else the nullable one."""
    if series.hasnans and series.dtype.kind in "biu":
        return series
    return series.astype(pd.api.types.pandas_dtype(PLAIN[series.dtype.kind]))
