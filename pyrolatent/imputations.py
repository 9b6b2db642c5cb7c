"""What is known of the missing cells of a table: completed tables, summaries, pooled estimates.

Draws of the missing cells are all that is kept.  Completed tables are made from them when asked for.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrolatent.column import Column, Label, numbers
from pyrolatent.errors import ArgumentError, FitWarning
from pyrolatent.pooling import Estimate, analysed, pool
from pyrolatent.result import evenly_spaced
from pyrolatent.schema import Schema, listing

Array = NDArray[np.float64]


@final
@dataclass(frozen=True)
class Imputations:
    """Draws of the missing cells of one table.

    `frames` and `pool` use as many completed tables as were asked for; `mean`, `sd`, `interval` and
    `probabilities` use all draws.  The former three have the numeric columns, all in the table's
    units; `probabilities` is for columns with levels.

    Attributes:
        frame: The table.
        schema: Those of its columns that are completed, as the draws encode them.
        cells: `(draw, missing cell)`, the cells row by row.
        num_frames: Completed tables wanted; there are no more than draws.
        one_network: Whether all draws share the weights of one trained network.
        warnings: What makes the draws weaker than they look.
    """

    frame: pd.DataFrame
    schema: Schema
    cells: Tensor
    num_frames: int
    one_network: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def frames(self) -> Iterator[pd.DataFrame]:
        """Completed tables, made one by one: observed cells, index, dtypes and other columns untouched."""
        for draw in evenly_spaced(len(self.cells), self.num_frames):
            yield self.schema.complete(self.frame, self.encoded(self.cells[draw]))

    @property
    def mean(self) -> pd.DataFrame:
        """The numeric columns, each missing cell at the mean of its draws."""
        return self.summarised(numbers, lambda draws: draws.mean(0))

    @property
    def sd(self) -> pd.DataFrame:
        """The standard deviation of each missing cell's draws, 0 for observed cells."""
        return self.summarised(lambda series: 0.0 * numbers(series), lambda draws: draws.std(0, ddof=1))

    def interval(self, probability: float = 0.9) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the lower and the upper ends of central intervals of this probability.

        Raises:
            ArgumentError: The probability is not between 0 and 1.
        """
        if not 0 < probability < 1:
            raise ArgumentError("the probability must lie between 0 and 1", why=f"got {probability}")
        tail = (1 - probability) / 2
        return (
            self.summarised(numbers, lambda draws: np.quantile(draws, tail, axis=0)),
            self.summarised(numbers, lambda draws: np.quantile(draws, 1 - tail, axis=0)),
        )

    def probabilities(self, column: str | int) -> pd.DataFrame:
        """Return how often the draws of each missing cell of a column take each of its levels.

        Args:
            column: A binary, categorical or ordinal column.

        Returns:
            A row for each missing cell, with the table's label; a column for each level.  Rows add
            up to one.

        Raises:
            ArgumentError: There is no such column, or its values are no levels.
        """
        with_levels = {c.name: levels(c) for c in self.schema.modelled if levels(c)}
        if column not in with_levels:
            raise ArgumentError(
                "no probabilities for this column",
                where=f"column {column!r}",
                why=f"the completed columns with levels are {listing(list(with_levels))}",
                remedy="mean, sd and interval describe numbers",
            )
        chosen = next(c for c in self.schema.modelled if c.name == column)
        index = pd.Index(list(with_levels[column]))
        codes = index.get_indexer(pd.Index(self.drawn(chosen))).reshape(len(self.cells), -1)
        shares = [(codes == code).mean(0) for code in range(len(index))]
        rows = self.frame.index[self.frame[column].isna()]
        return pd.DataFrame(np.stack(shares, axis=1), index=rows, columns=index.rename(column))

    def pool(self, estimate: Estimate, df_complete: float = math.inf) -> pd.DataFrame:
        """Return what an analysis says of the table, what is not known of its missing cells included.

        Args:
            estimate: The analysis of a complete table, `estimate(frame) -> (values, variances)`: two
                numbers, arrays `(k,)`, series or dictionaries, whose index or keys name the
                quantities.  Variances are squared standard errors.
            df_complete: Its degrees of freedom: N - 1 for a mean, N - p for a regression with p
                coefficients.

        Returns:
            A row for each quantity with its estimate, standard error, 95 % interval and more
            (`pyrolatent.pooling.pool`).

        Raises:
            ArgumentError: There are fewer than two completed tables, or `estimate` does not return
                finite values and variances of the same shape and names for each.
        """
        if self.one_network:
            message = (
                "Pooling from one trained network is improper: its weights are a point estimate, so the "
                "tables differ too little and intervals are too narrow. Fit with SVI(num_refits=20)."
            )
            warnings.warn(message, FitWarning, stacklevel=2)
        return pool(*analysed(self.frames, estimate), df_complete)

    @cached_property
    def holes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of each missing cell."""
        return missing_cells(self.frame, self.schema)

    def encoded(self, cells: Tensor) -> Tensor:
        """Return one draw of the missing cells at their places `(N, D)`, 0 elsewhere."""
        x = torch.zeros(len(self.frame), len(self.schema.modelled), dtype=cells.dtype)
        x[self.holes] = cells
        return x

    def drawn(self, column: Column) -> pd.Series:
        """Return the draws of a column's missing cells in the table's units, one draw after the other."""
        cells = self.of_column(column)
        return column.decode(cells, pd.RangeIndex(cells.size))

    def of_column(self, column: Column) -> Array:
        """Return the draws of a column's missing cells as the schema encodes them, draw by draw."""
        here = self.holes[1] == self.schema.names.index(column.name)
        return self.cells[:, here].numpy().reshape(-1)

    def summarised(
        self, observed: Callable[[pd.Series], Array], missing: Callable[[Array], Array]
    ) -> pd.DataFrame:
        """Return the numeric columns as `observed` makes them, with `missing` of the draws in the holes.

        Args:
            observed: A column to numbers `(N,)`.
            missing: Draws of its missing cells `(draw, cell)` to numbers `(cell,)`.
        """
        result = {}
        for column in self.schema.modelled:
            if not column.categories:
                values = observed(self.frame[column.name])
                holes = self.frame[column.name].isna().to_numpy()
                if holes.any():
                    values[holes] = missing(numbers(self.drawn(column)).reshape(len(self.cells), -1))
                result[column.name] = values
        return pd.DataFrame(result, index=self.frame.index)


def missing_cells(frame: pd.DataFrame, schema: Schema) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row and column of each missing cell of the columns of a schema, row by row."""
    rows, columns = np.nonzero(frame[list(schema.names)].isna().to_numpy())
    return rows, columns


def levels(column: Column) -> tuple[Label, ...]:
    """Return the values that a column with levels can take, in order; none for other columns."""
    if column.kind == "ordinal" and not column.categories:
        return tuple(range(int(column.lower), int(column.upper) + 1))
    return column.categories
