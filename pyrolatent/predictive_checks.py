"""Predictive checks: what was observed beside what the model would have observed.

For each modelled column of a table, and each observed site of other fits, the observed values are
compared with draws of the same cells from the posterior predictive distribution, and from the prior
one where that can be drawn from.  Both are counted in the same bins: levels where there are few,
else intervals, of equal length in the values or in their logs.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrolatent.capture.conditioned import observations
from pyrolatent.capture.sites import DATA_PLATE, Message
from pyrolatent.column import Label
from pyrolatent.errors import PyrolatentError
from pyrolatent.export import num_predictive, prior_values
from pyrolatent.impute import Place, found_in
from pyrolatent.observed import model_runs, seen_entries
from pyrolatent.predict import posterior_predictive
from pyrolatent.result import Fit

NUM_DRAWS, NUM_PRIOR = 50, 100  # of the predictive distributions; those of the prior vary more
MOST_LEVELS = 30  # drawn as bars of their own
FEWEST_BINS, MOST_BINS = 10, 40
FEW = 10  # observed values that are marked one by one
WIDE = 100.0  # largest over smallest value, from which on logs are binned
TAIL = 0.01  # of the draws on each side that need not be seen
MOST_PARTS = 12  # numbers of an observation up to which each is compared on its own

Array = NDArray[np.float64]
Draws = Mapping[str, Tensor]  # observed site -> (S, *site)


@final
@dataclass(frozen=True, eq=False)
class Values:
    """Observed values of one quantity `(M,)` and predictive draws of them `(S, M)`, as numbers.

    `levels` are the labels whose codes the numbers are; empty for numbers.
    """

    name: str
    observed: Array
    posterior: Array
    prior: Array | None
    levels: tuple[str, ...] = ()


@final
@dataclass(frozen=True, eq=False)
class Check:
    """Shares of the values in bins.

    Attributes:
        name: Of the column or site.
        edges: Ends of the bins `(bins + 1,)`; of levels, halfway between them.
        levels: What the bins are called, where they are levels; else empty.
        logs: Whether the bins are of equal length in the logs.
        observed: Shares of the observed values `(bins,)`.
        marks: The observed values themselves, where they are few; else empty.
        posterior: Shares of each posterior predictive draw `(S, bins)`.
        prior: The same of the prior, if it can be drawn from.
    """

    name: str
    edges: Array
    levels: tuple[str, ...]
    logs: bool
    observed: Array
    marks: Array
    posterior: Array
    prior: Array | None

    @property
    def distance(self) -> float:
        """Total variation distance of the observed shares from those of all posterior draws together."""
        return float(np.abs(self.observed - self.posterior.mean(0)).sum() / 2)


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


# What is compared


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
        parts = [draws[message["name"]].flatten(1).cpu().double() for message in seen]
        return torch.cat(parts, 1).numpy() if parts else np.empty((1, 0))

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
        drawn = [d if d is None else d.cpu()[:, chosen].double().numpy() for d in (posterior, prior)]
        title = f"{name}[{part}]" if parts > 1 else name
        yield Values(title, value[chosen].double().numpy(), drawn[0], drawn[1])


# How it is counted


def check(values: Values) -> Check:
    """Return the shares of the values in bins that show the observed ones and most of the draws."""
    edges, levels, logs = bins(values)
    observed = shares(values.observed[None], edges)[0]
    marks = values.observed if values.observed.size < FEW and not levels else np.empty(0)
    prior = None if values.prior is None else shares(values.prior, edges)
    return Check(values.name, edges, levels, logs, observed, marks, shares(values.posterior, edges), prior)


def bins(values: Values) -> tuple[Array, tuple[str, ...], bool]:
    """Return the ends of the bins, what they are called if they are levels, and whether they suit logs."""
    if values.levels:
        return np.arange(len(values.levels) + 1) - 0.5, values.levels, False
    drawn = values.posterior[np.isfinite(values.posterior)]
    low, high = limits(values.observed, drawn)
    number = int(np.clip(2 * np.cbrt(values.observed.size), FEWEST_BINS, MOST_BINS))  # Rice's rule
    if is_whole(values.observed) and is_whole(drawn):
        low, high = np.floor(low), np.ceil(high)
        width = 1.0 if high - low < MOST_LEVELS else np.ceil((high - low + 1) / number)
        edges = np.arange(low, high + width + 1, width) - 0.5
        return edges, tuple(f"{low + k:.0f}" for k in range(len(edges) - 1)) if width == 1 else (), False
    positive = min(values.observed.min(), drawn.min(initial=np.inf)) > 0
    if positive and values.observed.max() > WIDE * values.observed.min():
        return np.geomspace(low, high, number + 1), (), True
    return np.linspace(low, high, number + 1), (), False


def limits(observed: Array, drawn: Array) -> tuple[float, float]:
    """Return a range with all observed values and, if they do not lie far off, most of the drawn ones."""
    least, most = float(observed.min()), float(observed.max())
    if drawn.size:
        first, lower, upper, last = np.quantile(drawn, (TAIL, 0.25, 0.75, 1 - TAIL))
        slack = max(most - least, 3 * (upper - lower))
        least, most = min(least, max(first, least - slack)), max(most, min(last, most + slack))
    return (least, most) if most > least else (least - 0.5, most + 0.5)


def is_whole(values: Array) -> bool:
    """True for whole numbers."""
    return bool((values == np.rint(values)).all())


def shares(values: Array, edges: Array) -> Array:
    """Return the shares of `values (S, M)` in each bin `(S, bins)`; those outside count to none."""
    rows, number = len(values), len(edges) - 1
    place = np.searchsorted(edges, values, side="right") - 1
    place = np.where(values == edges[-1], number - 1, place)
    inside = (place >= 0) & (place < number)
    flat = (np.arange(rows)[:, None] * number + place)[inside]
    return np.bincount(flat, minlength=rows * number).reshape(rows, number) / values.shape[1]
