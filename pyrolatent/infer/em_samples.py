"""Draws of the sites of a model around the peak that EM found."""

from dataclasses import replace

import torch
from torch import Tensor

from pyrolatent.capture.density import LogDensity
from pyrolatent.capture.ladder import close
from pyrolatent.capture.messages import DATA_PLATE
from pyrolatent.capture.sites import SiteTable
from pyrolatent.infer.em_gaussian import samples_of_rows, unmoved_sites
from pyrolatent.infer.em_setup import at_few_rows
from pyrolatent.pair import as_pair
from pyrolatent.result import Problem
from pyrolatent.seeds import generator

MAX_NUMBERS = 2**21  # draws of what rows have of their own, kept in a fit


def samples_at(problem: Problem, density: LogDensity, sites: SiteTable, draws: Tensor) -> dict[str, Tensor]:
    """Return draws `(1, draw, *site)`, on the host, at positions `(draw, D)`.

    Sites that rows have of their own are among them unless they are too many.  A density at few rows makes
    the others, unless they depend on which rows there are.
    """
    known = {**sites.latents, **sites.deterministics}
    shared = [name for name, site in known.items() if DATA_PLATE not in site.plates]
    own = [site for site in (*known.values(), *sites.discrete.values()) if site.name not in shared]
    share = max(1, (sites.rows or 1) // max(1, density.sites.rows or 1))
    whole = replace(density, data=problem.data, sites=sites, largest_table=share * density.largest_table)
    few_enough = len(draws) * sum(site.shape.numel() for site in own) <= MAX_NUMBERS
    if sites.row_latents and few_enough:
        return samples_of_rows(problem, density, sites, draws)
    if sites.row_latents:
        kept = unmoved_sites(problem, density, sites, draws[0])
        without = samples_at(replace(problem, pair=as_pair(density.model)), density, density.sites, draws)
        return {name: value for name, value in without.items() if name in kept}
    if few_enough:
        return whole.samples(draws[None], problem.seed)
    with density.context():
        few = at_few_rows(problem, sites, generator(problem.seed, "few rows", device=problem.device))
    first, again = (d.constrain(draws[:1]) for d in (few or whole, whole))
    source = few if few and all(close(first[name], again[name]) for name in shared) else whole
    size = source.points_at_once
    pieces = (source.constrain(some, at_once=size) for some in draws.split(size))
    found = [{name: values[name].cpu() for name in shared} for values in pieces]
    return {name: torch.cat([part[name] for part in found])[None] for name in shared}
