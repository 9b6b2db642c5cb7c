"""One iteration of EM, and the log-likelihood that it climbs, for any model and for mixtures.

Latents are here one vector of R constrained cells, of several starts side by side `(B, R)`.
"""

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor
from torch.func import grad, vmap

from pyrolatent.capture.copies import Part
from pyrolatent.capture.density import LogDensity
from pyrolatent.capture.expectation import expected
from pyrolatent.capture.joint import LogJoint, evaluate
from pyrolatent.capture.ladder import REFUSALS, eager_value_and_gradient
from pyrolatent.capture.messages import Message
from pyrolatent.capture.unconstrain import unconstrain
from pyrolatent.capture.vector import Layout
from pyrolatent.infer.maximisation import Formulas
from pyrolatent.infer.points import Points
from pyrolatent.infer.shared_rows import SharedRows, natural_parameters
from pyrolatent.infer.speed import how_it_ran
from pyrolatent.infer.start import MAX_ASCENT
from pyrolatent.kernels.ascent import lbfgs_ascent

CLIMB = 20  # evaluations at most in one iteration, where some latents have no formula
PATIENCE = 10  # of these without a gain
ROUNDING = 1e-9  # relative, of a log-likelihood


@final
@dataclass(frozen=True)
class Latents:
    """The latents of a model as constrained cells, and as free numbers.

    Attributes:
        density: Of the model, at the data or at a few rows of them.
        layout: Of the constrained cells.
    """

    density: LogDensity
    layout: Layout

    def constrained(self, position: Tensor) -> Tensor:
        """Return the cells `(R,)` at `position (D,)`."""
        density = self.density
        return self.layout.pack(evaluate(density.model, density.data, density.sites, position).values)

    def of_positions(self, position: Tensor) -> Tensor:
        """Return the cells `(B, R)` at `position (B, D)`."""
        named = self.density.constrain(position)
        return torch.cat([named[name].reshape(len(position), -1) for name in self.layout.names], 1)

    def position(self, cells: Tensor) -> Tensor:
        """Return the free numbers `(B, D)` at cells `(B, R)`."""
        return unconstrain(self.density, self.layout.unpack(cells))


