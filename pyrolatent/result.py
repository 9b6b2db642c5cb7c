"""What a method is given, and what it returns."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, final

import pandas as pd
import torch
from torch import Tensor

from pyrolatent.capture.context import fitting_threads, model_context
from pyrolatent.capture.ladder import MAX_POINTS, Rung
from pyrolatent.capture.parameters import Parameters
from pyrolatent.capture.sites import SiteTable
from pyrolatent.checkpoint import Checkpoint
from pyrolatent.pair import Model, Pair
from pyrolatent.ranks import Ranks
from pyrolatent.schema import Schema

Compile = Literal["auto"] | bool


@final
@dataclass(frozen=True)
class Problem:
    """A pair with its data and how to run it: everything a method needs besides its settings."""

    pair: Pair
    data: Mapping[str, Any]  # the model's keyword arguments, tensors on `device`
    frame: pd.DataFrame | None  # the table behind the data, as the user gave it
    seed: int
    dtype: torch.dtype
    device: torch.device
    compile: Compile
    progress: bool
    start: "Fit | None" = None  # where to begin: an earlier fit of the same model
    checkpoint: Checkpoint = field(default_factory=Checkpoint)  # where the run is kept
    ranks: Ranks = field(default_factory=Ranks)  # the processes that share the work


@final
@dataclass(frozen=True)
class Weights:
    """Importance weights of draws from a proposal, in nats and up to a constant.

    Attributes:
        raw: log p(x, z) - log q(z) of each draw `(draw,)`.
        smoothed: The same with the largest ones Pareto-smoothed, normalised so that their
            exponentials add up to one `(draw,)`.
        pareto_k: Shape of the generalised Pareto distribution fitted to the largest weights.
    """

    raw: Tensor
    smoothed: Tensor
    pareto_k: float


@final
@dataclass(frozen=True)
class Fit:
    """The result of `fit`; what can be done with it are functions of it.

    Attributes:
        problem: What was fitted.
        method: The settings, with every default filled in.
        sites: The model's sites: their roles, shapes and plates.
        samples: Latent and deterministic sites, `(chain, draw, *site)` each, on the host.
        sample_stats: `(chain, draw)` each, under ArviZ's names; `lp` and `energy` in nats.
        diagnostics: Site -> nested R-hat `rhat` and effective sample size `ess`, `(*site)` each.
        warnings: What makes the result weaker than it looks, with what to do.
        info: How the fit ran: rung, reason, operations, seconds, versions.
        weights: Of importance sampling, before its draws were resampled to equal weights.
        losses: `train (refit, step)` in nats, and `validation (refit, check)` where rows were held out.
        params: Learnt parameters by name, constrained `(*shape)`; `(refit, *shape)` of several refits.
        state: Unconstrained tensors that a later fit can start from: `parameters (refit, P)`.
        parameters: The learnable parameters of the pair, by name and place in such a vector.
        guide: The guide as it was trained, which may be an autoguide made for this fit.
    """

    problem: Problem = field(repr=False)
    method: Any
    sites: SiteTable = field(repr=False)
    samples: Mapping[str, Tensor] = field(repr=False)
    sample_stats: Mapping[str, Tensor] = field(repr=False)
    diagnostics: Mapping[str, Mapping[str, Tensor]] = field(repr=False)
    warnings: tuple[str, ...]
    info: Mapping[str, Any]
    weights: Weights | None = None
    losses: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    params: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    state: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    parameters: Parameters | None = field(default=None, repr=False)
    guide: Model | None = field(default=None, repr=False)

    @property
    def pair(self) -> Pair:
        return self.problem.pair

    @property
    def data(self) -> Mapping[str, Any]:
        return self.problem.data

    @property
    def schema(self) -> Schema | None:
        return self.problem.pair.schema

    @property
    def seed(self) -> int:
        return self.problem.seed

    @property
    def rung(self) -> Rung:
        """The rung of the ladder on which the model ran, and on which verbs run it again."""
        return self.info["rung"]

    @property
    def draw_shape(self) -> tuple[int, int]:
        """Chains and draws of each; those that can be made on demand where none are kept."""
        kept = next(iter(self.samples.values()), None)
        chains, draws = self.info["draw_shape"] if kept is None else kept.shape[:2]
        return int(chains), int(draws)

    @property
    def num_draws(self) -> int:
        """Draws of all chains together."""
        chains, draws = self.draw_shape
        return chains * draws

    @property
    def num_refits(self) -> int:
        """How many times the parameters were learnt; once where there are none."""
        return 1 if self.parameters is None else len(self.state["parameters"])

    def flat_samples(self, num_draws: int | None = None) -> dict[str, Tensor]:
        """Return `(draw, *site)` of all chains joined, or of `num_draws` evenly spaced ones."""
        keep = evenly_spaced(self.num_draws, num_draws)
        return {name: draws.flatten(0, 1)[keep] for name, draws in self.samples.items()}

    @contextlib.contextmanager
    def context(self, refit: int = 0) -> Iterator[None]:
        """The surroundings in which the model ran, for verbs that run it again.

        Learnt parameters have the values that they took in this refit.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(fitting_threads(self.data, copies=MAX_POINTS))
            stack.enter_context(torch.no_grad())
            stack.enter_context(model_context(self.problem.dtype, self.problem.device))
            if self.parameters is not None:
                stack.enter_context(self.parameters.at(self.state["parameters"][refit]))
            yield


def evenly_spaced(total: int, wanted: int | None) -> Tensor:
    """Return the positions of `wanted` evenly spaced ones of `total` draws; of all for None."""
    return spread(total, total if wanted is None else min(wanted, total))


def spread(total: int, count: int) -> Tensor:
    """Return `count` positions from 0 to `total - 1` at equal distances, some twice where there are fewer.

    On the host, as samples are.
    """
    return torch.linspace(0, total - 1, count, dtype=torch.float64, device="cpu").round().long()
