"""The multivariate normal density of rows with holes.

Let S = L L' be the covariance, P its inverse, r the residual of a row, o its observed and m its
missing cells.  By the partitioned inverse (e.g. Petersen and Pedersen, The Matrix Cookbook, 2012,
section 9.1), whatever r holds at the missing cells,

    log|S_oo| = log|S| + log|P_mm|,
    r_o' S_oo^-1 r_o = r'Pr - (Pr)_m' P_mm^-1 (Pr)_m.

So a row with few holes costs a system of the size of its holes beside what a full row costs, and a
row with more holes than observed cells goes through S_oo itself.  Which systems there are depends on
the mask only and is settled here, before any graph is captured; the same code serves single rows
and compressed ones.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.linalg import solve_triangular

from pyrolatent.patterns import Rows, by_holes, compress, compress_patterns
from pyrolatent.systems import Systems, arrange


@final
@dataclass(frozen=True)
class GaussianRows:
    """Incomplete rows as the Gaussian density sees them.

    Attributes:
        centre: `(D,)` what was subtracted from the values, so that large means cost no accuracy.
        whole: The rows with few holes, these filled with the centre.
        few: Those of `whole` that have holes; their systems are parts of P.
        many: The rows with many holes; their systems are parts of S.
        systems: One for each of `few`, then of `many`; None where no cell is missing.
        owner: `(T,)` the system to which each pivot belongs.
        log_weights: `(T,)` how many rows of data each pivot counts for.
        signs: `(T,)` -1 for pivots of `few`, 1 for those of `many`.
    """

    centre: Tensor
    whole: Rows
    few: Rows
    many: Rows
    systems: Systems | None
    owner: Tensor
    log_weights: Tensor
    signs: Tensor

    def misfit(self, loc: Tensor, scale_tril: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the terms of log|S_oo| + r_o' S_oo^-1 r_o.

        Args:
            loc: `(D,)` mean.
            scale_tril: `(D, D)` the factor L.

        Returns:
            `(n,)` log|S| + r'Pr of each of `whole`; `(T,)` what each pivot adds, None without holes.
        """
        mean = loc - self.centre
        log_det = 2 * scale_tril.diagonal().log().sum() * self.whole.weights.square()
        if self.systems is None:
            whitened = solve_triangular(scale_tril, self.whole.residual(mean), upper=False)
            return log_det + whitened.square().sum(0), None
        identity = torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
        basis = torch.cat([mean[:, None], identity], 1)
        inverse = solve_triangular(scale_tril, basis, upper=False)
        whitened = inverse @ self.whole.coefficients
        logs, squares = self.systems.factor(self._source(basis, inverse, scale_tril))
        return log_det + whitened.square().sum(0), self.log_weights * logs + self.signs * squares

    def _source(self, basis: Tensor, inverse: Tensor, scale_tril: Tensor) -> Tensor:
        """Return [P, P R, S, R], R the residuals of `few` and of `many`, as `place` counts on it.

        Args:
            basis: [mean I].
            inverse: L^-1 [mean I].
            scale_tril: L.
        """
        parts = []
        if len(self.few):
            unchanged = torch.eye(1 + len(basis), dtype=basis.dtype, device=basis.device)[:, 1:]
            columns = torch.cat([unchanged, self.few.coefficients], 1)
            parts.append(inverse[:, 1:].mT @ inverse @ columns)
        if len(self.many):
            parts += [scale_tril @ scale_tril.mT, basis @ self.many.coefficients]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def each_row(residual: Tensor, loc: Tensor, mask: Tensor) -> tuple[GaussianRows, Tensor]:
    """Return rows as they are, holes filled with their mean `loc (D,)`.

    Args:
        residual: `(N, D)` from `loc`, 0 where `mask (N, D)` is False.
        loc: The mean at which alone the result may be used.
        mask: True at observed cells.

    Returns:
        The rows, where `whole` has all N in their order, of weight 0 where they have many holes; and
        `(T,)` the row of each pivot.
    """
    is_few, is_many = by_holes(mask)
    few, many = (is_few & ~mask.all(1)).nonzero()[:, 0], is_many.nonzero()[:, 0]
    weights = is_few.to(residual.dtype)
    rows = place(
        mask[torch.cat([few, many])],
        torch.ones_like(torch.cat([few, many])),
        centre=loc,
        whole=Rows(residual * weights[:, None], weights),
        few=Rows(residual[few], weights[few]),
        many=Rows(residual[many], 1 - weights[many]),
    )
    return rows, torch.cat([few, many])[rows.owner]


