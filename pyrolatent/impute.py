"""Completed tables: missing cells drawn given the observed ones of their row.

Each completed table belongs to one posterior draw, so that the tables differ by what is not known
about the model as well as by chance (proper multiple imputation, Rubin 1987).  Any model can
complete that tells by a mask which entries of its observed sites are missing (`pyrolatent.masked`);
which columns of the table a site holds is known by their values.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pyrolatent.capture.seen import seen_entries
from pyrolatent.column import Column, numbers
from pyrolatent.distributions import RowDistribution
from pyrolatent.errors import FitWarning, ModelError
from pyrolatent.imputations import Imputations, missing_cells
from pyrolatent.infer.method import check_least
from pyrolatent.masked import Completed, Messages, completions, masked_sites
from pyrolatent.predict import check_no_row_latents, with_data
from pyrolatent.result import Fit
from pyrolatent.schema import Schema, listing

SUMMARY_DRAWS = 1_000  # behind mean, sd and intervals


@final
@dataclass(frozen=True)
class Place:
    """Where the model observes a column of the table.

    Attributes:
        column: The column, as the site encodes it.
        site: The observed site, `(N,)` or `(N, K)`.
        k: The column's number there.
    """

    column: Column
    site: str
    k: int

    def within(self, values: Tensor) -> Tensor:
        """Return the column `(S, N)` of values of the site, `(S, N)` or `(S, N, K)`."""
        return values.reshape(*values.shape[:2], -1)[..., self.k]


def impute(
    fit: Fit,
    frame: Mapping[str, Any] | pd.DataFrame | None = None,
    num_draws: int = 20,
    seed: int | None = None,
) -> "Imputations | Any":
    """Draw the missing cells of a table given the observed ones, with the fit as it is.

    Args:
        fit: A fit of a model that masks what is missing.
        frame: New rows with the table's columns, or the model's arguments for a fit to tensors; by
            default those of the fit.
        num_draws: The number of completed tables, one for each of evenly spaced posterior draws, so at
            most their number.
        seed: By default the seed of the fit.

    Returns:
        `Imputations` of a table.  For a fit to tensors a dictionary: observed site with a mask ->
        its value with missing entries drawn `(draw, *site)`, on the host.

    Raises:
        ArgumentError: `num_draws` is not positive.
        ModelError: The model does not tell which cells are missing, or has latents of each row and
            is given new rows.
        DataError: The new rows do not fit the table's columns.
    """
    check_least("num_draws", num_draws, 1)
    given = with_data(fit, frame)
    if frame is not None:
        check_no_row_latents(fit)
    seed = fit.seed if seed is None else seed
    if given.problem.frame is None or given.schema is None:
        return impute_tensors(given, seed, num_draws)
    return impute_table(given, given.problem.frame, given.schema, seed, num_draws)


def impute_tensors(fit: Fit, seed: int, num_draws: int) -> Completed:
    """Return each site with a mask with its missing entries drawn `(draw, *site)`."""
    sites = masked_sites(fit)
    if not sites:
        raise nothing_masked(f"observed sites without a mask: {list(fit.sites.observed)}")
    runs = completions(fit, sites, seed, num_draws)
    batches = [{name: value.cpu() for name, value in batch.items()} for batch in runs]
    return {name: torch.cat([batch[name] for batch in batches]) for name in sites}


def impute_table(fit: Fit, frame: pd.DataFrame, schema: Schema, seed: int, num_draws: int) -> Imputations:
    """Return draws of the missing cells of the columns that the model observes behind a mask."""
    incomplete = [column.name for column in schema.used if frame[column.name].isna().any()]
    sites = masked_sites(fit) if incomplete else {}
    places = {name: place for name, place in found_in(sites, fit, schema).items() if name in incomplete}
    check_holes(frame, incomplete, places, sites)
    kept = [c for c in schema.used if c.name not in incomplete or c.name in places]
    completed = Schema(tuple(places[c.name].column if c.name in places else c for c in kept))
    rows, columns = missing_cells(frame, completed)
    count = min(max(num_draws, SUMMARY_DRAWS), fit.num_draws)
    cells, start = torch.empty(count, len(rows), dtype=torch.float64), 0
    for batch in completions(fit, sites, seed, count) if places else ():
        some = cells[start : start + len(next(iter(batch.values())))]
        for d in np.unique(columns):
            place, of_column = places[completed.names[d]], columns == d
            some[:, of_column] = place.within(batch[place.site])[:, rows[of_column]].cpu().double()
        start += len(some)
    result = Imputations(frame, completed, cells, num_draws, has_one_network(fit))
    found = weaknesses(result, [name for name in incomplete if name not in places])
    for message in found:
        warnings.warn(message, FitWarning, stacklevel=3)
    return replace(result, warnings=found)


def found_in(sites: Messages, fit: Fit, schema: Schema) -> dict[str | int, Place]:
    """Return where these sites observe columns of the table, found by their values."""
    known: dict[bytes, list[Column]] = {}
    for d, column in enumerate(schema.modelled):
        known.setdefault(as_bytes(fit.data["x"][:, d]), []).append(column)
    for column in schema.arguments:
        known.setdefault(as_bytes(fit.data[str(column.name)]), []).append(column)
    places: dict[str | int, Place] = {}
    for name, message in sites.items():
        value = torch.as_tensor(message["value"])
        for k, entries in enumerate(value.reshape(len(value), -1).T if value.ndim in (1, 2) else ()):
            if matches := known.get(as_bytes(entries)):
                column = unbounded(matches.pop(0), message["fn"], k)
                places.setdefault(column.name, Place(column, name, k))
    return places


def as_bytes(entries: Tensor) -> bytes:
    """Return numbers as something to be looked up."""
    return entries.double().cpu().numpy().tobytes()


def unbounded(column: Column, fn: Any, k: int) -> Column:
    """Return a count without bounds where column `k` of a site has a discrete distribution.

    That decides itself how large a count can be.
    """
    discrete = fn.discrete_cells[k] if isinstance(fn, RowDistribution) else fn.support.is_discrete
    counted = column.kind == "count" and discrete
    return replace(column, lower=0.0, upper=np.inf) if counted else column


def check_holes(
    frame: pd.DataFrame, incomplete: list[str | int], places: dict[str | int, Place], sites: Messages
) -> None:
    """Refuse a model for which no missing cell is missing.

    Raises:
        ModelError: The model masks no incomplete column, or not all missing cells of one.
    """
    if incomplete and not places:
        raise nothing_masked(f"columns {listing(incomplete)} have missing cells")
    for name, place in places.items():
        seen = place.within(seen_entries(sites[place.site])[None])[0]
        if seen.cpu().numpy()[frame[name].isna()].any():
            raise nothing_masked(f"column {name!r}, site {place.site!r}: missing cells are observed")


def nothing_masked(where: str) -> ModelError:
    """Return the error for a model that takes missing cells for observed ones."""
    return ModelError(
        "the model does not say which cells are missing",
        where=where,
        remedy="observe through distribution.mask(mask), poutine.mask or a RowDistribution such as "
        "IncompleteMVN; missing values that are latent sites are in fit.samples",
    )


def has_one_network(fit: Fit) -> bool:
    """True where what the model learnt is one point estimate."""
    return bool(fit.sites.parameters) and len(fit.state["parameters"]) == 1


def weaknesses(imputations: Imputations, left: list[str | int]) -> tuple[str, ...]:
    """Return which columns stay incomplete, `left`, and which completed ones are rounded numbers."""
    found = []
    if left:
        why = "the model does not observe them behind a mask"
        found.append(f"Columns {listing(left)} stay incomplete: {why}.")
    rounded = [column.name for column in imputations.schema.modelled if is_rounded(imputations, column)]
    if rounded:
        message = f"Imputations of {rounded} are numbers rounded into the observed range."
        found.append(f"{message} Read their tails with care.")
    return tuple(found)


def is_rounded(imputations: Imputations, column: Column) -> bool:
    """True for a column of whole numbers whose draws are none, or outside of its range."""
    if not column.whole or column.categories:
        return False
    draws = imputations.of_column(column)
    exact = replace(column, kind="real", dtype="float64").decode(draws, pd.RangeIndex(draws.size))
    return not np.allclose(exact, numbers(imputations.drawn(column)), atol=1e-3)  # draws may be float32
