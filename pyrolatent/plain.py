"""Values and tables as plain JSON and back, exactly: cells, dtypes, index and names.

CSV tells neither text from numbers nor an empty text from a missing cell, so a saved table is kept
as JSON, column by column.  Numbers, text and booleans are themselves (Python writes every double so
that it reads back as the same one), dates and times are integers in the unit of their dtype,
categories are codes with the labels beside them, and what JSON lacks is spelled as an object with
one entry: `{"missing": "NA"}`, `{"date": "2024-01-31"}`, `{"tuple": [1, 2]}`.
"""

import textwrap
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd

from pyrolatent.errors import StoreError

State = dict[str, Any]
MISSING = {"NA": pd.NA, "NaT": pd.NaT}
LETTERS = "biuf"  # numpy's kinds of numbers and booleans
TIMES = "mM"  # and of times


def frame_to_dict(frame: pd.DataFrame) -> State:
    """Return `frame` as lists, dictionaries, text and numbers that JSON keeps exactly.

    Raises:
        StoreError: If a dtype or a cell has no such form, with its column.
    """
    columns = [
        values_to_dict(frame.iloc[:, position], f"column {name!r}")
        for position, name in enumerate(frame.columns)
    ]
    names = index_to_dict(frame.columns, "column names")
    return {"columns": columns, "names": names, "index": index_to_dict(frame.index, "index")}


def frame_from_dict(state: State) -> pd.DataFrame:
    """Return the table that `frame_to_dict` described."""
    index = index_from_dict(state["index"])
    arrays = [array_from_dict(column) for column in state["columns"]]
    columns = {position: pd.Series(array, index, array.dtype) for position, array in enumerate(arrays)}
    frame = pd.DataFrame(columns, index=index)
    frame.columns = index_from_dict(state["names"])
    return frame


def index_to_dict(index: pd.Index, where: str) -> State:
    """Return row labels or column names, of one level or of several."""
    if isinstance(index, pd.MultiIndex):
        levels = [index_to_dict(index.get_level_values(level), where) for level in range(index.nlevels)]
        return {"levels": levels}
    name = to_plain(index.name, f"name of {where}")
    if isinstance(index, pd.RangeIndex):
        return {"range": [index.start, index.stop, index.step], "name": name}
    frequency = index.freqstr if isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex) else None
    return {"values": values_to_dict(index, where), "name": name, "frequency": frequency}


def index_from_dict(state: State) -> pd.Index:
    """Return the index that `index_to_dict` described."""
    if "levels" in state:
        return pd.MultiIndex.from_arrays([index_from_dict(level) for level in state["levels"]])
    name = from_plain(state["name"])
    if "range" in state:
        start, stop, step = state["range"]
        return pd.RangeIndex(start, stop, step, name=name)
    array = array_from_dict(state["values"])
    index: Any = pd.Index(array, dtype=array.dtype, name=name)
    if state["frequency"] is not None:
        index.freq = state["frequency"]
    return index


def values_to_dict(values: pd.Series | pd.Index, where: str) -> State:
    """Return the cells of a column or of labels with their dtype."""
    dtype, array = values.dtype, values.array
    if isinstance(dtype, pd.CategoricalDtype):
        labels = index_to_dict(dtype.categories, where)
        codes = array.codes.tolist()
        return {"dtype": "category", "codes": codes, "labels": labels, "ordered": dtype.ordered}
    if isinstance(dtype, pd.DatetimeTZDtype | pd.PeriodDtype) or is_numpy(dtype, TIMES):
        return {"dtype": str(dtype), "ticks": array.asi8.tolist()}
    masked = isinstance(dtype, pd.api.extensions.ExtensionDtype) and dtype.na_value is pd.NA
    if masked or isinstance(dtype, pd.StringDtype) or is_numpy(dtype, LETTERS + "O"):
        return {"dtype": str(dtype), "cells": to_plain(values.tolist(), where)}
    remedy = "Convert it, with .astype(str) for example, or save with include_data=False"
    raise StoreError("cannot be saved", where=where, why=f"its dtype is {dtype}", remedy=remedy)


def array_from_dict(state: State) -> Any:
    """Return the array, numpy's or pandas', that `values_to_dict` described."""
    if "codes" in state:
        labels = index_from_dict(state["labels"])
        return pd.Categorical.from_codes(state["codes"], labels, ordered=state["ordered"])
    dtype = pd.api.types.pandas_dtype(state["dtype"])
    if "ticks" in state:
        return times_from_ticks(np.array(state["ticks"], dtype=np.int64), dtype)
    cells = from_plain(state["cells"])
    if not isinstance(dtype, np.dtype):
        return pd.array(cells, dtype=dtype)
    array = np.empty(len(cells), dtype=dtype)
    array[:] = cells
    return array


def times_from_ticks(ticks: np.ndarray[Any, np.dtype[np.int64]], dtype: Any) -> Any:
    """Return the dates, durations or periods that are so many units of their dtype."""
    if isinstance(dtype, pd.PeriodDtype):
        periods: Any = pd.PeriodIndex  # whose stubs lack from_ordinals
        return periods.from_ordinals(ticks, freq=dtype.freq).array
    if isinstance(dtype, pd.DatetimeTZDtype):
        utc = pd.DatetimeIndex(ticks.view(f"datetime64[{dtype.unit}]"), tz="UTC")
        return utc.tz_convert(dtype.tz).array
    return ticks.view(dtype)


def is_numpy(dtype: Any, kinds: str) -> bool:
    """Whether a dtype is numpy's and of one of these kinds."""
    return isinstance(dtype, np.dtype) and dtype.kind in kinds


def to_plain(value: Any, where: str) -> Any:
    """Return a cell, a label or a constant of a model as JSON holds it.

    Raises:
        StoreError: It is neither a number, text, a date, None nor a collection of them.
    """
    value = value.item() if isinstance(value, np.generic) else value
    for name, missing in MISSING.items():
        if value is missing:
            return {"missing": name}
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list():
            return [to_plain(item, where) for item in value]
        case tuple():
            return {"tuple": [to_plain(item, where) for item in value]}
        case dict():
            return {"dict": [[to_plain(key, where), to_plain(item, where)] for key, item in value.items()]}
        case date() if not isinstance(value, datetime):
            return {"date": value.isoformat()}
    why = f"{textwrap.shorten(repr(value), 60)} is of type {type(value).__name__}"
    remedy = "Turn it into numbers, text or a tensor, or save with include_data=False"
    raise StoreError("cannot be saved", where=where, why=why, remedy=remedy)


def from_plain(value: Any) -> Any:
    """Return the value that `to_plain` described."""
    match value:
        case list():
            return [from_plain(item) for item in value]
        case {"missing": name}:
            return MISSING[name]
        case {"date": text}:
            return date.fromisoformat(text)
        case {"tuple": items}:
            return tuple(from_plain(item) for item in items)
        case {"dict": items}:
            return {from_plain(key): from_plain(item) for key, item in items}
    return value
