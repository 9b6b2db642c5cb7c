"""Numbers in order: independent draws of one distribution, sorted.

What can be exchanged has one name less for each order (the components of a mixture whose labels nobody
knows); in order, each has its own.
"""

import math
from typing import ClassVar, final

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.distributions import Distribution

from pyrolatent.distributions import NO_SHAPE, Shape


@final
class Ordered(TorchDistribution):
    """Sorted draws of a distribution of single numbers: `event_shape (number,)`.

    The density is that of the draws times the number of their orders.

    Args:
        base: Of one number, with `batch_shape ()`.
        number: How many are drawn.
        validate_args: As in torch; None is torch's global setting.
    """

    arg_constraints: ClassVar = {}
    support = constraints.ordered_vector
    has_rsample = False

    def __init__(self, base: Distribution, number: int, validate_args: bool | None = None) -> None:
        self.base, self.number = base, number
        super().__init__(torch.Size(), torch.Size([number]), validate_args=validate_args)

    def sample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        return self.base.sample(torch.Size([*sample_shape, self.number])).sort(-1).values

    def log_prob(self, value: Tensor) -> Tensor:
        return self.base.log_prob(value).sum(-1) + math.lgamma(self.number + 1)
