import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pyrolatent.errors import DataError, StoreError
from pyrolatent.schema import infer_schema
from pyrolatent.tables import check_format, read_frame, write_frame
from tests.test_schema import table

DATA = Path(__file__).parent / "data"
needs_pyarrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="Parquet needs pyarrow, which is not installed"
)


def test_a_byte_order_mark_is_not_part_of_the_first_name() -> None:
    frame = read_frame(DATA / "bom.csv")
    assert frame.columns.tolist() == ["height", "weight"]
    assert infer_schema(frame).names == ("height", "weight")


def test_spellings_of_missing_and_their_dtypes() -> None:
    frame = read_frame(DATA / "na_strings.csv")
    assert frame.isna().sum().to_dict() == {"temperature": 5, "visits": 4, "group": 2}
    assert [str(dtype) for dtype in frame.dtypes] == ["float64", "Int64", "str"]
    assert [c.kind for c in infer_schema(frame).columns] == ["real", "count", "categorical"]


def test_integers_with_holes_stay_integers_in_the_completed_file(tmp_path: Path) -> None:
    frame = read_frame(DATA / "integer_holes.csv")
    assert [str(d) for d in frame.dtypes] == ["int64", "Int64", "Int64", "Int64", "float64", "boolean"]
    assert frame["visits"].iloc[4] == 9007199254740
    schema = infer_schema(frame)
    completed = schema.complete(frame, torch.zeros(6, 5))
    write_frame(completed, tmp_path / "completed.csv")
    text = (tmp_path / "completed.csv").read_text()
    assert text.splitlines()[4] == "4,17,1,14,3.5,True"  # debts: mean of -20, 35, 12, -7, 48 is 13.6
    assert text.splitlines()[2].startswith("2,")


def test_odd_names_survive_reading_encoding_and_writing(tmp_path: Path) -> None:
    names = ["1st visit", " padded ", "naïve β", 'said "hi"', "a,b", "Größe (cm)", "温度", "x.y[0]"]
    frame = read_frame(DATA / "odd_names.csv")
    schema = infer_schema(frame)
    assert list(schema.names) == names
    write_frame(schema.complete(frame, schema.encode(frame)["x"]), tmp_path / "again.csv")
    pd.testing.assert_frame_equal(read_frame(tmp_path / "again.csv"), frame, check_exact=True)


def test_a_thousand_columns() -> None:
    frame = read_frame(DATA / "wide.csv")
    schema = infer_schema(frame)
    data = schema.encode(frame)
    assert data["x"].shape == (6, 1000)
    assert int((~data["mask"]).sum()) == int(frame.isna().to_numpy().sum()) > 0
    assert schema.complete(frame, data["x"]).notna().all(axis=None)


def test_one_row_is_read_but_teaches_nothing() -> None:
    frame = read_frame(DATA / "one_row.csv")
    assert frame.to_dict("records") == [{"a": 1.5, "b": 2, "c": "x"}]
    with pytest.raises(DataError, match=r"single row: at least two are needed"):
        infer_schema(frame)


def test_an_unknown_spelling_of_missing_is_refused_with_row_and_value(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a\n1.5\n2.5\n?\n3.5\n")
    with pytest.raises(DataError, match=r"column 'a', row 2: text in a column of numbers: '\?'"):
        infer_schema(read_frame(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as CSV: No columns"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\xff\xfe", "cannot be read as CSV: .*codec"),
        (b"a,b\n1,2\n3,4,5\n", "cannot be read as CSV: .*Expected 2 fields in line 3, saw 3"),
        (b"a,b\n1,2,3\n4,5,6\n", "rows have more cells than the header"),
        (b"a;b\n1;2\n", "cells are separated by ';'. Save the table with commas"),
        (b"a;b\n1,5;2\n", "cells are separated by ';'. .* points in numbers"),
        (b"a;b\n1;2\n1,5;2,5\n", "cells are separated by ';'. .* points in numbers"),
    ],
)
def test_files_that_are_not_csv(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=f"table.csv: {message}"):
        read_frame(path)


def test_absent_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"absent.csv: cannot be read as CSV: .*No such file"):
        read_frame(tmp_path / "absent.csv")
    with pytest.raises(StoreError, match=r"cannot be read as CSV: .*directory"):
        read_frame(tmp_path)


def test_a_name_that_occurs_twice_is_not_renamed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b,a\n1,2,3\n")
    with pytest.raises(DataError, match=r"duplicate column name\(s\) \['a'\]. Rename"):
        read_frame(path)


def test_a_header_without_rows_is_a_table_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n")
    with pytest.raises(DataError, match="the table has no rows"):
        infer_schema(read_frame(path))


def test_doubles_come_back_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=2000) * 10.0 ** rng.integers(-300, 300, 2000)
    frame = pd.DataFrame({"a": values, "b": np.where(rng.random(2000) < 0.5, np.nan, values)})
    write_frame(frame, tmp_path / "a.csv")
    pd.testing.assert_frame_equal(read_frame(tmp_path / "a.csv"), frame, check_exact=True)


