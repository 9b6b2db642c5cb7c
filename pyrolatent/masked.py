"""Draws of what a model masks: the missing entries of observed sites, one posterior draw at a time.

A model says which entries of an observed site are missing by a `RowDistribution`, by
`distribution.mask(...)` or by `pyro.poutine.mask`.  Given the latents, entries behind a mask are
independent of all others, so a draw of their own distribution is exact; a `RowDistribution` draws
missing cells given the observed ones of their row.
"""

from collections.abc import Iterator
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyrolatent.capture.conditioned import completed, observations
from pyrolatent.capture.ladder import MAX_POINTS
from pyrolatent.capture.messages import WRAPPERS, Message
from pyrolatent.capture.seen import seen_entries
from pyrolatent.capture.vector import stacked
from pyrolatent.distributions import RowDistribution
from pyrolatent.draws import Draws, posterior_draws
from pyrolatent.observed import model_runs
from pyrolatent.result import Fit
from pyrolatent.seeds import generator, seeded

MAX_CELLS = 2**24  # of one batch of completed sites

Messages = dict[str, Message]
Completed = dict[str, Tensor]  # site -> (draw, *site)


def masked_sites(fit: Fit) -> Messages:
    """Return the observed sites that tell their missing entries, as they are at the first draw.

    Raises:
        ModelError: The model fails at it.
    """
    first = next(posterior_draws(fit, 1, fit.seed))
    with model_runs(fit, "posterior draws"):
        messages = observations(fit.pair.model, fit.data, {n: v[0] for n, v in first.values.items()})
    return {name: message for name, message in messages.items() if is_masked(message)}


def is_masked(message: Message) -> bool:
    """True for a site that tells which of its entries count, be it all of them."""
    fn = message["fn"]
    while isinstance(fn, WRAPPERS) and not isinstance(fn, dist.MaskedDistribution):
        fn = fn.base_dist
    return message["mask"] is not None or isinstance(fn, dist.MaskedDistribution | RowDistribution)


def completions(fit: Fit, sites: Messages, seed: int, num_draws: int) -> Iterator[Completed]:
    """Yield `sites` with their missing entries drawn, a batch of posterior draws at a time."""
    random = generator(seed, "impute", device=fit.problem.device)
    entries = sum(message["value"].numel() for message in sites.values())
    size = max(1, min(MAX_POINTS, MAX_CELLS // max(entries, 1)))
    for draws in posterior_draws(fit, num_draws, seed, given_rows=True):
        for start in range(0, draws.count, size):
            with fit.context(draws.refit), seeded(seed, "impute", draws.refit, start):
                batch = complete(fit, sites, draws.batch(start, size), random)
            yield batch


def complete(fit: Fit, sites: Messages, draws: Draws, random: torch.Generator) -> Completed:
    """Return `sites` with their missing entries drawn; plain rows for all draws at once."""
    done = {}
    rows = {name: message for name, message in sites.items() if draws_from_noise(message["fn"])}
    for name, message in rows.items():
        shape = (draws.count, *message["value"].shape)
        noise = torch.randn(shape, generator=random, device=random.device)
        done[name] = completed(fit.pair.model, fit.data, name, draws.values, noise, fit.rung)
    others = [name for name in sites if name not in rows]
    return done | (one_by_one(fit, others, draws) if others else {})


def draws_from_noise(fn: Any) -> bool:
    """True for plain rows that a function of noise completes, for all draws at once."""
    return isinstance(fn, RowDistribution) and fn.draws_from_noise


def one_by_one(fit: Fit, names: list[str], draws: Draws) -> Completed:
    """Return sites with their missing entries drawn, by a run of the model for each draw."""
    runs = []
    for index in range(draws.count):
        values = {name: value[index] for name, value in draws.values.items()}
        messages = observations(fit.pair.model, fit.data, values)
        runs.append({name: with_missing_drawn(messages[name]) for name in names})
    return stacked(runs)


def with_missing_drawn(message: Message) -> Tensor:
    """Return the value of an observed site `(*site)` with its missing entries drawn."""
    fn: Any = message["fn"]
    while isinstance(fn, WRAPPERS):
        fn = fn.base_dist
    if isinstance(fn, RowDistribution):
        return fn.complete(message["value"], torch.randn_like(message["value"]))
    return torch.where(seen_entries(message), message["value"], message["fn"].sample())
