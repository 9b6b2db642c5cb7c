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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.linalg import solve_triangular

from pyrolatent.blocks import Blocks, wanted
from pyrolatent.patterns import Rows, Shared, by_holes, compress, compress_patterns, join_rows
from pyrolatent.points import points_last
from pyrolatent.systems import Places, Systems, arrange


@final
@dataclass(frozen=True)
class GaussianRows:
    """Incomplete rows as the Gaussian density sees them.

    Attributes:
        centre: `(D,)` what was subtracted from the values, so that large means cost no accuracy.
        whole: The rows with few holes, these filled with the centre.
        few: Those of `whole` that have holes; their systems are parts of P.
        many: The rows with many holes; their systems are parts of S.
        constant: Whether the rows depend on no input of a graph.
        holes: P [mean I] C at the holes of `few`, if these are constant.
        systems: Those of all rows; None where no cell is missing.
        log_weights: `(T,)` how many rows of data each pivot counts for.
        signs: `(T,)` -1 for pivots of `few`, 1 for those of `many`.
    """

    centre: Tensor
    whole: Rows
    few: Rows
    many: Rows
    constant: bool
    holes: Blocks | None
    systems: Systems | None
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
        source = self._source(mean, inverse, scale_tril)
        if self.constant:
            logs, squares = points_last(self._factor, *source)
        else:
            logs, squares = (part[:, 0] for part in self._factor(*(matrix[..., None] for matrix in source)))
        return log_det + whitened.square().sum(0), self.log_weights * logs + self.signs * squares

    def _source(self, mean: Tensor, inverse: Tensor, scale_tril: Tensor) -> Iterator[Tensor]:
        """Yield the matrices P [mean I], P R, S and R that systems are taken from, R the residuals.

        Args:
            mean: From the centre.
            inverse: L^-1 [mean I].
            scale_tril: L.
        """
        if len(self.few):
            yield (precision := inverse[:, 1:].mT @ inverse)
            if self.holes is None:
                yield precision @ self.few.coefficients
        if len(self.many):
            yield scale_tril @ scale_tril.mT
            yield self.many.residual(mean)

    def _factor(self, *source: Tensor) -> tuple[Tensor, Tensor]:
        """Return logs and squares `(T, P)` of the systems from matrices `(D, columns, P)`."""
        assert self.systems is not None
        parts = [matrix.flatten(0, 1) for matrix in source]
        parts += [] if self.holes is None else [self.holes.product(source[0])]
        return self.systems.factor(torch.cat(parts))


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
        [Shared(Rows(residual[few], weights[few]), mask[few], torch.ones_like(few), 1)],
        [Shared(Rows(residual[many], 1 - weights[many]), mask[many], torch.ones_like(many), 1)],
        centre=loc,
        whole=Rows(residual * weights[:, None], weights),
        constant=False,
    )
    systems = torch.cat([few, many])
    return rows, systems if rows.systems is None else systems[rows.systems.owner]


def compressed(values: Tensor, mask: Tensor) -> GaussianRows:
    """Return rows `values (N, D)`, 0 where `mask (N, D)` is False, with equal patterns compressed.

    Computed in float64, whatever the precision of `values`.
    """
    dtype = values.dtype
    is_few, is_many = by_holes(mask)
    centre = (values.double().sum(0) / mask.sum(0).clamp(min=1)).to(dtype)
    centred = torch.where(mask, values.double() - centre.double(), 0.0)
    holes = (is_few & ~mask.all(1)).nonzero()[:, 0]
    return place(
        compress_patterns(centred, mask, holes, (~mask).sum(1)),
        compress_patterns(centred, mask, is_many.nonzero()[:, 0], mask.sum(1)),
        centre=centre,
        whole=compress(centred[is_few], torch.ones_like(mask[0])).to(dtype),
        constant=True,
    )


def place(
    few: Sequence[Shared], many: Sequence[Shared], *, centre: Tensor, whole: Rows, constant: bool
) -> GaussianRows:
    """Place the systems of `few` and `many` in the source that `GaussianRows` makes.

    Args:
        few: Rows with few holes, by the number of right-hand sides of a system.
        many: Rows with many holes, by the same numbers.
        centre: See `GaussianRows`.
        whole: See `GaussianRows`.
        constant: See `GaussianRows`.
    """
    dtype, dim = centre.dtype, len(centre)
    few_rows, many_rows = (join_rows([part.rows for part in parts]).to(dtype) for parts in (few, many))
    holes = torch.cat([~part.mask.repeat_interleave(part.sides, 0) for part in few])
    blocks = wanted(holes, few_rows.coefficients) if constant and len(few_rows) else None
    # the widths of the matrices in the source, each with D rows
    widths = [(dim + 1) * bool(len(few_rows)), len(few_rows) * (not constant)]
    widths += [dim * bool(len(many_rows)), len(many_rows)]
    numbers = torch.arange(dim * sum(widths), device=centre.device).split([dim * width for width in widths])
    precision, of_few, covariance, of_many = (part.view(dim, -1) for part in numbers)
    of_few = of_few.mT if blocks is None else dim * sum(widths) + blocks.place
    places = lay_out(few, True, precision[:, 1:], of_few) + lay_out(many, False, covariance, of_many.mT)
    systems = arrange(*places) if len(few_rows) + len(many_rows) else None
    counts = torch.cat([part.counts for part in (*few, *many)])
    signs = torch.where(torch.arange(len(counts), device=centre.device) < sum(map(len, few)), -1, 1)
    owner = numbers[0][:0] if systems is None else systems.owner
    return GaussianRows(
        centre,
        whole,
        few_rows,
        many_rows,
        constant,
        blocks,
        systems,
        log_weights=counts[owner].to(dtype),
        signs=signs[owner].to(dtype),
    )


def lay_out(parts: Sequence[Shared], missing: bool, matrix: Tensor, sides: Tensor) -> list[Places]:
    """Return where the systems of each part are.

    Args:
        parts: Rows of which r at a time share a system.
        missing: Whether the systems are those of the missing cells or of the observed ones.
        matrix: `(D, D)` places of the matrix that the systems are parts of.
        sides: `(n, D)` places of the cells of all rows.
    """
    rows = sides.split([len(part.rows) for part in parts])
    return [
        Places(part.mask ^ missing, matrix, places.view(-1, part.sides, matrix.shape[0]))
        for part, places in zip(parts, rows, strict=True)
    ]


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
    # each row has places of its own for its side and its diagonal, so their gradients stay apart
    sizes = [dim * dim, dim * count, dim * count]
    numbers = torch.arange(sum(sizes), device=mask.device).split(sizes)
    matrix, side, diagonal = (part.view(dim, -1) for part in numbers)
    systems = arrange(Places(~mask[rows], matrix, side.mT[rows, None], diagonal.mT[rows]))
    identity = torch.eye(dim, dtype=residual.dtype, device=residual.device)
    inverse = solve_triangular(scale_tril, identity, upper=False)
    precision = inverse.mT @ inverse

    def totals(sides: Tensor, diagonals: Tensor) -> tuple[Tensor, Tensor]:
        source = torch.cat([precision.flatten(), sides.flatten(), diagonals.flatten()])
        logs, squares = systems.factor(source[:, None])
        return logs.sum(), squares.sum()

    diagonals = precision.diagonal()[:, None].expand(-1, count)
    gradient = torch.func.vjp(totals, precision @ residual.mT, diagonals)[1]
    one = torch.ones((), dtype=residual.dtype, device=residual.device)
    of_square, _ = gradient((0 * one, one))
    _, of_log_det = gradient((one, 0 * one))
    return -of_square.mT / 2, of_log_det.mT
