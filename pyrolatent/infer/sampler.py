"""Many chains on one captured density: warm-up, draws, and how a run is kept and gone on with.

Warm-up learns step size, metric and path length from all chains of all processes together.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from torch import Tensor
from tqdm import tqdm

from pyrolatent.capture.density import LogDensity
from pyrolatent.checkpoint import Checkpoint
from pyrolatent.errors import StoreError
from pyrolatent.infer.kept_draws import Draws
from pyrolatent.infer.movers import Mover, Noise, kept_path
from pyrolatent.infer.start import ascend, begin_at, starting_points
from pyrolatent.infer.tuning import Tuned, flat_covariance, relearn
from pyrolatent.kernels.adaptation import PATH_FACTOR, DualAveraging, dual_averaging
from pyrolatent.kernels.chees import PathAscent, path_ascent
from pyrolatent.kernels.hmc import HMCState, Metric, start
from pyrolatent.kernels.leapfrog import Density
from pyrolatent.ranks import Ranks

REFRESH = (0.1, 0.25, 0.5, 0.8)  # parts of the warm-up after which metric and path are learnt anew
BLOCK = 50  # draws after which a run that may stop early is judged,
LEAST = 100  # but not before so many,
TENTH = 10  # nor before their number has grown by a tenth: judging costs as much as there are draws
NEVER = 1e-8  # an acceptance rate not met by chance where the mean of all chains is
USUAL = 0.7  # and the step size fits everywhere


@final
@dataclass(frozen=True)
class Plan:
    """How many chains there are, in superchains that begin at one point, and how long they run."""

    num_chains: int
    superchain_size: int
    num_warmup: int
    num_draws: int


@final
@dataclass(frozen=True)
class Run:
    """All that the next transition depends on, besides the density."""

    done: int  # transitions, those of the warm-up included
    tuned: Tuned
    adaptation: DualAveraging
    window: list[HMCState]
    divergences: int
    random: Tensor  # state of the random stream
    stiff: bool = False  # whether the second half of the warm-up met steps that were far too long


KEPT = (Run, Tuned, HMCState, Metric, DualAveraging, PathAscent)


Enough = Callable[[Tensor], bool]  # whether draws `(chain, draw, D)` are what was asked for


@final
@dataclass(frozen=True)
class Sampler:
    """What stays fixed during a run."""

    density: LogDensity
    evaluate: Density  # the density of this process's chains
    mover: Mover
    plan: Plan
    random: torch.Generator
    bar: "tqdm[None]"
    ranks: Ranks = field(default_factory=Ranks)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)

    @property
    def noise(self) -> Noise:
        return Noise(self.random, self.ranks)

    def begin(self, starting: Callable[[], Tensor | None]) -> tuple[Run, Draws]:
        """Return a run at its start, or where an earlier process left it.

        Args:
            starting: Returns draws `(S, D)` to begin at, if there are some.
        """
        kept, draws = self.checkpoint.read(KEPT, self.density.device), Draws(self.plan.num_draws)
        if kept is None:
            tuned = self.first_tuning(starting())
            return Run(0, tuned, dual_averaging(tuned.step_size), [], 0, self.random.get_state()), draws
        self.check_density(kept)
        self.random.set_state(kept.random)
        for piece in self.checkpoint.pieces():
            draws.extend({name: self.ranks.share(value) for name, value in piece.items()})
        draws.kept = draws.number
        self.bar.update(kept.done)
        return of_chains(kept, self.ranks.share), draws

    def check_density(self, kept: Run) -> None:
        """Refuse to go on where the density is not what it was, as when the code of a model was edited.

        Raises:
            StoreError: It has other dimensions, or other values where the chains are.
        """
        known = kept.tuned.state
        same = known.position.shape == (self.plan.num_chains, self.density.dim)
        if same:
            value = self.ranks.gather(self.evaluate(self.ranks.share(known.position))[0])
            rounding = torch.finfo(value.dtype).eps ** 0.5
            same = torch.allclose(value, known.log_density, rounding, rounding)
        if not same:
            raise StoreError(
                "is the checkpoint of another model",
                where=str(self.checkpoint.folder),
                why="the log density of its chains is not what it was",
                remedy="Fit the model as it was, or give another folder",
            )

    def first_tuning(self, draws: Tensor | None = None) -> Tuned:
        """Ascend from random points and take the metric from the curvature there, or both from `draws`."""
        density, plan, ranks = self.density, self.plan, self.ranks
        evaluate, size = self.evaluate, plan.superchain_size
        if draws is None:
            position = starting_points(density, evaluate, plan.num_chains, size, self.random, ranks)
            position, first = ascend(evaluate, position, size, ranks)
        else:
            flat = flat_covariance(density)
            position, first = begin_at(evaluate, draws, plan.num_chains, size, flat, ranks)
        state = start(evaluate, position)
        step_size = torch.full_like(state.log_density, density.dim**-0.25)
        ascent = path_ascent(step_size.new_tensor(PATH_FACTOR)) if self.mover.learns_path else None
        return Tuned(state, first, step_size, PATH_FACTOR, ascent=ascent)

    def warm_up(self, run: Run) -> Run:
        """Return a run whose chains have found the posterior, with its tuning.

        In the first half each chain has a step size of its own, so that one in a steep place can
        leave it without slowing the others down; then they share one, and a stricter target once one
        of them has met a place where it is far too long.  Whenever metric and path are learnt anew,
        chains that are lost restart from where others are.
        """
        while run.done < self.plan.num_warmup:
            run = self.warm_up_once(run)
            self.report("warm-up", run)
            if run.done == self.plan.num_warmup:
                tuned = kept_path(run.tuned)
                run = replace(run, tuned=replace(tuned, step_size=run.adaptation.average_step_size))
            self.keep(run)
        return run

    def warm_up_once(self, run: Run) -> Run:
        """Return the run after one more transition of the warm-up."""
        iteration, num_warmup = run.done + 1, self.plan.num_warmup
        early = iteration < num_warmup // 2
        tuned, stats = self.mover(run.tuned, self.noise, early)
        rate = stats["acceptance_rate"] if early else self.ranks.mean(stats["acceptance_rate"].mean())
        adaptation, window = run.adaptation, [*run.window, tuned.state]
        if iteration == num_warmup // 2:
            adaptation = dual_averaging(self.ranks.gather(adaptation.step_size).median())
        shared = run.tuned.step_size.ndim == 0
        stiff = run.stiff or (shared and self.is_stiff(stats["acceptance_rate"]))
        target = self.mover.strict_acceptance if stiff else self.mover.target_acceptance
        adaptation = adaptation.update(rate, target)
        if iteration in {round(part * num_warmup) for part in REFRESH}:
            tuned = relearn(tuned, window, self.random, self.ranks)
            stiff = stiff and tuned.restarts == run.tuned.restarts  # else it was so where nobody is now
            adaptation, window = dual_averaging(adaptation.step_size), []
        tuned = replace(tuned, step_size=adaptation.step_size)
        divergences = run.divergences + int(stats["diverging"].sum())
        return Run(iteration, tuned, adaptation, window, divergences, self.random.get_state(), stiff)

    def is_stiff(self, acceptance_rate: Tensor) -> bool:
        """Return whether a step size that suits the chains `(B,)` of all processes fails one of them."""
        everywhere = self.ranks.gather(acceptance_rate)
        return bool((everywhere.mean() > USUAL) & (everywhere.min() < NEVER))

    def draw(self, run: Run, draws: Draws, enough: Enough | None = None) -> bool:
        """Fill `draws` until they are `enough` or as many as planned; return False if the user interrupts."""
        run = run if draws.number else replace(run, divergences=0, window=[])
        try:
            while draws.number < self.plan.num_draws and not self.may_stop(draws, enough):
                tuned, stats = self.mover(run.tuned, self.noise, early=False)
                divergences = run.divergences + int(stats["diverging"].sum())
                random = self.random.get_state()
                run = replace(run, done=run.done + 1, tuned=tuned, divergences=divergences, random=random)
                draws.append(tuned.state.position, stats)
                self.report("draws", run)
                self.keep(run, draws)
        except KeyboardInterrupt:
            if not draws.number or not self.ranks.alone:  # the other processes would wait forever
                raise
            if run.done == self.plan.num_warmup + draws.number:  # not between the two
                self.write(run, draws)
            return False
        return True

    def may_stop(self, draws: Draws, enough: Enough | None) -> bool:
        """Return whether a run that may stop early has come to the end of a block, and has enough."""
        number = draws.number
        block = max(BLOCK, number // TENTH // BLOCK * BLOCK)
        if enough is None or number < LEAST or number % block:
            return False
        return bool(self.ranks.agreed(enough(self.ranks.gather(draws.since()["position"]))))

    def keep(self, run: Run, draws: Draws | None = None) -> None:
        """Write a checkpoint if it is time."""
        if self.checkpoint.due(run.done, self.plan.num_warmup + self.plan.num_draws):
            self.write(run, draws)

    def write(self, run: Run, draws: Draws | None = None) -> None:
        """Write a checkpoint."""
        new = draws.since(draws.kept) if draws else {}
        piece = {name: self.ranks.gather(value) for name, value in new.items()}
        self.checkpoint.write(of_chains(run, self.ranks.gather), piece)
        if draws:
            draws.kept = draws.number

    def report(self, stage: str, run: Run) -> None:
        if self.bar.disable:  # a number to show is one to wait for
            return
        step_size = f"{float(run.tuned.step_size.median()):.3g}"
        self.bar.set_postfix(stage=stage, divergences=run.divergences, step_size=step_size, refresh=False)
        self.bar.update()


def of_chains(run: Run, function: Callable[[Tensor], Tensor]) -> Run:
    """Return the run with `function` applied to all that has one entry for each chain."""

    def each(value: Any) -> Any:
        return function(value) if isinstance(value, Tensor) and value.ndim else value

    tuned, adaptation = run.tuned, run.adaptation
    state = HMCState(*map(function, tuned.state))
    return replace(
        run,
        tuned=replace(tuned, state=state, step_size=each(tuned.step_size)),
        adaptation=DualAveraging(*map(each, vars(adaptation).values())),
        window=[HMCState(*map(function, state)) for state in run.window],
    )
