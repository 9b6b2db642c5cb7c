"""Draws from a trained guide, as captured graphs over many noises at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyrolatent.capture.bounds import guide_of, recorded, terms
from pyrolatent.capture.conditioned import Conditioned, log_likelihood
from pyrolatent.capture.discrete import draw_sites
from pyrolatent.capture.enumeration import enumerating
from pyrolatent.capture.ladder import MAX_POINTS, REFUSALS, Rung
from pyrolatent.capture.messages import DATA_PLATE
from pyrolatent.capture.noise import NoisyGraph, capture_noisy
from pyrolatent.capture.parameters import Parameters
from pyrolatent.capture.sites import SiteTable
from pyrolatent.capture.vector import stacked
from pyrolatent.errors import ModelError
from pyrolatent.pair import Pair


def drawn_sites(sites: SiteTable, *, amortised: bool) -> list[str]:
    """Return the sites that a fit keeps draws of: those of single rows only where no network makes them."""
    known = {**sites.latents, **sites.discrete, **sites.deterministics}
    left_out = amortised and bool(sites.row_latents)
    return [name for name, site in known.items() if not (left_out and DATA_PLATE in site.plates)]


def draw_guide(
    pair: Pair,
    parameters: Parameters,
    flat: Tensor,
    data: Mapping[str, Any],
    sites: SiteTable,
    names: Sequence[str],
    number: int,
) -> dict[str, Tensor]:
    """Return draws `(R, number, *site)` of latent and deterministic sites, on the host.

    Args:
        pair: Model and guide.
        parameters: What the pair learnt.
        flat: Their values `(R, P)`.
        data: Arguments of both.
        sites: Of the model.
        names: Those wanted.
        number: Draws for each of the R refits.
    """
    if not names:
        return {}

    def draw(values: Tensor) -> list[Tensor]:
        with parameters.at(values):
            drawn = terms(recorded(guide_of(pair), data))
            found = {name: message["value"] for name, message in drawn.items()}
            found |= discrete_draws(pair, data, sites, found) if sites.discrete else {}
            with Conditioned(found) as run:
                pair.model(**data)
            # a parameter that is a site's value, as in AutoDelta, passes a torch function here
            return [run.messages[name]["value"].clone() for name in names]

    of_refits = stacked(repeated(draw, flat, number))
    return {name: draws.cpu() for name, draws in zip(names, of_refits, strict=True)}


def repeated(draw: Callable[[Tensor], list[Tensor]], flats: Tensor, number: int) -> list[list[Tensor]]:
    """Return `number` results of `draw`, `(number, ...)` each, at each of parameters `(R, P)`.

    They come from a captured graph where `draw` can be captured.
    """
    try:
        noisy = capture_noisy(draw, flats[0])
        return [many(noisy, flat, number) for flat in flats]
    except REFUSALS:
        return [stacked([draw(flat) for _ in range(number)]) for flat in flats]


def rung_of_draws(
    pair: Pair, parameters: Parameters, flats: Tensor, data: Mapping[str, Any], sites: SiteTable
) -> Rung:
    """Return the rung on which the model runs at many draws at once, as verbs run it, for `(R, P)`."""
    names = [*sites.latents, *sites.discrete]
    if not names:
        return "vmap"
    draws = draw_guide(pair, parameters, flats[:1], data, sites, names, 2)
    values = {name: value[0].to(flats.device) for name, value in draws.items()}
    rungs: tuple[Rung, ...] = ("vmap", "shim")
    for rung in rungs:
        try:
            with parameters.at(flats[0]):
                log_likelihood(pair.model, data, values, rung)
        except (*REFUSALS, ModelError):
            continue
        return rung
    return "points"


def discrete_draws(
    pair: Pair, data: Mapping[str, Any], sites: SiteTable, values: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return one joint draw of the discrete sites `(*site)` given all others, for the rows of `data`."""
    with Conditioned(values) as plain:
        pair.model(**data)
    shapes = {name: plain.messages[name]["value"].shape for name in sites.discrete}
    there = {name: replace(site, shape=shapes[name]) for name, site in sites.discrete.items()}
    known = {name: value for name, value in values.items() if name not in there}
    with Conditioned(known) as run, enumerating(sites.max_plate_nesting):
        pair.model(**data)
    return draw_sites(run.messages, there, {name: torch.rand(shape) for name, shape in shapes.items()})


def many(noisy: NoisyGraph, flat: Tensor, number: int) -> list[Tensor]:
    """Return `number` draws of each site `(number, *site)` at parameters `(P,)`."""
    if not noisy.sources or not noisy.deterministic:
        return stacked([noisy(flat) for _ in range(number)])
    size = min(MAX_POINTS, number)
    chunk = noisy.mapped((True,), flat, *noisy.draw_many(size))
    chunks = [chunk(flat, *noisy.draw_many(size)) for _ in range(-(-number // size))]
    return [torch.cat(parts)[:number] for parts in zip(*chunks, strict=True)]
