"""Rows with holes, grouped by which of their cells are missing, and compressed.

Rows of one pattern enter a Gaussian log-density through sums of squares only, so n of them with o
observed cells are replaced, exactly, by o + 1 pseudo-rows: the cost of the density grows with the
number of patterns, not of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import pad


@final
@dataclass(frozen=True)
class Rows:
    """Rows whose residual is `values - weights * mean`: data have weight 1, pseudo-rows have others.

    Attributes:
        values: `(n, D)`.
        weights: `(n,)`.
    """

    values: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.weights)

    def to(self, dtype: torch.dtype) -> "Rows":
        return Rows(self.values.to(dtype), self.weights.to(dtype))

    def padded(self, number: int) -> "Rows":
        """Return `number` rows, of which those added are 0 and weigh 0."""
        missing = number - len(self)
        return Rows(pad(self.values, (0, 0, 0, missing)), pad(self.weights, (0, missing)))

    def residual(self, mean: Tensor) -> Tensor:
        """Return the residuals from `mean (D,)` as columns `(D, n)`."""
        return self.values.mT - mean[:, None] * self.weights

    @property
    def coefficients(self) -> Tensor:
        """The matrix C `(D + 1, n)` for which [mean I] C is `residual(mean)`."""
        return torch.cat([-self.weights[None], self.values.mT])


def by_holes(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return which rows `(N,)` have at most as many holes as observed cells, and which have more.

    Rows with nothing observed are in neither.
    """
    observed, missing = mask.sum(1), (~mask).sum(1)
    return (observed > 0) & (missing <= observed), (observed > 0) & (missing > observed)


def same_pattern(mask: Tensor, rows: Tensor) -> list[Tensor]:
    """Split the row numbers `rows (n,)` into groups whose rows of `mask (N, D)` are equal."""
    codes = torch.zeros_like(rows)
    for block in mask[rows].split(31, 1):  # codes stay below 2^31, so the shift cannot overflow
        bits = (block.long() << torch.arange(block.shape[1], device=mask.device)).sum(1)
        codes = torch.unique((codes << 31) + bits, return_inverse=True)[1]
    order = torch.argsort(codes, stable=True)
    return list(rows[order].split(codes.bincount().tolist())) if len(rows) else []


def compress(values: Tensor, observed: Tensor) -> Rows:
    """Replace n rows by at most o + 1 pseudo-rows with the same sum of every quadratic form.

    With a the mean of the rows and F the triangular factor of the centred rows, the sum over rows of
    q(y - mu) is q(sqrt(n) a - sqrt(n) mu) plus the sum of q over the rows of F: pseudo-rows of
    weight sqrt(n) and 0.

    Args:
        values: `(n, D)` rows of data, 0 at the columns that are not observed.
        observed: `(D,)` the o columns that are.
    """
    count, size = len(values), int(observed.sum())
    if count <= size + 1:
        return Rows(values, values.new_ones(count))
    mean = values.mean(0, keepdim=True)
    factor = values.new_zeros(size, len(observed))
    factor[:, observed] = torch.linalg.qr((values - mean)[:, observed], mode="r").R
    weights = values.new_zeros(size + 1)
    weights[0] = count**0.5
    return Rows(torch.cat([count**0.5 * mean, factor]), weights)


@final
@dataclass(frozen=True)
class Shared:
    """Rows of which r at a time share a system.

    Attributes:
        rows: r for each of n systems, those of one system in a row.
        mask: `(n, D)` the pattern of each system.
        counts: `(n,)` for how many rows of data its log-determinant counts.
        sides: r.
    """

    rows: Rows
    mask: Tensor
    counts: Tensor
    sides: int

    def __len__(self) -> int:
        return len(self.counts)


def compress_patterns(values: Tensor, mask: Tensor, chosen: Tensor, cells: Tensor) -> tuple[Shared, Shared]:
    """Compress the rows of each pattern among the row numbers `chosen (n,)`.

    k pseudo-rows of a pattern take k systems of one right-hand side each, or share one that has D
    where that halves the numbers at least.

    Args:
        values: `(N, D)`, 0 where `mask (N, D)` is False.
        mask: True at observed cells.
        chosen: Which of the N rows.
        cells: `(N,)` the size of a row's system.

    Returns:
        The systems of one right-hand side, and those of D.
    """
    dim = mask.shape[1]
    alone, together = [none(values, mask, 1)], [none(values, mask, dim)]
    for rows in same_pattern(mask, chosen):
        part, pattern, size = compress(values[rows], mask[rows[0]]), mask[rows[:1]], int(cells[rows[0]])
        if len(part) * (1 + size) > 2 * (dim + size):
            together.append(Shared(part.padded(dim), pattern, rows.new_tensor([len(rows)]), dim))
        else:  # the log-determinant counts once
            first = torch.arange(len(part), device=rows.device) == 0
            alone.append(Shared(part, pattern.expand(len(part), -1), len(rows) * first, 1))
    return join(alone), join(together)


def none(values: Tensor, mask: Tensor, sides: int) -> Shared:
    """Return no rows, of the type of `values (N, D)`, and no systems."""
    return Shared(Rows(values[:0], values[:0, 0]), mask[:0], mask[:0, 0].long(), sides)


def join(parts: Sequence[Shared]) -> Shared:
    """Return all systems, which have equally many rows, one after the other."""
    return Shared(
        join_rows([part.rows for part in parts]),
        torch.cat([part.mask for part in parts]),
        torch.cat([part.counts for part in parts]),
        parts[0].sides,
    )


def join_rows(parts: Sequence[Rows]) -> Rows:
    """Return all rows one after the other."""
    return Rows(torch.cat([part.values for part in parts]), torch.cat([part.weights for part in parts]))
