"""Public tables: read as they were published, or refused with what to do; and the page that lists them."""

import gzip
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pandas as pd
import pytest

from pyrolatent.datasets import table, targets
from pyrolatent.datasets.catalogue import TABLES
from pyrolatent.datasets.record import TableRecord
from pyrolatent.errors import ArgumentError, DataError, StoreError
from tests.public_data import needs

PAGE = (Path(__file__).parent.parent / "docs" / "datasets.md").read_text(encoding="utf-8")
CONTENT = b"class,width,wing\na,1,0.5\nb,2,1.25\n"
EXPECTED = pd.DataFrame({"class": ["a", "b"], "width": [1, 2], "wing": [0.5, 1.25]}).astype({"class": "str"})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the table "yacht" is looked for, after it was published as two rows and three columns."""
    monkeypatch.setenv("PYROLATENT_DATA", str(tmp_path))
    record = replace(
        TABLES["yacht"], header="class,width,wing", rows=2, sha256=sha256(CONTENT).hexdigest(), url="u://v"
    )
    monkeypatch.setitem(TABLES, "yacht", record)
    (tmp_path / "yacht").mkdir()
    return tmp_path / "yacht" / "yacht.csv"


@pytest.mark.parametrize(
    "text",
    [
        CONTENT,
        b"class,width,wing\r\na,1.0,.5\r\nb,2.00,1.250\r\n",
        b'\xef\xbb\xbfclass,width,wing\n"a",1,0.50000000000000011\nb,2.0,1.25',
    ],
    ids=["as published", "line ends and zeros", "mark, quotes and last digit"],
)
def test_content_counts_and_not_how_it_is_written(file: Path, text: bytes) -> None:
    file.write_bytes(text)
    pd.testing.assert_frame_equal(table("yacht"), EXPECTED)


def test_a_packed_table_is_read_where_there_is_no_plain_one(file: Path) -> None:
    file.with_suffix(".csv.gz").write_bytes(gzip.compress(CONTENT))
    pd.testing.assert_frame_equal(table("yacht"), EXPECTED)
    file.write_text("class,width,wing\nb,1,0.5\n")
    with pytest.raises(DataError, match=r"yacht\.csv: is not the published"):
        table("yacht")


@pytest.mark.parametrize("row", ["b,2,1.2500001", "b,3,1.25", "c,2,1.25", "b,2,", "b,2,1.25\nb,2,1.25"])
def test_a_table_with_another_content_is_refused(file: Path, row: str) -> None:
    file.write_text(f"class,width,wing\na,1,0.5\n{row}\n")
    with pytest.raises(DataError) as error:
        table("yacht")
    rows = 2 + row.count("\n")
    assert f"{file}: is not the published data set: it holds {rows} rows and 3 columns" in str(error.value)
    assert f"expected 2 rows and 3 columns with SHA-256 {sha256(CONTENT).hexdigest()}" in str(error.value)
    assert error.value.remedy == TABLES["yacht"].source("yacht")


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("class,width,span", "missing wing; not known span"),
        ("class,width", "missing wing"),
        ("class,wing,width", "their order differs"),
    ],
)
def test_other_columns_are_named(file: Path, header: str, why: str) -> None:
    file.write_text(f"{header}\n" + ",".join("1" * len(header.split(","))) + "\n")
    with pytest.raises(DataError, match=f"the columns are not the published ones: {why}"):
        table("yacht")


def test_a_truncated_archive_is_refused(file: Path) -> None:
    file.with_suffix(".csv.gz").write_bytes(gzip.compress(CONTENT)[:-12])
    with pytest.raises(StoreError, match=r"yacht\.csv\.gz: cannot be (read|unpacked)"):
        table("yacht")


def test_an_absent_file_says_what_is_looked_for_and_where_to_get_it(file: Path) -> None:
    with pytest.raises(StoreError) as error:
        table("yacht")
    assert str(error.value).startswith(f"{file} or {file}.gz: is missing. Download ")
    for part in ("from u://v", "put commas", "yacht/yacht.csv", "whose first line is class,width,wing"):
        assert part in error.value.remedy


def test_an_absent_folder_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYROLATENT_DATA", str(file.parent / "none"))
    with pytest.raises(StoreError, match=r"none: is no folder: PYROLATENT_DATA names it.*yacht/yacht\.csv"):
        table("yacht")
    monkeypatch.delenv("PYROLATENT_DATA")
    with pytest.raises(StoreError, match=r"^PYROLATENT_DATA: the environment variable is not set.*u://v"):
        table("yacht")


@pytest.mark.parametrize("function", [table, targets])
def test_an_unknown_name_lists_the_known_ones(function) -> None:
    with pytest.raises(ArgumentError, match=r"'yatch'\. Choose one of bank_marketing, .*yacht, yeast\.$"):
        function("yatch")


def test_targets_are_columns() -> None:
    assert targets("energy") == ["heating_load", "cooling_load"]
    for name, record in TABLES.items():
        assert set(targets(name)) < set(record.columns), name
        assert len(set(record.columns)) == len(record.columns), name


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(f"{name}/{name}.csv")) for name in TABLES])
def test_the_real_table_is_the_published_one(name: str) -> None:
    frame = table(name)
    assert frame.shape == (TABLES[name].rows, len(TABLES[name].columns))
    assert set(frame.dtypes.astype(str)) <= {"int64", "float64", "str"}
    assert not frame.isna().any(axis=None)


@needs("concrete/concrete.csv")
def test_whole_numbers_of_the_real_table_are_integers() -> None:
    dtypes = table("concrete").dtypes.astype(str)
    assert dtypes[dtypes == "int64"].index.tolist() == ["age_days"]


def described(name: str, record: TableRecord) -> str:
    """The row of a table on the page."""
    size = f"{record.rows} x {len(record.columns)}"
    predicted = ", ".join(f"`{target}`" for target in record.targets)
    origin = f"[{record.title}]({record.url})"
    return f"| `{name}` | {size} | {predicted} | {origin} | {record.citation} | {record.licence} |"


def test_the_page_shows_the_tables_as_they_are() -> None:
    rows = re.findall(r"^\| `\w+` \| .*\|$", PAGE, flags=re.MULTILINE)
    assert rows == [described(name, record) for name, record in TABLES.items()]


def test_the_page_tells_how_to_make_each_table() -> None:
    ways = re.findall(r"^- `(\w+)`: (.*)\.$", PAGE, flags=re.MULTILINE)
    assert ways == [(name, record.source(name)) for name, record in TABLES.items()]
