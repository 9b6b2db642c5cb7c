"""Which parameters of distributions are copies of latent sites.

In `Normal(location[z], scale[z])` each cell of either parameter is a cell of a latent site, wherever an
index, a `stack` or an `expand` took it from.  Two runs of a model at random values tell: cells that are
equal in both are copies, and cells that no latent moves are constants.  Where all parameters of a
distribution of an exponential family are such, the most likely values of the latents are formulas of
weighted sums of statistics (`pyrolatent.exponential`), whoever wrote the model.

The latents of a model are here one vector of R constrained cells, site after site.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from pyrolatent.capture.messages import WRAPPERS, Message, is_enumerable
from pyrolatent.capture.seen import over_events, seen_cells
from pyrolatent.capture.vector import Layout
from pyrolatent.columnwise import ColumnwiseDistribution
from pyrolatent.exponential import CLASSES, Family, Parameters, family_of
from pyrolatent.univariate import value_inside

EQUAL = {torch.float64: 1e-12, torch.float32: 1e-5}  # relative, of a copy that was normalised once more


@final
@dataclass(frozen=True)
class Source:
    """Where the cells of a parameter come from.

    Attributes:
        index: Positions `(U,)`, of vectors `(U, L)`, in the cells of the latents with `constants` after them.
        constants: Cells that no latent moves `(M,)`.
    """

    index: Tensor
    constants: Tensor

    def take(self, latents: Tensor) -> Tensor:
        """Return the parameter `(B, U)` or `(B, U, L)` at latents `(B, R)`."""
        constants = self.constants.expand(len(latents), -1)
        return torch.cat([latents, constants], 1)[:, self.index]


@final
@dataclass(frozen=True)
class Part:
    """Cells of a site that have distributions of one exponential family.

    Attributes:
        name: The site.
        family: Of their distributions.
        value: Of the cells, missing ones at a value of the support.
        seen: Which cells count, of the shape of the values.
        event_dim: How many dimensions of the cells stand right of the batch.
        key: Which of U distributions a cell has; of size 1 in dimensions along which that does not vary.
        sources: Of each parameter.
    """

    name: str
    family: Family
    value: Tensor
    seen: Tensor
    event_dim: int
    key: Tensor
    sources: tuple[Source, ...]

    @property
    def num_distributions(self) -> int:
        """U."""
        return len(self.sources[0].index)

    def parameters(self, latents: Tensor) -> Parameters:
        """Return the parameters `(B, U)` or `(B, U, L)` at latents `(B, R)`."""
        return tuple(source.take(latents) for source in self.sources)

    def statistics(self) -> Tensor:
        """Return the statistics `(*value, S)` of the cells, 0 of those that do not count."""
        return torch.where(self.seen[..., None], self.family.statistics(self.value), 0.0)

    def log_base(self) -> Tensor:
        """Return what the densities have of the values alone `(*value)`."""
        return torch.where(self.seen, self.family.log_base(self.value), 0.0)


@final
@dataclass(frozen=True)
class Cells:
    """Single cells with their distribution, out of a site."""

    fn: Any
    value: Tensor
    seen: Tensor
    event_dim: int


def cells_of(message: Message) -> Iterator[Cells]:
    """Yield the cells of a site, those of a table block by block.

    A mask does not concern a discrete latent site, whose probabilities add up to one in any case.
    """
    fn, value, mask = message["fn"], torch.as_tensor(message["value"]), message["mask"]
    seen, event_dim = torch.as_tensor(seen_cells(fn), device=value.device), fn.event_dim
    if isinstance(mask, Tensor | bool):
        seen = seen & torch.as_tensor(over_events(mask, event_dim), device=value.device)
    if is_enumerable(message):
        seen = torch.ones_like(value, dtype=torch.bool)
    while isinstance(fn, WRAPPERS):
        fn = fn.base_dist
    if isinstance(fn, ColumnwiseDistribution):
        for block in fn.blocks:
            wide = not isinstance(block.places, int)
            yield cells(block.cells, block.of_rows(value), block.of_rows(seen.expand_as(value)), int(wide))
    else:
        yield cells(fn, value, seen, event_dim)


def cells(fn: Any, value: Tensor, seen: Tensor, event_dim: int) -> Cells:
    """Return cells, the missing ones at a value of the support."""
    while seen.ndim > value.ndim and (seen == seen[:1]).all():
        seen = seen[0]  # a mask that is the same for all values of discrete sites
    seen = seen.expand(torch.broadcast_shapes(seen.shape, value.shape))
    known = torch.where(seen, value, value_inside(fn).to(value)) if type(fn) in CLASSES else value
    return Cells(fn, known, seen, event_dim)


def parts_of(
    first: Message, second: Message, before: Tensor, after: Tensor, layout: Layout
) -> list[Part] | None:
    """Return the parts of a site, or None where a distribution is of another kind.

    Args:
        first: The site in a run.
        second: The same in another one.
        before: The latents `(R,)` in the first run.
        after: The same in the second.
        layout: Of the latents.
    """
    found = []
    for some, other in zip(cells_of(first), cells_of(second), strict=True):
        known = family_of(some.fn, torch.where(some.seen, some.value, torch.nan))
        again = family_of(other.fn, other.value)
        if known is None or again is None or not torch.equal(some.value, other.value):
            return None
        family, parameters = known
        matched = [
            match(old, new, before, after, layout, family.event_dim)
            for old, new in zip(parameters, again[1], strict=True)
        ]
        sources = [source for source in matched if source is not None]
        if len(sources) < len(matched):
            return None
        key, sources = joined(sources, family.event_dim)
        found.append(Part(first["name"], family, some.value, some.seen, some.event_dim, key, tuple(sources)))
    return found


def match(
    old: Tensor, new: Tensor, before: Tensor, after: Tensor, layout: Layout, event_dim: int
) -> Source | None:
    """Return where each cell of a parameter comes from; None if that is no cell of a latent as it is."""
    old, new = collapsed(old, event_dim), collapsed(new, event_dim)
    places = rows(layout, old.shape[-1], before.device) if event_dim else torch.arange(len(before))[:, None]
    cell, other = (old, new) if event_dim else (old[..., None], new[..., None])
    found = places[closest(cell[..., 0], before[places[:, 0]])]
    constant = close(cell, other).all(-1, keepdim=True)  # also where it happens to equal a latent
    if not (constant | (close(before[found], cell) & close(after[found], other))).all():
        return None
    own = len(before) + torch.arange(cell.numel(), device=cell.device).reshape(cell.shape)
    index = torch.where(constant, own, found)
    return Source(index if event_dim else index[..., 0], cell.flatten())


def collapsed(parameter: Tensor, event_dim: int) -> Tensor:
    """Return a parameter with size 1 in dimensions of the batch along which it was expanded."""
    for dim in range(parameter.ndim - event_dim):
        if parameter.stride(dim) == 0:
            parameter = parameter.narrow(dim, 0, 1)
    return parameter


def rows(layout: Layout, size: int, device: torch.device) -> Tensor:
    """Return the positions `(M, size)` of all vectors of this size in the latents."""
    numbers = layout.unpack(torch.arange(layout.size, device=device))
    found = [part.reshape(-1, size) for part in numbers.values() if part.ndim and part.shape[-1] == size]
    return torch.cat(found) if found else torch.zeros(1, size, dtype=torch.long, device=device)


def closest(values: Tensor, table: Tensor) -> Tensor:
    """Return the position in `table (M,)` of what is closest to each of `values`."""
    order = table.argsort()
    after = torch.searchsorted(table[order], values.contiguous()).clamp(max=len(table) - 1)
    before = (after - 1).clamp(min=0)
    nearer = (table[order[before]] - values).abs() < (table[order[after]] - values).abs()
    return order[torch.where(nearer, before, after)]


def close(found: Tensor, expected: Tensor) -> Tensor:
    """Return where two tensors are equal up to the rounding of a normalisation."""
    return (found - expected).abs() <= EQUAL[expected.dtype] * (1 + expected.abs())


def joined(sources: list[Source], event_dim: int) -> tuple[Tensor, list[Source]]:
    """Return which of U different distributions each cell has, and the sources of these."""
    heads = [source.index[..., 0] if event_dim else source.index for source in sources]
    tables = torch.broadcast_tensors(*heads)
    together = torch.stack([table.flatten() for table in tables], 1)
    _, key = together.unique(dim=0, return_inverse=True)
    number = int(key.max()) + 1
    first = torch.full((number,), len(key), device=key.device)
    first = first.scatter_reduce(0, key, torch.arange(len(key), device=key.device), "amin")
    taken = []
    for source in sources:
        whole = source.index.expand(*tables[0].shape, *source.index.shape[len(heads[0].shape) :])
        index = whole.flatten(0, tables[0].ndim - 1)[first] if tables[0].ndim else whole[None][first]
        taken.append(Source(index, source.constants))
    return key.reshape(tables[0].shape), taken
