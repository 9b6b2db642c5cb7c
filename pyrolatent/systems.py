"""Many small positive definite systems, factored side by side.

The holes of a few hundred rows make a hundred systems of one to six cells.  LAPACK called for each
would cost more than the arithmetic, so systems of up to `LARGEST_UNROLLED` cells are eliminated
together: all of the largest give up one cell, join those that had one cell less from the start, and
so on.  The graph has one step for each cell of the largest system, however many systems there are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

LARGEST_UNROLLED = 8  # beyond, the graph of the elimination would grow too long


@final
@dataclass(frozen=True)
class Places:
    """Where a flat source holds n systems A X = Q with r right-hand sides each.

    Attributes:
        cells: `(n, D)` True at the cells of each system, at least one.
        matrix: `(D, D)` places of the matrix that A is part of.
        sides: `(n, r, D)` place of each cell of each column of Q, if the system has that cell.
        diagonal: `(n, D)` places of A's diagonal, where that is not the matrix's own.
    """

    cells: Tensor
    matrix: Tensor
    sides: Tensor
    diagonal: Tensor | None = None

    @property
    def sizes(self) -> Tensor:
        return self.cells.sum(1)


@final
@dataclass(frozen=True)
class Systems:
    """Systems A X = Q of many sizes, as places in a flat source.

    Attributes:
        index: `(E,)` place of each entry; for each shape an array `(k, r + k, count)` that holds [Q A].
        shapes: (r, k, count) for each number r of right-hand sides and size k, the largest k first.
        owner: `(T,)` the system to which each of all T pivots belongs.
    """

    index: Tensor
    shapes: tuple[tuple[int, int, int], ...]
    owner: Tensor

    def factor(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Return logs and squares `(T, P)` that sum, over a system's pivots, to log|A| and tr Q'A^-1 Q.

        Args:
            source: `(S, P)`, P points.
        """
        lengths = [size * (sides + size) * count for sides, size, count in self.shapes]
        # the same; index_select is the faster one for rows of points, gather for single numbers
        many = source.shape[1] > 1
        taken = source.index_select(0, self.index) if many else source.gather(0, self.index[:, None])
        parts = taken.split(lengths)
        groups: dict[int, dict[int, Tensor]] = {}
        for (sides, size, count), part in zip(self.shapes, parts, strict=True):
            groups.setdefault(sides, {})[size] = part.unflatten(0, (size, sides + size, count))
        shares = [share for sides, group in groups.items() for share in factors(group, sides)]
        logs, squares = zip(*shares, strict=True)
        return concatenate(logs, 0), concatenate(squares, 0)


def concatenate(parts: tuple[Tensor, ...], dim: int) -> Tensor:
    """Return `torch.cat(parts, dim)`, without an operation where there is one part."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def factors(groups: dict[int, Tensor], sides: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield logs and squares of systems `(k, r + k, count, P)` by size k, with r = `sides`."""
    yield from (factor_one_size(group) for size, group in groups.items() if size > LARGEST_UNROLLED)
    if small := {size: group for size, group in groups.items() if size <= LARGEST_UNROLLED}:
        yield eliminate(small, sides)


def eliminate(groups: dict[int, Tensor], sides: int) -> tuple[Tensor, Tensor]:
    """Eliminate [Q A] from the last cell to the first, all systems at once.

    Args:
        groups: Size k -> `(k, r + k, count, P)`, largest size first.
        sides: r, how many right-hand sides each system has.

    Returns:
        Log pivots and squares `(T, P)`: first those of the largest systems' last cells, then those of
        the last cells of all that are one smaller by then, and so on.
    """
    pivots, lengths = [], []
    left: tuple[Tensor, ...] = ()
    for size in range(max(groups), 0, -1):
        system = concatenate((*left, groups[size]) if size in groups else left, 2)
        before = sides + size - 1
        if size > 1:
            others, system = system.split([size - 1, 1], 0)
            rest, column = others.split([before, 1], 1)
        row, pivot = system.split([before, 1], 1)
        if size > 1:
            left = (rest - (column / pivot) * row,)
        pivots.append(pivot.flatten(0, 2))
        lengths.append(row.flatten(0, 1)[:sides])
    pivot = concatenate(tuple(pivots), 0)
    return pivot.log(), concatenate(tuple(lengths), 1).square().sum(0) / pivot


def factor_one_size(group: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same as `eliminate` for one group `(k, r + k, count, P)`, from Cholesky factors."""
    size, columns, *shape = group.shape
    sides, matrix = group.flatten(2).movedim(-1, 0).split([columns - size, size], -1)
    cholesky = torch.linalg.cholesky(matrix)
    lengths = torch.linalg.solve_triangular(cholesky, sides, upper=False)
    parts = 2 * cholesky.diagonal(dim1=-2, dim2=-1).log(), lengths.square().sum(-1)
    logs, squares = (part.unflatten(0, shape).movedim(-1, 1).flatten(0, 1) for part in parts)
    return logs, squares


def arrange(*kinds: Places) -> Systems:
    """Lay out the systems of all kinds; those with equally many right-hand sides are factored together."""
    numbered: dict[int, list[tuple[int, Places]]] = {}
    first = 0
    for places in kinds:
        numbered.setdefault(places.sides.shape[1], []).append((first, places))
        first += len(places.cells)
    index, shapes = [], []
    owner: list[Tensor] = []
    for sides, alike in numbered.items():
        members = {}
        for size in sorted({size for _, places in alike for size in places.sizes.tolist()}, reverse=True):
            chosen = [(places.sizes == size).nonzero()[:, 0] for _, places in alike]
            parts = [entries(places, size, rows) for (_, places), rows in zip(alike, chosen, strict=True)]
            index.append(torch.cat(parts, 2).flatten())
            members[size] = torch.cat([first + rows for (first, _), rows in zip(alike, chosen, strict=True)])
            shapes.append((sides, size, len(members[size])))
        owner += pivot_owners(members)
    return Systems(torch.cat(index), tuple(shapes), torch.cat(owner))


def entries(places: Places, size: int, chosen: Tensor) -> Tensor:
    """Return the places `(size, r + size, count)` of [Q A] for the systems `chosen (count,)`."""
    cell = places.cells[chosen].nonzero()[:, 1].view(-1, size)
    block = places.matrix[cell[:, :, None], cell[:, None, :]]
    if places.diagonal is not None:
        on_diagonal = torch.eye(size, dtype=torch.bool, device=cell.device)
        block = torch.where(on_diagonal, places.diagonal[chosen].gather(1, cell)[:, :, None], block)
    sides = places.sides[chosen].gather(2, cell[:, None].expand(-1, places.sides.shape[1], -1))
    return torch.cat([sides.mT, block], 2).permute(1, 2, 0)


def pivot_owners(members: dict[int, Tensor]) -> Iterator[Tensor]:
    """Yield the system of each pivot, in the order in which `factors` returns them."""
    for size, group in members.items():
        if size > LARGEST_UNROLLED:
            yield group.repeat_interleave(size)
    small = {size: group for size, group in members.items() if size <= LARGEST_UNROLLED}
    taking_part: list[Tensor] = []
    for size in range(max(small, default=0), 0, -1):
        taking_part += [small[size]] if size in small else []
        yield torch.cat(taking_part)
