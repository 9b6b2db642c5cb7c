"""Schema: how a table becomes numbers a model can use, and how numbers become the table again.

A model sees `x` (N, D), 0 where a cell is missing, and `mask` (N, D), False there.  The user sees
a DataFrame with the same index, columns and dtypes.  The schema stands between the two.  It is
learnt once, from the observed cells of the training table, and applied to new rows as it is.

Every column has a kind, guessed from its dtype and its observed cells by the first rule that fits:

- "datetime": datetime, duration and period dtypes, date objects, and text that is all ISO dates.
- "binary": two distinct values, of whatever type.
- "identifier": whole numbers without holes that grow from each row to the next and fill at least
  half of their range (row numbers, with or without gaps); integers of 2^53 and more, which double
  precision cannot tell apart; or labels of which more than 90 % are distinct.
- "ordinal": whole numbers, at most 10 distinct ones, at most 10 apart.
- "count": other whole numbers, none negative.
- "categorical": text, and the pandas dtype `category` (all its declared categories count), which is
  "ordinal" where the dtype is ordered.
- "unit": numbers from 0 to 1, more than 10 distinct ones, that come closer than 0.1 to both ends, as
  proportions do and a scale that merely stays below 1 does not.  A column with one 0 and one 1 has
  been rescaled to reach them and is none.  Models see the log-odds (`links`).
- "positive": numbers above 0 whose logs are closer to symmetric than they are (smaller absolute
  skewness).  Models see the logs.
- "real": all other numbers.

Integers with holes that pandas keeps as floats count as whole numbers.  Text that is mostly
numbers is taken for a mistake and refused.  Datetimes and identifiers never enter a model and come
back untouched.  A guess is overruled by declaring the kind (`declared`).

Modelled columns are standardised: `location` and `scale` are the mean and the standard deviation
of the observed cells, of their logs for positive ones and of their log-odds for those of the unit
interval.  Binary and categorical columns enter as codes 0, 1, ... and keep location 0 and scale 1; the
codes of ordinal labels are standardised like numbers.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrolatent.column import Column
from pyrolatent.declared import Declared, Kinds, parse_kinds
from pyrolatent.errors import ArgumentError, DataError
from pyrolatent.kinds import infer_column


@dataclass(frozen=True)
class Schema:
    """The columns of a table, in order, those that pass through included.

    Args:
        columns: All of them.
        named: The names of those that a function takes as arguments of their own (`frames`).
    """

    columns: tuple[Column, ...]
    named: tuple[str, ...] = ()

    @property
    def modelled(self) -> tuple[Column, ...]:
        """The D columns that enter `x`, in order."""
        return tuple(column for column in self.columns if column.modelled and column.name not in self.named)

    @property
    def arguments(self) -> tuple[Column, ...]:
        """The columns that a function takes by name, as it sees them: in the table's units."""
        return tuple(column.plain() for column in self.columns if column.name in self.named)

    @property
    def used(self) -> tuple[Column, ...]:
        """All columns that a model sees: those of `x`, then those taken by name."""
        return self.modelled + self.arguments

    @property
    def names(self) -> tuple[str | int, ...]:
        """The names of the D modelled columns, in order."""
        return tuple(column.name for column in self.modelled)

    @property
    def location_vector(self) -> Tensor:
        """The locations of the modelled columns (D,), float64."""
        return torch.tensor([column.location for column in self.modelled], dtype=torch.float64)

    @property
    def scale_vector(self) -> Tensor:
        """The scales of the modelled columns (D,), float64."""
        return torch.tensor([column.scale for column in self.modelled], dtype=torch.float64)

    @property
    def kinds(self) -> Kinds:
        """The kind of every column, with the categories of labels, as `infer_schema` takes them."""
        return {
            c.name: {"kind": c.kind, "categories": list(c.categories)} if c.categories else c.kind
            for c in self.columns
        }

    def encode(self, frame: pd.DataFrame) -> dict[str, Tensor]:
        """Turn rows, the training rows or new ones, into numbers.

        Args:
            frame: N rows with at least the modelled columns, in any order; others are ignored.

        Returns:
            "x": the encoded cells (N, D), float64, 0 where missing; "mask": (N, D), bool, True
            where observed.

        Raises:
            DataError: If a modelled column is absent, or a cell is infinite, text where numbers
                are expected, not positive in a positive column, outside the unit interval, or of an
                unknown category.
        """
        check_columns(frame, self.names)
        cells = [column.encode(frame[column.name]) for column in self.modelled]
        x = torch.from_numpy(np.column_stack(cells))
        mask = ~x.isnan()
        return {"x": torch.where(mask, x, 0.0), "mask": mask}

    def decode(self, x: Tensor, index: pd.Index) -> pd.DataFrame:
        """Turn encoded cells into a table in the user's units.

        Args:
            x: Encoded cells (N, D), all finite.
            index: The N row labels of the result.

        Returns:
            The modelled columns in their dtypes.  Counts, ordinals and columns of an integer dtype
            are rounded and kept within the observed range; codes become labels.

        Raises:
            ArgumentError: If `x` has another shape or holds a value that is not finite.
        """
        values = self._values(x, len(index))
        columns = {c.name: c.decode(values[:, d], index) for d, c in enumerate(self.modelled)}
        return pd.DataFrame(columns, index=index)

    def complete(self, frame: pd.DataFrame, x: Tensor) -> pd.DataFrame:
        """Fill the missing cells of `frame` from `x` and change nothing else.

        Args:
            frame: N rows with at least the modelled columns.
            x: Encoded cells (N, D), finite; only those missing in `frame` are used.

        Returns:
            A copy of `frame` with its index, columns, dtypes and observed cells as they are and
            no missing cell in the modelled columns.  A column of new rows whose dtype cannot hold
            a completed value (2.5 in Int64, say) takes the dtype it had in training.

        Raises:
            DataError: If a modelled column is absent.
            ArgumentError: If `x` has another shape or holds a value that is not finite.
        """
        check_columns(frame, self.names)
        values = self._values(x, len(frame))
        completed = frame.copy()
        for d, column in enumerate(self.modelled):
            holes = frame[column.name].isna().to_numpy()
            if holes.any():
                filling = column.decode(values[holes, d], frame.index[holes])
                completed[column.name] = _fill(frame[column.name], holes, filling)
        return completed

    def in_units(self, x: Tensor) -> Tensor:
        """Return encoded cells `x` (..., D) in the table's units, not rounded; labels stay codes."""
        return torch.stack([column.in_units(x[..., d]) for d, column in enumerate(self.modelled)], -1)

    def log_jacobian(self, x: Tensor) -> Tensor:
        """Return log |d encoded / d value| of each cell, at encoded cells `x` (..., D), as (..., D).

        A density of encoded cells becomes one in the user's units by the change of variables
        log p(value) = log p(encoded) + log_jacobian: -log(scale), and for a positive column
        -log(value) more, for one of the unit interval -log(value) - log(1 - value).
        """
        return torch.stack([column.log_jacobian(x[..., d]) for d, column in enumerate(self.modelled)], -1)

    def unscaled(self) -> "Schema":
        """Return this schema with location 0 and scale 1 in every column."""
        plain = tuple(replace(column, location=0.0, scale=1.0) for column in self.columns)
        return replace(self, columns=plain)

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as lists, text and numbers that JSON keeps exactly."""
        columns = [asdict(c) | {"categories": list(c.categories)} for c in self.columns]
        return {"columns": columns, "named": list(self.named)}

    @staticmethod
    def from_dict(state: dict[str, Any]) -> "Schema":
        """Return the schema that `to_dict` described."""
        items = [item | {"categories": tuple(item["categories"])} for item in state["columns"]]
        return Schema(tuple(Column(**item) for item in items), tuple(state.get("named", ())))

    def _values(self, x: Tensor, num_rows: int) -> NDArray[np.float64]:
        expected = (num_rows, len(self.names))
        if tuple(x.shape) != expected:
            raise ArgumentError("x has the wrong shape", why=f"got {tuple(x.shape)}, expected {expected}")
        if not x.isfinite().all():
            row, d = (~x.isfinite()).nonzero()[0].tolist()
            raise ArgumentError("x is not finite", where=f"row number {row}, column {self.names[d]!r}")
        return x.detach().to("cpu", torch.float64).numpy()


def infer_schema(frame: pd.DataFrame, standardise: bool = True, kinds: Kinds | None = None) -> Schema:
    """Learn the schema of `frame` from its observed cells.

    Args:
        frame: The training table.  Rows with nothing observed are allowed.
        standardise: Whether models see standardised columns.  If False, every `location` is 0 and
            every `scale` 1 (positive columns are still seen as logs).
        kinds: The kinds of columns where what is inferred would be wrong, such as `{"q3": "ordinal",
            "notes": "skip", "site": {"kind": "categorical", "categories": ["Oslo", "Bergen"]}}`.

    Returns:
        The schema, one `Column` per column of `frame`, in its order.

    Raises:
        DataError: If the table has fewer than two rows, no columns, a duplicate column name, no
            column that can be modelled, or a column that is all missing, constant, infinite
            somewhere, a mixture of text and numbers, or not of the kind that was declared.
        ArgumentError: If `kinds` names a column or a kind that does not exist.
    """
    check_names(frame)
    if len(frame) < 2:
        raise DataError(
            "the table has no rows" if frame.empty else "the table has a single row",
            why="at least two are needed to learn how the values of a column vary",
        )
    declared = parse_kinds(kinds or {}, frame.columns.tolist())
    schema = Schema(_infer_columns(frame, standardise, declared))
    if not schema.modelled:
        taken = ", ".join(f"{column.name!r} is taken for {column.kind}" for column in schema.columns[:12])
        raise DataError("the table has no column that can be modelled", why=taken)
    return schema


def _infer_columns(
    frame: pd.DataFrame, standardise: bool, declared: Mapping[Hashable, Declared]
) -> tuple[Column, ...]:
    """Infer every column, so that one error names all columns that need attention."""
    columns: list[Column] = []
    refused: dict[Hashable, DataError] = {}
    for name, series in frame.items():
        try:
            columns.append(infer_column(series, standardise=standardise, declared=declared.get(name)))
        except DataError as error:
            refused[name] = error
    if not refused:
        return tuple(columns)
    first, others = next(iter(refused.values())), list(refused)[1:]
    if not others:
        raise first
    remedy = f"{first.remedy}; refused as well: {listing(others)}"
    raise DataError(first.what, where=first.where, why=first.why, remedy=remedy) from first


def listing(names: Sequence[Hashable], limit: int = 12) -> str:
    """Return the first `limit` names and how many more there are, for a message."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return "[" + ", ".join(repr(name) for name in names[:limit]) + "]" + more


