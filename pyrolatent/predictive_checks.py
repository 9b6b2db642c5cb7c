"""Predictive checks: what was observed beside what the model would have observed.

For each modelled column of a table, and each observed site of other fits, the observed values are
compared with draws of the same cells from the posterior predictive distribution, and from the prior
one where that can be drawn from (`shares` counts both).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pyrolatent.capture.conditioned import observations
from pyrolatent.capture.messages import DATA_PLATE, Message
from pyrolatent.capture.seen import seen_entries
from pyrolatent.column import Label
from pyrolatent.errors import PyrolatentError
from pyrolatent.groups import num_predictive, prior_values
from pyrolatent.impute import Place, found_in
from pyrolatent.observed import model_runs
from pyrolatent.predict import posterior_predictive
from pyrolatent.result import Fit
from pyrolatent.shares import Array, Check, Values, check

NUM_DRAWS, NUM_PRIOR = 50, 100  # of the predictive distributions; those of the prior vary more
MOST_PARTS = 12  # numbers of an observation up to which each is compared on its own

Draws = Mapping[str, Tensor]  # observed site -> (S, *site)


@final
@dataclass(frozen=True)
class Checks:
    """All checks of a fit, the number of draws behind them, and why the prior is absent if it is."""

    checks: tuple[Check, ...]
    num_draws: int
    no_prior: str


def predictive_checks(fit: Fit) -> Checks:
    """Return the checks of all columns or observed sites.

    Raises:
        PyrolatentError: The model cannot run, or not be drawn from.
    """
    most = num_predictive(fit)
    with model_runs(fit, "posterior draws"):
        posterior = posterior_predictive(fit, min(NUM_DRAWS, most))
    try:
        prior, no_prior = prior_values(fit, min(NUM_PRIOR, most))[1], ""
    except PyrolatentError as error:
        prior, no_prior = {}, str(error)
    found = (values for values in compared(fit, posterior, prior) if values.observed.size)
    return Checks(tuple(map(check, found)), len(next(iter(posterior.values()))), no_prior)


def compared(fit: Fit, posterior: Draws, prior: Draws) -> Iterator[Values]:
    """Yield the columns of a table in its units, and observed sites that hold none of its columns."""
    first = {name: draws[0, 0].to(fit.problem.device) for name, draws in fit.samples.items()}
    with model_runs(fit, "posterior draws"):
        messages = observations(fit.pair.model, fit.data, first)
    frame, schema = fit.problem.frame, fit.schema
    places = found_in(messages, fit, schema) if frame is not None and schema is not None else {}
    if frame is not None:
        yield from (column_values(frame[name], place, posterior, prior) for name, place in places.items())
    holding = {place.site for place in places.values()}
    rest = {name: message for name, message in messages.items() if name not in holding}
    for family, names in families(rest).items():
        if len(names) > 1:
            yield joined(family, [rest[name] for name in names], posterior, prior)
        else:
            yield from site_values(fit, rest[names[0]], posterior[names[0]], prior.get(names[0]))


def families(messages: Mapping[str, Message]) -> dict[str, list[str]]:
    """Return sites by name; those of one number whose names differ in their digits alone are one family."""
    found: dict[str, list[str]] = {}
    for name, message in messages.items():
        single = torch.as_tensor(message["value"]).numel() == 1
        found.setdefault(re.sub(r"\d+", "*", name) if single else name, []).append(name)
    return {names[0] if len(names) == 1 else family: names for family, names in found.items()}


def joined(family: str, messages: list[Message], posterior: Draws, prior: Draws) -> Values:
    """Return the values of a family of sites, those that count."""
    seen = [message for message in messages if bool(seen_entries(message).all())]
    observed = [float(message["value"]) for message in seen]

    def drawn(draws: Draws) -> Array:
        parts = [draws[message["name"]].reshape(-1).cpu().double() for message in seen]
        return torch.stack(parts, 1).numpy() if parts else np.empty((1, 0))

    return Values(family, np.array(observed), drawn(posterior), drawn(prior) if prior else None)


def column_values(series: pd.Series, place: Place, posterior: Draws, prior: Draws) -> Values:
    """Return the observed cells of a column, as numbers in its units or as codes of its labels."""
    labels, seen = place.column.categories, torch.tensor(series.notna().to_numpy())
    observed = codes(series.dropna(), labels)

    def in_units(draws: Tensor) -> Array:
        encoded = place.within(draws.cpu())[:, seen].double().numpy()
        with np.errstate(over="ignore"):  # draws of a wide prior on logs
            decoded = place.column.decode(encoded.reshape(-1), pd.RangeIndex(encoded.size))
        return codes(decoded, labels).reshape(encoded.shape)

    drawn = in_units(prior[place.site]) if place.site in prior else None
    return Values(str(series.name), observed, in_units(posterior[place.site]), drawn, tuple(map(str, labels)))


def codes(series: pd.Series, labels: tuple[Label, ...]) -> Array:
    """Return the cells `(N,)` of a column as numbers, or as positions in `labels`."""
    if not labels:
        return series.to_numpy(np.float64)
    return pd.Index(list(labels)).get_indexer(pd.Index(series)).astype(np.float64)


def site_values(fit: Fit, message: Message, posterior: Tensor, prior: Tensor | None) -> Iterator[Values]:
    """Yield the entries that count of an observed site, each part of a row on its own if they are few."""
    name, value, seen = message["name"], torch.as_tensor(message["value"]).cpu(), seen_entries(message).cpu()
    rows = fit.sites.observed[name].plates.get(DATA_PLATE) == 0
    parts = value[0].numel() if rows and value.ndim > 1 else 1
    parts = parts if parts <= MOST_PARTS else 1
    for part in range(parts):
        entries = torch.zeros_like(seen).reshape(-1, parts)
        entries[:, part] = True
        chosen = entries.reshape(seen.shape) & seen
        title = f"{name}[{part}]" if parts > 1 else name
        before = None if prior is None else numbers_at(prior, chosen)
        yield Values(title, value[chosen].double().numpy(), numbers_at(posterior, chosen), before)


def numbers_at(draws: Tensor, chosen: Tensor) -> Array:
    """Return the chosen entries `(S, M)` of `draws (S, *site)`."""
    return draws.cpu()[:, chosen].double().numpy()
