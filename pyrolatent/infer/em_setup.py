"""What EM needs of a model: the formulas of its latents, and its rows where it is a mixture."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from pyrolatent.capture.context import model_context
from pyrolatent.capture.copies import Part, parts_of
from pyrolatent.capture.density import LogDensity, capture_density, check_sampleable, largest_table
from pyrolatent.capture.enumeration import log_prob_of_cells, plates_of
from pyrolatent.capture.expectation import log_total
from pyrolatent.capture.failures import explained
from pyrolatent.capture.joint import evaluate, split_by_sum
from pyrolatent.capture.ladder import REFUSALS, Batched, Rung, close
from pyrolatent.capture.messages import DATA_PLATE, Message
from pyrolatent.capture.sites import SiteTable, random_start, read_sites
from pyrolatent.capture.vector import Layout
from pyrolatent.errors import ModelError, PyrolatentError
from pyrolatent.infer.em_gaussian import integrated
from pyrolatent.infer.em_row_checks import check_plates
from pyrolatent.infer.em_steps import Latents, MixtureSteps, ModelSteps, Steps, counted, supports_of
from pyrolatent.infer.maximisation import Formulas, formulas
from pyrolatent.infer.points import in_batches
from pyrolatent.infer.rows import split_rows
from pyrolatent.infer.shared_rows import shared_rows
from pyrolatent.infer.speed import largest_site
from pyrolatent.result import Problem
from pyrolatent.seeds import generator

FEW = 8  # rows on which the code of a mixture runs
SCREENED = 10_000  # rows on which all starts run, where there are more
SIDE_BY_SIDE = 16  # points in one graph
SMALL = 2**12  # numbers of a point's largest site up to which that is faster
PLANNED = 100  # evaluations at many rows, after starts ran on few of them
NEWTON = 10  # steps of Newton's method there, each by differences of gradients along all directions


@final
@dataclass(frozen=True)
class Structure:
    """What two runs tell of a model.

    Attributes:
        formulas: Of its latents.
        is_mixture: Whether these are of all latents, and every site lies in the data plate alone and counts
            once.
    """

    formulas: Formulas
    is_mixture: bool


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
        structure = read_structure(problem, sites, random, penalised)
        layout, parts = structure.formulas.layout, structure.formulas.parts
        rows = shared_rows(parts, sites.rows) if structure.is_mixture and sites.rows else None
        few = at_few_rows(problem, sites, random) if rows else None
        if rows and few is not None:
            return MixtureSteps(rows, structure.formulas.without_order(), Latents(few, layout)), sites
    density = capture_density(
        model, data, seed=problem.seed, dtype=problem.dtype, device=device,
        total=lambda joint: log_total(counted(joint, penalised)),
    )  # fmt: skip
    return model_steps(problem, density, structure.formulas, penalised), sites


def model_steps(problem: Problem, density: LogDensity, formulas: Formulas, penalised: bool) -> ModelSteps:
    """Return what EM repeats of a model whose log-likelihood is captured."""
    batch = few_at_once(density)
    planned = PLANNED + NEWTON * 2 * density.dim // batch
    with density.context():
        points = in_batches(density, batch, problem.compile, planned)
    return ModelSteps(formulas, Latents(density, formulas.layout), points, penalised)


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


def read_structure(problem: Problem, sites: SiteTable, random: torch.Generator, penalised: bool) -> Structure:
    """Run the model twice, at random latents, and return what differs and how."""
    runs, cells = [], []
    layout = Layout({name: site.shape for name, site in sites.latents.items()})
    for _ in range(2):
        position = random_start((sites.layout.size,), random).requires_grad_()
        joint = evaluate(problem.pair.model, problem.data, sites, position)
        runs.append((position, joint))
        cells.append(layout.pack({name: value.detach() for name, value in joint.values.items()}))
    (position, joint), (_, again) = runs
    summed, plain = split_by_sum(counted(joint, penalised))
    parts: list[Part] = []
    others = {}
    for name, message in {**summed, **plain}.items():
        with torch.no_grad():
            own = parts_of(message, again.messages[name], cells[0], cells[1], layout)
        if own is None:
            others[name] = message
        else:
            parts += own
    touched = dependent(others, position, sites, layout)
    supports = supports_of(joint)
    found = formulas(parts, layout, touched, supports)
    used = cells_used(parts, layout.size)
    exact = not others and bool((found.known | ~used).all())
    return Structure(found, exact and all(map(is_row, (*summed.values(), *plain.values()))))


def dependent(messages: Mapping[str, Message], position: Tensor, sites: SiteTable, layout: Layout) -> Tensor:
    """Return which cells `(R,)` belong to latents that the probabilities of sites depend on."""
    if not messages:
        return torch.zeros(layout.size, dtype=torch.bool, device=position.device)
    total = torch.stack([log_prob_of_cells(message).sum() for message in messages.values()]).sum()
    gradient = torch.zeros_like(position)
    if total.requires_grad:
        (gradient,) = torch.autograd.grad(total, position)
    moved = {name: bool((part != 0).any()) for name, part in sites.layout.unpack(gradient).items()}
    return layout.pack({name: torch.full(shape, moved[name]) for name, shape in layout.shapes.items()})


def cells_used(parts: list[Part], size: int) -> Tensor:
    """Return which cells of latents some part has as a parameter `(R,)`."""
    used = torch.zeros(size, dtype=torch.bool)
    for source in (source for part in parts for source in part.sources):
        used[source.index[source.index < size]] = True
    return used


def is_row(message: Message) -> bool:
    """True for a site that lies in the data plate, its last dimension, alone, and counts once."""
    once = isinstance(message["scale"], float | int) and message["scale"] == 1
    return once and dict(plates_of(message)) == {DATA_PLATE: -1}


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
