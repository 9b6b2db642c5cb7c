"""Distributions of exponential families, and their most likely parameters given weighted data.

    log p(v | parameters) = log_base(v) + natural(parameters) . statistics(v)

All that a weighted sample says of the parameters is its sums of statistics, so its most likely
parameters are a formula of these.  Each parameter has one of the form `numerator / denominator`, both of
which add up over samples that share it; a scale is the best one given the location (Meng and Rubin 1993,
"Maximum likelihood estimation via the ECM algorithm").
"""

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, final

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import softplus

from pyrolatent.errors import ArgumentError
from pyrolatent.revenue import ZeroInflatedLogNormal

MIN_SCALE = 1e-5  # of the standard deviation of all values; a spike at one value has a likelihood without end
NORMAL_CLASSES = (dist.Normal, torch.distributions.Normal)
LOG_NORMAL_CLASSES = (dist.LogNormal, torch.distributions.LogNormal)
BERNOULLI_CLASSES = (dist.Bernoulli, torch.distributions.Bernoulli)
POISSON_CLASSES = (dist.Poisson, torch.distributions.Poisson)
EXPONENTIAL_CLASSES = (dist.Exponential, torch.distributions.Exponential)
CATEGORICAL_CLASSES = (dist.Categorical, torch.distributions.Categorical)
CLASSES = (
    *NORMAL_CLASSES,
    *LOG_NORMAL_CLASSES,
    *BERNOULLI_CLASSES,
    *POISSON_CLASSES,
    *EXPONENTIAL_CLASSES,
    *CATEGORICAL_CLASSES,
    ZeroInflatedLogNormal,
)

Parameters = tuple[Tensor, ...]


