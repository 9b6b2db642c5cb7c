"""What training needs of a pair and its data: parameters, rows to learn from, rows to watch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from pyro import poutine
from torch import Tensor

from pyrolatent.capture.bounds import check_guide
from pyrolatent.capture.noise import NoisyGraph, cuts
from pyrolatent.capture.objective import Loss, ObjectiveGradient, capture_objective
from pyrolatent.capture.parameters import Parameters, find_parameters
from pyrolatent.capture.sites import SiteTable
from pyrolatent.errors import ArgumentError, ModelError
from pyrolatent.infer.guides import check_no_local_autoguide, with_guide
from pyrolatent.infer.rows import Epochs, RowData, Stream, check_batches, scaled, split_rows
from pyrolatent.objectives import Objective
from pyrolatent.pair import Model, Pair
from pyrolatent.ranks import Ranks
from pyrolatent.result import Problem
from pyrolatent.seeds import generator, seeded


@final
@dataclass(frozen=True)
class Noise:
    """What draws the noise of a step, and why each process draws its own, if it does."""

    draw: Callable[[], list[Tensor]]
    own: str = ""


@final
@dataclass(frozen=True)
class Learner:
    """A pair ready to be trained.

    Attributes:
        pair: With its guide, unscaled.
        parameters: What it learns.
        data: Rows apart from what they share; all is shared where nothing is dealt out.
        train: Positions of the rows to learn from `(R, M)`, a bootstrap sample for each refit.
        held_out: Positions of the rows to watch.
        batch_size: Rows of a step.
        seed: Of the fit.
        ranks: The processes that share the rows of a step.
    """

    pair: Pair
    parameters: Parameters
    data: RowData
    train: Tensor
    held_out: Tensor
    batch_size: int
    seed: int
    ranks: Ranks

    @property
    def guide(self) -> Model:
        assert self.pair.guide is not None  # `prepare` saw to it
        return self.pair.guide

    @property
    def num_refits(self) -> int:
        return len(self.train)

    @property
    def start(self) -> Tensor:
        """The parameters of all refits before the first step `(R, P)`."""
        return self.parameters.initial.repeat(self.num_refits, 1)

    def check(self, objective: Loss) -> None:
        """Refuse a pair for which one of our objectives has no meaning.

        Raises:
            ModelError: With the site.
        """
        if isinstance(objective, Objective):
            data = {**self.data.constants, **self.example(0, self.batch_size)}
            with self.parameters.at(self.parameters.initial):
                objective.check(self.pair, data)

    def gradient(self, objective: Loss) -> ObjectiveGradient:
        """Return the captured objective for this process's share of a batch."""
        return self.captured(objective, self.batch_size // self.ranks.size)

    def captured(self, objective: Loss, size: int) -> ObjectiveGradient:
        """Return the captured objective for batches of `size` rows."""
        pair = scaled(self.pair, self.train.shape[1] / size)
        examples = (self.example(0, size), self.example(1, size))
        return capture_objective(objective, pair, self.parameters, self.data.constants, examples)

    def example(self, number: int, size: int) -> dict[str, Tensor]:
        """Return one of two batches of `size` different rows."""
        return self.data.take(self.train[0].roll(-number * size)[:size])

    def stream(self) -> Stream:
        """Return where the rows of each step come from."""
        num_rows = self.train.shape[1]
        random = generator(self.seed, "batches", device=self.train.device)
        epochs = None if self.batch_size == num_rows else Epochs(num_rows, self.batch_size, random)
        return Stream(self.data, self.train, epochs, self.ranks)

    def noise(self, gradient: ObjectiveGradient, objective: Loss) -> Noise:
        """Return the noise of one step of all refits, and whether it is that of one process."""
        noisy = gradient.noisy
        if self.ranks.alone:
            return Noise(list if noisy is None else self.drawn(noisy))
        whole = self.captured(objective, self.batch_size)
        if noisy is None or whole.noisy is None:
            return Noise(list if noisy is None else self.drawn(noisy), gradient.reason or whole.reason)
        dims, reason = cuts(noisy, whole.noisy, self.ranks.size)
        if dims is None:
            return Noise(self.drawn(noisy), reason)
        draw, ranks, outer = self.drawn(whole.noisy), self.ranks, int(self.num_refits > 1)

        def shares() -> list[Tensor]:
            return [
                part if dim is None else ranks.share(part, dim + outer)
                for part, dim in zip(draw(), dims, strict=True)
            ]

        return Noise(shares)

    def drawn(self, noisy: NoisyGraph) -> Callable[[], list[Tensor]]:
        """Return what draws the noise of one step of all refits."""
        return noisy.draw if self.num_refits == 1 else lambda: noisy.draw_many(self.num_refits)

    def validation(self, objective: Loss, num_steps: int) -> Callable[[Tensor], Tensor] | None:
        """Return the loss `(R,)` of the rows held out at parameters `(R, P)`, if any are held out."""
        if not len(self.held_out):
            return None
        data = {**self.data.constants, **self.data.take(self.held_out)}
        pair = scaled(self.pair, self.train.shape[1] / len(self.held_out))

        def loss(flat: Tensor) -> Tensor:
            noise = seeded(self.seed, "validation")  # the same at each check
            with self.parameters.at(flat):
                return objective(pair, data, noise, flat.new_tensor(float(num_steps)))

        return lambda flats: torch.stack([loss(flat) for flat in flats])


def prepare(
    problem: Problem, sites: SiteTable, batch_size: int | None, validation_fraction: float, num_refits: int
) -> Learner:
    """Find the parameters of a pair and deal out its rows; call inside `model_context`.

    Raises:
        ModelError: The guide does not fit the model, or rows are to be dealt out and cannot be.
    """
    device, ranks = problem.device, problem.ranks
    dealt = batch_size is not None or validation_fraction > 0 or num_refits > 1 or not ranks.alone
    if dealt:
        check_no_local_autoguide(problem.pair, sites)
    pair = with_guide(problem.pair, sites, generator(problem.seed, "guide", device=device))
    programs = [program for program in (pair.guide, pair.model) if program is not None]
    parameters = find_parameters(
        programs, problem.data, seed=problem.seed, dtype=problem.dtype, device=device
    )
    if problem.start is not None:
        parameters = parameters.starting_at(problem.start.params)
    with parameters.at(parameters.initial):
        check_guide(pair, problem.data)
    if not parameters.layout.size:
        raise ModelError(
            "there is nothing to learn",
            why="neither model nor guide has a parameter",
            remedy="use pyrolatent.HMC(), or leave guide out for one of Pyro's autoguides",
        )
    data = split_rows(problem.data, sites.rows or 0) if dealt else RowData({}, dict(problem.data), 0)
    train, held_out = split(problem, data.num_rows, validation_fraction, num_refits)
    size = min(batch_size or train.shape[1], train.shape[1])
    if dealt:
        with parameters.at(parameters.initial):
            check_batches(pair, data, sites, size)
        ranks.check_share("batch_size, all rows to learn from unless given,", size)
    return Learner(pair, parameters, data, train, held_out, size, problem.seed, ranks)


def split(
    problem: Problem, num_rows: int, validation_fraction: float, num_refits: int
) -> tuple[Tensor, Tensor]:
    """Return positions to learn from `(R, M)` and to watch `(N - M,)`.

    Raises:
        ArgumentError: There would be none of one kind.
    """
    random = generator(problem.seed, "rows", device=problem.device)
    order = torch.randperm(num_rows, generator=random, device=problem.device)
    num_held = round(validation_fraction * num_rows)
    if num_rows and validation_fraction and not 0 < num_held < num_rows:
        raise ArgumentError(
            "validation_fraction leaves no rows to learn from, or none to watch",
            why=f"{validation_fraction} of {num_rows} rows are {num_held}",
            remedy="choose it closer to one half, or leave it out",
        )
    train = order[num_held:].sort().values
    if num_refits == 1:
        return (train if num_rows else order.new_zeros(1))[None], order[:num_held]
    picks = torch.randint(len(train), (num_refits, len(train)), generator=random, device=problem.device)
    return train[picks], order[:num_held]


def blamed(learner: Learner, data: Mapping[str, Any], flat: Tensor, tries: int = 20) -> str:
    """Return the first site whose value or log-probability is not finite at parameters `(P,)`, in words."""
    for _ in range(tries):
        with learner.parameters.at(flat):
            guide = poutine.trace(learner.guide).get_trace(**data)
            model = poutine.trace(poutine.replay(learner.pair.model, guide)).get_trace(**data)
            guide.compute_log_prob()
            model.compute_log_prob()
        for part, trace in (("guide", guide), ("model", model)):
            for name, node in trace.nodes.items():
                if node["type"] != "sample":
                    continue
                if not torch.as_tensor(node["value"]).isfinite().all():
                    return f"the value of site {name!r} of the {part}"
                if not node["log_prob"].isfinite().all():
                    return f"the log-probability of site {name!r} of the {part}"
    return "no single site (a gradient)"
