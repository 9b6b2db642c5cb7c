"""Counts that may be large: amounts of money as well as numbers of children."""

from typing import final

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


@final
class LargeCounts(dist.NegativeBinomial):
    """The negative binomial, exact to some 1e-6 nats in float32 for counts of millions too.

    Its binomial coefficient is the difference of two numbers that large counts make large: in float32 it
    would be off by a nat.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability, in nats, of counts `value (...)`."""
        if self._validate_args:
            self._validate_sample(value)
        number, count = self.total_count.double(), value.double()
        choices = torch.lgamma(number + count) - torch.lgamma(1 + count) - torch.lgamma(number)
        powers = self.total_count * logsigmoid(-self.logits) + value * logsigmoid(self.logits)
        return choices.to(powers) + powers
