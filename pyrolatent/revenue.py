"""Amounts that are zero for some: what a visitor spends, most of whom spend nothing.

With probability p there is an amount, whose log is normal; else there is none.
"""

from typing import ClassVar, final

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.distributions.utils import broadcast_all

from pyrolatent.distributions import NO_SHAPE, Shape


@final
class ZeroInflatedLogNormal(TorchDistribution):
    """Zero, or a log-normal amount.

    Densities of amounts are with respect to their length, those of zero are probabilities.

    Args:
        probs: Probability of an amount.
        loc: Mean of its log.
        scale: Standard deviation of its log.
        validate_args: As in torch; None is torch's global setting.
    """

    arg_constraints: ClassVar = {
        "probs": constraints.unit_interval,
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    support = constraints.nonnegative
    has_rsample = False

    def __init__(self, probs: Tensor, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.probs, self.loc, self.scale = broadcast_all(probs, loc, scale)
        super().__init__(self.probs.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.probs * (self.loc + self.scale.square() / 2).exp()

    @property
    def variance(self) -> Tensor:
        second = self.probs * (2 * self.loc + 2 * self.scale.square()).exp()
        return second - self.mean.square()

    def expand(
        self, batch_shape: Shape, _instance: "ZeroInflatedLogNormal | None" = None
    ) -> "ZeroInflatedLogNormal":
        shape = torch.Size(batch_shape)
        probs, loc, scale = (part.expand(shape) for part in (self.probs, self.loc, self.scale))
        return ZeroInflatedLogNormal(probs, loc, scale, validate_args=False)

    def sample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            paid = torch.bernoulli(self.probs.expand(shape))
            noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
            return paid * (self.loc + self.scale * noise).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        paid = value > 0
        log = torch.where(paid, value, 1.0).log()
        amount = torch.distributions.Normal(self.loc, self.scale, validate_args=False).log_prob(log) - log
        return torch.where(paid, self.probs.log() + amount, torch.log1p(-self.probs))

    def icdf(self, value: Tensor) -> Tensor:
        """Return the smallest amount whose cumulative probability reaches `value`."""
        share = (value - (1 - self.probs)) / self.probs
        inner = share.clamp(torch.finfo(share.dtype).tiny, 1 - torch.finfo(share.dtype).eps)
        amount = (self.loc + self.scale * torch.special.ndtri(inner)).exp()
        return torch.where(share > 0, amount, 0.0)
