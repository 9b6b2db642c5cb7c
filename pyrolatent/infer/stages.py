"""Stages of a run that are computed once: what a checkpoint holds is not computed again.

The same seed gives the same draws, so a run that is resumed takes the way of the first one.  Cheap
steps it does again.  What took many evaluations of the density (a climb, a mode, the log densities of
a part of the draws) is a piece of the checkpoint, and the pieces are taken in the order in which they
were written; after the last one, the run goes on.

Several processes share the evaluations of draws and do all else alike.  Parts are whole batches of the
captured graph, so that the numbers do not depend on how the draws were cut.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import final

import torch
from torch import Tensor

from pyrolatent.checkpoint import Checkpoint
from pyrolatent.infer.points import Points
from pyrolatent.ranks import Ranks
from pyrolatent.result import Problem

BATCH = 64  # draws, a multiple of what any graph evaluates at once: one iteration of a run

Result = Mapping[str, Tensor]


@final
@dataclass(frozen=True)
class Kept:
    """Results that are computed once.

    Attributes:
        checkpoint: Where they are kept.
        device: Of the run.
        earlier: Results of an earlier process that this run has not come to yet.
    """

    checkpoint: Checkpoint
    device: torch.device
    earlier: deque[dict[str, Tensor]]

    def once(self, compute: Callable[[], Result]) -> Result:
        """Return what an earlier process has kept of this stage, else compute and keep it."""
        if self.earlier:
            return {name: value.to(self.device) for name, value in self.earlier.popleft().items()}
        # Copied as a checkpoint would: the last bits of a product hang on how its factors lie in memory.
        result = {n: x.clone(memory_format=torch.contiguous_format) for n, x in compute().items()}
        self.checkpoint.write(None, result)
        return result


def kept_of(problem: Problem) -> Kept:
    """Return the results of a run, with those that are kept of it."""
    keeper = problem.checkpoint
    keeper.read((), problem.device)
    return Kept(keeper, problem.device, deque(keeper.pieces()))


@final
@dataclass(frozen=True)
class Stages:
    """What a run has computed, and goes on to compute.

    Attributes:
        points: Log density and gradient of any number of points.
        size: Draws in a part, a multiple of 64.
        checkpoint: Where results are kept.
        ranks: The processes that share draws.
        earlier: Results of an earlier process that this run has not come to yet.
    """

    points: Points
    size: int = BATCH
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    ranks: Ranks = field(default_factory=Ranks)
    earlier: deque[dict[str, Tensor]] = field(default_factory=deque)

    def once(self, compute: Callable[[], Result]) -> Result:
        """Return what an earlier process has kept of this stage, else compute and keep it."""
        return Kept(self.checkpoint, self.points.density.device, self.earlier).once(compute)

    def log_density(self, position: Tensor, least: float = math.inf) -> Tensor:
        """Return the log density in nats `(S,)` at `position (S, D)`, part by part.

        Where the user interrupts, it is that of the first ones, if they are at least `least`.
        """
        parts: list[Tensor] = []
        done = 0
        try:
            while done < len(position):
                some = position[done : done + self.size]
                parts.append(self.once(partial(self.shared, some))["log_density"])
                done += len(parts[-1])
        except KeyboardInterrupt:
            if done < least or not self.ranks.alone:
                raise
        return torch.cat(parts)

    def shared(self, position: Tensor) -> Result:
        """Return the log density at `position (S, D)`, of which each process evaluates its share."""
        missing = 0 if self.ranks.alone else -len(position) % (self.ranks.size * self.points.batch)
        whole = torch.cat([position, position[:1].expand(missing, -1)])
        value, _ = self.points(self.ranks.share(whole))
        return {"log_density": self.ranks.gather(value)[: len(position)]}


def stages_of(problem: Problem, points: Points, num_draws: int) -> Stages:
    """Return the stages of a run that evaluates `num_draws` draws, with what is kept of them."""
    keeper, ranks = problem.checkpoint, problem.ranks
    batch = BATCH * ranks.size
    size = keeper.interval(math.ceil(num_draws / batch)) * batch
    return Stages(points, size, keeper, ranks, kept_of(problem).earlier)
