"""Tables on disk: CSV and Parquet files in and out, so that what was observed comes back as it was.

A file whose name ends in .parquet is Parquet and needs pyarrow; every other one is CSV.  CSV knows
neither dtypes nor an index; Parquet keeps them, and categories that are no text are written down
beside it, where other readers do not look.
"""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from pyrolatent.errors import DataError, StoreError
from pyrolatent.plain import index_from_dict, index_to_dict

FORMATS = ("csv", "parquet")
READ_ERRORS = (OSError, UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError)
ARROW_ERRORS = (OSError, ValueError, TypeError, NotImplementedError)
PLAIN = {"b": "bool", "i": "int64", "u": "uint64", "f": "float64", "O": "str"}
NULLABLE = {"i": "Int64", "u": "UInt64", "b": "boolean"}  # by the first letter of Arrow's type
CATEGORIES = b"pyrolatent categories"  # key of the file's metadata


def read_frame(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table from a CSV file (comma, header line, UTF-8) or a Parquet file.

    In CSV, what pandas takes for missing is missing: empty cells, NA, N/A, NaN, null, None and the
    like.  No column of it is taken for an index.

    Args:
        path: The file; .gz and other compressed CSV files are read as they are.

    Returns:
        The table.  Integers with holes are Int64, booleans with holes boolean, so that a completed
        table holds 3 and not 3.0.

    Raises:
        StoreError: If the file is absent, empty, or not what its name says, or pyarrow is missing.
        DataError: If a column name occurs twice.
    """
    return _read_parquet(str(path)) if is_parquet(path) else _read_csv(path)


def write_frame(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write `frame` as CSV or, where the name of the file says so, as Parquet, in full or not at all.

    Args:
        frame: The table; its index is written unless it is a RangeIndex.
        path: The file, replaced if it exists.

    Raises:
        StoreError: If the file cannot be written, Parquet has no form for a column, or pyarrow is
            missing.
    """
    target = Path(path)
    aside = target.with_name(f".part-{target.name}")
    try:
        if is_parquet(target):
            _write_parquet(frame, aside)
        else:
            frame.to_csv(aside, index=not isinstance(frame.index, pd.RangeIndex), lineterminator="\n")
        os.replace(aside, target)
    except ARROW_ERRORS as error:
        aside.unlink(missing_ok=True)
        if isinstance(error, StoreError):
            raise
        raise StoreError("cannot be written", where=str(target), why=_first_line(error)) from error


def is_parquet(path: str | os.PathLike[str]) -> bool:
    """True for the name of a Parquet file."""
    return Path(path).suffix.lower() == ".parquet"


def check_format(path: str | os.PathLike[str]) -> None:
    """Refuse a Parquet file where pyarrow is missing.

    Raises:
        StoreError: It is.
    """
    if is_parquet(path) and importlib.util.find_spec("pyarrow") is None:
        remedy = 'pip install "pyrolatent[parquet]", or use CSV'
        raise StoreError("Parquet needs pyarrow, which is not installed", where=str(path), remedy=remedy)


def _read_csv(path: str | os.PathLike[str]) -> pd.DataFrame:
    header = _read_text(path, header=None, nrows=1, dtype="str").iloc[0]
    _check_separator(header, str(path))
    frame = _read_text(path, dtype_backend="numpy_nullable", low_memory=False)
    _check(frame, header, str(path))
    return frame.apply(_plain) if len(frame.columns) else frame


def _read_text(path: str | os.PathLike[str], **settings: Any) -> pd.DataFrame:
    try:
        return pd.read_csv(path, encoding="utf-8-sig", **settings)
    except READ_ERRORS as error:
        raise StoreError("cannot be read as CSV", where=str(path), why=str(error)) from error


def _read_parquet(path: str) -> pd.DataFrame:
    check_format(path)
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_repeated(file.schema_arrow.names, path)
            table = file.read()
        frame = table.to_pandas(integer_object_nulls=True)
    except DataError:
        raise
    except ARROW_ERRORS as error:
        raise StoreError("cannot be read as Parquet", where=path, why=_first_line(error)) from error
    types = {field.name: str(field.type) for field in table.schema}
    for name, series in frame.items():
        arrow = types.get(str(name), "")
        if series.dtype == object and arrow.startswith(("int", "uint", "bool")):
            frame[name] = series.astype(pd.api.types.pandas_dtype(NULLABLE[arrow[0]]))
    return _with_categories(frame, (table.schema.metadata or {}).get(CATEGORIES))


def _write_parquet(frame: pd.DataFrame, path: Path) -> None:
    check_format(path)
    import pyarrow.parquet

    table = pyarrow.Table.from_pandas(frame)
    categories = json.dumps(_categories(frame)).encode()
    metadata = {**(table.schema.metadata or {}), CATEGORIES: categories}
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path)


def _categories(frame: pd.DataFrame) -> list[Any]:
    """Return position, labels and order of each categorical column."""
    dtypes = [(k, dtype) for k, dtype in enumerate(frame.dtypes) if isinstance(dtype, pd.CategoricalDtype)]
    return [[k, index_to_dict(dtype.categories, "categories"), dtype.ordered] for k, dtype in dtypes]


def _with_categories(frame: pd.DataFrame, text: bytes | None) -> pd.DataFrame:
    """Return the table with the categorical dtypes that `_categories` wrote down."""
    dtypes = {
        frame.columns[k]: pd.CategoricalDtype(index_from_dict(labels), ordered)
        for k, labels, ordered in json.loads(text or b"[]")
    }
    return frame.astype(dtypes) if dtypes else frame


def _check_separator(header: pd.Series, path: str) -> None:
    separators = [mark for mark in (";", "\t") if mark in str(header.iloc[0])]
    if len(header) == 1 and separators:
        remedy = "Save the table with commas between cells, and points in numbers"
        raise StoreError(f"cells are separated by {separators[0]!r}", where=path, remedy=remedy)


def _check(frame: pd.DataFrame, header: pd.Series, path: str) -> None:
    _check_repeated(header[header.notna()].tolist(), path)
    if not isinstance(frame.index, pd.RangeIndex):
        remedy = "Quote cells that contain commas, or remove trailing commas"
        raise StoreError("rows have more cells than the header", where=path, remedy=remedy)


def _check_repeated(names: list[str], path: str) -> None:
    index = pd.Index(names)
    repeated = index[index.duplicated()].unique().tolist()
    if repeated:
        remedy = "Rename or drop the repeated columns"
        raise DataError(f"duplicate column name(s) {repeated!r}", where=path, remedy=remedy)


def _plain(series: pd.Series) -> pd.Series:
    """Return the numpy dtype where it can hold the column as it is, else the nullable one."""
    if series.hasnans and series.dtype.kind in "biu":
        return series
    return series.astype(pd.api.types.pandas_dtype(PLAIN[series.dtype.kind]))


def _first_line(error: Exception) -> str:
    """Return the part of an error's message that fits a line."""
    texts = [text for text in error.args if isinstance(text, str)]
    text = ": ".join(texts) if texts and len(texts) == len(error.args) else str(error)
    return text.split("\n")[0] or type(error).__name__
