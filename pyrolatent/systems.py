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
class Systems:
    """Systems A x = q of many sizes, as places in a source matrix.

    Attributes:
        index: `(E,)` place of each entry in the flattened source; for each size k, largest first, an
            array `(k, 1 + k, count)` that holds [q A].
        shapes: (k, count) for each size.
        owner: `(T,)` the system to which each of all T pivots belongs.
    """

    index: Tensor
    shapes: tuple[tuple[int, int], ...]
    owner: Tensor

    def factor(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Return logs `(T,)` and squares `(T,)` that sum, over a system's pivots, to log|A| and q' A^-1 q."""
        sizes = [size * (1 + size) * count for size, count in self.shapes]
        # a gather, not an index: its gradient is one scatter_add
        parts = source.flatten().gather(0, self.index).split(sizes)
        groups = {
            size: part.view(size, 1 + size, count)
            for (size, count), part in zip(self.shapes, parts, strict=True)
        }
        shares = [factor_one_size(group) for size, group in groups.items() if size > LARGEST_UNROLLED]
        small = {size: group for size, group in groups.items() if size <= LARGEST_UNROLLED}
        shares += [eliminate(small)] if small else []
        logs, squares = zip(*shares, strict=True)
        return concatenate(logs), concatenate(squares)


def concatenate(parts: tuple[Tensor, ...]) -> Tensor:
    """Return `torch.cat(parts, -1)`, without an operation where there is one part."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def eliminate(groups: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
    """Eliminate [q A] from the last cell to the first, all systems at once.

    Args:
        groups: Size k -> `(k, 1 + k, count)`, largest size first.

    Returns:
        Log pivots and squares `(T,)`: first those of the largest systems' last cells, then those of
        the last cells of all that are one smaller by then, and so on.
    """
    pivots, sides = [], []
    left: tuple[Tensor, ...] = ()
    for size in range(max(groups), 0, -1):
        system = concatenate((*left, groups[size]) if size in groups else left)
        if size > 1:
            others, system = system.split([size - 1, 1], 0)
            rest, column = others.split([size, 1], 1)
        row, pivot = system.split([size, 1], 1)
        if size > 1:
            left = (rest - (column / pivot) * row,)
        pivots.append(pivot.flatten())
        sides.append(row[0, 0])
    pivot = concatenate(tuple(pivots))
    return pivot.log(), concatenate(tuple(sides)).square() / pivot


def factor_one_size(group: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same as `eliminate` for one group `(k, 1 + k, count)`, from Cholesky factors."""
    side, matrix = group.movedim(-1, 0).split([1, group.shape[0]], -1)
    cholesky = torch.linalg.cholesky(matrix)
    lengths = torch.linalg.solve_triangular(cholesky, side, upper=False)
    return 2 * cholesky.diagonal(dim1=-2, dim2=-1).log().flatten(), lengths.square().flatten()


def arrange(
    cells: Tensor, matrix: Tensor, side: Tensor, *, columns: int, diagonal: Tensor | None = None
) -> Systems:
    """Lay out the systems A = source[cells, matrix + cells], q = source[cells, side].

    Args:
        cells: `(n, D)` True at the cells of each of n systems, at least one.
        matrix: `(n,)` column of the source at which the D x D matrix starts that A is part of.
        side: `(n,)` column of the source that holds q.
        columns: How many columns the source has.
        diagonal: `(n,)` column of the source with A's diagonal, where that is not the matrix's own.
    """
    sizes = cells.sum(1)
    members = {size: (sizes == size).nonzero()[:, 0] for size in sorted(set(sizes.tolist()), reverse=True)}
    index = []
    for size, chosen in members.items():
        cell = cells[chosen].nonzero()[:, 1].view(-1, size)
        block = (matrix[chosen, None] + cell)[:, None, :].expand(-1, size, -1)
        if diagonal is not None:
            on_diagonal = torch.eye(size, dtype=torch.bool, device=cells.device)
            block = torch.where(on_diagonal, diagonal[chosen, None, None], block)
        column = torch.cat([side[chosen, None, None].expand(-1, size, 1), block], 2)
        index.append((cell[:, :, None] * columns + column).permute(1, 2, 0).flatten())
    shapes = tuple((size, len(chosen)) for size, chosen in members.items())
    return Systems(torch.cat(index), shapes, torch.cat(list(pivot_owners(members))))


def pivot_owners(members: dict[int, Tensor]) -> Iterator[Tensor]:
    """Yield the system of each pivot, in the order in which `Systems.factor` returns them."""
    for size, group in members.items():
        if size > LARGEST_UNROLLED:
            yield group.repeat_interleave(size)
    small = {size: group for size, group in members.items() if size <= LARGEST_UNROLLED}
    taking_part: list[Tensor] = []
    for size in range(max(small, default=0), 0, -1):
        taking_part += [small[size]] if size in small else []
        yield torch.cat(taking_part)
