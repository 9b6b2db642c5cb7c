"""Bijections from unconstrained vectors to constrained values, computed in the log domain.

A row of a correlation matrix's Cholesky factor and a point of the simplex are both made by breaking
a stick: each entry takes a share of what the entries before it left over.  torch multiplies what
is left over (`cumprod`: dear to differentiate, and 0 or nan once a share comes within rounding of
one); here logarithms are added and one `exp` ends it.  The parametrisations are torch's, so
densities and draws equal those under `CorrCholeskyTransform` and `StickBreakingTransform` wherever
these are accurate.

`transform_to_constraint` is the way in.  It consults torch's registry and never changes it.
"""

import math
from typing import Any, final

import torch
from pyro.distributions import constraints
from pyro.distributions.transforms import CorrMatrixCholeskyTransform
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.transforms import (
    ComposeTransform,
    ExpTransform,
    IndependentTransform,
    Transform,
)
from torch.nn.functional import logsigmoid, pad, softplus

from pyrolatent.errors import ArgumentError

POSITIVE = (type(constraints.positive), type(constraints.nonnegative))  # above a bound, which is 0 there


def transform_to_constraint(constraint: constraints.Constraint) -> Transform:
    """Return the bijection from unconstrained values to `constraint`.

    Ours for Cholesky factors of correlation matrices, for correlation matrices and for simplices,
    also inside `constraints.independent`; `exp` alone for positive values, to which torch adds 0; and
    torch's `biject_to` for all else.

    Raises:
        NotImplementedError: torch knows no bijection to `constraint`.
    """
    if isinstance(constraint, constraints.independent):
        base = transform_to_constraint(constraint.base_constraint)
        return IndependentTransform(base, constraint.reinterpreted_batch_ndims)
    if isinstance(constraint, type(constraints.corr_cholesky)):
        return LogCorrCholesky()
    if isinstance(constraint, type(constraints.corr_matrix)):
        return ComposeTransform([LogCorrCholesky(), CorrMatrixCholeskyTransform().inv])
    if isinstance(constraint, type(constraints.simplex)):
        return LogStickBreaking()
    if isinstance(constraint, POSITIVE) and is_zero(constraint.lower_bound):
        return ExpTransform()
    return biject_to(constraint)


def is_zero(bound: object) -> bool:
    """Return whether `bound` is the plain number 0, and not a tensor whose value may change."""
    return isinstance(bound, int | float) and bound == 0


