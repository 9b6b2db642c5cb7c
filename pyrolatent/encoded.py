"""Whole numbers as models see them: a discrete distribution behind a schema's standardisation.

A schema encodes the number k of a column as (k - location) / scale.  A model that counts, or ranks,
gives the number itself a distribution; `Encoded` is that of the encoded cell.
"""

from typing import Any, ClassVar, final

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.distributions import Distribution

from pyrolatent.distributions import NO_SHAPE, Shape

NEAR = 1e-2  # of a whole number
ROUNDING = 8  # units in the last place that a number is off by once it was encoded and decoded


@final
class Encoded(TorchDistribution):
    """The distribution of (k - location) / scale, for whole numbers k.

    Args:
        numbers: The distribution of k, `(..., N, d)`.
        location: `(d,)`.
        scale: `(d,)`.
        validate_args: As in torch; None is torch's global setting.
    """

    arg_constraints: ClassVar = {}
    has_rsample = False

    def __init__(
        self, numbers: Distribution, location: Tensor, scale: Tensor, validate_args: bool | None = None
    ) -> None:
        self.numbers, self.location, self.scale = numbers, location, scale
        self.has_enumerate_support = numbers.has_enumerate_support
        super().__init__(numbers.batch_shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        return EncodedSupport(self)

    @property
    def mean(self) -> Tensor:
        return self.encode(self.numbers.mean)

    @property
    def variance(self) -> Tensor:
        return self.numbers.variance / self.scale**2

    def expand(self, batch_shape: Shape, _instance: Any = None) -> "Encoded":
        expanded = self.numbers.expand(torch.Size(batch_shape))
        return Encoded(expanded, self.location, self.scale, self._validate_args)

    def encode(self, number: Tensor) -> Tensor:
        """Return whole numbers `(..., d)` as a schema encodes them."""
        return (number - self.location) / self.scale

    def decode(self, value: Tensor) -> Tensor:
        """Return the whole numbers `(..., d)` behind encoded ones."""
        return (value * self.scale + self.location).round()

    def sample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        return self.encode(self.numbers.sample(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability, in nats, of the whole number behind `value`."""
        return self.numbers.log_prob(self.decode(value))

    def enumerate_support(self, expand: bool = True) -> Tensor:
        return self.encode(self.numbers.enumerate_support(expand))


@final
class EncodedSupport(constraints.Constraint):
    """Encoded cells behind which there is a whole number of the support."""

    is_discrete = True
    event_dim = 0

    def __init__(self, encoded: Encoded) -> None:
        self.encoded = encoded

    def check(self, value: Tensor) -> Tensor:
        number = self.encoded.decode(value)
        largest = number.abs() + self.encoded.location.abs()
        near = NEAR + ROUNDING * torch.finfo(value.dtype).eps * largest
        whole = (value * self.encoded.scale + self.encoded.location - number).abs() < near
        inside: Any = self.encoded.numbers.support
        return whole & inside.check(number)
