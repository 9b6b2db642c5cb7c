"""Gaussian rows with holes, grouped by which of their cells are missing.

Let S = L L' be the covariance, P its inverse, r the residual of a row, o its observed and m its
missing cells.  By the partitioned inverse (e.g. Petersen and Pedersen, The Matrix Cookbook, 2012,
section 9.1), whatever r holds at the missing cells,

    log|S_oo| = log|S| + log|P_mm|,
    r_o' S_oo^-1 r_o = r'Pr - (Pr)_m' P_mm^-1 (Pr)_m.

So a row with few holes costs a system of the size of its holes beside what full rows cost, and a
row with more holes than observed cells goes through S_oo itself.  Which systems there are depends on
the mask only, and is settled here, before any graph is captured.

Rows of one pattern enter through sums of squares only, so n of them with o observed cells are
replaced, exactly, by o + 1 pseudo-rows (`compress`): all later cost grows with the number of
patterns, not of rows.
"""

from dataclasses import dataclass
from itertools import chain
from typing import final

import torch
from torch import Tensor
from torch.linalg import solve_triangular

from pyrolatent.systems import Systems, arrange

COST_OF_PIVOT = 4  # a logarithm and a division, counted in multiplications


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

    def to(self, dtype: torch.dtype) -> "Rows":
        return Rows(self.values.to(dtype), self.weights.to(dtype))

    def residual(self, mean: Tensor) -> Tensor:
        """Return the residuals from `mean (D,)` as columns `(D, n)`."""
        return self.values.mT - mean[:, None] * self.weights

    def __len__(self) -> int:
        return len(self.weights)


