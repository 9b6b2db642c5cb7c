"""Kinds that a user declares, where what would be inferred is wrong.

They are written as a dictionary from names of columns to kinds, or as a JSON file with such a
dictionary, which `pyrolatent schema` prints for a table and `pyrolatent fit --schema` reads.  What it
does not name is inferred:

    {
      "columns": {
        "income": "positive",
        "notes": "skip",
        "site": {"kind": "categorical", "categories": ["Oslo", "Bergen"]},
        "mood": {"kind": "ordinal", "categories": ["bad", "fair", "good"]}
      }
    }

Categories come in the order of their codes; those of a text that is ordinal must be given.  Where
they are left out, they are the distinct observed values.  "skip" carries a column along untouched.
"""

import json
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyrolatent import links
from pyrolatent.column import KINDS, Label, cell_error, out_of_range
from pyrolatent.errors import ArgumentError, DataError, StoreError

Kinds = Mapping[str | int, str | Mapping[str, Any]]

WITH_CATEGORIES = ("binary", "categorical", "ordinal")
FORM = '{"columns": {"NAME": "KIND", ...}}'


@final
@dataclass(frozen=True)
class Declared:
    """The kind of a column, and the labels that it may hold where they are given."""

    kind: str
    categories: tuple[Label, ...] = ()


def parse_kinds(kinds: Kinds, names: Sequence[Hashable]) -> dict[Hashable, Declared]:
    """Return what is declared of the columns of these names.

    Raises:
        ArgumentError: If a column or a kind is unknown, or categories have no meaning.
    """
    known = {str(name): name for name in names} | {name: name for name in names}
    unknown = [name for name in kinds if name not in known]
    if unknown:
        have = ", ".join(repr(name) for name in names[:12]) + (", ..." if len(names) > 12 else "")
        raise ArgumentError(
            f"a kind is declared for {unknown[0]!r}, which is no column",
            why=f"the table has {have}",
            remedy="Correct the name or leave it out",
        )
    return {known[name]: parse_kind(name, kind) for name, kind in kinds.items()}


def parse_kind(name: str | int, declared: str | Mapping[str, Any]) -> Declared:
    """Return what is declared of one column."""
    where = f"column {name!r}"
    entries = {"kind": declared} if isinstance(declared, str) else declared
    if not isinstance(entries, Mapping) or not {"kind"} <= set(entries) <= {"kind", "categories"}:
        remedy = 'Write "KIND" or {"kind": "KIND", "categories": [...]}'
        raise ArgumentError("a kind that cannot be read", where=where, why=f"{declared!r}", remedy=remedy)
    kind: Any = entries["kind"]
    categories: Any = entries.get("categories", [])
    if kind not in KINDS:
        remedy = f"Use one of {', '.join(KINDS)}"
        raise ArgumentError(f"unknown kind {kind!r}", where=where, remedy=remedy)
    if "categories" in entries:
        check_categories(where, kind, categories)
    return Declared(kind, tuple(categories))


def check_categories(where: str, kind: str, categories: Any) -> None:
    """Refuse categories that no column can have."""
    if kind not in WITH_CATEGORIES:
        remedy = f"Leave them out, or use one of {', '.join(WITH_CATEGORIES)}"
        raise ArgumentError(f"a column of kind {kind!r} has no categories", where=where, remedy=remedy)
    listed = isinstance(categories, Sequence) and not isinstance(categories, str)
    different = listed and all(isinstance(c, Label) for c in categories) and len(set(categories))
    if not different or different < len(categories) or different < 2 or (kind == "binary" and different > 2):
        number = "two" if kind == "binary" else "two or more"
        remedy = f"List {number} different texts, numbers or booleans"
        raise ArgumentError(
            "categories that cannot be used", where=where, why=f"{categories!r}", remedy=remedy
        )


def check_numbers_suit(series: pd.Series, values: NDArray[np.float64], kind: str) -> None:
    """Refuse numbers (N,), NaN where missing, that cannot be of this kind, with row and value."""
    remedy = "Correct the cell, mark it missing, or declare another kind"
    if pd.api.types.infer_dtype(series, skipna=True) == "boolean" and series.nunique() == 2:
        remedy = 'Declare it "binary", or make numbers of it with .astype("Int64")'
        raise DataError(f"truth values declared {kind!r}", where=f"column {series.name!r}", remedy=remedy)
    bad = links.without_image(kind, values, margin=1.0)
    if bad.any():
        raise cell_error(out_of_range(kind, margin=1.0), series, bad, remedy=remedy)
    fraction = ~np.isnan(values) & (values != np.rint(values)) & (kind in ("count", "ordinal"))
    if fraction.any():
        raise cell_error("value that is not whole", series, fraction, why=f"{kind} values are", remedy=remedy)
    if kind == "count" and (values < 0).any():
        raise cell_error("value that is not a count", series, values < 0, remedy=remedy)


def check_labels_suit(series: pd.Series, kind: str, labels: Sequence[Any]) -> None:
    """Refuse labels that cannot be of this kind."""
    where = f"column {series.name!r}"
    if not all(isinstance(label, Label) for label in labels):
        remedy, why = "Convert the column with .astype(str)", f"the first is {labels[0]!r}"
        raise DataError(
            "categories that are not text, numbers or booleans", where=where, why=why, remedy=remedy
        )
    if kind == "binary" and len(labels) != 2:
        more = f" and {len(labels) - 5} more" if len(labels) > 5 else ""
        shown = ", ".join(repr(label) for label in labels[:5]) + more
        remedy = "Correct the cells, mark them missing, or declare it categorical"
        raise DataError(f"a binary column with {len(labels)} values", where=where, why=shown, remedy=remedy)
    ordered = isinstance(series.dtype, pd.CategoricalDtype) and bool(series.dtype.ordered)
    if kind == "ordinal" and labels and not ordered:
        remedy = 'Declare {"kind": "ordinal", "categories": [...]} with the labels from low to high'
        raise DataError("labels whose order is not known", where=where, why=f"{labels[:5]}", remedy=remedy)


def read_kinds(path: str | os.PathLike[str]) -> Kinds:
    """Read the kinds that a JSON file declares, for `infer_schema(frame, kinds=...)`.

    Raises:
        StoreError: If the file is absent, is not JSON (with line), or holds something else.
    """
    where = str(path)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"), object_pairs_hook=without_repeats)
    except json.JSONDecodeError as error:
        why = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise StoreError("is not JSON", where=where, why=why, remedy=f"Write {FORM}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError("cannot be read", where=where, why=str(error)) from error
    except DataError as error:
        raise StoreError(error.what, where=where, remedy=error.remedy) from error
    columns = content.get("columns") if isinstance(content, dict) and len(content) == 1 else None
    if not isinstance(columns, dict):
        raise StoreError("does not declare kinds of columns", where=where, remedy=f"Write {FORM}")
    return columns


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, refused where a name occurs twice."""
    names = [name for name, _ in pairs]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise DataError(f"{repeated[0]!r} occurs twice", remedy="Remove one of them")
    return dict(pairs)


def kinds_to_json(kinds: Kinds) -> str:
    """Return kinds as the text of a JSON file, one column a line."""
    lines = [
        f"    {json.dumps(str(name), ensure_ascii=False)}: {json.dumps(kind, ensure_ascii=False)}"
        for name, kind in kinds.items()
    ]
    return '{\n  "columns": {\n' + ",\n".join(lines) + "\n  }\n}"
