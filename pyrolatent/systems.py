"""Many small positive definite systems, factored side by side.

A mask of a few hundred rows leads to a hundred systems of one to six cells.  LAPACK called once for
each would cost more than the arithmetic, so systems of up to `LARGEST_UNROLLED` cells are
eliminated together: all of them give up their last cell in one step, those that were larger join
those that are smaller now, and so on.  The graph has as many steps as the largest system has cells,
however many systems there are.
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
    """Systems A of many sizes with K right-hand sides Q each, as places in a source matrix.

    Attributes:
        index: `(E,)` place of each entry in the flattened source; for each size k, largest first, an
            array `(k, K + k, count)` that holds [Q A].
        shapes: (k, count) for each size.
        width: K.
        owner: `(T,)` the system to which each of the T pivots belongs.
    """

    index: Tensor
    shapes: tuple[tuple[int, int], ...]
    width: int
    owner: Tensor

    def factor(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Return log pivots `(T,)` and squared lengths `(T,)`.

        Summed over the pivots of a system they are log|A| and the sum over its right-hand sides of
        q' A^-1 q.
        """
        sizes = [size * (self.width + size) * count for size, count in self.shapes]
        # a gather, not an index: its gradient is one scatter_add
        parts = source.flatten().gather(0, self.index).split(sizes)
        groups = {
            size: part.view(size, self.width + size, count)
            for (size, count), part in zip(self.shapes, parts, strict=True)
        }
        large = [group for size, group in groups.items() if size > LARGEST_UNROLLED]
        small = {size: group for size, group in groups.items() if size <= LARGEST_UNROLLED}
        shares = [factor_one_size(group, self.width) for group in large]
        shares += [eliminate(small, self.width)] if small else []
        if len(shares) == 1:
            return shares[0]
        return torch.cat([logs for logs, _ in shares]), torch.cat([squares for _, squares in shares])


def eliminate(groups: dict[int, Tensor], width: int) -> tuple[Tensor, Tensor]:
    """Eliminate [Q A] from the last cell to the first, all systems at once.

    Args:
        groups: Size k -> `(k, K + k, count)`, largest size first.
        width: K.

    Returns:
        Log pivots and squared lengths `(T,)`: those of the first step, in which only the largest
        systems take part, then of the second, and so on.
    """
    pivots, rows = [], []
    left: list[Tensor] = []
    for size in range(max(groups), 0, -1):
        taking_part = [*left, groups[size]] if size in groups else left
        system = torch.cat(taking_part, -1) if len(taking_part) > 1 else taking_part[0]
        others, last = system.split([size - 1, 1], -3)
        row, pivot = last.split([width + size - 1, 1], -2)
        rest, column = others.split([width + size - 1, 1], -2)
        left = [torch.addcmul(rest, column / pivot, row, value=-1)] if size > 1 else []
        pivots.append(pivot.flatten())
        rows.append(row.narrow(-2, 0, width).flatten(0, 1))
    pivot = torch.cat(pivots)
    return pivot.log(), torch.cat(rows, -1).square().sum(0) / pivot


def factor_one_size(group: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return the same as `eliminate` for one group `(k, K + k, count)`, from Cholesky factors."""
    right, matrix = group.movedim(-1, 0).split([width, group.shape[0]], -1)
    cholesky = torch.linalg.cholesky(matrix)
    lengths = torch.linalg.solve_triangular(cholesky, right, upper=False)
    return 2 * cholesky.diagonal(dim1=-2, dim2=-1).log().flatten(), lengths.square().sum(-1).flatten()


def arrange(
    cells: Tensor, matrix: Tensor, right: Tensor, *, columns: int, diagonal: Tensor | None = None
) -> Systems:
    """Lay out the systems A = source[cells, matrix + cells], Q = source[cells, right].

    Args:
        cells: `(n, D)` True at the cells of each system, at least one.
        matrix: `(n,)` column of the source at which the D x D matrix starts that a system is part of.
        right: `(n, K)` columns of the source with its right-hand sides.
        columns: How many columns the source has.
        diagonal: `(n,)` column of the source with its diagonal, where that is not the matrix's own.
    """
    sizes = cells.sum(1)
    members = {size: (sizes == size).nonzero()[:, 0] for size in sorted(set(sizes.tolist()), reverse=True)}
    index = []
    for size, chosen in members.items():
        cell = cells[chosen].nonzero()[:, 1].view(-1, size)
        block = matrix[chosen, None, None] + cell[:, None, :].expand(-1, size, -1)
        if diagonal is not None:
            on_diagonal = torch.eye(size, dtype=torch.bool, device=cells.device)
            block = torch.where(on_diagonal, diagonal[chosen, None, None], block)
        sides = right[chosen, None, :].expand(-1, size, -1)
        places = cell[:, :, None] * columns + torch.cat([sides, block], 2)
        index.append(places.permute(1, 2, 0).flatten())
    shapes = tuple((size, len(chosen)) for size, chosen in members.items())
    owner = torch.cat(list(pivot_owners(members)))
    return Systems(torch.cat(index), shapes, right.shape[1], owner)


def pivot_owners(members: dict[int, Tensor]) -> Iterator[Tensor]:
    """Yield the system of each pivot, in the order in which `Systems.factor` returns them."""
    for size, group in members.items():
        if size > LARGEST_UNROLLED:
            yield group.repeat_interleave(size)
    small = {size: group for size, group in members.items() if size <= LARGEST_UNROLLED}
    taking_part = torch.cat(list(members.values()))[:0]
    for size in range(max(small, default=0), 0, -1):
        taking_part = torch.cat([taking_part, small[size]]) if size in small else taking_part
        yield taking_part