@final
@dataclass(frozen=True)
class GaussianRows:
    """Incomplete rows as the Gaussian log-density sees them.

    Attributes:
        centre: `(D,)` what was subtracted from the values, so that large means cost no accuracy.
        whole: The rows with at most as many holes as observed cells, holes filled with the centre.
        sides: The right-hand sides of `systems`: rows of that kind with holes, whose systems are parts
            of P, and rows of the other kind, whose systems are parts of S.
        systems: None where no cell is missing.
        log_weights: `(T,)` how many rows of data each pivot counts for.
        signs: `(T,)` -1 for pivots of the first kind, 1 for the others.
    """

    centre: Tensor
    whole: Rows
    sides: tuple[Rows, Rows]
    systems: Systems | None
    log_weights: Tensor
    signs: Tensor

    def misfit(self, loc: Tensor, scale_tril: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the parts of log|S_oo| + r_o' S_oo^-1 r_o that are not log|S|.

        Args:
            loc: `(D,)` mean.
            scale_tril: `(D, D)` the factor L.

        Returns:
            `(n,)` r'Pr of each of `whole`, and `(T,)` what each pivot adds, None without holes.
        """
        mean = loc - self.centre
        whole = self.whole.residual(mean)
        if self.systems is None:
            return solve_triangular(scale_tril, whole, upper=False).square().sum(0), None
        identity = torch.eye(len(loc), dtype=loc.dtype, device=loc.device)
        solved = solve_triangular(scale_tril, torch.cat([whole, identity], 1), upper=False)
        whitened, inverse = solved.split([whole.shape[1], len(loc)], 1)
        logs, squares = self.systems.factor(self._source(mean, scale_tril, inverse))
        return whitened.square().sum(0), self.log_weights * logs + self.signs * squares

    def _source(self, mean: Tensor, scale_tril: Tensor, inverse: Tensor) -> Tensor:
        """Return the matrix in which `assemble` places the systems: [P, P R_1, S, R_2, 0]."""
        first, second = self.sides
        parts = [torch.zeros_like(mean)[:, None]]
        if len(second):
            parts = [scale_tril @ scale_tril.mT, second.residual(mean), *parts]
        if len(first):
            precision = inverse.mT @ inverse
            parts = [precision, precision @ first.residual(mean), *parts]
        return torch.cat(parts, 1)


def each_row(values: Tensor, mask: Tensor) -> tuple[GaussianRows, Tensor]:
    """Return rows `values (N, D)`, 0 where `mask (N, D)` is False, as they are.

    Returns:
        The rows, `whole` being all N of them in their order with weight 0 for those of the other
        kind; and `(T,)` the row of each pivot.
    """
    precise, other = kinds(mask)
    first, second = (precise & ~mask.all(1)).nonzero()[:, 0], other.nonzero()[:, 0]
    chosen = torch.cat([first, second])
    right = torch.arange(len(chosen), device=mask.device)
    weights = precise.to(values.dtype)
    rows = assemble(
        centre=torch.zeros_like(mask[0], dtype=values.dtype),
        whole=Rows(values * weights[:, None], weights),
        sides=(Rows(values[first], weights[first]), Rows(values[second], 1 - weights[second])),
        mask=mask[chosen],
        right=right[:, None],
        counts=torch.ones_like(right),
    )
    return rows, chosen if rows.systems is None else chosen[rows.systems.owner]


def compressed(values: Tensor, mask: Tensor) -> GaussianRows:
    """Return rows `values (N, D)`, 0 where `mask (N, D)` is False, with equal patterns compressed.

    Computed in float64, whatever the precision of `values`.
    """
    precise, other = kinds(mask)
    centre = (values.double().sum(0) / mask.sum(0).clamp(min=1)).to(values.dtype)
    centred = torch.where(mask, values.double() - centre.double(), 0.0)
    groups = [same_pattern(mask, kind.nonzero()[:, 0]) for kind in (precise & ~mask.all(1), other)]
    parts = [[compress(centred[rows], mask[rows[0]]) for rows in kind] for kind in groups]
    first, second = (concatenate(kind, like=centred).to(values.dtype) for kind in parts)
    patterns = mask[[int(rows[0]) for rows in chain(*groups)]]
    copies = share_out(patterns, torch.tensor([len(part) for part in chain(*parts)], dtype=torch.long, device=mask.device))
    counts = torch.tensor([len(rows) for rows in chain(*groups)], dtype=torch.long, device=mask.device)
    return assemble(
        centre=centre,
        whole=compress(centred[precise], torch.ones_like(mask[0])).to(values.dtype),
        sides=(first, second),
        mask=patterns[copies.pattern],
        right=copies.rows,
        counts=torch.where(copies.number == 0, counts[copies.pattern], 0),
    )


def assemble(
    *, centre: Tensor, whole: Rows, sides: tuple[Rows, Rows], mask: Tensor, right: Tensor, counts: Tensor
) -> GaussianRows:
    """Place the systems of incomplete rows in the source matrix that `GaussianRows` makes.

    Args:
        centre: See `GaussianRows`, as for `whole` and `sides`.
        mask: `(C, D)` the pattern of each system.
        right: `(C, K)` which of all `sides` are its right-hand sides; -1 for none.
        counts: `(C,)` how many rows of data its log-determinant counts for.
    """
    dim, (num_first, num_second) = mask.shape[1], (len(rows) for rows in sides)
    precise = right[:, 0] < num_first
    second = (dim + num_first) if num_first else 0
    columns = second + (dim + num_second if num_second else 0) + 1
    matrix = torch.where(precise, 0, second)
    places = right + torch.where(precise, dim, second + dim - num_first)[:, None]
    places = torch.where(right < 0, columns - 1, places)
    cells = torch.where(precise[:, None], ~mask, mask)
    systems = arrange(cells, matrix, places, columns=columns) if len(mask) else None
    owner = matrix if systems is None else systems.owner
    log_weights = counts[owner].to(centre.dtype)
    signs = torch.where(precise[owner], -1, 1).to(centre.dtype)
    return GaussianRows(centre, whole, sides, systems, log_weights, signs)


def condition(residual: Tensor, scale_tril: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance `(N, D)` of missing residuals given the observed ones; 0 at the latter.

    The mean is -P_mm^-1 (Pr)_m and the covariance P_mm^-1.  Both are gradients of what the systems
    return: d log|A| / dA = A^-1, and d q'A^-1 q / dq = 2 A^-1 q.

    Args:
        residual: `(N, D)`, 0 where `mask (N, D)` is False.
        scale_tril: `(D, D)` the factor L.
        mask: True at observed cells.
    """
    if mask.all():
        return torch.zeros_like(residual), torch.zeros_like(residual)
    count, dim = mask.shape
    rows = (~mask.all(1)).nonzero()[:, 0]
    systems = arrange(
        ~mask[rows],
        torch.zeros_like(rows),
        dim + rows[:, None],
        columns=dim + 2 * count,
        diagonal=dim + count + rows,
    )
    inverse = solve_triangular(
        scale_tril, torch.eye(dim, dtype=residual.dtype, device=mask.device), upper=False
    )
    precision = inverse.mT @ inverse

    def totals(sides: Tensor, diagonals: Tensor) -> tuple[Tensor, Tensor]:
        logs, squares = systems.factor(torch.cat([precision, sides, diagonals], 1))
        return logs.sum(), squares.sum()

    diagonals = precision.diagonal()[:, None].expand(-1, count)
    (log_det, square), pull_back = torch.func.vjp(totals, precision @ residual.mT, diagonals)
    one, none = torch.ones_like(log_det), torch.zeros_like(square)
    return -pull_back((none, one))[0].mT / 2, pull_back((one, none))[1].mT


def kinds(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return which rows `(N,)` have at most as many holes as observed cells, and which others have any."""
    observed, missing = mask.sum(1), (~mask).sum(1)
    some = observed > 0
    return some & (missing <= observed), some & (missing > observed)


def same_pattern(mask: Tensor, rows: Tensor) -> list[Tensor]:
    """Split the indices `rows (n,)` into groups of equal rows of `mask (N, D)`."""
    codes = torch.zeros_like(rows)
    for block in mask[rows].split(31, 1):
        bits = (block.long() << torch.arange(block.shape[1], device=mask.device)).sum(1)
        codes = torch.unique((codes << 31) + bits, return_inverse=True)[1]
    order = torch.argsort(codes, stable=True)
    return list(rows[order].split(codes.bincount().tolist())) if len(rows) else []


def compress(values: Tensor, observed: Tensor) -> Rows:
    """Replace n rows by at most o + 1 pseudo-rows with the same sum of every quadratic form.

    With a the mean of the rows and F the triangular factor of the centred rows, the sum of q(y - mu)
    over rows is q(sqrt(n) a - sqrt(n) mu) plus the sum of q over the rows of F: pseudo-rows of weight
    sqrt(n) and 0.

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


def concatenate(parts: list[Rows], like: Tensor) -> Rows:
    """Return the rows of all `parts`; with as many columns as `like (n, D)` where there are none."""
    values = torch.cat([like[:0], *(part.values for part in parts)])
    return Rows(values, torch.cat([like.new_zeros(0), *(part.weights for part in parts)]))


@final
@dataclass(frozen=True)
class Copies:
    """Systems with K right-hand sides each; a pattern with more rows than K has several copies.

    Attributes:
        pattern: `(C,)` the pattern of each system.
        number: `(C,)` 0, 1, ... among those of one pattern.
        rows: `(C, K)` its rows, counted through all patterns; -1 for none.
    """

    pattern: Tensor
    number: Tensor
    rows: Tensor


def share_out(patterns: Tensor, num_rows: Tensor) -> Copies:
    """Choose the K for which elimination costs least, and give each pattern the systems it needs.

    Args:
        patterns: `(p, D)` the masks.
        num_rows: `(p,)` how many right-hand sides each has.
    """
    sizes = torch.minimum(patterns.sum(1), (~patterns).sum(1))

    def needed(width: int) -> Tensor:
        return (num_rows + width - 1) // width

    def cost(width: int) -> int:
        return int((needed(width) * sizes * (sizes + width + COST_OF_PIVOT)).sum())

    width = min(range(1, max(num_rows.tolist(), default=1) + 1), key=cost)
    pattern = torch.repeat_interleave(needed(width))
    number = (
        torch.arange(len(pattern), device=pattern.device) - (needed(width).cumsum(0) - needed(width))[pattern]
    )
    within = number[:, None] * width + torch.arange(width, device=pattern.device)
    start = (num_rows.cumsum(0) - num_rows)[pattern, None]
    return Copies(pattern, number, torch.where(within < num_rows[pattern, None], start + within, -1))
