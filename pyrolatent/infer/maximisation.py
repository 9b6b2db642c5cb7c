"""The most likely values of latents given weighted sums of statistics: the M-step of EM.

Cells of latents that are copied into distributions of exponential families have formulas
(`pyrolatent.exponential`): locations first, then scales given these.  Each of the two steps is a
conditional maximum, so the likelihood never falls.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions.constraints import Constraint

from pyrolatent.capture.copies import Part
from pyrolatent.capture.vector import Layout

HALVINGS = 50  # of a step that would leave a support
WIDE = (constraints.real, constraints.positive, constraints.unit_interval, constraints.simplex)  # never left


@final
@dataclass(frozen=True)
class Use:
    """Cells of latents that a part has as one of its parameters.

    Attributes:
        part: Its number.
        which: The number of the parameter.
        places: Of the cells, among all latents `(M,)`.
        kept: Which cells of the parameter these are `(M,)`.
    """

    part: int
    which: int
    places: Tensor
    kept: Tensor


@final
@dataclass(frozen=True)
class Formula:
    """Cells of latents that are parameters of one role: of all parts that have them.

    Attributes:
        uses: Where.
        cells: Which of all R cells have this role `(R,)`.
    """

    uses: tuple[Use, ...]
    cells: Tensor


@final
@dataclass(frozen=True)
class Formulas:
    """How latents follow from sums of statistics.

    Attributes:
        parts: The cells of sites that have distributions of exponential families.
        steps: One after the other.
        layout: Of the latents.
        supports: Of the latents.
        narrow: Latents that a formula could lead out of theirs.
        exchangeable: Latents whose order is kept in the end only.
    """

    parts: tuple[Part, ...]
    steps: tuple[Formula, ...]
    layout: Layout
    supports: Mapping[str, Constraint]
    narrow: tuple[str, ...]
    exchangeable: tuple[str, ...] = ()

    @property
    def known(self) -> Tensor:
        """Which of all R cells have a formula `(R,)`."""
        none = torch.zeros(self.layout.size, dtype=torch.bool)
        return torch.stack([none, *(step.cells for step in self.steps)]).any(0)

    def improved(self, latents: Tensor, sums: Sequence[Tensor]) -> Tensor:
        """Return better latents `(B, R)` than `latents (B, R)`, from sums `(B, U, S)` of each part."""
        for step in self.steps:
            numerator, denominator = torch.zeros_like(latents), torch.zeros_like(latents)
            for use in step.uses:
                part = self.parts[use.part]
                above, below = part.family.terms(use.which, sums[use.part], part.parameters(latents))
                numerator.index_add_(1, use.places, above.flatten(1)[:, use.kept])
                denominator.index_add_(1, use.places, below.expand_as(above).flatten(1)[:, use.kept])
            moves = step.cells & (denominator > 0)
            ratio = numerator / torch.where(moves, denominator, 1.0)
            first = step.uses[0]
            best = self.parts[first.part].family.solution(first.which, torch.where(moves, ratio, 0.5))
            latents = self.allowed(latents, torch.where(moves, best, latents))
        return latents

    def allowed(self, old: Tensor, new: Tensor) -> Tensor:
        """Return steps from `old (B, R)` to `new (B, R)`, halved until they stay in the supports.

        A density of an exponential family has one peak, so half the way is also a way up.
        """
        for name in self.narrow:
            own = self.layout.pack({n: torch.full(s, n == name) for n, s in self.layout.shapes.items()})
            for halvings in range(HALVINGS + 1):
                inside = self.inside(name, new)
                if inside.all():
                    break
                back = old if halvings == HALVINGS else (old + new) / 2
                new = torch.where(own & ~inside[:, None], back, new)
        return new

    @property
    def forgotten(self) -> "Formulas":
        """None of them, so that everything climbs."""
        return Formulas((), (), self.layout, self.supports, ())

    def without_order(self) -> "Formulas":
        """Return the same that keep to no order of exchangeable components, which no likelihood knows."""
        free = {name: s for name, s in self.supports.items() if plain(s) is constraints.ordered_vector}
        narrow = tuple(name for name in self.narrow if name not in free)
        return replace(self, narrow=narrow, exchangeable=tuple(free))

    def inside(self, name: str, latents: Tensor) -> Tensor:
        """Return at which of `latents (B, R)` one of them is in its support `(B,)`."""
        checked = self.supports[name].check(self.layout.unpack(latents)[name])
        return checked.reshape(len(latents), -1).all(1)

    def possible(self, latents: Tensor) -> Tensor:
        """Return which of `latents (B, R)` are in all supports, for each cell `(B, 1)`."""
        checked = [name for name in self.supports if name not in self.exchangeable]
        return torch.stack([self.inside(name, latents) for name in checked]).all(0)[:, None]


def formulas(
    parts: Iterable[Part], layout: Layout, others: Tensor, supports: Mapping[str, Constraint]
) -> Formulas:
    """Return how latents follow from sums of statistics of these parts.

    Args:
        parts: All of them.
        layout: Of the latents.
        others: Which of the R cells something else depends on as well `(R,)`.
        supports: Of the latents.
    """
    parts = tuple(parts)
    roles: dict[tuple[int, str, int], list[Use]] = {}
    for number, part in enumerate(parts):
        for which, source in enumerate(part.sources):
            index = source.index.flatten()
            kept = (index < layout.size).nonzero()[:, 0]
            if len(kept):
                use = Use(number, which, index[kept], kept)
                roles.setdefault((which, role_of(part), part.family.event_dim), []).append(use)
    cells = {role: cells_in(uses, layout.size) for role, uses in sorted(roles.items())}
    none = torch.zeros(layout.size, dtype=torch.bool)
    unfit = [used & ~allowing(supports, layout, role[2]) for role, used in cells.items()]
    twice = torch.stack([none, *cells.values()]).sum(0) > 1
    alone = ~torch.stack([others, twice, *unfit]).any(0)
    # a latent of which a part has no formula is left to the gradient as a whole
    whole = {name: bool(mask.all()) for name, mask in layout.unpack(alone).items()}
    own = layout.pack({name: torch.full(layout.shapes[name], is_whole) for name, is_whole in whole.items()})
    steps = [Formula(tuple(roles[role]), used & own) for role, used in cells.items() if (used & own).any()]
    narrow = tuple(name for name, support in supports.items() if whole[name] and plain(support) not in WIDE)
    return Formulas(parts, tuple(steps), layout, supports, narrow)


def allowing(supports: Mapping[str, Constraint], layout: Layout, event_dim: int) -> Tensor:
    """Return which cells `(R,)` may be set as parameters of this kind, numbers or shares.

    Shares add up to one, so that those of one vector go together; what is ordered is checked at each step.
    """
    found = {}
    for name, shape in layout.shapes.items():
        support: Any = plain(supports[name])
        numbers = support.event_dim == 0 or support is constraints.ordered_vector
        found[name] = torch.full(shape, support is constraints.simplex if event_dim else bool(numbers))
    return layout.pack(found)


def plain(support: Any) -> Any:
    """Return what a support asks of single cells, or of the vectors it is of."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def role_of(part: Part) -> str:
    """Return what a parameter is to the parts that have it."""
    return f"{type(part.family).__name__} {getattr(part.family, 'kind', '')}"


def cells_in(uses: Iterable[Use], size: int) -> Tensor:
    """Return which of all cells these uses have `(R,)`."""
    cells = torch.zeros(size, dtype=torch.bool)
    for use in uses:
        cells[use.places] = True
    return cells