def check_columns(frame: pd.DataFrame, names: Sequence[Hashable]) -> None:
    """Refuse a table without one of these columns, or with one of them twice."""
    check_names(frame)
    missing = [name for name in names if name not in frame.columns]
    if missing:
        have, need = listing(frame.columns.tolist()), listing(names)
        raise DataError(
            f"the table lacks column(s) {listing(missing)}",
            why=f"it has {have}; the schema was learnt on {need}",
            remedy="Rename the columns or add them (all missing is allowed)",
        )


def check_names(frame: pd.DataFrame) -> None:
    """Refuse a table without columns, or with two of one name."""
    if not len(frame.columns):
        raise DataError("the table has no columns")
    repeated = frame.columns[frame.columns.duplicated()].unique().tolist()
    if repeated:
        raise DataError(
            f"duplicate column name(s) {listing(repeated)}", remedy="Rename or drop the repeated columns"
        )


def _fill(series: pd.Series, holes: NDArray[np.bool_], filling: pd.Series) -> pd.Series:
    """Put `filling` into the holes, in the training dtype where that of `series` cannot hold it."""
    try:
        cells = series.array.copy()
        cells[holes] = filling.to_numpy()
    except (TypeError, ValueError):
        return filling if holes.all() else _fill(series.astype(filling.dtype), holes, filling)
    return pd.Series(cells, series.index, series.dtype, series.name)