@final
class LogCorrCholesky(Transform):
    """Unconstrained `(..., D(D-1)/2)` to the Cholesky factor of a correlation matrix `(..., D, D)`.

    With r = tanh(x) placed row by row below the diagonal, the factor is
    y_ij = r_ij prod_{k<j} sqrt(1 - r_ik^2) for j < i, and y_ii the product over all k < i
    (Lewandowski, Kurowicka and Joe 2009; Stan reference manual, "Cholesky factors of correlation
    matrices").  An entry of y below the smallest float is 0.
    """

    domain = constraints.real_vector
    codomain = constraints.corr_cholesky
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogCorrCholesky)

    def _call(self, x: Tensor) -> Tensor:
        size = matrix_size(x.shape[-1])
        before = torch.ones(size, size, dtype=x.dtype, device=x.device).triu(1)
        identity = torch.eye(size, dtype=x.dtype, device=x.device)
        rest = (below_diagonal(half_log_rest(x), size) @ before).exp()
        return (below_diagonal(torch.tanh(x), size) + identity) * rest

    def _inverse(self, y: Tensor) -> Tensor:
        # sinh(atanh(r)) = r / sqrt(1 - r^2), and the squares of a row add up to one: entry over what
        # comes after it needs no difference of nearly equal numbers
        size = y.shape[-1]
        rows, columns = torch.tril_indices(size, size, -1, device=y.device)
        after = torch.ones(size, size, dtype=y.dtype, device=y.device).tril(-1)
        rest = (y.square() @ after).clamp(min=torch.finfo(y.dtype).tiny).sqrt()
        return torch.asinh(y / rest)[..., rows, columns]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return log |d y_ij / d x_ij| `(...)` over the entries below the diagonal, from `x` alone.

        Entry (i, j) contributes log(1 - r_ij^2) = 2 h_ij by itself and h_ij to each of the i - j - 1
        entries to its right, where h is `half_log_rest`.
        """
        size = matrix_size(x.shape[-1])
        rows, columns = torch.tril_indices(size, size, -1, device=x.device)
        return (half_log_rest(x) * (1 + rows - columns)).sum(-1)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        size = matrix_size(shape[-1])
        return torch.Size((*shape[:-1], size, size))

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        return torch.Size((*shape[:-2], shape[-1] * (shape[-1] - 1) // 2))


@final
class LogStickBreaking(Transform):
    """Unconstrained `(..., K-1)` to the simplex `(..., K)`.

    With z_k = sigmoid(x_k - log(K - k)), k = 1, 2, ..., the point is y_k = z_k prod_{j<k} (1 - z_j)
    (Stan reference manual, "Unit simplex").  Entries of y below the smallest float are 0.
    """

    domain = constraints.real_vector
    codomain = constraints.simplex
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogStickBreaking)

    def _call(self, x: Tensor) -> Tensor:
        log_share = logsigmoid(x - remaining_entries(x).log())
        log_rest = log_share - x + remaining_entries(x).log()
        return (pad(log_share, (0, 1)) + pad(log_rest.cumsum(-1), (1, 0))).exp()

    def _inverse(self, y: Tensor) -> Tensor:
        y = y.clamp(min=torch.finfo(y.dtype).tiny)
        rest = y.flip(-1).cumsum(-1).flip(-1)[..., 1:]
        x = y[..., :-1].log() - rest.log()
        return x + remaining_entries(x).log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return log |d y_k / d x_k| `(...)` over the first K - 1 entries, from `x` alone.

        log z_k + (K - k) log(1 - z_k) summed over k: itself twice over, and the K - 1 - k after it.
        """
        remaining = remaining_entries(x)
        log_share = logsigmoid(x - remaining.log())
        log_rest = log_share - x + remaining.log()
        return (log_share + remaining * log_rest).sum(-1)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        return torch.Size((*shape[:-1], shape[-1] + 1))

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        return torch.Size((*shape[:-1], shape[-1] - 1))


def half_log_rest(x: Tensor) -> Tensor:
    """Return log sqrt(1 - tanh(x)^2) = log 2 - x - softplus(-2x) elementwise, for every finite `x (...)`.

    The textbook form with |x| has the second derivative 0 at 0, where it should be -1.
    """
    # torch's own threshold of 20, above which softplus(x) becomes x, is wrong by 2e-9; exp(-40) is not seen
    return math.log(2) - x - softplus(-2 * x, threshold=40)


def matrix_size(entries: int) -> int:
    """Return D with D(D-1)/2 = `entries`.

    Raises:
        ArgumentError: There is no such D.
    """
    size = (1 + math.isqrt(1 + 8 * entries)) // 2
    if size * (size - 1) // 2 != entries:
        raise ArgumentError(
            "a correlation matrix with D columns has D(D-1)/2 free entries",
            why=f"{entries} is no such number",
            remedy=f"pass {size * (size - 1) // 2} or {size * (size + 1) // 2} entries",
        )
    return size


def below_diagonal(flat: Tensor, size: int) -> Tensor:
    """Return `flat (..., D(D-1)/2)` row by row below the diagonal of zeros `(..., D, D)`."""
    cells: Tensor = Placed.apply(flat, size)
    return cells.unflatten(-1, (size, size))


@final
class Placed(torch.autograd.Function):
    """Entries below the diagonal of a matrix, as `(..., D D)`.

    Each is placed once, so the gradient is picked out of the cells again, where that of `gather` would
    add them up one by one.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(flat: Tensor, size: int) -> Tensor:
        row = torch.arange(size, device=flat.device)[:, None]
        column = torch.arange(size, device=flat.device)
        place = torch.where(column < row, row * (row - 1) // 2 + column, flat.shape[-1]).flatten()
        return pad(flat, (0, 1)).gather(-1, place.expand(*flat.shape[:-1], -1))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.size = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (cells,) = gradients
        rows, columns = torch.tril_indices(ctx.size, ctx.size, -1, device=cells.device)
        place = rows * ctx.size + columns
        return cells.gather(-1, place.expand(*cells.shape[:-1], -1)), None


def remaining_entries(x: Tensor) -> Tensor:
    """Return K - 1, ..., 1, the number of entries that come after each of the first K - 1."""
    return torch.arange(x.shape[-1], 0, -1, dtype=x.dtype, device=x.device)