def compressed(values: Tensor, mask: Tensor) -> GaussianRows:
    """Return rows `values (N, D)`, 0 where `mask (N, D)` is False, with equal patterns compressed.

    Computed in float64, whatever the precision of `values`.
    """
    dtype = values.dtype
    is_few, is_many = by_holes(mask)
    centre = (values.double().sum(0) / mask.sum(0).clamp(min=1)).to(dtype)
    centred = torch.where(mask, values.double() - centre.double(), 0.0)
    few, few_from, few_counts = compress_patterns(centred, mask, (is_few & ~mask.all(1)).nonzero()[:, 0])
    many, many_from, many_counts = compress_patterns(centred, mask, is_many.nonzero()[:, 0])
    return place(
        mask[torch.cat([few_from, many_from])],
        torch.cat([few_counts, many_counts]),
        centre=centre,
        whole=compress(centred[is_few], torch.ones_like(mask[0])).to(dtype),
        few=few.to(dtype),
        many=many.to(dtype),
    )


def place(
    mask: Tensor, counts: Tensor, *, centre: Tensor, whole: Rows, few: Rows, many: Rows
) -> GaussianRows:
    """Place the systems of `few` and `many` in the source matrix that `GaussianRows` makes.

    Args:
        mask: `(n, D)` the patterns of `few`, then of `many`.
        counts: `(n,)` for how many rows of data the log-determinant of each system counts.
        centre: See `GaussianRows`.
        whole: See `GaussianRows`.
        few: See `GaussianRows`.
        many: See `GaussianRows`.
    """
    dim, number = mask.shape[1], torch.arange(len(mask), device=mask.device)
    is_few = number < len(few)
    second = (dim + len(few)) if len(few) else 0
    matrix = torch.where(is_few, 0, second)
    side = torch.where(is_few, dim + number, second + dim + number - len(few))
    columns = second + (dim + len(many) if len(many) else 0)
    cells = torch.where(is_few[:, None], ~mask, mask)
    systems = arrange(cells, matrix, side, columns=columns) if len(mask) else None
    owner = number if systems is None else systems.owner
    return GaussianRows(
        centre,
        whole,
        few,
        many,
        systems,
        owner,
        log_weights=counts[owner].to(centre.dtype),
        signs=torch.where(is_few[owner], -1, 1).to(centre.dtype),
    )


def condition(residual: Tensor, scale_tril: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance `(N, D)` of missing residuals given the observed ones; 0 at the latter.

    They are -P_mm^-1 (Pr)_m and the diagonal of P_mm^-1, for which the systems are differentiated:
    d log|A| / dA = A^-1 and d q'A^-1 q / dq = 2 A^-1 q.

    Args:
        residual: `(N, D)`, 0 where `mask (N, D)` is False.
        scale_tril: `(D, D)` the factor L.
        mask: True at observed cells.
    """
    (count, dim), rows = mask.shape, (~mask.all(1)).nonzero()[:, 0]
    if not len(rows):
        return torch.zeros_like(residual), torch.zeros_like(residual)
    # each row has columns of its own for its side and its diagonal, so their gradients stay apart
    systems = arrange(~mask[rows], 0 * rows, dim + rows, columns=dim + 2 * count, diagonal=dim + count + rows)
    identity = torch.eye(dim, dtype=residual.dtype, device=residual.device)
    inverse = solve_triangular(scale_tril, identity, upper=False)
    precision = inverse.mT @ inverse

    def totals(sides: Tensor, diagonals: Tensor) -> tuple[Tensor, Tensor]:
        logs, squares = systems.factor(torch.cat([precision, sides, diagonals], 1))
        return logs.sum(), squares.sum()

    diagonals = precision.diagonal()[:, None].expand(-1, count)
    gradient = torch.func.vjp(totals, precision @ residual.mT, diagonals)[1]
    one = torch.ones((), dtype=residual.dtype, device=residual.device)
    of_square, _ = gradient((0 * one, one))
    _, of_log_det = gradient((one, 0 * one))
    return -of_square.mT / 2, of_log_det.mT
