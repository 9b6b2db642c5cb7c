"""Distributions over the rows of a table.

A `RowDistribution` knows, besides the log-density of each row, how to add them up from a summary
of the data that is made once, outside any graph: a sampler asks for that sum millions of times.
That both agree is a law: `log_prob_sum(x, summarise(x)) == log_prob(x).sum()`.

`IncompleteMVN` is a multivariate normal of which some cells are not observed, `ColumnwiseDistribution`
(in a file of its own) one with a distribution for each column.  Missing cells are integrated out, so
they hold 0 by convention and whatever they hold is never used.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, final

import torch
from pyro.distributions import MultivariateNormal, TorchDistribution, constraints
from torch import Tensor

from pyrolatent.errors import ArgumentError, ModelError
from pyrolatent.gaussian import GaussianRows, compressed, condition, each_row

LOG_TWO_PI = math.log(2 * math.pi)
NO_SHAPE = torch.Size()

Shape = torch.Size | list[int] | tuple[int, ...]


class RowDistribution(TorchDistribution):
    """A distribution with `batch_shape (N,)` and `event_shape (D,)` whose cells may be missing."""

    observed: Tensor  # (N, D) boolean, False where a cell is missing

    @property
    @abstractmethod
    def draws_from_noise(self) -> bool:
        """Whether `complete` draws from its noise alone; else it draws from torch's own stream as well."""

    @property
    @abstractmethod
    def discrete_cells(self) -> tuple[bool, ...]:
        """Of which of the D columns the density is a probability."""

    @abstractmethod
    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density `(N,)`, in nats, of the observed cells of `value (N, D)`."""

    @abstractmethod
    def summarise(self, value: Tensor) -> Any:
        """Return what `log_prob_sum` needs of `value (N, D)`; runs once, on concrete tensors."""

    @abstractmethod
    def log_prob_sum(self, value: Tensor, summary: Any) -> Tensor:
        """Return `log_prob(value).sum()`, a scalar, from `summary = summarise(value)`."""

    @abstractmethod
    def conditional(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and sd `(N, D)` of every cell of `value (N, D)` given the observed ones of its row.

        An observed cell has its value as mean and sd 0.
        """

    @abstractmethod
    def complete(self, value: Tensor, noise: Tensor) -> Tensor:
        """Return `value (N, D)` with missing cells replaced by one exact draw given the observed ones.

        Args:
            value: `(N, D)`.
            noise: `(N, D)` standard normal numbers, of which the draw is a deterministic function if
                `draws_from_noise`.
        """

    @abstractmethod
    def check_cells(self, value: Tensor, rows: Tensor | bool = True, where: str = "") -> None:
        """Refuse an observed cell that its column cannot produce; nan is left to others.

        Args:
            value: `(N, D)`.
            rows: Which rows count, `(N,)` boolean.
            where: What the message calls the site.

        Raises:
            DataError: There is one, with column, row and value.
        """


