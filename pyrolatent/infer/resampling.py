"""Weighted draws turned into draws of equal weight, none of them twice.

With M draws kept, draw i should be among them with probability M w_i, so that averages over those
kept have the weighted averages as their mean.  A weight above 1 / M asks for more than certainty:
such a draw is kept once, and the others make up the number, which moves a share
sum_i (w_i - 1/M)_+ of the weight from the first to the latter.  M is the largest number for which that
bias is small beside the Monte Carlo error of M draws.  Without any such share it would be 1 over the
largest weight, which hangs on a single draw.
"""

import torch
from torch import Tensor

ROUNDING = 1e-9
BIAS = 0.1  # largest share moved, in units of 1 / sqrt(M): 0.3 standard errors for draws 3 sd off


def resampled(log_weights: Tensor, random: torch.Generator) -> Tensor:
    """Return which draws `(M,)` to keep, in random order, of normalised `log_weights (S,)`.

    Systematic sampling (Madow 1949): the draws lie end to end on a line, each as long as the
    probability that it is kept, and those that a comb of spacing 1 hits are kept.
    """
    probability = inclusion(log_weights.exp())
    order = torch.randperm(len(probability), generator=random, device=probability.device)
    offset = torch.rand((), generator=random, dtype=probability.dtype, device=probability.device)
    hits = (probability[order].cumsum(0) + offset).floor()
    return order[hits.diff(prepend=hits.new_zeros(1)) > 0]


def inclusion(weights: Tensor) -> Tensor:
    """Return the probability `(S,)` with which each draw is kept, min(1, a w_i), whose sum is M."""
    falling = weights.sort(descending=True).values
    number = number_kept(falling)
    certain = torch.arange(number, dtype=weights.dtype, device=weights.device)
    rest = falling.flip(0).cumsum(0).flip(0)[:number]  # what is left beside so many certain ones
    factor = (number - certain) / rest
    first = (factor * falling[:number] <= 1 + ROUNDING).nonzero()[0]
    return (factor[first] * weights).clamp(max=1.0)


def number_kept(falling: Tensor) -> int:
    """Return the largest M with sum_i (w_i - 1/M)_+ <= BIAS / sqrt(M), for weights `(S,)` that fall."""
    most = int((falling > 0).sum())
    number = torch.arange(1, most + 1, dtype=falling.dtype, device=falling.device)
    above = torch.searchsorted(-falling, -1 / number)  # how many weights are above 1 / M
    moved = torch.cat([falling.new_zeros(1), falling.cumsum(0)])[above] - above / number
    return int((moved <= BIAS / number.sqrt()).sum())
