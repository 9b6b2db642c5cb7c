"""What a fit observed: the values of its observed sites, which cells count, and in which units.

A cell counts unless a mask says otherwise: that of a `RowDistribution`, of `distribution.mask(...)` or
of `pyro.poutine.mask`.  The cells of a table are seen by the model standardised and, in
bounded columns, as logs or log-odds; here they come back in the table's units.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from pyrolatent.capture.conditioned import observations
from pyrolatent.capture.messages import DATA_PLATE, Message
from pyrolatent.capture.seen import seen_entries
from pyrolatent.distributions import RowDistribution
from pyrolatent.errors import ModelError, PyrolatentError
from pyrolatent.result import Fit
from pyrolatent.schema import Schema
from pyrolatent.seeds import seeded


@final
@dataclass(frozen=True)
class Observation:
    """An observed site.

    Attributes:
        value: `(*site)`, as the model sees it.
        seen: `(*site)` boolean, False at cells that count for nothing.
        schema: Of the table whose cells these are, `(N, D)`; None for other sites.
        discrete: Which of the D columns of a table have probabilities and no density.
    """

    value: Tensor
    seen: Tensor
    schema: Schema | None
    discrete: tuple[bool, ...] = ()

    def in_units(self, value: Tensor) -> Tensor:
        """Return values `(..., *site)` of this site in the table's units, counts not rounded."""
        if self.schema is None:
            return value
        return self.schema.in_units(value)

    def density_in_units(self, log_prob: Tensor) -> Tensor:
        """Return log-densities of this site's rows or cells `(S, *batch)` in the table's units."""
        if self.schema is None:
            return log_prob
        dense = self.seen & ~torch.tensor(self.discrete, device=self.seen.device)
        cells = torch.where(dense, self.schema.log_jacobian(self.value), 0.0)
        return log_prob + cells.reshape((*log_prob.shape[1:], -1)).sum(-1)


def observed_sites(fit: Fit) -> dict[str, Observation]:
    """Return the observed sites of the fit's data.

    Raises:
        PyrolatentError: The fit was saved without its model or its data, or the model fails.
    """
    first = {name: draws[0, 0].to(fit.problem.device) for name, draws in fit.samples.items()}
    with model_runs(fit, "posterior draws"):
        messages = observations(fit.pair.model, fit.data, first)
    return {name: observation(fit, message) for name, message in messages.items()}


def observation(fit: Fit, message: Message) -> Observation:
    """Return what one run of the model says of an observed site."""
    value = torch.as_tensor(message["value"])
    of_table = fit.schema is not None and "x" in fit.data and torch.equal(value, fit.data["x"])
    if not of_table:
        return Observation(value, seen_entries(message), None)
    fn = message["fn"]
    plain = (False,) * value.shape[-1]
    discrete = fn.discrete_cells if isinstance(fn, RowDistribution) else plain
    return Observation(value, seen_entries(message), fit.schema, discrete)


def observed_values(fit: Fit, site: Observation) -> Tensor:
    """Return an observed site `(*site)` in the table's units, NaN at cells that do not count."""
    frame = fit.problem.frame
    if site.schema is not None and frame is not None:
        # Straight from the table, so that 3 stays 3 and is not 2.9999999999999996.
        return torch.from_numpy(np.column_stack([c.values(frame[c.name]) for c in site.schema.modelled]))
    value = site.in_units(site.value)
    return value if site.seen.all() else torch.where(site.seen, value, torch.nan)


def observed_rows(fit: Fit, sites: dict[str, Observation]) -> Tensor | None:
    """Return which rows of the data plate hold a cell that counts `(N,)`; None without such a plate."""
    seen = [
        site.seen.reshape(len(site.seen), -1).any(1)
        for name, site in sites.items()
        if fit.sites.observed[name].plates.get(DATA_PLATE) == 0
    ]
    return torch.stack(seen).any(0) if seen else None


def row_constants(fit: Fit, sites: dict[str, Observation]) -> dict[str, Tensor]:
    """Return the per-row tensors of the data that are not themselves observed."""

    def is_row(value: Any) -> bool:
        return isinstance(value, Tensor) and value.ndim > 0 and len(value) == fit.sites.rows

    rows = {name: value for name, value in fit.data.items() if is_row(value)}
    return {n: v for n, v in rows.items() if not any(torch.equal(v, site.value) for site in sites.values())}


@contextlib.contextmanager
def model_runs(fit: Fit, at: str) -> Iterator[None]:
    """Surround runs of the model whose failure concerns only what they are for.

    Raises:
        ModelError: The model fails, or one of its distributions cannot be drawn from.
    """
    try:
        with fit.context(), seeded(fit.seed, "export"):
            yield
    except PyrolatentError:
        raise
    except NotImplementedError as error:
        raise ModelError(
            "the model cannot be drawn from", why=f"{error}", remedy="give every site a proper prior"
        ) from error
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"the model fails at {at}", why=str(error)) from error