@final
class IncompleteMVN(RowDistribution):
    """Rows of a multivariate normal, observed where `mask` is True.

    The formulas are those of `pyrolatent.gaussian`.

    Args:
        loc: `(D,)` mean.
        scale_tril: `(D, D)` lower Cholesky factor of the covariance.
        mask: `(N, D)` boolean; a row with nothing observed has log-density 0.
        validate_args: As in torch; None is torch's global setting.

    Raises:
        ArgumentError: The shapes do not fit, or `mask` is not boolean.
    """

    arg_constraints: ClassVar = {"loc": constraints.real_vector, "scale_tril": constraints.lower_cholesky}
    support = constraints.real_vector
    has_rsample = True
    draws_from_noise = True

    def __init__(
        self, loc: Tensor, scale_tril: Tensor, mask: Tensor, validate_args: bool | None = None
    ) -> None:
        check_shapes(loc, scale_tril, mask)
        self.loc, self.scale_tril, self.observed = loc, scale_tril, mask
        super().__init__(mask.shape[:1], mask.shape[1:], validate_args=validate_args)

    @property
    def discrete_cells(self) -> tuple[bool, ...]:
        return (False,) * self.event_shape[0]

    def expand(self, batch_shape: Shape, _instance: Any = None) -> "IncompleteMVN":
        if tuple(batch_shape) != tuple(self.batch_shape):
            raise ModelError(
                "incomplete rows cannot be expanded",
                why=f"the mask has shape {tuple(self.batch_shape)}, the plates {tuple(batch_shape)}",
                remedy="observe them in one plate with as many rows as the mask",
            )
        return self

    def rsample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Draw full rows `(*sample_shape, N, D)`, whatever the mask."""
        noise = torch.randn(
            self.shape(torch.Size(sample_shape)), dtype=self.loc.dtype, device=self.loc.device
        )
        return self.loc + noise @ self.scale_tril.mT

    def log_prob(self, value: Tensor) -> Tensor:
        known = self._known(value)
        if known.dim() == 2:
            return self._log_prob(known)
        return torch.func.vmap(self._log_prob)(known.flatten(0, -3)).unflatten(0, known.shape[:-2])

    def _log_prob(self, known: Tensor) -> Tensor:
        residual = torch.where(self.observed, known - self.loc, 0.0)
        rows, pivot_rows = each_row(residual, self.loc, self.observed)
        misfit, pivots = rows.misfit(self.loc, self.scale_tril)
        if pivots is not None:
            misfit = misfit.index_add(0, pivot_rows, pivots)
        return -(misfit + LOG_TWO_PI * self.observed.sum(1).to(misfit.dtype)) / 2

    def summarise(self, value: Tensor) -> GaussianRows:
        return compressed(self._known(value), self.observed)

    def log_prob_sum(self, value: Tensor, summary: GaussianRows) -> Tensor:
        whole, pivots = summary.misfit(self.loc, self.scale_tril)
        misfit = whole.sum() if pivots is None else whole.sum() + pivots.sum()
        return -(misfit + LOG_TWO_PI * self.observed.sum().to(misfit.dtype)) / 2

    def conditional(self, value: Tensor) -> tuple[Tensor, Tensor]:
        residual = torch.where(self.observed, value - self.loc, 0.0)
        mean, variance = condition(residual, self.scale_tril, self.observed)
        return torch.where(self.observed, value, self.loc + mean), variance.sqrt()

    def complete(self, value: Tensor, noise: Tensor) -> Tensor:
        # a draw of the full row, moved by what its error at the observed cells says about the others
        # (Matheron's rule; Doucet 2010, "A note on efficient conditional simulation of Gaussian
        # distributions")
        draw = self.loc + noise @ self.scale_tril.mT
        error = torch.where(self.observed, value - draw, 0.0)
        mean, _ = condition(error, self.scale_tril, self.observed)
        return torch.where(self.observed, value, draw + mean)

    def check_cells(self, value: Tensor, rows: Tensor | bool = True, where: str = "") -> None:
        """A normal distribution can produce any number."""

    def _known(self, value: Tensor) -> Tensor:
        known = torch.where(self.observed, value, 0.0)
        if self._validate_args:
            self._validate_sample(known)
        return known


def as_is(parameter: Tensor, event_dim: int) -> Tensor:
    """Return the parameter."""
    return parameter


def as_row_distribution(
    fn: Any, rows: int, unexpanded: Callable[[Tensor, int], Tensor] = as_is
) -> RowDistribution | None:
    """Return the `RowDistribution` that `fn` is or amounts to, if any.

    A multivariate normal of Pyro or torch whose parameters do not vary over its `rows` rows, as under
    a plate, amounts to an `IncompleteMVN` without holes.

    Args:
        fn: Any distribution.
        rows: N, the number of rows observed.
        unexpanded: Returns what a parameter `(*batch, *event)`, whose number of event dimensions it is
            told, was before it was expanded, as far as that is known.
    """
    if isinstance(fn, RowDistribution):
        return fn
    if type(fn) not in (MultivariateNormal, torch.distributions.MultivariateNormal):
        return None
    loc = same_for_all_rows(unexpanded(fn.loc, 1), 1)
    scale_tril = same_for_all_rows(unexpanded(fn._unbroadcasted_scale_tril, 2), 2)
    if tuple(fn.batch_shape) != (rows,) or loc is None or scale_tril is None:
        return None
    mask = torch.ones((), dtype=torch.bool, device=loc.device).expand(rows, len(loc))
    return IncompleteMVN(loc, scale_tril, mask, validate_args=False)


def same_for_all_rows(parameter: Tensor, event_dim: int) -> Tensor | None:
    """Return `parameter (*event)` of `(*batch, *event)` if it was only expanded to `batch`, else None."""
    batch_dim = parameter.dim() - event_dim
    repeated = (parameter.shape[i] == 1 or parameter.stride(i) == 0 for i in range(batch_dim))
    return parameter[(0,) * batch_dim] if all(repeated) else None


def check_shapes(loc: Tensor, scale_tril: Tensor, mask: Tensor) -> None:
    """Raise where `mask` is not boolean or the shapes are not (D,), (D, D) and (N, D)."""
    if mask.dtype != torch.bool:
        raise ArgumentError(
            "the mask must be boolean", why=f"got {mask.dtype}", remedy="pass True where a cell is observed"
        )
    dim = mask.shape[-1]
    if mask.dim() != 2 or loc.shape != (dim,) or scale_tril.shape != (dim, dim):
        raise ArgumentError(
            "loc (D,), scale_tril (D, D) and mask (N, D) do not fit",
            why=f"got {tuple(loc.shape)}, {tuple(scale_tril.shape)} and {tuple(mask.shape)}",
            remedy="give all rows one mean and one covariance",
        )
