"""Rows of a table of mixed columns: each column has a distribution of its own.

Given their parameters the cells of a `ColumnwiseDistribution` are independent, so what is missing
says nothing of what is observed: missing cells are left out of the density, and are drawn from their
own column's distribution.  Dependence between columns is the business of what the parameters depend
on, a latent vector of the row, say.

    heads = {"income": dist.Normal(loc, scale), "smoker": dist.Bernoulli(logits=logits)}
    with pyro.plate("data", len(x)):
        pyro.sample("x", ColumnwiseDistribution(heads, mask), obs=x)

Columns of one kind may share a distribution, which costs one evaluation for all of them:

    heads = {("income", "rent"): dist.Normal(loc, scale), "smoker": ...}  # loc (N, 2)

Labels are numbers here, their codes.  A missing cell holds 0, which may lie outside of its column's
support; a value from inside is put there before its density is asked for, since a gradient of nan is
nan also where it is multiplied by 0.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import Distribution

from pyrolatent.distributions import NO_SHAPE, RowDistribution, Shape
from pyrolatent.errors import ArgumentError, DataError
from pyrolatent.univariate import cell_moments, has_quantiles, quantile, support_of, typical, value_inside


@final
@dataclass(frozen=True)
class Block:
    """Columns that share a distribution, and where they are among the D of a row.

    Attributes:
        names: The columns.
        cells: The distribution of one column `(..., N)`, or of several side by side `(..., N, d)`.
        places: The number of the column, or those of several.
    """

    names: tuple[Hashable, ...]
    cells: Distribution
    places: int | tuple[int, ...]

    def of_rows(self, rows: Tensor) -> Tensor:
        """Return this block's part `(..., N)` or `(..., N, d)` of `rows (..., N, D)`."""
        if isinstance(self.places, int):
            return rows[..., self.places]
        first, last = self.places[0], self.places[-1]
        if self.places == tuple(range(first, last + 1)):
            return rows[..., first : last + 1]
        # Not rows[..., list(places)], for which a list would go to the device at each call.
        return torch.stack([rows[..., place] for place in self.places], -1)

    def shape(self, batch: Shape) -> torch.Size:
        """Return the shape of the cells of this block in a batch of rows."""
        return torch.Size(batch) + (() if isinstance(self.places, int) else (len(self.places),))