class Family(abc.ABC):
    """Distributions of one class, by their statistics.

    Parameters have the shape `(..., cells)`, sums of statistics `(..., cells, S)`.  Those of a
    categorical distribution are vectors `(..., cells, K)`.
    """

    names: ClassVar[tuple[str, ...]]  # of the parameters
    event_dim: ClassVar[int] = 0  # of each parameter

    @abc.abstractmethod
    def statistics(self, value: Tensor) -> Tensor:
        """Return the statistics `(*value, S)`; the first is 1, or they add up to 1."""

    @abc.abstractmethod
    def natural(self, *parameters: Tensor) -> Tensor:
        """Return the coefficients `(..., cells, S)` of the statistics."""

    def log_base(self, value: Tensor) -> Tensor:
        """Return what the density has of the value alone `(*value)`."""
        return torch.zeros_like(value, dtype=torch.get_default_dtype())

    @abc.abstractmethod
    def terms(self, which: int, sums: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """Return numerator and denominator of parameter number `which`, given the others."""

    def solution(self, which: int, ratio: Tensor) -> Tensor:
        """Return the parameter where numerator / denominator is `ratio`."""
        return ratio


@final
@dataclass(frozen=True)
class NormalFamily(Family):
    """Normal distributions of values, or of their logs.

    Statistics are those of (value - centre) / unit, so that values far from zero cost no accuracy.

    Attributes:
        centre: Mean of the values `()`.
        unit: Their standard deviation.
        log: Whether the distributions are those of logs.
    """

    names: ClassVar = ("loc", "scale")

    centre: Tensor
    unit: Tensor
    log: bool = False

    def statistics(self, value: Tensor) -> Tensor:
        standard = ((value.log() if self.log else value) - self.centre) / self.unit
        return torch.stack([torch.ones_like(standard), standard, standard.square()], -1)

    def natural(self, *parameters: Tensor) -> Tensor:
        loc, scale = self.standard(parameters)
        constant = -0.5 * (loc / scale).square() - (scale * self.unit).log() - 0.5 * math.log(2 * math.pi)
        return torch.stack([constant, loc / scale.square(), -0.5 / scale.square()], -1)

    def log_base(self, value: Tensor) -> Tensor:
        return -value.log() if self.log else super().log_base(value)

    def terms(self, which: int, sums: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        loc, scale = self.standard(parameters)
        number, first, second = sums.unbind(-1)
        if which == 0:
            weight = (scale * self.unit) ** -2
            return weight * (self.centre * number + self.unit * first), weight * number
        squares = second - 2 * loc * first + loc.square() * number
        floor = MIN_SCALE**2 * number
        return self.unit.square() * squares.clamp(min=floor), number

    def solution(self, which: int, ratio: Tensor) -> Tensor:
        return ratio if which == 0 else ratio.sqrt()

    def standard(self, parameters: Parameters) -> Parameters:
        """Return location and scale of the standardised values."""
        loc, scale = parameters
        return (loc - self.centre) / self.unit, scale / self.unit


@final
@dataclass(frozen=True)
class AmountFamily(Family):
    """Amounts that are zero for some (`ZeroInflatedLogNormal`): a share, and a normal distribution of logs.

    Attributes:
        logs: Of amounts that are not zero.
    """

    names: ClassVar = ("probs", "loc", "scale")

    logs: NormalFamily

    def statistics(self, value: Tensor) -> Tensor:
        paid = value > 0
        of_logs = torch.where(paid[..., None], self.logs.statistics(torch.where(paid, value, 1.0)), 0.0)
        return torch.cat([torch.ones_like(value)[..., None], of_logs], -1)

    def natural(self, *parameters: Tensor) -> Tensor:
        probs, *normal = parameters
        share = inside(probs)
        none, some = torch.log1p(-share), share.log()
        of_logs = self.logs.natural(*normal)
        first = of_logs[..., :1] + (some - none)[..., None]
        return torch.cat([none[..., None], first, of_logs[..., 1:]], -1)

    def log_base(self, value: Tensor) -> Tensor:
        return torch.where(value > 0, self.logs.log_base(torch.where(value > 0, value, 1.0)), 0.0)

    def terms(self, which: int, sums: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        if which == 0:
            return sums[..., 1], sums[..., 0]
        return self.logs.terms(which - 1, sums[..., 1:], parameters[1:])

    def solution(self, which: int, ratio: Tensor) -> Tensor:
        return ratio if which == 0 else self.logs.solution(which - 1, ratio)


@final
@dataclass(frozen=True)
class MeanFamily(Family):
    """Distributions of one parameter, which their mean tells: Bernoulli, Poisson, exponential."""

    kind: str
    names: ClassVar = ("parameter",)

    def statistics(self, value: Tensor) -> Tensor:
        number = value if value.is_floating_point() else value.to(torch.get_default_dtype())
        return torch.stack([torch.ones_like(number), number], -1)

    def natural(self, *parameters: Tensor) -> Tensor:
        (parameter,) = parameters
        match self.kind:
            case "probs":
                share = inside(parameter)
                return torch.stack([torch.log1p(-share), share.log() - torch.log1p(-share)], -1)
            case "logits":
                return torch.stack([-softplus(parameter), parameter], -1)
            case "poisson":
                return torch.stack([-parameter, positive(parameter).log()], -1)
            case _:
                return torch.stack([parameter.log(), -parameter], -1)

    def log_base(self, value: Tensor) -> Tensor:
        zeros = super().log_base(value)
        return zeros - torch.lgamma(1 + value) if self.kind == "poisson" else zeros

    def terms(self, which: int, sums: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        return sums[..., 1], sums[..., 0]

    def solution(self, which: int, ratio: Tensor) -> Tensor:
        match self.kind:
            case "logits":
                return torch.logit(inside(ratio))
            case "exponential":
                return 1 / ratio
            case _:
                return ratio


@final
@dataclass(frozen=True)
class CategoricalFamily(Family):
    """Categorical distributions over `size` labels; statistics are the shares of each."""

    size: int
    names: ClassVar = ("probs",)
    event_dim: ClassVar = 1

    def statistics(self, value: Tensor) -> Tensor:
        labels = torch.arange(self.size, device=value.device)
        return (value[..., None] == labels).to(torch.get_default_dtype())

    def natural(self, *parameters: Tensor) -> Tensor:
        (probs,) = parameters
        return positive(probs).log()

    def terms(self, which: int, sums: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        return sums, sums.sum(-1, keepdim=True)


def positive(parameter: Tensor) -> Tensor:
    """Return a parameter that may be 0 as a number that has a log."""
    return parameter.clamp(min=torch.finfo(parameter.dtype).tiny)


def inside(share: Tensor) -> Tensor:
    """Return a share that may be 0 or 1 as one that has log-odds."""
    limits = torch.finfo(share.dtype)
    return share.clamp(limits.tiny, 1 - limits.eps / 2)


def family_of(fn: Any, value: Tensor) -> tuple[Family, Parameters] | None:
    """Return the family of a distribution of single cells, and its parameters; None for any other.

    Args:
        fn: A distribution without event dimensions.
        value: The values that it will be asked about, `(..., N)` or `(..., N, d)`, nan where missing.
    """
    match fn:
        case _ if type(fn) in NORMAL_CLASSES:
            return normal_family(value), (fn.loc, fn.scale)
        case _ if type(fn) in LOG_NORMAL_CLASSES:
            return normal_family(value, log=True), (fn.loc, fn.scale)
        case _ if type(fn) in BERNOULLI_CLASSES:
            given = "probs" if "probs" in vars(fn) else "logits"
            return MeanFamily(given), (getattr(fn, given),)
        case _ if type(fn) in POISSON_CLASSES:
            return MeanFamily("poisson"), (fn.rate,)
        case _ if type(fn) in EXPONENTIAL_CLASSES:
            return MeanFamily("exponential"), (fn.rate,)
        case _ if type(fn) in CATEGORICAL_CLASSES:
            return CategoricalFamily(fn.probs.shape[-1]), (fn.probs,)
        case ZeroInflatedLogNormal():
            logs = normal_family(torch.where(value > 0, value, torch.nan), log=True)
            return AmountFamily(logs), (fn.probs, fn.loc, fn.scale)
    return None


def normal_family(value: Tensor, *, log: bool = False) -> NormalFamily:
    """Return the family of normal distributions in units of all values, nan where missing."""
    values = (value.log() if log else value.to(torch.get_default_dtype())).flatten()
    seen = values[~values.isnan()]
    centre = seen.mean() if len(seen) else values.new_zeros(())
    spread = (seen - centre).square().mean().sqrt() if len(seen) else values.new_ones(())
    return NormalFamily(centre, torch.where(spread > 0, spread, 1.0), log)


def fit_weighted(kind: type[Any], value: Tensor, weights: Tensor) -> Any:
    """Return the distribution of a class under which a weighted sample is most likely.

    Args:
        kind: `Normal`, `LogNormal`, `Bernoulli`, `Poisson`, `Exponential` or `Categorical`.
        value: The sample `(N,)`.
        weights: How often each value counts, `(*batch, N)`.

    Returns:
        A distribution of this class with the batch shape `(*batch)`.

    Raises:
        ArgumentError: The class has no such formula, or a sample no weight.
    """
    families: dict[str, Callable[[Tensor], Family]] = {
        "Normal": normal_family,
        "LogNormal": partial(normal_family, log=True),
        "Bernoulli": lambda _: MeanFamily("probs"),
        "Poisson": lambda _: MeanFamily("poisson"),
        "Exponential": lambda _: MeanFamily("exponential"),
        "Categorical": lambda labels: CategoricalFamily(int(labels.max()) + 1),
    }
    if kind.__name__ not in families:
        why = f"there is one for {list(families)}"
        raise ArgumentError(f"the most likely {kind.__name__} has no formula", why=why)
    if not (weights.sum(-1) > 0).all():
        raise ArgumentError("a sample without weight has no most likely distribution", why="it adds up to 0")
    value = value.to(weights.dtype)
    family = families[kind.__name__](value)
    sums = weights @ family.statistics(value).to(weights.dtype)
    parameters: Parameters = tuple(torch.ones_like(weights[..., 0]) for _ in family.names)
    for which in range(len(parameters)):
        numerator, denominator = family.terms(which, sums, parameters)
        best = family.solution(which, numerator / denominator)
        parameters = (*parameters[:which], best, *parameters[which + 1 :])
    return kind(*parameters)
