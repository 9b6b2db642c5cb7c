import datetime as dt
import json

import numpy as np
import pandas as pd
import pytest

from pyrolatent.errors import StoreError
from pyrolatent.plain import frame_from_dict, frame_to_dict, from_plain, to_plain
from tests.test_schema import table


def there_and_back(frame: pd.DataFrame) -> pd.DataFrame:
    return frame_from_dict(json.loads(json.dumps(frame_to_dict(frame))))


def same(found: pd.DataFrame, frame: pd.DataFrame) -> None:
    """Equal to the last bit, types of single cells and of the labels included."""
    pd.testing.assert_frame_equal(found, frame, check_exact=True)
    assert type(found.index) is type(frame.index)
    for position in range(frame.shape[1]):
        cells = zip(found.iloc[:, position].tolist(), frame.iloc[:, position].tolist(), strict=True)
        assert all(type(a) is type(b) and repr(a) == repr(b) for a, b in cells)


def rare_dtypes() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "zone": pd.date_range("2024-03-30", periods=4, tz="Europe/Amsterdam"),
            "offset": pd.to_datetime(["2024-01-01T00:00+02:00", None, None, "2024-01-02T00:00+02:00"]),
            "seconds": pd.date_range("2024-01-01", periods=4, unit="s"),
            "duration": pd.to_timedelta([1, None, 2, 3], unit="h"),
            "months": pd.PeriodIndex(["2024-01", None, "2024-02", "2023-12"], freq="M"),
            "beyond double": pd.Series([2**60 + 1, None, 5, 2**62], dtype="Int64"),
            "unsigned": np.array([2**64 - 1, 0, 1, 2], dtype="uint64"),
            "extremes": [5e-324, -0.0, np.nan, 1.7976931348623157e308],
            "infinite": [np.inf, -np.inf, 0.1, 0.2],
            "half": np.array([0.1, 0.2, 0.3, 0.4], dtype="float16"),
            "days": pd.Series([dt.date(2024, 1, 31), None, pd.NaT, dt.date(1999, 12, 31)], dtype="object"),
            "anything": pd.Series([1, "1", True, pd.NA], dtype="object"),
            "no text": pd.Series(["", "NA", None, np.nan], dtype="object"),
            "month labels": pd.Categorical(pd.to_datetime(["2024-01-01", None, "2024-02-01", "2024-01-01"])),
            7: [1, 2, 3, 4],
        }
    )


INDEXES = {
    "range": pd.RangeIndex(3, 15, 3, name="r"),
    "spaced dates": pd.date_range("2024-01-01", periods=4, freq="W-SUN", tz="UTC"),
    "durations": pd.timedelta_range("1D", periods=4),
    "periods": pd.period_range("2024", periods=4, freq="Q"),
    "floats": pd.Index([1.5, 2.0, 3.0, np.nan]),
    "categories": pd.CategoricalIndex(list("abca"), name="c"),
    "mixture": pd.Index([1, "a", None, 2.5]),
    "levels": pd.MultiIndex.from_arrays([["a", "a", None, "b"], [1, 2, 3, 3]], names=["k", None]),
    "named by a tuple": pd.Index([4, 3, 2, 1], name=("a", 1)),
}


@pytest.mark.parametrize("rows", [40, 0])
def test_every_dtype_of_a_schema_comes_back(rows: int) -> None:
    same(there_and_back(table().iloc[:rows]), table().iloc[:rows])


@pytest.mark.parametrize("rows", [4, 0])
def test_rare_dtypes_come_back(rows: int) -> None:
    same(there_and_back(rare_dtypes().iloc[:rows]), rare_dtypes().iloc[:rows])


@pytest.mark.parametrize("kind", INDEXES)
def test_every_index_comes_back(kind: str) -> None:
    frame = pd.DataFrame({"a": [0.5, 1.5, 2.5, 3.5]}, index=INDEXES[kind])
    same(there_and_back(frame), frame)


def test_column_labels_come_back() -> None:
    frame = pd.DataFrame(np.eye(3))
    frame.columns.name = "variable"
    same(there_and_back(frame), frame)
    assert isinstance(there_and_back(frame).columns, pd.RangeIndex)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (pd.Series([1j, 2]), "column 'a': cannot be saved: its dtype is complex128.*include_data=False"),
        (pd.Series(pd.interval_range(0, 2)), "column 'a': .*interval"),
        (pd.Series([{1}, 2]), "column 'a': cannot be saved: .* is of type set"),
    ],
)
def test_what_has_no_plain_form_is_refused(cells: pd.Series, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        frame_to_dict(pd.DataFrame({"a": cells}))


def test_constants_come_back() -> None:
    value = {"a": (1, 2.5, None), 3: [True, {"x": ()}], "missing": dt.date(2024, 1, 1), "tuple": np.int64(4)}
    assert from_plain(json.loads(json.dumps(to_plain(value, "constant")))) == value