@final
class ColumnwiseDistribution(RowDistribution):
    """Rows whose D cells are independent, observed where `mask` is True.

    Args:
        columns: Column -> distribution of its cells, with `event_shape ()` and a `batch_shape` that
            fits `(N,)`, or `(..., N)` with plates to the left.  Or a tuple of d columns -> distribution
            of their cells, `(..., N, d)`.  D columns in all.
        mask: `(N, D)` boolean; a row with nothing observed has log-density 0.
        order: The columns in the order of the values; by default that of `columns`.
        validate_args: As in torch; None is torch's global setting.

    Raises:
        ArgumentError: The shapes do not fit, `mask` is not boolean, `order` has other columns, or a
            distribution is not one of single cells.
    """

    arg_constraints: ClassVar = {}
    has_rsample = False

    def __init__(
        self,
        columns: Mapping[Any, Distribution],
        mask: Tensor,
        order: Sequence[Hashable] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.columns, self.observed, self.order = dict(columns), mask, order
        self.blocks = blocks_of(columns, order)
        super().__init__(rows_of(self.blocks, mask), mask.shape[-1:], validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        return RowSupport(self)

    @property
    def draws_from_noise(self) -> bool:
        return all(has_quantiles(block.cells) for block in self.blocks)

    @property
    def discrete_cells(self) -> tuple[bool, ...]:
        found = {
            place: support_of(block.cells).is_discrete for block in self.blocks for place in places_of(block)
        }
        return tuple(found[place] for place in range(len(found)))

    def expand(self, batch_shape: Shape, _instance: Any = None) -> "ColumnwiseDistribution":
        columns = {
            name: block.cells.expand(block.shape(batch_shape))
            for name, block in zip(self.columns, self.blocks, strict=True)
        }
        return ColumnwiseDistribution(columns, self.observed, self.order, self._validate_args)

    def sample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Draw full rows `(*sample_shape, ..., N, D)`, whatever the mask; labels as codes."""
        blocks = self.expand(self.batch_shape).blocks
        with torch.no_grad():
            return self.rows([block.cells.sample(torch.Size(sample_shape)) for block in blocks])

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density `(..., N)`, in nats, of the observed cells of `value (..., N, D)`."""
        if self._validate_args:
            self.check_cells(value)
        sums = [
            cells if isinstance(block.places, int) else cells.sum(-1)
            for block, cells in zip(self.blocks, self.log_prob_blocks(value), strict=True)
        ]
        return torch.stack(sums).sum(0) if len(sums) > 1 else sums[0]

    def log_prob_cells(self, value: Tensor) -> Tensor:
        """Return the log-density `(..., N, D)`, in nats, of each cell of `value`, 0 where it is missing."""
        if self._validate_args:
            self.check_cells(value)
        return self.rows(self.log_prob_blocks(value))

    def log_prob_blocks(self, value: Tensor) -> list[Tensor]:
        """Return the same of each block, `(..., N)` or `(..., N, d)`."""
        shape = torch.broadcast_shapes(self.batch_shape, value.shape[:-1])
        return [
            torch.where(seen, block.cells.log_prob(known), 0.0).expand(block.shape(shape))
            for block, seen, known in self.known_cells(value)
        ]

    def known_cells(self, value: Tensor) -> Iterator[tuple[Block, Tensor, Tensor]]:
        """Yield each block with its mask and its cells, those missing inside of the support."""
        for block in self.blocks:
            seen, inside = block.of_rows(self.observed), value_inside(block.cells).to(value)
            yield block, seen, torch.where(seen, block.of_rows(value), inside)

    def rows(self, parts: list[Tensor]) -> Tensor:
        """Return parts of the blocks, `(..., N)` or `(..., N, d)`, as floating rows `(..., N, D)`."""
        floating = [cells.dtype for cells in parts if cells.is_floating_point()]
        dtype = floating[0] if floating else torch.get_default_dtype()
        pairs = list(zip(self.blocks, parts, strict=True))
        wide = [cells[..., None] if isinstance(block.places, int) else cells for block, cells in pairs]
        batch = torch.broadcast_shapes(*(cells.shape[:-1] for cells in wide))
        side_by_side = torch.cat([cells.to(dtype).expand(*batch, cells.shape[-1]) for cells in wide], -1)
        places = [place for block in self.blocks for place in places_of(block)]
        if places == sorted(places):
            return side_by_side
        order = sorted(range(len(places)), key=places.__getitem__)
        return torch.stack([side_by_side[..., place] for place in order], -1)

    def summarise(self, value: Tensor) -> None:
        """Nothing that would be cheaper than the rows themselves."""

    def log_prob_sum(self, value: Tensor, summary: None) -> Tensor:
        return self.log_prob(value).sum()

    def conditional(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and sd `(..., N, D)` of every cell; those of labels are of their codes."""
        blocks = self.expand(self.batch_shape).blocks
        means, sds = zip(*(cell_moments(block.cells) for block in blocks), strict=True)
        mean, sd = self.rows(list(means)), self.rows(list(sds))
        return torch.where(self.observed, value, mean), torch.where(self.observed, 0.0, sd)

    def expected(self) -> Tensor:
        """Return the mean `(..., N, D)` of every cell, of labels and levels the most probable one."""
        return self.rows([typical(block.cells) for block in self.expand(self.batch_shape).blocks])

    def complete(self, value: Tensor, noise: Tensor) -> Tensor:
        """Return `value (..., N, D)` with missing cells drawn from their columns' distributions.

        The draw is the quantile of `noise`, normal numbers `(..., N, D)`, where the distribution has
        quantiles; else it comes from torch's own stream (`draws_from_noise`).
        """
        limits = torch.finfo(noise.dtype)
        shares = torch.special.ndtr(noise).clamp(limits.tiny, 1 - limits.eps / 2)
        drawn = [
            quantile(block.cells, block.of_rows(shares))
            if has_quantiles(block.cells)
            else block.cells.sample()
            for block in self.expand(self.batch_shape).blocks
        ]
        return torch.where(self.observed, value, self.rows(drawn).to(value))

    def check_cells(self, value: Tensor, rows: Tensor | bool = True, where: str = "") -> None:
        for block, seen, known in self.known_cells(value):
            several = not isinstance(block.places, int)
            counted = rows[..., None] if several and isinstance(rows, Tensor) else rows
            outside = seen & counted & ~known.isnan() & ~support_of(block.cells).check(known)
            if outside.any():
                raise outside_support(block, known, outside, where)


@final
class RowSupport(constraints.Constraint):
    """Rows of which each observed cell lies in the support of its column."""

    event_dim = 1

    def __init__(self, rows: ColumnwiseDistribution) -> None:
        self.rows = rows
        self.is_discrete = any(support_of(block.cells).is_discrete for block in rows.blocks)

    def check(self, value: Tensor) -> Tensor:
        """Return which rows `(..., N)` of `value (..., N, D)` do."""
        inside = [support_of(block.cells).check(known) for block, _, known in self.rows.known_cells(value)]
        return (self.rows.rows([part.to(value) for part in inside]) > 0).all(-1)


def places_of(block: Block) -> tuple[int, ...]:
    """Return the places of the columns of a block."""
    return (block.places,) if isinstance(block.places, int) else block.places


def blocks_of(columns: Mapping[Any, Distribution], order: Sequence[Hashable] | None) -> list[Block]:
    """Return the columns as blocks; raise where `order` has others."""
    names = [name for key in columns for name in (key if isinstance(key, tuple) else (key,))]
    place = {name: number for number, name in enumerate(names if order is None else order)}
    if order is not None and sorted(map(repr, order)) != sorted(map(repr, names)):
        raise ArgumentError(
            "the order does not have the columns that have distributions",
            why=f"got {list(order)}, and distributions of {names}",
        )
    return [
        Block(key, cells, tuple(place[name] for name in key))
        if isinstance(key, tuple)
        else Block((key,), cells, place[key])
        for key, cells in columns.items()
    ]


def rows_of(blocks: Sequence[Block], mask: Tensor) -> torch.Size:
    """Return the shape `(..., N)` of the rows; raise where mask and columns do not fit."""
    if mask.dtype != torch.bool:
        raise ArgumentError(
            "the mask must be boolean", why=f"got {mask.dtype}", remedy="pass True where a cell is observed"
        )
    number = sum(len(block.names) for block in blocks)
    if mask.dim() < 2 or mask.shape[-1] != number:
        raise ArgumentError(
            "the mask (N, D) does not have one column for each distribution",
            why=f"got {tuple(mask.shape)} and {number} distributions",
        )
    shape = mask.shape[:-1]
    for block in blocks:
        shape = torch.broadcast_shapes(shape, batch_of(block, mask.shape[-2]))
    return shape


def batch_of(block: Block, rows: int) -> torch.Size:
    """Return the shape of the rows of a block; refuse a distribution that is not one of single cells."""
    cells, width = block.cells, None if isinstance(block.places, int) else len(block.places)
    names = block.names[0] if width is None else block.names
    where = f"column {names!r}, {type(cells).__name__}"
    if cells.event_shape:
        why = f"its event_shape is {tuple(cells.event_shape)}"
        raise ArgumentError("a cell holds one number", where=where, why=why)
    batch = cells.batch_shape if width is None else cells.batch_shape[:-1]
    if width is not None and cells.batch_shape[-1:] not in ((1,), (width,)):
        why = f"its batch_shape is {tuple(cells.batch_shape)}, of {width} columns"
        raise ArgumentError("the distribution does not have a cell for each column", where=where, why=why)
    if batch and batch[-1] not in (1, rows):
        why = f"its batch_shape is {tuple(cells.batch_shape)}, the mask has {rows} rows"
        raise ArgumentError("the distribution does not have a cell for each row", where=where, why=why)
    return batch


def outside_support(block: Block, cells: Tensor, outside: Tensor, where: str) -> DataError:
    """Return the error for the first of the cells of a block marked in `outside`."""
    first = tuple(outside.nonzero()[0].tolist())
    single = isinstance(block.places, int)
    name, row = (block.names[0], first[-1]) if single else (block.names[first[-1]], first[-2])
    return DataError(
        "an observed value lies outside the support of its distribution",
        where=", ".join(part for part in (where, f"column {name!r}, row {row}") if part),
        why=f"{cells[first].item():g} under {type(block.cells).__name__}, "
        f"{int(outside.sum())} of {outside.numel()} values",
        remedy="correct the data, or observe them with another distribution",
    )
