"""Rows whose distributions differ by discrete sites alone: mixtures, of any number of columns.

Where the latents of a model are parameters of exponential families, and what a row has is picked from
tables by its discrete sites alone, the log-probability of row i with values c of these is

    eta(c) . T(row i) + constant,

a product of what only the latents change and what they do not.  So a model's code runs no more once its
tables are known: an iteration of EM is two matrix products and a softmax, in parts of the rows that fit
into the cache.  The posterior shares of c, times T, are also the gradient by eta (Fisher's identity).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import final

import torch
from torch import Tensor

from pyrolatent.capture.copies import Part

CELLS = 2**16  # log-probabilities at a time: 256 KiB in float64
GROUP = 16  # factors of a product whose log is taken at once; (1 / C)^16 must be a number
LIKE = 1_000  # rows among which equal ones are looked for
WORTH = 0.5  # share of different rows below which equal ones are counted


@final
@dataclass(frozen=True)
class Block:
    """A part of a site, as columns of T.

    Attributes:
        cells: Which of U distributions each of C values of the discrete sites picks `(C, d)`.
        columns: Where in T its statistics stand; None for a discrete site, which rows do not have.
        fixed: The statistics of a discrete site `(C, S)`.
    """

    cells: Tensor
    columns: slice
    fixed: Tensor | None = None


@final
@dataclass(frozen=True)
class SharedRows:
    """The log-likelihood of rows, and the expected sums of statistics.

    Attributes:
        parts: Cells of all sites.
        blocks: Of each part: as columns of T, or as values of a discrete site.
        design: T `(P, N)`, no row of 1 but the first.
        place: Where in it each statistic of the blocks stands `(all,)`: of a cell that all rows have, the
            statistic that is 1 is the first row.
        counts: How often each row is in the data `(N,)`.
        once: Whether that is once for all.
        constant: What the latents do not change, in nats.
        num_values: C, the number of values that the discrete sites have together.
    """

    parts: Sequence[Part]
    blocks: tuple[Block, ...]
    design: Tensor
    place: Tensor
    counts: Tensor
    once: bool
    constant: Tensor
    num_values: int

    def take(self, index: Tensor) -> "SharedRows":
        """Return the same of some rows `(M,)`, which may repeat."""
        return replace(self, design=self.design[:, index], counts=self.counts[index])

    def coefficients(self, natural: Sequence[Tensor]) -> Tensor:
        """Return eta `(B, C, P)` from the natural parameters `(B, U, S)` of each part."""
        size = natural[0].shape[0], self.num_values
        eta = torch.zeros(*size, len(self.place), dtype=self.design.dtype, device=self.design.device)
        for block, own in zip(self.blocks, natural, strict=True):
            picked = own[:, block.cells]  # (B, C, d, S)
            if block.fixed is not None:
                eta[..., 0] += (picked[:, :, 0] * block.fixed).sum(-1)
            else:
                eta[..., block.columns] += picked.flatten(2)
        return eta.new_zeros(*size, len(self.design)).index_add_(2, self.place, eta)

    def expected(self, eta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-likelihood `(B,)` in nats and its gradient `(B, C, P)` by `eta (B, C, P)`."""
        starts, values = eta.shape[:2]
        flat, size = eta.flatten(0, 1), max(512, CELLS // (starts * values))
        total, sums = self.constant.expand(starts).clone(), torch.zeros_like(flat)
        for begin in range(0, len(self.counts), size):
            some = self.design[:, begin : begin + size]
            logits = (flat @ some).unflatten(0, (starts, values))
            shares = logits.softmax(1)
            # log sum exp is the largest logit less the log of the largest share, which is 1 / C at least
            if self.once:
                total += logits.amax(1).sum(1) - log_sum(shares.amax(1))
            else:
                counts = self.counts[begin : begin + size]
                total += (logits.amax(1) - shares.amax(1).log()) @ counts
                shares *= counts
            sums.addmm_(shares.flatten(0, 1), some.mT)
        return total, sums.unflatten(0, (starts, values))

    def sums(self, gradient: Tensor) -> list[Tensor]:
        """Return the sums of statistics `(B, U, S)` of each part, from the gradient `(B, C, P)` by eta."""
        found, gradient = [], gradient[..., self.place]
        for part, block in zip(self.parts, self.blocks, strict=True):
            if block.fixed is not None:
                terms = gradient[..., :1] * block.fixed
            else:
                terms = gradient[..., block.columns].unflatten(2, (block.cells.shape[1], -1)).flatten(1, 2)
            zeros = gradient.new_zeros(len(gradient), part.num_distributions, terms.shape[-1])
            found.append(zeros.index_add_(1, block.cells.flatten(), terms))
        return found

    def shares(self, eta: Tensor) -> Tensor:
        """Return the posterior probability `(C, N)` of each value of the discrete sites, at `eta (C, P)`."""
        return (eta @ self.design).softmax(0)


def shared_rows(parts: Sequence[Part], num_rows: int) -> SharedRows | None:
    """Return the rows of a mixture, or None where rows differ by more than the values of discrete sites.

    Args:
        parts: The cells of every site that depends on latents or discrete sites, whose plates are that of
            the rows alone.
        num_rows: N.
    """
    device, dtype = parts[0].value.device, torch.get_default_dtype()
    shapes = [batch_shape(part) for part in parts]
    values = torch.broadcast_shapes(*(shape[:-1] for shape in shapes))
    columns, blocks = [torch.ones(1, num_rows, dtype=dtype, device=device)], []
    constant, width = torch.zeros((), dtype=dtype, device=device), 1
    for part in parts:
        key = part.key if part.event_dim else part.key[..., None]
        if key.ndim > 1 and key.shape[-2] > 1:
            return None
        cells = right(key, len(values) + 2).expand(*values, 1, -1).flatten(0, -2)
        statistics = part.statistics() if part.event_dim else part.statistics()[..., None, :]
        if has_rows(part, num_rows):
            if prod(statistics.shape[:-3]) > 1:
                return None
            rows = statistics.reshape(num_rows, -1)
            cells = cells.expand(-1, statistics.shape[-2])
            blocks.append(Block(cells, slice(width, width + rows.shape[1])))
            columns.append(rows.mT.to(dtype))
            width += rows.shape[1]
            constant = constant + part.log_base().sum()
        else:
            own = right(statistics[..., 0, :], len(values) + 2)
            if own.shape[-2] > 1:
                return None
            blocks.append(Block(cells, slice(0, 1), own.expand(*values, 1, -1).flatten(0, -2)))
    whole = torch.cat(columns)
    own = ~(whole == 1).all(1)
    own[0] = True
    place = torch.where(own, own.cumsum(0) - 1, 0)
    design, counts = counted(whole[own])
    once = bool((counts == 1).all())
    return SharedRows(parts, tuple(blocks), design, place, counts, once, constant, prod(values))


def batch_shape(part: Part) -> torch.Size:
    """Return the shape of the batch of a part's cells."""
    shape = torch.broadcast_shapes(part.key.shape, part.value.shape)
    return shape[: len(shape) - part.event_dim]


def has_rows(part: Part, num_rows: int) -> bool:
    """True for cells that rows have, and not values of a discrete site that all rows share."""
    axis = part.value.ndim - part.event_dim - 1
    return axis >= 0 and part.value.shape[axis] == num_rows and part.value.shape[:axis].numel() == 1


def log_sum(shares: Tensor) -> Tensor:
    """Return the sum of logs `(B,)` of `shares (B, n)` that are not small, by few logs of products."""
    whole = shares.shape[1] - shares.shape[1] % GROUP
    products = shares[:, :whole].unflatten(1, (GROUP, -1)).prod(1)
    return products.log().sum(1) + shares[:, whole:].log().sum(1)


def right(tensor: Tensor, ndim: int) -> Tensor:
    """Return a tensor with dimensions of size 1 to its left, `ndim` in all."""
    return tensor.reshape((1,) * (ndim - tensor.ndim) + tensor.shape)


def counted(design: Tensor) -> tuple[Tensor, Tensor]:
    """Return the different rows of T `(P, M)`, and how often each occurs `(M,)`; all if few are alike."""
    some = design[:, torch.linspace(0, design.shape[1] - 1, min(LIKE, design.shape[1])).long()]
    if some.unique(dim=1).shape[1] > WORTH * some.shape[1]:
        return design.contiguous(), torch.ones(design.shape[1], dtype=design.dtype, device=design.device)
    different, counts = design.unique(dim=1, return_counts=True)
    return different.contiguous(), counts.to(design.dtype)


def natural_parameters(parts: Sequence[Part], latents: Tensor) -> list[Tensor]:
    """Return the natural parameters `(B, U, S)` of each part at latents `(B, R)`."""
    return [part.family.natural(*part.parameters(latents)) for part in parts]
