"""The No-U-Turn sampler as the papers tell it: one chain, recursive, every leaf kept in a list.

Hoffman and Gelman (2014) for the recursion, Betancourt (2017, appendix A) for the criterion and the
multinomial choice.  Uniform numbers are read in the order of `pyrolatent.kernels.nuts`: for each
doubling its direction, one number a leaf, and the merge.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Density = Callable[[Tensor], tuple[Tensor, Tensor]]


class Point(NamedTuple):
    """Position and momentum `(D,)`, and the gradient there."""

    position: Tensor
    momentum: Tensor
    value: float
    gradient: Tensor


class Result(NamedTuple):
    position: Tensor
    energy: float
    depth: int
    num_steps: int
    acceptance_rate: float
    diverging: bool


class Sampler:
    def __init__(self, density: Density, covariance: Tensor, step_size: float) -> None:
        self.density, self.covariance, self.step_size = density, covariance, step_size
        self.visited: list[Point] = []

    def point(self, position: Tensor, momentum: Tensor) -> Point:
        value, gradient = self.density(position[None])
        return Point(position, momentum, float(value), gradient[0])

    def energy(self, point: Point) -> float:
        return 0.5 * float(point.momentum @ self.covariance @ point.momentum) - point.value

    def weight(self, point: Point) -> float:
        weight = self.start_energy - self.energy(point)
        return weight if math.isfinite(weight) else -math.inf

    def leapfrog(self, point: Point, step_size: float) -> Point:
        middle = point.momentum + 0.5 * step_size * point.gradient
        new = self.point(point.position + step_size * self.covariance @ middle, middle)
        return new._replace(momentum=middle + 0.5 * step_size * new.gradient)

    def turns(self, leaves: list[Point]) -> bool:
        momenta = [leaf.momentum for leaf in leaves]
        rho = torch.stack(momenta).sum(0) - 0.5 * momenta[0] - 0.5 * momenta[-1]
        return any(float(p @ self.covariance @ rho) <= 0 for p in (momenta[0], momenta[-1]))

    def build(self, edge: Point, step_size: float, depth: int) -> tuple[list[Point], bool]:
        """Return the leaves of a subtree, in the order visited, and whether it is fit to be merged."""
        if depth == 0:
            leaf = self.leapfrog(edge, step_size)
            self.visited.append(leaf)
            return [leaf], self.weight(leaf) >= -1_000
        near, good = self.build(edge, step_size, depth - 1)
        if not good:
            return near, False
        far, good = self.build(near[-1], step_size, depth - 1)
        return near + far, good and not self.turns(near + far)

    def choose(self, leaves: list[Point], uniforms: list[float]) -> Point:
        """Return a leaf with probability proportional to its weight: each replaces the earlier ones."""
        weights, chosen = [], leaves[0]
        for leaf, uniform in zip(leaves, uniforms, strict=True):
            weights.append(self.weight(leaf))
            if uniform < math.exp(weights[-1] - total(weights)):
                chosen = leaf
        return chosen

    def transition(self, position: Tensor, momentum: Tensor, max_depth: int, uniforms: list[float]) -> Result:
        tree = [self.point(position, momentum)]
        kept, self.start_energy, self.visited, depth, good = tree[0], self.energy(tree[0]), [], 0, True
        numbers = iter(uniforms)
        while depth < max_depth and good:
            forward = next(numbers) < 0.5
            edge, sign = (tree[-1], 1) if forward else (tree[0], -1)
            leaves, good = self.build(edge, sign * self.step_size, depth)
            if not good:
                break
            proposal = self.choose(leaves, [next(numbers) for _ in leaves])
            weights = [total([self.weight(leaf) for leaf in part]) for part in (leaves, tree)]
            if next(numbers) < math.exp(min(0.0, weights[0] - weights[1])):
                kept = proposal
            tree = tree + leaves if forward else leaves[::-1] + tree
            depth, good = depth + 1, not self.turns(tree)
        rates = [math.exp(min(0.0, self.weight(leaf))) for leaf in self.visited]
        return Result(
            kept.position,
            self.energy(kept),
            depth,
            len(rates),
            sum(rates) / len(rates),
            any(self.weight(leaf) < -1_000 for leaf in self.visited),
        )


def total(log_weights: list[float]) -> float:
    return float(torch.tensor(log_weights, dtype=torch.float64).logsumexp(0))
