"""Completed tables: missing cells drawn given the observed ones of their row.

Each completed table belongs to one posterior draw, so that the tables differ by what is not known
about the model as well as by chance (proper multiple imputation, Rubin 1987).
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrolatent.capture.conditioned import completed, row_sites
from pyrolatent.capture.ladder import MAX_POINTS
from pyrolatent.column import numbers
from pyrolatent.errors import ArgumentError, FitWarning, ModelError
from pyrolatent.predict import check_num_draws, with_data
from pyrolatent.result import Fit, evenly_spaced
from pyrolatent.schema import Schema
from pyrolatent.seeds import generator

SUMMARY_DRAWS = 1_000  # behind mean, sd and intervals
MAX_CELLS = 2**24  # of one batch of completed tables

Observed = Callable[[pd.Series], NDArray[np.float64]]


@final
@dataclass(frozen=True)
class Imputations:
    """Draws of the missing cells of one table.

    `frames` are completed tables; `mean`, `sd` and `interval` use all draws, not only those of
    the frames.  All in the table's units.
    """

    frame: pd.DataFrame
    schema: Schema
    cells: Tensor  # (draw, missing cell), as the model sees them
    num_frames: int

    @property
    def frames(self) -> Iterator[pd.DataFrame]:
        """Completed tables, made one by one: observed cells, index, dtypes and other columns untouched."""
        for draw in evenly_spaced(len(self.cells), self.num_frames):
            yield self.schema.complete(self.frame, self.encoded(self.cells[draw]))

    @property
    def mean(self) -> pd.DataFrame:
        """The numeric columns, each missing cell at the mean of its draws."""
        return self.filled(self.values.mean(0), numbers)

    @property
    def sd(self) -> pd.DataFrame:
        """The standard deviation of each missing cell's draws, 0 for observed cells."""
        return self.filled(self.values.std(0, ddof=1), lambda series: 0.0 * numbers(series))

    def interval(self, probability: float = 0.9) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the lower and the upper ends of central intervals of this probability.

        Raises:
            ArgumentError: The probability is not between 0 and 1.
        """
        if not 0 < probability < 1:
            raise ArgumentError("the probability must lie between 0 and 1", why=f"got {probability}")
        ends = np.quantile(self.values, [(1 - probability) / 2, (1 + probability) / 2], axis=0)
        return self.filled(ends[0], numbers), self.filled(ends[1], numbers)

    @property
    def values(self) -> NDArray[np.float64]:
        """Draws of the missing cells of numeric columns in the table's units `(draw, cell)`."""
        columns = self.schema.modelled
        cells = self.cells.numpy().copy()
        for d in np.unique(self.holes[1]):
            where = self.holes[1] == d
            index = pd.RangeIndex(cells[:, where].size)
            drawn = columns[d].decode(cells[:, where].reshape(-1), index)
            cells[:, where] = numbers(drawn).reshape(len(cells), -1)
        return cells

    @property
    def holes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of each missing cell."""
        names = list(self.schema.names)
        rows, columns = np.nonzero(self.frame[names].isna().to_numpy())
        return rows, columns

    def encoded(self, cells: Tensor) -> Tensor:
        """Return one draw of the missing cells at their places `(N, D)`, 0 elsewhere."""
        x = torch.zeros(len(self.frame), len(self.schema.modelled), dtype=cells.dtype)
        x[self.holes] = cells
        return x

    def filled(self, cells: NDArray[np.float64], observed: Observed) -> pd.DataFrame:
        """Return the numeric columns as `observed` makes them, with `cells` in the holes."""
        rows, columns = self.holes
        result = {}
        for d, column in enumerate(self.schema.modelled):
            values = observed(self.frame[column.name])
            values[rows[columns == d]] = cells[columns == d]
            result[column.name] = values
        return pd.DataFrame(result, index=self.frame.index)


def impute(
    fit: Fit, frame: pd.DataFrame | None = None, num_draws: int = 20, seed: int | None = None
) -> Imputations:
    """Draw the missing cells of a table given the observed ones, with the fit as it is.

    Args:
        fit: A fit to a table.
        frame: New rows with the table's columns; by default the table of the fit.
        num_draws: The number of completed tables, one for each of evenly spaced posterior draws, so at
            most their number.
        seed: By default the seed of the fit.

    Raises:
        ArgumentError: `num_draws` is not positive.
        ModelError: The fit has no table, or its model does not know which cells are missing.
        DataError: The new rows do not fit the table's columns.
    """
    check_num_draws(num_draws)
    given = with_data(fit, frame)
    table, schema = given.problem.frame, given.schema
    if table is None or schema is None:
        raise ModelError(
            "this fit has no table to complete",
            why="it was given tensors",
            remedy="fit a pair with a schema, such as BayesianMVN(infer_schema(frame)), to a frame",
        )
    seed = fit.seed if seed is None else seed
    cells = draw_cells(given, seed, max(num_draws, SUMMARY_DRAWS))
    warn_of_rounding(table, schema)
    return Imputations(table, schema, cells, num_draws)


def draw_cells(fit: Fit, seed: int, num_draws: int) -> Tensor:
    """Return draws of the missing cells `(draw, cell)`, a batch of posterior draws at a time."""
    mask = fit.data["mask"]
    random = generator(seed, "impute", device=mask.device)
    draws = {name: value.to(mask.device) for name, value in fit.flat_samples(num_draws).items()}
    site = masked_site(fit, {name: value[0] for name, value in draws.items()})
    batch = max(1, min(MAX_POINTS, MAX_CELLS // max(mask.numel(), 1)))
    cells = []
    with fit.context():
        for start in range(0, min(num_draws, fit.num_draws), batch):
            some = {name: value[start : start + batch] for name, value in draws.items()}
            count = len(next(iter(some.values())))
            noise = torch.randn((count, *mask.shape), generator=random, device=mask.device)
            x = completed(fit.pair.model, fit.data, site, some, noise, fit.rung)
            cells.append(x[:, ~mask].cpu().double())
    return torch.cat(cells)


def masked_site(fit: Fit, values: dict[str, Tensor]) -> str:
    """Return the one observed site that knows its missing cells."""
    with fit.context():
        sites = row_sites(fit.pair.model, fit.data, values)
    if len(sites) != 1:
        raise ModelError(
            "the model does not say which cells are missing",
            where=f"observed sites with missing cells: {sites}",
            remedy="observe the rows through one RowDistribution, such as IncompleteMVN",
        )
    return sites[0]


def warn_of_rounding(frame: pd.DataFrame, schema: Schema) -> None:
    """Say once which completed columns are rounded numbers."""
    whole = [column.name for column in schema.modelled if column.whole and not column.categories]
    rounded = [name for name in whole if frame[name].isna().any()]
    if rounded:
        message = f"Imputations of {rounded} are numbers rounded into the observed range."
        warnings.warn(f"{message} Read their tails with care.", FitWarning, stacklevel=3)
