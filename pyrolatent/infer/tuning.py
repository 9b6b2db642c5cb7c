"""What a warm-up learns: where the chains are, the metric, the length of paths; and who is lost."""

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from pyrolatent.capture.density import LogDensity
from pyrolatent.kernels.adaptation import MAX_DENSE, path_length, pooled_covariance
from pyrolatent.kernels.chees import PathAscent
from pyrolatent.kernels.hmc import HMCState, Metric, metric
from pyrolatent.ranks import Ranks

NEGLIGIBLE = 30.0  # nats, besides one for each dimension, below which a neighbourhood does not count


@final
@dataclass(frozen=True)
class Tuned:
    """Where the chains are and how they move."""

    state: HMCState
    metric: Metric
    step_size: Tensor  # (B,) early in the warm-up, then ()
    path: float
    restarts: int = 0  # lost chains moved to where others are, so far
    ascent: PathAscent | None = None  # of the path, while it is learnt by ChEES


def flat_covariance(density: LogDensity) -> Tensor:
    """Return a covariance of scale 1, dense or diagonal as the metric of this density will be."""
    ones = torch.ones(density.dim, dtype=density.dtype, device=density.device)
    return torch.diag(ones) if density.dim <= MAX_DENSE else ones


def relearn(tuned: Tuned, window: list[HMCState], random: torch.Generator, ranks: Ranks) -> Tuned:
    """Return metric and path learnt anew from all chains of all processes, with lost chains restarted."""
    window = [whole(state, ranks) for state in window]
    astray = lost(window)
    tuned = refresh(tuned, torch.cat([state.position[~astray] for state in window]))
    everywhere = restart(replace(tuned, state=whole(tuned.state, ranks)), astray, random)
    return replace(everywhere, state=HMCState(*(ranks.share(field) for field in everywhere.state)))


def whole(state: HMCState, ranks: Ranks) -> HMCState:
    """Return the state of the chains of all processes."""
    return HMCState(*(ranks.gather(field) for field in state))


def refresh(tuned: Tuned, draws: Tensor) -> Tuned:
    """Return the tuning with metric and path learnt from the pooled `draws (S, D)`."""
    learnt = metric(pooled_covariance(draws, tuned.metric.covariance))
    path = path_length(draws, learnt) if tuned.ascent is None else tuned.path
    return replace(tuned, metric=learnt, path=path)


def lost(window: list[HMCState]) -> Tensor:
    """Return which chains `(B,)` are where next to nothing of the posterior is.

    The mean log density of a chain's draws plus the entropy of a normal with their variances
    estimates how much of the posterior its neighbourhood holds.  A separate mode that matters lies
    within some nats of the best; a chain on its way, or one that cannot move, far below.
    """
    position = torch.stack([state.position for state in window])
    log_density = torch.stack([state.log_density for state in window]).mean(0)
    share = (log_density + position.std(0).log().sum(-1)).nan_to_num(nan=-torch.inf)
    return share < share.max() - NEGLIGIBLE - position.shape[-1]


def restart(tuned: Tuned, lost: Tensor, random: torch.Generator) -> Tuned:
    """Return the chains with lost ones moved to where others, picked at random, are."""
    found = (~lost).nonzero().flatten()
    picks = torch.randint(len(found), lost.shape, generator=random, device=lost.device)
    source = torch.where(lost, found[picks], torch.arange(len(lost), device=lost.device))
    state = HMCState(*(field[source] for field in tuned.state))
    return replace(tuned, state=state, restarts=tuned.restarts + int(lost.sum()))
