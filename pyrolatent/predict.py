"""Draws from the posterior predictive distribution, and from the prior one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from pyrolatent.capture.conditioned import predictive, prior_draws
from pyrolatent.capture.messages import DATA_PLATE
from pyrolatent.draws import posterior_draws
from pyrolatent.errors import DataError, ModelError
from pyrolatent.fit import as_input, encode
from pyrolatent.infer.method import check_least
from pyrolatent.pair import check_arguments
from pyrolatent.result import Fit
from pyrolatent.saved_parts import with_parameters
from pyrolatent.schema import Schema
from pyrolatent.seeds import seeded

NUM_PREDICTIVE = 500  # draws unless asked otherwise: each is one run of the model


def predict(
    fit: Fit, data: Mapping[str, Any] | pd.DataFrame | None = None, num_draws: int | None = None
) -> dict[str, Tensor] | pd.DataFrame:
    """Return observed sites drawn anew, one draw for each of evenly spaced posterior draws.

    Args:
        fit: A fit.
        data: The model's arguments, or a table for a fit to a table; by default those of the fit.
        num_draws: By default 500; at most the posterior draws of the fit.

    Returns:
        Site -> `(draw, *site)`, on the host; for a fit to a table one frame in its units, indexed by `draw`
        and the table's index, each with all cells drawn.

    Raises:
        ArgumentError: `num_draws` is not positive.
        DataError: `data` is not what the model takes, or not of the kind the fit was given.
        ModelError: The model of a table observes more than its rows.
    """
    num_draws = NUM_PREDICTIVE if num_draws is None else num_draws
    check_least("num_draws", num_draws, 1)
    given = with_data(fit, data)
    frame, schema, observed = given.problem.frame, given.schema, list(fit.sites.observed)
    if frame is None or schema is None or (schema.named and not observes_matrix(fit, schema)):
        return predict_tensors(given, num_draws)
    if len(observed) != 1:
        raise ModelError(
            "the predictions do not make one table",
            where=f"observed sites {observed}",
            remedy="observe the rows through one site",
        )
    x = posterior_predictive(given, num_draws)[observed[0]]
    tables = {draw: schema.decode(rows, frame.index) for draw, rows in enumerate(x)}
    return pd.concat(tables, names=["draw"])


def observes_matrix(fit: Fit, schema: Schema) -> bool:
    """True for a model whose one observed site holds the rows of `x`."""
    shapes = [tuple(site.shape[1:]) for site in fit.sites.observed.values()]
    return bool(schema.names) and shapes == [(len(schema.names),)]


def predict_tensors(fit: Fit, num_draws: int) -> dict[str, Tensor]:
    """Return the predictions of a fit to tensors; rows that latents of other rows do not fit are named."""
    local = row_latents(fit)
    try:
        return posterior_predictive(fit, num_draws)
    except (RuntimeError, ValueError) as error:
        if not local:
            raise
        raise ModelError(
            "the model has latents of each row, and they do not fit these rows",
            where=f"sites {local}, {fit.sites.rows} rows in the fit",
            why=str(error),
            remedy="predict for the rows of the fit, or fit the model to all rows together",
        ) from error


def posterior_predictive(fit: Fit, num_draws: int) -> dict[str, Tensor]:
    """Return observed sites drawn anew `(draw, *site)`, as the model sees them."""
    parts = []
    for draws in posterior_draws(fit, num_draws, fit.seed):
        with fit.context(draws.refit), seeded(fit.seed, "predict", draws.refit):
            drawn = predictive(fit.pair.model, fit.data, draws.values, draws.count)
        seen = drawn.keys() - fit.sites.discrete.keys()  # labels of which the fit keeps no draws are none
        parts.append({name: value.cpu() for name, value in drawn.items() if name in seen})
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def prior_predictive(fit: Fit, num_draws: int) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """Return draws `(draw, *site)` from the prior: latent and deterministic sites, and observed ones.

    Raises:
        NotImplementedError: A prior is improper.
    """
    with fit.context(), seeded(fit.seed, "prior"):
        return prior_draws(fit.pair.model, fit.data, num_draws)


def row_latents(fit: Fit) -> list[str]:
    """Return the latent sites of single rows of which the fit holds draws, for these rows alone."""
    return [name for name in fit.sites.row_latents if name in fit.samples]


def check_no_row_latents(fit: Fit) -> None:
    """Refuse new rows for a model with latents of each row.

    Raises:
        ModelError: It has some.
    """
    local = row_latents(fit)
    if local:
        raise ModelError(
            "the model has latents of each row, and new rows have none yet",
            where=f"sites {local}",
            remedy="fit the model to all rows together",
        )


def with_data(fit: Fit, data: Mapping[str, Any] | pd.DataFrame | None) -> Fit:
    """Return the fit with its data replaced by new rows.

    Discrete sites of the old rows are dropped: new rows draw their own.

    Raises:
        DataError: A table for a fit to tensors, or the other way round.
        ModelError: The model has latents of each row, which say nothing of new rows of a table.
    """
    if data is None:
        return fit
    if isinstance(data, pd.DataFrame):
        check_no_row_latents(fit)
    problem = fit.problem
    frame = data.copy() if isinstance(data, pd.DataFrame) else None
    if (frame is None) != (problem.frame is None):
        wanted = "a table" if problem.frame is not None else "a dictionary of the model's arguments"
        raise DataError(f"the fit takes {wanted}", why=f"got {type(data).__name__}", remedy=f"pass {wanted}")
    entries = dict(data) if frame is None else encode(fit.pair, frame)
    check_arguments(fit.pair, entries)
    tensors = {name: as_input(value, problem.dtype, problem.device) for name, value in entries.items()}
    old = {name for name, site in fit.sites.discrete.items() if DATA_PLATE in site.plates}
    samples = {name: draws for name, draws in fit.samples.items() if name not in old}
    moved = replace(fit, problem=replace(problem, data=tensors, frame=frame), samples=samples)
    return with_parameters(moved) if fit.parameters is None else moved
