"""Kinds that are declared: in Python, in a JSON file, and what of them is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pyrolatent.declared import kinds_to_json, read_kinds
from pyrolatent.errors import ArgumentError, DataError, StoreError
from pyrolatent.schema import Schema, infer_schema
from tests.test_schema import table

SURVEY = pd.DataFrame(
    {
        "id": [11, 12, 13, 15],
        "income": [1.5, 20.0, 3.25, 0.5],
        "q3": [1, 20, 3, 1],
        "site": ["b", "a", None, "b"],
        "mood": ["fair", "bad", "good", "fair"],
        "smoker": [0, 1, 1, 0],
        "answer": pd.array([1, None, 2, 1], dtype="Int64"),
        "notes": ["x", "yy", None, None],
        "nothing": [None, None, None, None],
    },
    index=pd.Index([7, 7, 8, 9]),
)


def declared(**kinds: Any) -> Schema:
    return infer_schema(SURVEY, kinds={"nothing": "skip", **kinds})


def column(name: str, kind: Any) -> Any:
    return next(c for c in declared(**{name: kind}).columns if c.name == name)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("income", "real"),
        ("income", "skip"),
        ("q3", "ordinal"),
        ("q3", "count"),
        ("q3", "positive"),
        ("q3", "categorical"),
        ("smoker", "real"),
        ("smoker", "count"),
        ("smoker", "unit"),
        ("smoker", "categorical"),
        ("answer", "real"),
        ("answer", "binary"),
        ("mood", "identifier"),
        ("notes", "categorical"),
        ("id", "count"),
        ("site", "datetime"),
    ],
)
def test_what_is_declared_is_so_and_the_rest_is_inferred(name: str, kind: str) -> None:
    found = {c.name: c for c in declared(**{name: kind}).columns}
    assert found[name].kind == kind
    others = {c.name: c for c in declared().columns}
    assert {**others, name: found[name]} == found


def test_a_declared_kind_is_learnt_as_if_it_had_been_inferred() -> None:
    """Standardised on its own scale, with labels and range of its own."""
    logs = np.log([1.0, 20.0, 3.0, 1.0])
    q3 = column("q3", "positive")
    assert (q3.location, q3.scale, q3.lower, q3.upper) == (logs.mean(), logs.std(), 1, 20)
    labels = column("q3", "categorical")
    assert (labels.categories, labels.location, labels.scale, labels.upper) == ((1, 3, 20), 0, 1, 2)
    smoker = column("smoker", "unit")  # 0 and 1 among 4 cells: widened by 1 / (2 * 3)
    assert smoker.margin == 1 / 6
    assert smoker.location == pytest.approx(0, abs=1e-15)


def test_declared_categories_are_codes_in_their_order() -> None:
    site = column("site", {"kind": "categorical", "categories": ["c", "b", "a"]})
    assert site.encode(SURVEY["site"]).tolist()[:2] == [1, 2]
    mood = {"kind": "ordinal", "categories": ["bad", "fair", "good"]}
    schema = declared(mood=mood)
    codes = np.array([1, 0, 2, 1])
    found = next(c for c in schema.columns if c.name == "mood")
    assert (found.location, found.scale) == (codes.mean(), codes.std())
    x = schema.encode(SURVEY)["x"]
    assert schema.decode(x, SURVEY.index)["mood"].tolist() == SURVEY["mood"].tolist()
    smoker = column("smoker", {"kind": "binary", "categories": [1, 0]})
    assert smoker.encode(SURVEY["smoker"]).tolist() == [1, 0, 0, 1]


def test_a_skipped_column_comes_back_untouched() -> None:
    schema = declared(income="skip")
    assert "income" not in schema.names and "nothing" not in schema.names
    rows = SURVEY.drop(columns="nothing").assign(income=np.nan)
    completed = schema.complete(rows, torch.zeros(4, len(schema.names)))
    assert completed["income"].isna().all()


@pytest.mark.parametrize("standardise", [True, False])
def test_the_kinds_of_a_schema_make_the_same_schema(standardise: bool, tmp_path: Path) -> None:
    frame = table().rename(columns={"float64": 7, "bool": "naïve β"})
    schema = infer_schema(frame, standardise)
    assert infer_schema(frame, standardise, kinds=schema.kinds) == schema
    path = tmp_path / "schema.json"
    path.write_text(kinds_to_json(schema.kinds), encoding="utf-8")
    assert infer_schema(frame, standardise, kinds=read_kinds(path)) == schema


def test_the_file_has_a_line_for_each_column(tmp_path: Path) -> None:
    text = kinds_to_json(declared().kinds)
    assert json.loads(text)["columns"]["site"] == {"kind": "binary", "categories": ["a", "b"]}
    lines = text.splitlines()
    assert (lines[0], lines[1], lines[-1]) == ("{", '  "columns": {', "}")
    assert lines[3] == '    "income": "positive",'
    assert len(lines) == len(SURVEY.columns) + 4


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_bytes(b'\xef\xbb\xbf{"columns": {"q3": "ordinal"}}')
    assert read_kinds(path) == {"q3": "ordinal"}


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (
            {"q4": "real"},
            r"a kind is declared for 'q4', which is no column: the table has 'id', 'income', 'q3'",
        ),
        ({"q3": "numeric"}, r"column 'q3': unknown kind 'numeric'. Use one of real, positive, unit, "),
        ({"q3": 3}, r'column \'q3\': a kind that cannot be read: 3. Write "KIND" or \{"kind": '),
        ({"q3": {"categories": [1, 3]}}, r"column 'q3': a kind that cannot be read: \{'categories'"),
        ({"q3": {"kind": "real", "min": 0}}, r"column 'q3': a kind that cannot be read: .*'min': 0"),
        ({"q3": {"kind": "real", "categories": [1, 3]}}, r"'q3': a column of kind 'real' has no categories"),
        (
            {"site": {"kind": "binary", "categories": [*"abc"]}},
            r"'site': categories that cannot .* List two diff",
        ),
        (
            {"site": {"kind": "categorical", "categories": ["a"]}},
            r"that cannot be used: \['a'\]. List two or more",
        ),
        ({"site": {"kind": "categorical", "categories": ["a", "a"]}}, r"that cannot be used: \['a', 'a'\]"),
        ({"site": {"kind": "categorical", "categories": ["a", None]}}, r"that cannot be used: \['a', None\]"),
        ({"site": {"kind": "categorical", "categories": "ab"}}, r"categories that cannot be used: 'ab'"),
    ],
)
def test_declarations_without_meaning(kinds: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        infer_schema(SURVEY, kinds=kinds)


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (
            [1.5, 0.0, 2.5],
            "positive",
            r"column 'a', row 8: value that is not positive: 0.0. Correct the cell, mark",
        ),
        (
            [0.5, 1.5, -0.5],
            "unit",
            r"'a', row 8: value that is not between 0 and 1: 1.5 \(and in 1 more rows\)",
        ),
        ([1.0, None, 2.5], "ordinal", r"column 'a', row 9: value that is not whole: 2.5: ordinal values are"),
        ([1, 2.5, 3], "count", r"column 'a', row 8: value that is not whole: 2.5: count values are"),
        ([1, -2, 3], "count", r"column 'a', row 8: value that is not a count: -2. Correct the cell"),
        (
            [1, 2, 3],
            "binary",
            r"column 'a': a binary column with 3 values: 1, 2, 3. Correct the cells, .* categor",
        ),
        ([*"xyz"], "binary", r"column 'a': a binary column with 3 values: 'x', 'y', 'z'"),
        ([*"xyz"], "ordinal", r"column 'a': labels whose order is not known: \['x', 'y', 'z'\]. Declare \{"),
        ([*"xyz"], "real", r"column 'a', row 7: text in a column of numbers: 'x' \(and in 2 more rows\)"),
        ([True, False, True], "real", r"column 'a': truth values declared 'real'. Declare it \"binary\""),
        ([True, None, False], "count", r"column 'a': truth values declared 'count'"),
        ([4, 4, 4], "ordinal", r"column 'a': constant column: its only value is 4"),
        ([None, None, None], "real", r"column 'a': every cell is missing"),
        (
            [*"xyx"],
            {"kind": "categorical", "categories": ["y", "z"]},
            r"column 'a', row 7: unknown category: 'x' \(and in 1 more rows\): the known ones are 'y', 'z'",
        ),
        (
            [1, 2, 3],
            {"kind": "ordinal", "categories": ["1", "2", "3"]},
            r"column 'a', row 7: unknown category: 1 .*: the known ones are '1', '2', '3'",
        ),
    ],
)
def test_declarations_that_the_values_contradict(values: Any, kind: Any, message: str) -> None:
    frame = pd.DataFrame({"a": values, "b": [0.5, 1.5, -2.0]}, index=[7, 8, 9])
    with pytest.raises(DataError, match=message):
        infer_schema(frame, kinds={"a": kind})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"columns": {\n  "a": "real",\n  "b" "real"}}', r"is not JSON: line 3, column 7: Expecting ':'"),
        (b"", r"is not JSON: line 1, column 1: Expecting value. Write \{\"columns\""),
        (b"[1, 2]", r"does not declare kinds of columns. Write \{\"columns\": \{\"NAME\": \"KIND\""),
        (b'{"a": "real"}', r"does not declare kinds of columns"),
        (b'{"columns": ["a"]}', r"does not declare kinds of columns"),
        (b'{"columns": {}, "kinds": {}}', r"does not declare kinds of columns"),
        (b'{"columns": {"a": "real", "b": "count", "a": "unit"}}', r"'a' occurs twice. Remove one of them"),
        (b"\xff\xfe{", r"cannot be read: .*codec"),
    ],
)
def test_files_that_declare_nothing(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "schema.json"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=f"schema.json: {message}"):
        read_kinds(path)


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"absent.json: cannot be read: .*No such file"):
        read_kinds(tmp_path / "absent.json")