def test_an_index_is_written_unless_it_counts_rows(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    write_frame(frame, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == b"a\n1\n2\n"
    write_frame(frame.set_index(pd.Index(["u", "v"], name="id")), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == b"id,a\nu,1\nv,2\n"


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "a.csv"
    target.mkdir()  # os.replace cannot put a file in the place of a folder
    with pytest.raises(StoreError, match=r"a.csv: cannot be written"):
        write_frame(pd.DataFrame({"a": [1]}), target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    with pytest.raises(StoreError, match=r"cannot be written"):
        write_frame(pd.DataFrame({"a": [1]}), tmp_path / "absent" / "a.csv")


# Parquet


def ugly() -> pd.DataFrame:
    """The dtypes of `table`, categories that are no text or not observed, times, and odd names."""
    frame = table().reset_index(drop=True)
    count = len(frame)
    frame["numbers as labels"] = pd.Categorical([3, 1] * (count // 2), categories=[3, 2, 1])
    frame["truth as labels"] = pd.Categorical([True, None] * (count // 2), categories=[False, True])
    frame["halves"] = pd.Categorical([0.5] * count, categories=[1.5, 0.5], ordered=True)
    frame["float32 holes"] = pd.Series([1.5, None] * (count // 2), dtype="float32")
    frame["uint8"] = np.arange(count, dtype="uint8")
    frame["zoned"] = pd.date_range("2024-01-01", periods=count, tz="Europe/Oslo")
    frame['naïve β, "x"'] = 1
    return frame.drop(columns=["object ints", "object bools", "object text"])


@needs_pyarrow
@pytest.mark.parametrize(
    "index",
    [
        pd.RangeIndex(40),
        pd.RangeIndex(5, 45),
        pd.Index([7, 7, 8, 9] * 10, name="household"),
        pd.Index([*"uvwx"] * 10),
        pd.MultiIndex.from_product([["a", "b"], range(20)], names=["arm", "day"]),
    ],
    ids=["rows", "from 5", "repeated", "text", "two levels"],
)
def test_parquet_keeps_dtypes_index_and_categories(tmp_path: Path, index: pd.Index) -> None:
    frame = ugly().set_axis(index)
    write_frame(frame, tmp_path / "a.parquet")
    again = read_frame(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(again, frame, check_exact=True)
    assert again.dtypes.to_dict() == frame.dtypes.to_dict()
    varied = [name for name in frame if frame[name].nunique() > 1]
    assert infer_schema(again[varied]) == infer_schema(frame[varied])


@needs_pyarrow
def test_columns_of_objects_come_back_as_what_they_hold(tmp_path: Path) -> None:
    columns = {"i": [1, None, 2**60 + 1], "b": [True, None, False], "t": ["x", None, "y"]}
    frame = pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in columns.items()})
    write_frame(frame, tmp_path / "a.PARQUET")
    again = read_frame(tmp_path / "a.PARQUET")
    assert [str(dtype) for dtype in again.dtypes[:2]] == ["Int64", "boolean"]
    assert again["i"].iloc[2] == 2**60 + 1
    assert [c.kind for c in infer_schema(again.assign(z=[0.5, 1.5, -2.5])).columns][1] == "binary"


@needs_pyarrow
def test_parquet_of_others_has_integers_with_holes_too(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {
        "a": pyarrow.array([1, None, 2**53 + 1]),
        "u": pyarrow.array([1, None, 2**64 - 1], pyarrow.uint64()),
        "b": pyarrow.array([True, None, False]),
        "s": pyarrow.array(["x", None, "y"]),
        "l": pyarrow.array(["x", None, "y"]).dictionary_encode(),
        "i": pyarrow.array([1, 2, 3], pyarrow.int32()),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    frame = read_frame(tmp_path / "a.parquet")
    dtypes = ["Int64", "UInt64", "boolean", "str", "category", "int32"]
    assert [str(dtype) for dtype in frame.dtypes] == dtypes
    assert frame["a"].tolist()[::2] == [1, 2**53 + 1] and frame["u"].iloc[2] == 2**64 - 1


@needs_pyarrow
def test_other_readers_find_plain_parquet(tmp_path: Path) -> None:
    frame = ugly()
    write_frame(frame, tmp_path / "a.parquet")
    plain = pd.read_parquet(tmp_path / "a.parquet")
    pd.testing.assert_series_equal(plain["Int64"], frame["Int64"])
    assert plain["numbers as labels"].tolist() == frame["numbers as labels"].tolist()


@needs_pyarrow
@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"PAR1PAR1"])
def test_files_that_are_not_parquet(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "table.parquet"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"table.parquet: cannot be read as Parquet: "):
        read_frame(path)
    with pytest.raises(StoreError, match=r"absent.parquet: cannot be read as Parquet: "):
        read_frame(tmp_path / "absent.parquet")


@needs_pyarrow
def test_a_name_that_occurs_twice_in_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = [pyarrow.array([1, 2]), pyarrow.array([3, 4])]
    pyarrow.parquet.write_table(pyarrow.table(columns, names=["a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a.parquet: duplicate column name\(s\) \['a'\]. Rename"):
        read_frame(tmp_path / "a.parquet")


@needs_pyarrow
def test_what_parquet_cannot_hold_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_frame(pd.DataFrame({"a": [1, 2]}), path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"a.parquet: cannot be written: .*column a with type object"):
        write_frame(pd.DataFrame({"a": [1, "x"]}), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    frame, path = pd.DataFrame({"a": [1, 2]}), tmp_path / "a.parquet"
    message = r'a.parquet: Parquet needs pyarrow, which is not installed. pip install "pyrolatent\[parquet'
    for use in (lambda: read_frame(path), lambda: write_frame(frame, path), lambda: check_format(path)):
        with pytest.raises(StoreError, match=message):
            use()
    assert not list(tmp_path.iterdir())
    check_format(tmp_path / "a.csv")
