"""A matrix product of which only some entries are wanted.

Of A C, where `A (D, K)` varies and `C (K, n)` is constant, a Gaussian with holes needs row d at the
columns whose cell d is missing.  The columns wanted of each row stand side by side in blocks of one
length, so that the work follows the number of wanted entries, not D n.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True)
class Blocks:
    """The columns of C that each row of A is multiplied with.

    Attributes:
        columns: `(b, l, K)` l columns of C in each of b blocks, zeros where a row has no more.
        row: `(b,)` the row of A that a block belongs to; None where each row has one block.
        place: `(n, D)` where the product has the entry of column i and row d, if it is wanted.
    """

    columns: Tensor
    row: Tensor | None
    place: Tensor

    def product(self, left: Tensor) -> Tensor:
        """Return the wanted entries `(b l, P)` of A C, and zeros, for P points `left (D, K, P)`."""
        rows = left if self.row is None else left.index_select(0, self.row)
        return torch.bmm(self.columns, rows).flatten(0, 1)


def wanted(entries: Tensor, right: Tensor) -> Blocks:
    """Lay out the product with `right (K, n)` of which `entries (n, D)`, one at least, are True."""
    number, dim = entries.shape
    counts = entries.sum(0)
    row, column = entries.mT.nonzero().unbind(1)
    rank = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    # one row with many entries makes blocks for itself, and does not lengthen those of the others
    length = min(int(counts.max()), 2 * len(row) // int((counts > 0).sum()))
    blocks = (counts + length - 1) // length
    block, slot = (blocks.cumsum(0) - blocks)[row] + rank // length, rank % length
    columns = right.new_zeros(int(blocks.sum()), length, len(right))
    columns[block, slot] = right.mT[column]
    place = row.new_zeros(number, dim)
    place[column, row] = block * length + slot
    owner = torch.arange(dim, device=row.device).repeat_interleave(blocks)
    return Blocks(columns, None if bool((blocks == 1).all()) else owner, place)
