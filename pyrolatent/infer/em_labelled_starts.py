"""Where EM of any model begins: at the most likely latents if the discrete site of each row were known.

Values are those of clusters of the rows, or what rows tell of them.  With them, the likelihood has no sum in
it, and its peak is easily climbed from anywhere: in whatever units the data are.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from pyrolatent.capture.compile import capture
from pyrolatent.capture.enumeration import log_prob_of_cells
from pyrolatent.capture.expectation import log_total
from pyrolatent.capture.joint import evaluate
from pyrolatent.capture.ladder import REFUSALS
from pyrolatent.capture.messages import DATA_PLATE, Message
from pyrolatent.capture.modes import FailingCholesky, ReadValues
from pyrolatent.capture.seen import seen_entries
from pyrolatent.capture.sites import Site, random_start
from pyrolatent.capture.supports import values_of
from pyrolatent.infer.em_starts import first_shares
from pyrolatent.infer.em_steps import ModelSteps, counted
from pyrolatent.kernels.ascent import lbfgs_ascent
from pyrolatent.seeds import generator

MAX_CLIMB = 300  # evaluations
TOLD = 1e-9  # nats by which what does not hang on the latents may change with them


@final
@dataclass(frozen=True)
class RowSite:
    """The one discrete site of rows, from two runs of the model.

    Attributes:
        site: The site.
        values: What it can be `(C,)`.
        told: What rows tell of it whatever the latents are `(C, N)`, in nats.
        features: Standardised numbers that rows have `(N, F)`.
    """

    site: Site
    values: Tensor
    told: Tensor
    features: Tensor


def row_site(steps: ModelSteps, random: torch.Generator) -> RowSite | None:
    """Return the discrete site of rows if the model has one, and no other."""
    density = steps.latents.density
    sites = list(density.sites.discrete.values())
    if len(sites) != 1 or sites[0].plates != {DATA_PLATE: 0} or len(sites[0].shape) != 1:
        return None
    position = random_start((2, density.dim), random, density.dtype)
    first, second = (evaluate(density.model, density.data, density.sites, point) for point in position)
    number, rows = len(values_of(first.messages[sites[0].name])), sites[0].shape[0]
    told = torch.zeros(number, rows, dtype=density.dtype, device=density.device)
    features = []
    for name in density.sites.observed:
        table, again = (log_prob_of_cells(run.messages[name]) for run in (first, second))
        if table.shape == told.shape and torch.allclose(table, again, rtol=0, atol=TOLD):
            told = told + table
        elif density.sites.observed[name].plates.get(DATA_PLATE) == 0:
            features.append(standardised(first.messages[name], rows))
    values = values_of(first.messages[sites[0].name])
    return RowSite(sites[0], values, told, torch.cat([told.new_zeros(rows, 0), *features], 1))


def standardised(message: Message, rows: int) -> Tensor:
    """Return the numbers of an observed site `(N, F)`, of mean 0 and variance 1, 0 where hidden."""
    value = torch.as_tensor(message["value"]).to(torch.get_default_dtype())
    seen = seen_entries(message) & value.isfinite()
    value, seen = value.reshape(rows, -1), seen.reshape(rows, -1)
    count = seen.sum(0).clamp(min=1)
    centred = torch.where(seen, value - torch.where(seen, value, 0.0).sum(0) / count, 0.0)
    spread = (centred.square().sum(0) / count).sqrt()
    return centred / torch.where(spread > 0, spread, 1.0)


def labelled_starts(steps: ModelSteps, number: int, seed: int) -> Tensor | None:
    """Return latents `(B, R)` of at most `number` different starts.

    None where rows have no single discrete site, or the model's code does not let several points run at once.
    """
    density = steps.latents.density
    random = generator(seed, "labelled starts", device=density.device)
    known = row_site(steps, random)
    if known is None:
        return None
    labels = first_shares(known.told, known.features, number, seed).argmax(1).unique(dim=0)
    start = random_start((len(labels), density.dim), random, density.dtype)
    given = known.values[labels].long()

    def height(flat: Tensor, value: Tensor) -> Tensor:
        with ReadValues(), FailingCholesky() as cholesky:
            labels = {known.site.name: value}
            joint = evaluate(density.model, density.data, density.sites, flat, labels)
            total = log_total(counted(joint, steps.penalised))
        return cholesky.guard(total)

    def batched(positions: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        gradient, value = vmap(grad_and_value(height))(positions, values)
        return value, gradient

    try:
        graph = capture(batched, start, given)
        climbed = lbfgs_ascent(lambda position: graph(position, given), start, MAX_CLIMB)
    except REFUSALS:
        return None
    found = climbed[graph(climbed, given)[0].isfinite()]
    return steps.latents.of_positions(found) if len(found) else None