class Steps(abc.ABC):
    """What EM does again and again, by the formulas of the latents."""

    formulas: Formulas
    latents: Latents

    @abc.abstractmethod
    def expected_sums(self, latents: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the log-likelihood `(B,)` at `latents (B, R)`, and sums of statistics `(B, U, S)` of parts.

        These are expected sums, over what the discrete sites can be.
        """

    @abc.abstractmethod
    def improved(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-likelihood `(B,)` at `latents (B, R)`, in nats, and better latents `(B, R)`."""

    @abc.abstractmethod
    def log_likelihood(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-likelihood `(B,)` and its gradient `(B, D)` at free numbers `(B, D)`."""

    @property
    def how_it_ran(self) -> dict[str, Any]:
        """Rung, size and compilation."""
        return how_it_ran(self.latents.density, None)


@final
@dataclass(frozen=True)
class MixtureSteps(Steps):
    """Those of a mixture: its code runs only to map free numbers to cells."""

    rows: SharedRows
    formulas: Formulas
    latents: Latents

    def expected_sums(self, latents: Tensor) -> tuple[Tensor, list[Tensor]]:
        natural = natural_parameters(self.rows.parts, latents)
        total, gradient = self.rows.expected(self.rows.coefficients(natural))
        return total, self.rows.sums(gradient)

    def improved(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        total, sums = self.expected_sums(latents)
        return total, self.formulas.improved(latents, sums)

    def log_likelihood(self, position: Tensor) -> tuple[Tensor, Tensor]:
        total, sums = self.expected_sums(self.latents.of_positions(position))

        def inner(position: Tensor, *sums: Tensor) -> Tensor:
            moved = natural_parameters(self.rows.parts, self.latents.constrained(position)[None])
            return torch.stack([(a[0] * b).sum() for a, b in zip(moved, sums, strict=True)]).sum()

        return total, gradients(inner, position, *sums)

    def from_shares(self, latents: Tensor, shares: Tensor) -> Tensor:
        """Return latents `(B, R)` from `latents` and probabilities `(B, C, N)` of the discrete sites."""
        gradient = (shares * self.rows.counts) @ self.rows.design.mT
        return self.formulas.improved(latents, self.rows.sums(gradient))


@final
@dataclass(frozen=True)
class ModelSteps(Steps):
    """Those of any model: its code runs at every iteration.

    Where some latents have no formula, all climb the likelihood itself after the others' formulas (the ECME
    of Liu and Rubin 1994, Biometrika 81).
    """

    formulas: Formulas
    latents: Latents
    points: Points
    penalised: bool

    def expected_sums(self, latents: Tensor) -> tuple[Tensor, list[Tensor]]:
        if not self.formulas.parts:
            return self.log_likelihood(self.latents.position(latents))[0], []
        found = [self.sums_of_one(position) for position in self.latents.position(latents)]
        totals, sums = zip(*found, strict=True)
        return torch.stack(totals), [torch.stack(of_part) for of_part in zip(*sums, strict=True)]

    def sums_of_one(self, position: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the log-likelihood `()` at free numbers `(D,)`, and sums of statistics `(U, S)` of parts."""
        density = self.latents.density
        joint = evaluate(density.model, density.data, density.sites, position)
        total, weights = expected(counted(joint, self.penalised))
        return total, [part_sums(part, weights[part.name]) for part in self.formulas.parts]

    def improved(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        total, sums = self.expected_sums(latents)
        better = self.formulas.improved(latents, sums)
        position = self.latents.position(better)
        if self.formulas.steps:  # of copies, which code such as a clamp may have ended
            falls = self.log_likelihood(position)[0] < total - ROUNDING * total.abs()
            better = torch.where(falls[:, None], latents, better)
            position = torch.where(falls[:, None], self.latents.position(latents), position)
        if not self.formulas.known.all():
            most = CLIMB if self.formulas.steps else MAX_ASCENT
            climbed = lbfgs_ascent(self.log_likelihood, position, most, PATIENCE)
            better = self.latents.of_positions(climbed)
        return total, better

    def log_likelihood(self, position: Tensor) -> tuple[Tensor, Tensor]:
        return self.points(position)

    @property
    def how_it_ran(self) -> dict[str, Any]:
        return self.points.info


def counted(joint: LogJoint, penalised: bool) -> dict[str, Message]:
    """Return the sites of a run that count: of the likelihood, or of it and the priors of latents."""
    priors = {} if penalised else joint.sites.latents
    return {name: message for name, message in joint.messages.items() if name not in priors}


def supports_of(joint: LogJoint) -> dict[str, Any]:
    """Return the supports of the latents of a run."""
    return {name: joint.messages[name]["fn"].support for name in joint.sites.latents}


def part_sums(part: Part, weight: Tensor) -> Tensor:
    """Return the sums of statistics `(U, S)` of a part, its cells counted by the `weight` of its site."""
    weight = weight.reshape(weight.shape + (1,) * part.event_dim)
    statistics = part.statistics()
    shape = torch.broadcast_shapes(weight.shape, statistics.shape[:-1], part.key.shape)
    key = part.key.expand(torch.broadcast_shapes(part.key.shape, (1,) * len(shape)))
    summed = [dim for dim in range(len(shape)) if key.shape[dim] == 1 and shape[dim] > 1]
    found = []
    for one in statistics.unbind(-1):
        terms = (weight * one).expand(shape)
        terms = terms.sum(summed, keepdim=True) if summed else terms
        zeros = terms.new_zeros(part.num_distributions)
        found.append(zeros.index_add(0, key.expand(terms.shape).flatten(), terms.flatten()))
    return torch.stack(found, -1)


def gradients(function: Callable[..., Tensor], position: Tensor, *others: Tensor) -> Tensor:
    """Return the gradient `(B, D)` of `function` by `position (B, D)`, at the `others` of each."""
    try:
        return vmap(grad(function))(position, *others)
    except REFUSALS:
        found = []
        for start, given in zip(position, zip(*others, strict=True), strict=True):
            found.append(eager_value_and_gradient(partial(called, function, given), start)[1])
        return torch.stack(found)


def called(function: Callable[..., Tensor], others: Sequence[Tensor], position: Tensor) -> Tensor:
    """Return `function` at a position and others."""
    return function(position, *others)
