"""What runs of a model tell of its parameters: copies of latents, and formulas of these."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from pyrolatent.capture.copies import Part, parts_of
from pyrolatent.capture.enumeration import log_prob_of_cells, plates_of
from pyrolatent.capture.joint import LogJoint, evaluate, split_by_sum
from pyrolatent.capture.messages import DATA_PLATE, Message
from pyrolatent.capture.sites import SiteTable, random_start
from pyrolatent.capture.vector import Layout
from pyrolatent.infer.em_steps import counted, supports_of
from pyrolatent.infer.maximisation import Formulas, formulas
from pyrolatent.pair import Model


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

    @property
    def forgotten(self) -> "Structure":
        """The same without a formula."""
        return Structure(self.formulas.forgotten, False)


def read_structure(
    model: Model, data: Mapping[str, Any], sites: SiteTable, random: torch.Generator, penalised: bool
) -> Structure:
    """Run the model twice, at random latents, and return what differs and how."""
    layout = Layout({name: site.shape for name, site in sites.latents.items()})
    position, again = random_start((2, sites.layout.size), random)
    position.requires_grad_()
    joint, second = evaluate(model, data, sites, position), evaluate(model, data, sites, again)
    found = copies(joint, second, layout, penalised)
    summed, plain = split_by_sum(counted(joint, penalised))
    others = {name: joint.messages[name] for name, own in found.items() if own is None}
    parts = [part for own in found.values() for part in own or ()]
    touched = dependent(others, position, sites, layout)
    supports = supports_of(joint)
    known = formulas(parts, layout, touched, supports)
    exact = not others and bool((known.known | ~cells_used(parts, layout.size)).all())
    return Structure(known, exact and all(map(is_row, (*summed.values(), *plain.values()))))


def copies(joint: LogJoint, other: LogJoint, layout: Layout, penalised: bool) -> dict[str, list[Part] | None]:
    """Return the parts of each site that counts, from two runs; None where they are not known."""
    before, after = (
        layout.pack({name: value.detach() for name, value in run.values.items()}) for run in (joint, other)
    )
    summed, plain = split_by_sum(counted(joint, penalised))
    with torch.no_grad():
        return {
            name: parts_of(message, other.messages[name], before, after, layout)
            for name, message in {**summed, **plain}.items()
        }


def copies_hold(
    model: Model, data: Mapping[str, Any], sites: SiteTable, position: Tensor, random: torch.Generator
) -> bool:
    """True where parameters are copies of the same latents at all of `position (P, D)` as at random ones.

    Code such as `scale.clamp(min=0.1)` copies a latent here and not there.
    """
    layout = Layout({name: site.shape for name, site in sites.latents.items()})
    points = torch.cat([random_start((2, sites.layout.size), random), position])
    first, *others = [evaluate(model, data, sites, point) for point in points]
    wanted, *found = [copies(first, other, layout, penalised=False) for other in others]
    known = {name: parts for name, parts in wanted.items() if parts is not None}
    return all(same_copies(parts, again[name]) for again in found for name, parts in known.items())


def same_copies(parts: list[Part], others: list[Part] | None) -> bool:
    """True where parts have their parameters from the same cells."""
    return others is not None and all(
        torch.equal(part.key, other.key)
        and all(torch.equal(a.index, b.index) for a, b in zip(part.sources, other.sources, strict=True))
        for part, other in zip(parts, others, strict=True)
    )


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
