"""Rows of a table of mixed columns: each column has a distribution of its own.

Given their parameters the cells of a `ColumnwiseDistribution` are independent, so what is missing
says nothing of what is observed: missing cells are left out of the density, and are drawn from their
own column's distribution.  Dependence between columns is the business of what the parameters depend
on, a latent vector of the row, say.

    heads = {"income": dist.Normal(loc, scale), "smoker": dist.Bernoulli(logits=logits)}
    with pyro.plate("data", len(x)):
        pyro.sample("x", ColumnwiseDistribution(heads, mask), obs=x)

Labels are numbers here, their codes.  A missing cell holds 0, which may lie outside of its column's
support; a value from inside is put there before its density is asked for, since a gradient of nan is
nan also where it is multiplied by 0.
"""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, ClassVar, final

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import Distribution

from pyrolatent.distributions import NO_SHAPE, RowDistribution, Shape
from pyrolatent.errors import ArgumentError, DataError
from pyrolatent.univariate import cell_moments, has_quantiles, quantile, support_of, value_inside


@final
class ColumnwiseDistribution(RowDistribution):
    """Rows whose D cells are independent, observed where `mask` is True.

    Args:
        columns: Column -> distribution of its cells, with `event_shape ()` and a `batch_shape` that
            fits `(N,)`, or `(..., N)` with plates to the left; D of them, in the order of the values.
        mask: `(N, D)` boolean; a row with nothing observed has log-density 0.
        validate_args: As in torch; None is torch's global setting.

    Raises:
        ArgumentError: The shapes do not fit, `mask` is not boolean, or a distribution is not one of
            single cells.
    """

    arg_constraints: ClassVar = {}
    has_rsample = False

    def __init__(
        self, columns: Mapping[Any, Distribution], mask: Tensor, validate_args: bool | None = None
    ) -> None:
        self.columns, self.observed = dict(columns), mask
        super().__init__(rows_of(columns, mask), mask.shape[-1:], validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        return RowSupport(self)

    @property
    def draws_from_noise(self) -> bool:
        return all(has_quantiles(column) for column in self.columns.values())

    def expand(self, batch_shape: Shape, _instance: Any = None) -> "ColumnwiseDistribution":
        columns = {name: column.expand(torch.Size(batch_shape)) for name, column in self.columns.items()}
        return ColumnwiseDistribution(columns, self.observed, validate_args=self._validate_args)

    def sample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Draw full rows `(*sample_shape, ..., N, D)`, whatever the mask; labels as codes."""
        columns = self.expand(self.batch_shape).columns.values()
        with torch.no_grad():
            return stack_cells([column.sample(torch.Size(sample_shape)) for column in columns])

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density `(..., N)`, in nats, of the observed cells of `value (..., N, D)`."""
        return self.log_prob_cells(value).sum(-1)

    def log_prob_cells(self, value: Tensor) -> Tensor:
        """Return the log-density `(..., N, D)`, in nats, of each cell of `value`, 0 where it is missing."""
        if self._validate_args:
            self.check_cells(value)
        shape = torch.broadcast_shapes(self.batch_shape, value.shape[:-1])
        terms = []
        for column, seen, known in self.known_cells(value):
            terms.append(torch.where(seen, column.log_prob(known), 0.0).expand(shape))
        return torch.stack(terms, -1)

    def known_cells(self, value: Tensor) -> Iterator[tuple[Distribution, Tensor, Tensor]]:
        """Yield each column's distribution, mask and cells, those missing inside of the support."""
        cells = zip(self.columns.values(), self.observed.unbind(-1), value.unbind(-1), strict=True)
        for column, seen, held in cells:
            yield column, seen, torch.where(seen, held, value_inside(column).to(value))

    def summarise(self, value: Tensor) -> None:
        """Nothing that would be cheaper than the rows themselves."""

    def log_prob_sum(self, value: Tensor, summary: None) -> Tensor:
        return self.log_prob(value).sum()

    def conditional(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and sd `(..., N, D)` of every cell; those of labels are of their codes."""
        shape = (*self.batch_shape, value.shape[-1])
        moments = [cell_moments(column) for column in self.columns.values()]
        mean, sd = (
            torch.stack([m.expand(self.batch_shape) for m in some], -1) for some in zip(*moments, strict=True)
        )
        return torch.where(self.observed, value, mean), torch.where(self.observed, 0.0, sd).expand(shape)

    def complete(self, value: Tensor, noise: Tensor) -> Tensor:
        """Return `value (..., N, D)` with missing cells drawn from their columns' distributions.

        The draw is the quantile of `noise`, normal numbers `(..., N, D)`, where the distribution has
        quantiles; else it comes from torch's own stream (`draws_from_noise`).
        """
        limits = torch.finfo(noise.dtype)
        shares = torch.special.ndtr(noise).clamp(limits.tiny, 1 - limits.eps / 2).unbind(-1)
        columns = self.expand(self.batch_shape).columns.values()
        drawn = [
            quantile(column, share) if has_quantiles(column) else column.sample()
            for column, share in zip(columns, shares, strict=True)
        ]
        return torch.where(self.observed, value, stack_cells(drawn).to(value))

    def check_cells(self, value: Tensor, rows: Tensor | bool = True, where: str = "") -> None:
        for name, (column, seen, known) in zip(self.columns, self.known_cells(value), strict=True):
            outside = seen & rows & ~known.isnan() & ~support_of(column).check(known)
            if outside.any():
                raise outside_support(name, column, known, outside, where)


@final
class RowSupport(constraints.Constraint):
    """Rows of which each observed cell lies in the support of its column."""

    event_dim = 1

    def __init__(self, rows: ColumnwiseDistribution) -> None:
        self.rows = rows
        self.is_discrete = any(support_of(column).is_discrete for column in rows.columns.values())

    def check(self, value: Tensor) -> Tensor:
        """Return which rows `(..., N)` of `value (..., N, D)` do."""
        inside = [support_of(column).check(known) for column, _, known in self.rows.known_cells(value)]
        return torch.stack(torch.broadcast_tensors(*inside), -1).all(-1)


def stack_cells(columns: list[Tensor]) -> Tensor:
    """Return columns `(..., N)` as rows `(..., N, D)` of floating-point numbers."""
    floating = [cells.dtype for cells in columns if cells.is_floating_point()]
    dtype = floating[0] if floating else torch.get_default_dtype()
    return torch.stack([cells.to(dtype) for cells in torch.broadcast_tensors(*columns)], -1)


def rows_of(columns: Mapping[Hashable, Distribution], mask: Tensor) -> torch.Size:
    """Return the shape `(..., N)` of the rows; raise where mask and columns do not fit."""
    if mask.dtype != torch.bool:
        raise ArgumentError(
            "the mask must be boolean", why=f"got {mask.dtype}", remedy="pass True where a cell is observed"
        )
    if mask.dim() < 2 or mask.shape[-1] != len(columns):
        raise ArgumentError(
            "the mask (N, D) does not have one column for each distribution",
            why=f"got {tuple(mask.shape)} and {len(columns)} distributions",
        )
    shape = mask.shape[:-1]
    for name, column in columns.items():
        check_column(name, column, mask.shape[-2])
        shape = torch.broadcast_shapes(shape, column.batch_shape)
    return shape


def check_column(name: Hashable, column: Distribution, rows: int) -> None:
    """Refuse a distribution that is not one of `rows` single cells."""
    where = f"column {name!r}, {type(column).__name__}"
    if column.event_shape:
        why = f"its event_shape is {tuple(column.event_shape)}"
        raise ArgumentError("a cell holds one number", where=where, why=why)
    if column.batch_shape and column.batch_shape[-1] not in (1, rows):
        why = f"its batch_shape is {tuple(column.batch_shape)}, the mask has {rows} rows"
        raise ArgumentError("the distribution does not have a cell for each row", where=where, why=why)


def outside_support(
    name: Hashable, column: Distribution, cells: Tensor, outside: Tensor, where: str
) -> DataError:
    """Return the error for the first of `cells (..., N)` marked in `outside`."""
    first = tuple(outside.nonzero()[0].tolist())
    return DataError(
        "an observed value lies outside the support of its distribution",
        where=", ".join(part for part in (where, f"column {name!r}, row {first[-1]}") if part),
        why=f"{cells[first].item():g} under {type(column).__name__}, "
        f"{int(outside.sum())} of {outside.numel()} values",
        remedy="correct the data, or observe them with another distribution",
    )
