"""Public tables: each is read from a CSV file and compared with what was published.

The checksum is that of the parsed table, not of its file, so a table made anew from the original passes
whatever its line ends, its compression or the number of zeros after its decimal points.
"""

import zlib
from pathlib import Path

import pandas as pd

from pyrolatent.datasets.catalogue import TABLES
from pyrolatent.datasets.record import TableRecord
from pyrolatent.datasets.sources import Content, check_content, locate, measure
from pyrolatent.errors import ArgumentError, DataError, StoreError
from pyrolatent.tables import read_frame

DIGITS = "%.10g"  # spreadsheets and parsers of numbers differ in the last of 17 digits


def table(name: str) -> pd.DataFrame:
    """Read a public table from the folder that PYROLATENT_DATA names.

    It is looked for as NAME/NAME.csv, then as NAME/NAME.csv.gz: comma, header line, UTF-8.

    Args:
        name: One of the names in docs/datasets.md, such as "yacht".

    Returns:
        The rows (N, D) in their published order.  Whole numbers are int64, other numbers float64, text
        is text; no cell is missing.

    Raises:
        ArgumentError: No table has this name.
        StoreError: The file is absent or cannot be read; the message tells where to get it.
        DataError: The file holds another table.
    """
    record = _record(name)
    source = record.source(name)
    path = locate((f"{name}/{name}.csv", f"{name}/{name}.csv.gz"), source)
    frame = _read(path).apply(_as_integers)
    _check_columns(frame, record, path, source)
    expected = Content(_size(record.rows, len(record.columns)), record.sha256)
    check_content(path, content(frame), expected, source)
    return frame


def targets(name: str) -> list[str]:
    """Return the columns of `table(name)` that are usually predicted from the others.

    Raises:
        ArgumentError: No table has this name.
    """
    return list(_record(name).targets)


def content(frame: pd.DataFrame) -> Content:
    """Return size and checksum of a table (N, D), as the records state them."""
    text = frame.to_csv(index=False, lineterminator="\n", float_format=DIGITS)
    return measure(_size(*frame.shape), text.encode())


def _size(rows: int, columns: int) -> str:
    return f"{rows} rows and {columns} columns"


def _record(name: str) -> TableRecord:
    if name not in TABLES:
        remedy = f"Choose one of {', '.join(TABLES)}"
        raise ArgumentError("no public table has this name", why=f"got {name!r}", remedy=remedy)
    return TABLES[name]


def _read(path: Path) -> pd.DataFrame:
    try:
        return read_frame(path)
    except (EOFError, zlib.error) as error:
        remedy = "Copy or pack it again"
        raise StoreError("cannot be unpacked", where=str(path), why=str(error), remedy=remedy) from error


def _as_integers(column: pd.Series) -> pd.Series:
    """Return a column of whole numbers as integers, however they are written."""
    is_whole = column.dtype.kind == "f" and (column % 1 == 0).all()
    return column.astype("int64") if is_whole else column


def _check_columns(frame: pd.DataFrame, record: TableRecord, path: Path, source: str) -> None:
    found = [str(name) for name in frame.columns]
    if found == record.columns:
        return
    missing = [name for name in record.columns if name not in found]
    unknown = [name for name in found if name not in record.columns]
    differing = {"missing": missing, "not known": unknown}
    named = [f"{what} {', '.join(names[:5])}" for what, names in differing.items() if names]
    why = "; ".join(named) or "their order differs"
    raise DataError("the columns are not the published ones", where=str(path), why=why, remedy=source)
