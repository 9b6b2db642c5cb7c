"""Proposals: distributions that stand in for a posterior, drawn from and weighed against it.

A proposal draws positions in the unconstrained space and says how likely each was.  The weight of
a draw, posterior over proposal, makes up for the difference, as long as the proposal's tails are no
lighter than the posterior's.
"""

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from pyrolatent.errors import ModelError
from pyrolatent.psis import weights_ess

DEGREES_OF_FREEDOM = 5
MAX_MOVES = 4
ENOUGH = 0.5  # effective draws for each draw, from which a proposal is left as it is
DRAWS_PER_DIMENSION = 30  # effective ones that a covariance is learnt from


class Draws(NamedTuple):
    """Positions `(S, D)` and the log-probability `(S,)` in nats with which they were drawn."""

    position: Tensor
    log_prob: Tensor


class Proposal(abc.ABC):
    """A distribution over unconstrained positions."""

    @abc.abstractmethod
    def draw(self, num_draws: int, random: torch.Generator) -> Draws:
        """Return independent draws."""


@final
@dataclass(frozen=True)
class NormalProposal(Proposal):
    """A normal with mean `centre (D,)` and covariance F F', for `factor` F `(D, D)`."""

    centre: Tensor
    factor: Tensor

    def draw(self, num_draws: int, random: torch.Generator) -> Draws:
        z = noise(self.centre.expand(num_draws, -1), random)
        return Draws(self.centre + z @ self.factor.mT, normal_log_prob(z) - log_volume(self.factor))


@final
@dataclass(frozen=True)
class HeavyNormal(Proposal):
    """Half of it that normal, half the Student-t of 5 degrees of freedom with its centre and factor.

    Weights against it are at most twice those against either half (Hesterberg 1995, defensive
    mixtures).  The normal half keeps it close to posteriors that are nearly normal, whose draws a
    Student-t in many dimensions would spread too far; the heavy half bounds the weights where a
    posterior falls off as an exponential, as that of a log scale does, and a normal's would have no
    variance.  With 5 degrees of freedom the weights of a normal target lose next to nothing.
    """

    centre: Tensor
    factor: Tensor

    def draw(self, num_draws: int, random: torch.Generator) -> Draws:
        """Draw each half's share exactly, which leaves the weights unbiased with less noise."""
        z = noise(self.centre.expand(num_draws, -1), random)
        chi_squared = noise(z.new_zeros(num_draws, DEGREES_OF_FREEDOM), random).square().sum(1, keepdim=True)
        heavy = (torch.arange(num_draws, device=z.device) % 2 == 1)[:, None]
        z = torch.where(heavy, z * (DEGREES_OF_FREEDOM / chi_squared).sqrt(), z)
        log_prob = torch.logaddexp(normal_log_prob(z), student_log_prob(z)) - math.log(2)
        return Draws(self.centre + z @ self.factor.mT, log_prob - log_volume(self.factor))


def noise(like: Tensor, random: torch.Generator) -> Tensor:
    """Return standard normal numbers in the shape of `like`."""
    return torch.randn(like.shape, generator=random, dtype=like.dtype, device=like.device)


def log_volume(factor: Tensor) -> Tensor:
    """Return log |det F| `()`."""
    return torch.linalg.slogdet(factor)[1]


def normal_log_prob(z: Tensor) -> Tensor:
    """Return the standard normal's log density `(S,)` at `z (S, D)`."""
    return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))


def student_log_prob(z: Tensor) -> Tensor:
    """Return the log density `(S,)` at `z (S, D)` of the standard Student-t of 5 degrees of freedom."""
    dof, dim = DEGREES_OF_FREEDOM, z.shape[1]
    constant = math.lgamma((dof + dim) / 2) - math.lgamma(dof / 2) - dim / 2 * math.log(dof * math.pi)
    return constant - (dof + dim) / 2 * torch.log1p(z.square().sum(1) / dof)


def log_ratios(value: Tensor, log_prob: Tensor) -> Tensor:
    """Return raw log weights `(S,)` of draws with log density `value (S,)`; -inf where that is no number.

    Raises:
        ModelError: No draw has a positive density.
    """
    ratio = value - log_prob
    raw = torch.where(ratio.isfinite(), ratio, -torch.inf)
    if not ratio.isfinite().any():
        raise ModelError(
            "no draw of the proposal is possible under the model",
            why=f"the density is 0 at all of {len(raw)} draws",
            remedy="use pyrolatent.HMC(), or start= from its fit",
        )
    return raw


def adapted(
    proposal: HeavyNormal, log_density: Callable[[Tensor], Tensor], num_draws: int, random: torch.Generator
) -> HeavyNormal:
    """Return the proposal moved to the posterior's mean and covariance, as its weighted draws tell them.

    The curvature at a mode says little of a skewed posterior.  Few draws count at first, so weights
    are flattened by a power that leaves enough of them (Koblents and Miguez 2015, nonlinear
    population Monte Carlo).  The best of some moves is kept, by effective draws.  The draws made here
    are not used again: selected ones would look better than they are.
    """
    target = min(DRAWS_PER_DIMENSION * (1 + len(proposal.centre)), num_draws / 2)
    if target < DRAWS_PER_DIMENSION / 2 * len(proposal.centre):
        return proposal
    best, best_ess = proposal, 0.0
    for _ in range(1 + MAX_MOVES):
        draws = proposal.draw(num_draws, random)
        raw = log_ratios(log_density(draws.position), draws.log_prob)
        ess = weights_ess(raw.log_softmax(0))
        best, best_ess = (proposal, ess) if ess > best_ess else (best, best_ess)
        if ess > ENOUGH * num_draws:
            break
        weights = flattened(raw, target).exp()
        centre = weights @ draws.position
        apart = draws.position - centre
        factor, failed = torch.linalg.cholesky_ex((apart.mT * weights) @ apart)
        if failed:
            break
        proposal = HeavyNormal(centre, factor)
    return best


def flattened(raw: Tensor, target: float) -> Tensor:
    """Return log weights `(S,)`, normalised, to a power up to 1 that leaves `target` effective draws."""
    low, high = 0.0, 1.0
    possible = raw.isfinite()

    def power(exponent: float) -> Tensor:
        return torch.where(possible, exponent * raw, -torch.inf).log_softmax(0)

    if weights_ess(power(1.0)) >= target:
        return power(1.0)
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if weights_ess(power(middle)) >= target else (low, middle)
    return power(low)
