from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pyrolatent.errors import DataError, StoreError
from pyrolatent.schema import infer_schema
from pyrolatent.tables import read_frame, write_frame

DATA = Path(__file__).parent / "data"


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
