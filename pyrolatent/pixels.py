"""Pixels of so many levels: a logistic number, rounded.

A pixel has level k of 0 ... K - 1, its value is k / (K - 1).  It has it where a logistic number lies
within half a level of it; the outermost levels reach to infinity (Salimans et al., PixelCNN++, 2017,
eq. 2, with one component).
"""

from typing import Any, ClassVar, final

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid

from pyrolatent.distributions import NO_SHAPE, Shape

NUM_LEVELS = 256
NEAR = 1e-3  # of a level, in levels: float32 holds 255 of them to 1e-5


@final
class DiscretisedLogistic(TorchDistribution):
    """The level k / (K - 1) that a logistic number falls on.

    Args:
        location: Of the number, on the scale of the values, `(...)`.
        scale: Of the number, on the scale of the values, `(...)`.
        num_levels: K.
        validate_args: As in torch; None is torch's global setting.
    """

    arg_constraints: ClassVar = {"location": constraints.real, "scale": constraints.positive}
    has_rsample = False

    def __init__(
        self,
        location: Tensor,
        scale: Tensor,
        num_levels: int = NUM_LEVELS,
        validate_args: bool | None = None,
    ) -> None:
        self.location, self.scale = broadcast_all(location, scale)
        self.num_levels = num_levels
        super().__init__(self.location.shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        return Levels(self.num_levels)

    @property
    def mean(self) -> Tensor:
        """The mean of the level as far as edges do not cut it: the location, from 0 to 1."""
        return self.location.clamp(0, 1)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> "DiscretisedLogistic":
        location, scale = self.location.expand(batch_shape), self.scale.expand(batch_shape)
        return DiscretisedLogistic(location, scale, self.num_levels, self._validate_args)

    def sample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        with torch.no_grad():
            shape = self._extended_shape(torch.Size(sample_shape))
            tiny = torch.finfo(self.location.dtype).tiny
            uniform = torch.rand(shape, dtype=self.location.dtype, device=self.location.device).clamp(tiny)
            number = self.location + self.scale * uniform.logit(1e-7)
            top = self.num_levels - 1
            return (number * top).round().clamp(0, top) / top

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability `(...)`, in nats, of the level behind `value`.

        log(sigmoid(b) - sigmoid(a)) = logsigmoid(b) + logsigmoid(-a) + log(1 - exp(a - b)).
        """
        top = self.num_levels - 1
        above = (value + 0.5 / top - self.location) / self.scale
        below = (value - 0.5 / top - self.location) / self.scale
        inner = logsigmoid(above) + logsigmoid(-below) + torch.log(-torch.expm1(below - above))
        lowest, highest = value * top < 0.5, value * top > top - 0.5
        return torch.where(lowest, logsigmoid(above), torch.where(highest, logsigmoid(-below), inner))


@final
class Levels(constraints.Constraint):
    """k / (K - 1) for k = 0 ... K - 1."""

    is_discrete = True
    event_dim = 0

    def __init__(self, num_levels: int) -> None:
        self.top = num_levels - 1

    def check(self, value: Tensor) -> Tensor:
        level = value * self.top
        return ((level - level.round()).abs() < NEAR) & (value >= 0) & (value <= 1)
