"""What EM needs of a model: the formulas of its latents, and its rows where it is a mixture."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyrolatent.capture.context import model_context
from pyrolatent.capture.density import LogDensity, capture_density, check_sampleable, largest_table
from pyrolatent.capture.expectation import log_total
from pyrolatent.capture.failures import explained
from pyrolatent.capture.joint import evaluate
from pyrolatent.capture.ladder import REFUSALS, Batched, Rung, close
from pyrolatent.capture.sites import SiteTable, random_start, read_sites
from pyrolatent.errors import ModelError, PyrolatentError
from pyrolatent.infer.em_climb import Peak
from pyrolatent.infer.em_gaussian import integrated
from pyrolatent.infer.em_row_checks import check_plates
from pyrolatent.infer.em_steps import Latents, MixtureSteps, ModelSteps, Steps, counted
from pyrolatent.infer.em_structure import Structure, copies_hold, read_structure
from pyrolatent.infer.maximisation import Formulas
from pyrolatent.infer.points import in_batches
from pyrolatent.infer.relabelling import is_exchangeable
from pyrolatent.infer.rows import split_rows
from pyrolatent.infer.shared_rows import shared_rows
from pyrolatent.infer.speed import largest_site
from pyrolatent.result import Problem
from pyrolatent.seeds import generator

FEW = 8  # rows on which the code of a mixture runs
POINTS = 3  # at which it is looked at besides, so many times
WIDE = 3.0  # as far from 0
SCREENED = 10_000  # rows on which all starts run, where there are more
SIDE_BY_SIDE = 16  # points in one graph
SMALL = 2**12  # numbers of a point's largest site up to which that is faster
PLANNED = 100  # evaluations at many rows, after starts ran on few of them
NEWTON = 10  # steps of Newton's method there, each by differences of gradients along all directions


def steps_of(problem: Problem, penalised: bool) -> tuple[Steps, SiteTable]:
    """Return what EM repeats, and the sites of the model.

    Raises:
        ModelError: The model has no latents that all rows share, or continuous ones of each row.
        DataError: The data do not fit the model.
    """
    model, data, device = problem.pair.model, problem.data, problem.device
    random = generator(problem.seed, "structure", device=device)
    with model_context(problem.dtype, device, validate=True), explained(data):
        sites = read_sites(model, data, random)
    check_sampleable(sites)
    check_plates(sites)
    if sites.row_latents:
        density, found = integrated(problem, sites, random, penalised)
        return model_steps(problem, density, found, penalised), sites
    with model_context(problem.dtype, device):
        structure = read_structure(model, data, sites, random, penalised)
        few = at_few_rows(problem, sites, random) if sites.rows else None
        looked_at = (data, sites) if few is None else (few.data, few.sites)
        wide = WIDE * random_start((POINTS, sites.layout.size), random)
        if not copies_hold(model, *looked_at, wide, random):
            structure = structure.forgotten
        mixture = mixture_steps(structure, few, sites.rows or 0, random) if few is not None else None
    return mixture or climbing_steps(problem, structure.formulas, penalised), sites


def mixture_steps(
    structure: Structure, few: LogDensity, num_rows: int, random: torch.Generator
) -> MixtureSteps | None:
    """Return the steps of a mixture whose code need not run again; None where it has to."""
    known = structure.formulas
    rows = shared_rows(known.parts, num_rows) if structure.is_mixture else None
    if rows is None:
        return None
    steps = MixtureSteps(rows, known.without_order(), Latents(few, known.layout))
    return steps if is_exchangeable(steps, random) else None


def climbing_steps(problem: Problem, known: Formulas, penalised: bool) -> ModelSteps:
    """Return the steps of a model with discrete sites or none, some of whose latents have formulas."""
    density = capture_density(
        problem.pair.model, problem.data, seed=problem.seed, dtype=problem.dtype, device=problem.device,
        total=lambda joint: log_total(counted(joint, penalised)),
    )  # fmt: skip
    return model_steps(problem, density, known, penalised)


def model_steps(problem: Problem, density: LogDensity, known: Formulas, penalised: bool) -> ModelSteps:
    """Return what EM repeats of a model whose log-likelihood is captured."""
    batch = few_at_once(density)
    planned = PLANNED + NEWTON * 2 * density.dim // batch
    with density.context():
        points = in_batches(density, batch, problem.compile, planned)
    return ModelSteps(known, Latents(density, known.layout), points, penalised)


def still_hold(steps: MixtureSteps, peaks: Sequence[Peak], problem: Problem) -> bool:
    """True where the parameters of a mixture are copies of the same latents at all of its peaks."""
    few, random = steps.latents.density, generator(problem.seed, "copies", device=problem.device)
    position = torch.stack([peak.mode.position for peak in peaks])
    return copies_hold(few.model, few.data, few.sites, position, random)


def few_at_once(density: LogDensity) -> int:
    """Return how many points run in one graph: several where one of them would leave the cache empty."""
    return SIDE_BY_SIDE if largest_site(density) <= SMALL else 1


def screening_steps(problem: Problem, sites: SiteTable, penalised: bool) -> Steps | None:
    """Return what EM repeats, on as many random rows as all starts run on.

    None where there are no more, and where the model's code does not follow its rows.
    """
    if (sites.rows or 0) <= SCREENED:
        return None
    random = generator(problem.seed, "rows", device=problem.device)
    index = torch.randperm(sites.rows or 0, generator=random, device=problem.device)[:SCREENED]
    try:
        steps, few = steps_of(replace(problem, data=picked_rows(problem, sites, index)), penalised)
    except (*REFUSALS, PyrolatentError):
        return None
    return steps if few.rows == SCREENED and shared_shapes(few) == shared_shapes(sites) else None


def picked_rows(problem: Problem, sites: SiteTable, index: Tensor) -> dict[str, Any]:
    """Return the data with the rows at `index (M,)` alone."""
    rows = split_rows(problem.data, sites.rows or 0)
    return {**rows.constants, **rows.take(index)}


def shared_shapes(sites: SiteTable) -> dict[str, torch.Size]:
    """Return the shapes of the latents that all rows share."""
    return {name: site.shape for name, site in sites.latents.items() if name not in sites.row_latents}


def at_few_rows(problem: Problem, sites: SiteTable, random: torch.Generator) -> LogDensity | None:
    """Return the model at few rows, not captured; None where its code does not follow its rows."""
    data = picked_rows(problem, sites, torch.arange(min(FEW, sites.rows or 0), device=problem.device))
    model, points = problem.pair.model, random_start((2, sites.layout.size), random)

    def total(flat: Tensor) -> Tensor:
        return log_total(counted(evaluate(model, data, few, flat), penalised=False))

    try:
        few = read_sites(model, data, random)
        table = largest_table(model, data, few, points[0], random) if few.discrete else 0
        eager = LogDensity(model, data, few, problem.dtype, problem.device, Batched(total, "eager"), table)
        wanted = eager.constrain(points)
    except (*REFUSALS, ModelError):
        return None
    if few.layout.shapes != sites.layout.shapes:
        return None
    rungs: tuple[Rung, ...] = ("vmap", "shim")
    for rung in rungs:
        faster = replace(eager, batched=Batched(total, rung))
        try:
            found = faster.constrain(points)
        except REFUSALS:
            continue
        if all(close(found[name], wanted[name]) for name in few.latents):
            return faster
    return eager
