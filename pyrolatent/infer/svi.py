"""Stochastic variational inference as a method: parameters of model and guide by gradient steps.

Networks, parameters and the guide are learnt together as one flat vector, by stochastic gradients
of an objective on minibatches.  Several refits, each on bootstrap rows from its own start, are
trained side by side in one batch dimension.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch

from pyrolatent.capture.compile import Graph, capture
from pyrolatent.capture.context import model_context
from pyrolatent.capture.failures import explained
from pyrolatent.capture.objective import Loss
from pyrolatent.capture.parameters import find_parameters
from pyrolatent.capture.sites import SiteTable, read_sites
from pyrolatent.errors import ArgumentError, ModelError
from pyrolatent.infer import speed
from pyrolatent.infer.clock import Clock
from pyrolatent.infer.fidelity import guide_weights
from pyrolatent.infer.guide_draws import draw_guide, drawn_sites, rung_of_draws
from pyrolatent.infer.guides import is_amortised
from pyrolatent.infer.learner import Learner, blamed, prepare
from pyrolatent.infer.method import Method, check_least
from pyrolatent.infer.optimizers import Schedule, check_optimizer
from pyrolatent.infer.progress import progress_bar
from pyrolatent.infer.step import Step, eager_step, guarded, of_all_ranks, step_graph, with_noise
from pyrolatent.infer.training import Trained, train
from pyrolatent.objectives import elbo
from pyrolatent.psis import reliable_k
from pyrolatent.result import Compile, Fit, Problem, Weights
from pyrolatent.seeds import forked, generator, seeded

# How far the loss may still fall between the last fifth but one of the steps and the last:
MAX_FALL_ERRORS = 3.0  # standard errors,
MAX_FALL_SHARE = 0.01  # of the fall in all,
MIN_FALL = 0.1  # and nats
MAX_RISE_SHARE = 0.1  # of its fall, by which the loss of held-out rows may rise again
RUNNING = 5  # checks in a running mean of it


@final
@dataclass(frozen=True)
class SVI(Method):
    """Settings of stochastic variational inference.

    Args:
        objective: What is minimised: `elbo()`, `iwae(20)`, or a function
            `(pair, data, noise, step) -> loss` in nats.
        num_steps: Gradient steps.
        lr: Learning rate at its highest: it rises over the first twentieth of the steps and falls
            to zero along a cosine.
        batch_size: Rows of a step; by default all.  Batches wrap around the shuffled epoch.
        optimizer: Called as `optimizer([flat], lr=lr)`, such as a class of `torch.optim`.
        validation_fraction: Share of rows held out, on which the loss is watched.
        patience: Checks (100 in a whole run) without a better smoothed loss after which training
            stops; the best state is kept.  By default it runs to its end.
        num_draws: Draws from the guide, of each refit.
        num_refits: Networks trained side by side from one start, each on its own bootstrap sample of
            the rows, for honest pooling; with one, the rows are taken as they are.

    Raises:
        ArgumentError: A number has no meaning.
    """

    uses_guide: ClassVar[bool] = True
    learns: ClassVar[bool] = True

    objective: Loss = field(default_factory=elbo)
    num_steps: int = 10_000
    lr: float = 1e-3
    batch_size: int | None = None
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam
    validation_fraction: float = 0.0
    patience: int | None = None
    num_draws: int = 1_000
    num_refits: int = 1

    def __post_init__(self) -> None:
        least = {"num_steps": 1, "num_draws": 1, "num_refits": 1, "batch_size": 1, "patience": 1}
        for name, low in least.items():
            check_least(name, getattr(self, name), low)
        if not self.lr > 0:
            raise ArgumentError("the learning rate must be positive", why=f"got {self.lr}")
        if not 0 <= self.validation_fraction < 1:
            why = f"got {self.validation_fraction}"
            raise ArgumentError("validation_fraction must lie between 0 and 1", why=why)

    def run(self, problem: Problem) -> Fit:
        clock = Clock()
        with model_context(problem.dtype, problem.device), seeded(problem.seed, "svi"), torch.no_grad():
            check_optimizer(self.schedule, torch.zeros(1, 1, requires_grad=True))
            sites = read(problem)
            learner = prepare(problem, sites, self.batch_size, self.validation_fraction, self.num_refits)
            learner.check(self.objective)
            step, info = self.step(problem, learner, clock)
            own = [problem.ranks.rank] if info.get("own_noise") else []
            trained = self.trained(problem, learner, step, *own)
            clock.lap("training")
            names = drawn_sites(sites, amortised=is_amortised(problem.pair))
            pair, parameters = learner.pair, learner.parameters
            with seeded(problem.seed, "svi", "draws"):
                samples = draw_guide(
                    pair, parameters, trained.flat, problem.data, sites, names, self.num_draws
                )
            if info["rung"] == "vmap":
                info["rung"] = rung_of_draws(pair, parameters, trained.flat, problem.data, sites)
            clock.lap("draws")
            weights = guide_weights(problem, learner, sites, trained.flat[0])
            failed = failure(trained, learner, problem)
            clock.lap("diagnostics")
        weak = interrupted(trained, problem, self.num_steps) + unfinished(trained)
        weak += overfitted(trained, self.patience) + distant(weights)
        info |= {
            "steps": trained.train.shape[1],
            "draw_shape": (self.num_refits, self.num_draws),
        } | clock.info
        return Fit(
            problem,
            self,
            sites,
            samples,
            {},
            {},
            failed + weak,
            info,
            weights=weights,
            losses={"train": trained.train.cpu(), "validation": trained.validation.cpu()},
            params={name: value.cpu() for name, value in parameters.learnt(trained.flat).items()},
            state={"parameters": trained.flat},
            parameters=parameters,
            guide=pair.guide,
        )

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.num_steps, self.lr, self.patience, self.optimizer)

    def step(self, problem: Problem, learner: Learner, clock: Clock) -> tuple[Step, dict[str, Any]]:
        """Return the step of all refits, captured and compiled where that is possible, and how it runs."""
        with explained(problem.data):
            gradient = learner.gradient(self.objective)
        flat, noise, alone = learner.start, learner.noise(gradient, self.objective), problem.ranks.alone
        norms = flat.new_zeros(len(flat))
        example = [flat, norms, norms.new_zeros(()), *next(learner.stream().after(0)), *noise.draw()]
        graph = step_graph(gradient, example, alone=alone)
        clock.lap("capture")
        graph = compiled(graph, example, self.num_steps, problem.compile)
        clock.lap("compilation")
        info = {
            "rung": "vmap" if graph else "eager",
            "reason": gradient.reason,
            "num_ops": graph.num_ops if graph else None,
            "compiled": graph.ran_compiled if graph else False,
        }
        step = with_noise(graph, noise.draw) if graph else eager_step(gradient, alone=alone)
        if alone:
            return step, info
        guard = capture(guarded, norms.clone(), flat, norms)
        guard = guard.compile() if info["compiled"] else guard
        info |= {"processes": problem.ranks.size, "own_noise": noise.own}
        return of_all_ranks(step, guard, problem.ranks), info

    def trained(self, problem: Problem, learner: Learner, step: Step, *stream: int) -> Trained:
        """Run the loop under one progress bar; `stream` tells processes apart that draw their own noise."""
        validate = learner.validation(self.objective, self.num_steps)
        with (
            seeded(problem.seed, "svi", "training", *stream),
            progress_bar(self.num_steps, wanted=problem.progress) as bar,
        ):
            return train(
                step, learner.start, learner.stream(), self.schedule, validate,
                bar, problem.checkpoint, problem.ranks,
            )  # fmt: skip


def read(problem: Problem) -> SiteTable:
    """Return the model's sites, read with Pyro's checks on."""
    model, data, dtype, device = problem.pair.model, problem.data, problem.dtype, problem.device
    parameters = find_parameters([model], data, seed=problem.seed, dtype=dtype, device=device)
    random = generator(problem.seed, "sites", device=device)
    with model_context(dtype, device, validate=True), explained(data), parameters.at(parameters.initial):
        return read_sites(model, data, random)


def compiled(graph: Graph | None, example: list[Any], num_steps: int, compile: Compile) -> Graph | None:
    """Return the graph, compiled at `example` inputs where that is wanted and possible."""
    if graph is None:
        return None
    faster = speed.compiled(graph, compile, num_steps)
    if faster.compiled:
        with forked():  # what the graph draws itself does not count
            faster(*example)
    return faster


def distant(weights: Weights | None) -> tuple[str, ...]:
    """Return a warning where the guide is far from the posterior."""
    if weights is None or weights.pareto_k <= (limit := reliable_k(len(weights.raw))):
        return ()
    return (
        f"Pareto k of the guide is {weights.pareto_k:.2f} (> {limit:.2f}): it is not close to the posterior, "
        "and its intervals may be too narrow. Fit with HMC(), from start= this fit if it takes long, or give "
        "a richer guide.",
    )


def failure(trained: Trained, learner: Learner, problem: Problem) -> tuple[str, ...]:
    """Return what stopped the training, if its loss was not finite.

    Raises:
        ModelError: It never was.
    """
    if trained.failed_at is None or trained.failed_flat is None:
        return ()
    culprit = blamed(learner, problem.data, trained.failed_flat)
    if not trained.train.shape[1]:
        raise ModelError(
            "the loss is not finite at the first step",
            why=f"first to blame: {culprit}",
            remedy="look at its data, its scale and its support",
        )
    return (
        f"Training stopped: the loss was not finite at step {trained.failed_at} (first to blame: {culprit}). "
        "The last good state was kept. Lower lr, or keep scales away from zero.",
    )


def overfitted(trained: Trained, patience: int | None) -> tuple[str, ...]:
    """Return a warning where the loss of the rows held out rose again, and training did not stop."""
    checks = trained.validation.double().mean(0)
    if patience is not None or len(checks) < 4 * RUNNING:
        return ()
    smooth = checks.unfold(0, RUNNING, 1).mean(-1)
    rise, fall = float(smooth[-1] - smooth.min()), float(smooth[0] - smooth.min())
    if rise <= max(MAX_RISE_SHARE * fall, MIN_FALL):
        return ()
    return (
        f"The loss of the rows held out rose by {rise:.3g} nats from its lowest: the last state fits the "
        "noise of the others. Give patience, to keep the best state, or a smaller network.",
    )


def interrupted(trained: Trained, problem: Problem, num_steps: int) -> tuple[str, ...]:
    """Return a warning of a run that the user ended."""
    if not trained.interrupted:
        return ()
    folder = problem.checkpoint.folder
    remedy = "Pass start= this fit to train on" if folder is None else f"Pass resume={str(folder)!r} to go on"
    return (f"Interrupted after step {trained.train.shape[1]:,} of {num_steps:,}. {remedy}.",)


def unfinished(trained: Trained) -> tuple[str, ...]:
    """Return a warning where the loss still fell in the last two fifths of the steps."""
    losses = trained.train.double().mean(0)
    size = len(losses) // 5
    if size < 20 or trained.interrupted or trained.failed_at is not None:
        return ()
    first, before, after = losses[:size], losses[-2 * size : -size], losses[-size:]
    fall = float(before.mean() - after.mean())
    error = float(((before.var() + after.var()) / size).sqrt())
    whole = float(first.mean() - after.mean())
    if fall <= max(MAX_FALL_ERRORS * error, MAX_FALL_SHARE * whole, MIN_FALL):
        return ()
    return (
        f"The loss still fell by {fall:.3g} nats over the last steps ({whole:.3g} in all): training is "
        "unfinished. Raise num_steps or lr.",
    )
