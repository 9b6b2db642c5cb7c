"""Objectives: what is minimised when parameters are learnt.

An objective is a function of a pair and its data that returns a loss in nats: minus a lower bound of
the log-evidence, summed over all rows.  It is an estimate from random draws of the guide, whose
gradient flows through the draws themselves (pathwise), so every site of a guide must be
reparameterised.  Discrete sites of the model that the guide leaves out are summed out exactly.

`elbo` bounds the evidence of everything at once; `iwae` bounds that of each row by itself, tighter
with every particle, for models all of whose latents belong to rows.
"""

import abc
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from pyrolatent.capture.bounds import (
    PairRun,
    check_guide,
    check_pathwise,
    check_sums,
    log_guide,
    log_model,
    run_pair,
    run_plain,
)
from pyrolatent.capture.messages import sum_all
from pyrolatent.capture.particles import (
    check_particles,
    check_rows,
    log_weights,
    row_scale,
    with_particles,
)
from pyrolatent.errors import ArgumentError
from pyrolatent.pair import Pair

Schedule = Callable[[Tensor], Tensor]
Data = Mapping[str, Any]
Noise = AbstractContextManager[Any]


class Objective(abc.ABC):
    """A loss of a pair and its data, in nats, to be minimised."""

    @abc.abstractmethod
    def check(self, pair: Pair, data: Data) -> None:
        """Refuse a pair for which the objective has no meaning; draws nothing.

        Raises:
            ModelError: What is wrong, with its site.
        """

    @abc.abstractmethod
    def __call__(self, pair: Pair, data: Data, noise: Noise, step: Tensor) -> Tensor:
        """Return the loss `()`: minus the bound, a sum over all rows.

        Args:
            pair: Model and guide; where `data` hold a batch, both count its rows for all.
            data: The arguments of both.
            noise: Entered around everything random.
            step: The number of steps taken so far, a floating-point scalar `()`.
        """


@final
@dataclass(frozen=True)
class LinearSchedule:
    """A number that moves from `start` to `end` in `num_steps` steps and stays there.

    Raises:
        ArgumentError: `num_steps` is not positive.
    """

    start: float
    end: float
    num_steps: int

    def __post_init__(self) -> None:
        check_positive("num_steps", self.num_steps)

    def __call__(self, step: Tensor) -> Tensor:
        return self.start + (self.end - self.start) * (step / self.num_steps).clamp(max=1.0)


def check_weight(name: str, weight: float | Schedule) -> None:
    """Refuse a weight that is no function and negative or not finite.

    Raises:
        ArgumentError: With its name.
    """
    if not callable(weight) and not 0 <= weight < math.inf:
        raise ArgumentError(f"{name} must be a number from 0 up", why=f"got {weight}")


def weight_at(weight: float | Schedule, step: Tensor) -> float | Tensor:
    """Return a weight at a step."""
    return weight(step) if callable(weight) else weight


@final
@dataclass(frozen=True)
class ELBO(Objective):
    """The evidence lower bound E_q[log p(x | z)] - beta E_q[log q(z) - log p(z)], from one draw.

    With beta = 1 it bounds log p(x) from below (Kingma and Welling, 2014, eq. 3); another beta weighs
    the divergence of the guide from the prior (Higgins et al., 2017, eq. 4).

    Args:
        beta: Weight of the divergence, or a function of the step that returns it `()`.

    Raises:
        ArgumentError: beta is negative.
    """

    beta: float | Schedule = 1.0

    def __post_init__(self) -> None:
        check_weight("beta", self.beta)

    def check(self, pair: Pair, data: Data) -> None:
        check_run(pair, data)

    def __call__(self, pair: Pair, data: Data, noise: Noise, step: Tensor) -> Tensor:
        beta = weight_at(self.beta, step)
        with noise:
            run = run_pair(pair, data)
            log_q = sum(sum_all(log_guide(message, message["scale"])) for message in run.guide.values())
            log_prior, log_likelihood = log_model(run)
            return torch.as_tensor(beta * (log_q - log_prior) - log_likelihood)


@final
@dataclass(frozen=True)
class IWAE(Objective):
    """The importance-weighted bound of each row (Burda, Grosse and Salakhutdinov, 2016, eq. 8).

    sum_i log 1/K sum_k p(x_i, z_ik) / q(z_ik | x_i) with K draws of each row's own latents.  With
    K = 1 it is the `ELBO`, and it grows towards log p(x) with K.  Every site must belong to a row,
    that is, stand in plate "data"; what all rows share can be parameters.

    Args:
        num_particles: K.

    Raises:
        ArgumentError: K is not positive.
    """

    num_particles: int

    def __post_init__(self) -> None:
        check_positive("num_particles", self.num_particles)

    def check(self, pair: Pair, data: Data) -> None:
        plan = check_run(pair, data)
        check_rows(plan)
        if self.num_particles > 1:
            check_particles(pair, data, plan)

    def __call__(self, pair: Pair, data: Data, noise: Noise, step: Tensor) -> Tensor:
        with noise:
            run = self.particles(pair, data)
            counted = next(iter((*run.guide.values(), *run.model.values())))
            log_weight = log_weights(run, unit=counted["scale"])
            bound = torch.logsumexp(log_weight, 0) - math.log(self.num_particles)
            return -(row_scale(counted) * bound).sum()

    def particles(self, pair: Pair, data: Data) -> PairRun:
        """Return the sites of all particles side by side."""
        if self.num_particles > 1:
            plan = run_plain(pair, data, given={})
            check_rows(plan)
            pair = with_particles(pair, self.num_particles, plan.batch_dims)
        run = run_pair(pair, data)
        check_rows(run)
        return run


def elbo(beta: float | Schedule = 1.0) -> ELBO:
    """Return the evidence lower bound as an objective.

    Args:
        beta: Weight of the divergence of guide and prior; a function of the step, such as
            `linear(0, 1, 1_000)`, anneals it.
    """
    return ELBO(beta)


def iwae(num_particles: int) -> IWAE:
    """Return the importance-weighted bound of each row, from `num_particles` draws, as an objective."""
    return IWAE(num_particles)


def linear(start: float, end: float, num_steps: int) -> LinearSchedule:
    """Return a function of the step that moves from `start` to `end` in `num_steps` and stays there."""
    return LinearSchedule(start, end, num_steps)


def check_run(pair: Pair, data: Data) -> PairRun:
    """Refuse a pair that no bound can be had of; return the sites of a run that draws nothing."""
    check_guide(pair, data)
    plan = run_plain(pair, data, given={})
    check_pathwise(plan)
    check_sums(pair, data, plan)
    return plan


def check_positive(name: str, value: int) -> None:
    """Refuse a count below one."""
    if value < 1:
        raise ArgumentError(f"{name} must be a positive number", why=f"got {value}")
