"""The No-U-Turn sampler with many chains in lockstep (Hoffman and Gelman 2014; Betancourt 2017).

Every chain follows a trajectory that doubles, forwards or backwards at random, until its ends turn
towards each other, and keeps one of its points by multinomial sampling.  All chains double
together; one that has stopped stays where it is until the last one has.

A doubling grows a subtree leaf by leaf, without recursion.  What happens at a leaf, to all chains,
is one function of tensors (`leaf_step`), as is the merging of a subtree into its tree (`merge`), so
both can be captured as graphs of fixed shape that serve every leaf and every depth.

A piece of trajectory with momenta p_1, ..., p_n turns where rho = p_1/2 + p_2 + ... + p_{n-1} +
p_n/2 does not point along the velocity of either end: v_1 . rho <= 0 or v_n . rho <= 0.  Each leaf
carries the sum up to itself (`path`), ends halved, so that rho is a difference of two of them.
Checked are the whole tree and every balanced subtree of it; the latter need one leaf for each level,
the first of the subtree that is being grown there.

Momenta and velocities are kept half a step ahead of the position, as in `leapfrog`, and those at the
leaf are means of two neighbours: a leaf costs one gradient and one product with the covariance.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyrolatent.kernels.hmc import DIVERGENCE, HMCState, Metric
from pyrolatent.kernels.leapfrog import Density, velocity

Leaf = Callable[..., tuple[Tensor, ...]]
Merge = Callable[..., tuple[Tensor, ...]]
Uniform = Callable[[], Tensor]


class NUTSInfo(NamedTuple):
    """What happened in one transition, `(B,)` each: energies in nats.

    The acceptance rate is the mean of Metropolis' over all leaves, `num_steps` their number, `depth`
    how many subtrees were merged.
    """

    acceptance_rate: Tensor
    diverging: Tensor
    energy: Tensor
    num_steps: Tensor
    depth: Tensor


class Subtree(NamedTuple):
    """A growing subtree, `(B, D)` and `(B, 1)`: its last leaf, what is kept of it, what is counted.

    A log weight is what the energy has fallen by since the start, in nats.  Acceptances and steps
    are counted from the start of the transition, all else from that of the subtree.
    """

    position: Tensor
    ahead: Tensor  # momentum, half a step further
    ahead_velocity: Tensor
    momentum: Tensor
    velocity: Tensor
    path: Tensor
    log_weight: Tensor  # of all leaves
    kept_position: Tensor
    kept_log_density: Tensor
    kept_gradient: Tensor
    kept_log_weight: Tensor
    acceptance: Tensor
    num_steps: Tensor
    active: Tensor
    diverging: Tensor


class Tree(NamedTuple):
    """A tree: both ends as the first five tensors of a subtree `(2, 5, B, D)`, and as there."""

    ends: Tensor
    path: Tensor
    log_weight: Tensor
    kept_position: Tensor
    kept_log_density: Tensor
    kept_gradient: Tensor
    kept_log_weight: Tensor
    acceptance: Tensor
    num_steps: Tensor
    active: Tensor
    diverging: Tensor
    depth: Tensor


EDGE, SUBTREE, TREE = 5, len(Subtree._fields), len(Tree._fields)


def leaf_step(density: Density) -> Leaf:
    """Return the function that grows subtrees by one leaf, all chains at once.

    It takes and returns the tensors of a `Subtree`, and takes after them: step sizes `(B, 1)`, negative
    backwards, the covariance `(D, D)` or `(D,)`, the energy at the start `(B, 1)`, uniforms `(B, 1)`,
    and `()` whether this leaf makes a pair with the one before, which is then checked.
    """

    def leaf(*tensors: Tensor) -> tuple[Tensor, ...]:
        old = Subtree(*tensors[:SUBTREE])
        step_size, covariance, start_energy, uniform, is_pair = tensors[SUBTREE:]
        # A chain that has stopped stays where the density is known to return.
        moved = torch.addcmul(old.position, step_size, old.ahead_velocity)
        position = torch.where(old.active, moved, old.position)
        value, gradient = density(position)
        value = value[:, None]
        ahead = torch.addcmul(old.ahead, step_size, gradient)
        ahead_velocity = velocity(ahead, covariance)
        momentum, speed = mean(old.ahead, ahead), mean(old.ahead_velocity, ahead_velocity)
        pair = mean(old.momentum, momentum)

        kinetic_energy = 0.5 * (momentum * speed).sum(-1, keepdim=True)
        weight = finite_or_nothing(start_energy + value - kinetic_energy)
        log_weight = torch.logaddexp(old.log_weight, weight)
        better = uniform < torch.exp(weight - log_weight)

        accepted = old.active * torch.exp(weight.clamp(max=0))
        diverged = old.active & (weight < -DIVERGENCE)
        turned = is_pair & turning(old.velocity, speed, pair)
        grown = Subtree(
            position, ahead, ahead_velocity, momentum, speed, old.path + pair, log_weight,
            torch.where(better, position, old.kept_position),
            torch.where(better, value, old.kept_log_density),
            torch.where(better, gradient, old.kept_gradient),
            torch.where(better, weight, old.kept_log_weight),
            old.acceptance + accepted,
            old.num_steps + old.active,
            old.active & ~(diverged | turned),
            old.diverging | diverged,
        )  # fmt: skip
        return tuple(grown)  # inductor takes no named one

    return leaf


def merge(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Merge subtrees into their trees by biased progressive sampling (Betancourt 2017, A.3.2).

    Takes the tensors of a `Tree` and of a `Subtree`, directions `(B, 1)`, true forwards, and uniforms
    `(B, 1)`; returns those of the tree.  A subtree that turned or diverged is dropped.
    """
    old, new = Tree(*tensors[:TREE]), Subtree(*tensors[TREE : TREE + SUBTREE])
    forward, uniform = tensors[TREE + SUBTREE :]
    better = new.active & (uniform < torch.exp(new.log_weight - old.log_weight))
    extended = torch.stack([new.active & ~forward, new.active & forward])[:, None]
    ends = torch.where(extended, torch.stack(new[:EDGE]), old.ends)
    path = old.path + new.path
    first, last = ends[0, EDGE - 1], ends[1, EDGE - 1]
    merged = Tree(
        ends, path, torch.logaddexp(old.log_weight, new.log_weight),
        torch.where(better, new.kept_position, old.kept_position),
        torch.where(better, new.kept_log_density, old.kept_log_density),
        torch.where(better, new.kept_gradient, old.kept_gradient),
        torch.where(better, new.kept_log_weight, old.kept_log_weight),
        new.acceptance,
        new.num_steps,
        new.active & ~turning(first, last, path),
        new.diverging,
        old.depth + new.active,
    )  # fmt: skip
    return tuple(merged)


def mean(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean of two tensors in one operation."""
    return torch.lerp(first, second, 0.5)


def turning(first: Tensor, last: Tensor, path: Tensor) -> Tensor:
    """Tell `(..., B, 1)` where a velocity at an end points against the path, `(..., B, D)` each.

    Betancourt (2017), appendix A.4.2; that the momenta at both ends count half is Pyro's criterion too.
    """
    return torch.minimum((first * path).sum(-1, keepdim=True), (last * path).sum(-1, keepdim=True)) <= 0


def finite_or_nothing(log_weight: Tensor) -> Tensor:
    """Give no weight to points without a finite energy."""
    return torch.nan_to_num(log_weight, nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)


def transition(
    leaf: Leaf,
    state: HMCState,
    metric: Metric,
    step_size: Tensor,
    max_tree_depth: int,
    noise: Tensor,
    uniform: Uniform,
    merge: Merge = merge,
) -> tuple[HMCState, NUTSInfo]:
    """Move every chain once.

    Args:
        leaf: What `leaf_step` returns, captured or not.
        state: Where the chains are.
        metric: The covariance `(D, D)` or `(D,)`.
        step_size: `(B, 1)` or `()`.
        max_tree_depth: Doublings at most, so `2 ** max_tree_depth - 1` leaves.
        noise: Standard normal `(B, D)`.
        uniform: Each call returns fresh uniforms `(B,)`: for each doubling one for the directions, one
            for each leaf and one for the merge.
        merge: The function `merge`, captured or not.

    Returns:
        The new state and what happened.
    """
    momentum = metric.momentum(noise)
    energy = (metric.kinetic_energy(momentum) - state.log_density)[:, None]
    step_size = step_size.expand(len(noise), 1)
    tree = root(state, momentum, step_size, metric.covariance)
    for depth in range(max_tree_depth):
        forward = uniform()[:, None] < 0.5
        subtree = sprout(tree, forward)
        constants = (torch.where(forward, step_size, -step_size), metric.covariance, energy)
        subtree = grow(leaf, subtree, constants, depth, uniform)
        tree = Tree(*merge(*tree, *subtree, forward, uniform()[:, None]))
        if not tree.active.any():
            break
    state = HMCState(tree.kept_position, tree.kept_log_density.squeeze(-1), tree.kept_gradient)
    info = (tree.acceptance / tree.num_steps, tree.diverging, energy - tree.kept_log_weight, tree.num_steps)
    return state, NUTSInfo(*(part.squeeze(-1) for part in (*info, tree.depth)))


def root(state: HMCState, momentum: Tensor, step_size: Tensor, covariance: Tensor) -> Tree:
    """Return the tree of one leaf, where the chains are, with momenta `(B, D)`."""
    signed = torch.stack([-step_size, step_size])
    ahead = momentum + 0.5 * signed * state.gradient
    rest = state.position, momentum, velocity(momentum, covariance)
    position, momentum, speed = (part.expand_as(ahead) for part in rest)
    ends = torch.stack([position, ahead, velocity(ahead, covariance), momentum, speed], dim=1)
    zero = torch.zeros_like(step_size)
    none = torch.zeros_like(zero, dtype=torch.int64)
    kept = state.position, state.log_density[:, None], state.gradient, zero
    return Tree(ends, torch.zeros_like(state.position), zero, *kept, zero, none, none == 0, none != 0, none)


def sprout(tree: Tree, forward: Tensor) -> Subtree:
    """Return subtrees without a leaf at the end where `forward (B, 1)` points."""
    edge = torch.where(forward, tree.ends[1], tree.ends[0]).unbind()
    nothing = torch.full_like(tree.log_weight, -torch.inf)
    return Subtree._make((*edge, torch.zeros_like(tree.path), nothing, *tree[3:-1]))


def grow(
    leaf: Leaf, subtree: Subtree, constants: tuple[Tensor, ...], depth: int, uniform: Uniform
) -> Subtree:
    """Return subtrees of `2 ** depth` leaves, or of fewer where no chain wants more.

    A balanced subtree of two leaves is checked by `leaf`, larger ones here, when their last leaf is there.
    """
    no, yes = torch.zeros_like(subtree.active[0, 0]), torch.ones_like(subtree.active[0, 0])
    begun: dict[int, tuple[Tensor, Tensor]] = {}
    for index in range(2**depth):
        subtree = Subtree(*leaf(*subtree, *constants, uniform()[:, None], yes if index % 2 else no))
        levels = range(2, depth + 1)
        begun |= {level: (subtree.velocity, subtree.path) for level in levels if index % 2**level == 0}
        if ended := [begun[level] for level in levels if (index + 1) % 2**level == 0]:
            subtree = prune(subtree, *map(torch.stack, zip(*ended, strict=True)))
            if not subtree.active.any():
                break
    return subtree


def prune(subtree: Subtree, velocities: Tensor, paths: Tensor) -> Subtree:
    """Stop chains that turned since one of some earlier leaves, given what these had, `(K, B, D)` each."""
    turned = turning(velocities, subtree.velocity, subtree.path - paths).any(0)
    return subtree._replace(active=subtree.active & ~turned)


def leaf_inputs(position: Tensor, covariance: Tensor) -> tuple[Tensor, ...]:
    """Return tensors of the shapes that a leaf takes, for chains at `position (B, D)`, to capture it."""
    tree, column = example(position), position[:, :1]
    inputs = *sprout(tree, tree.active), column, covariance, column, column, tree.active[0, 0]
    return tuple(part.clone() for part in inputs)  # one tensor in two places would be taken for one input


def merge_inputs(position: Tensor) -> tuple[Tensor, ...]:
    """Return tensors of the shapes that `merge` takes, for chains at `position (B, D)`, to capture it."""
    tree = example(position)
    inputs = *tree, *sprout(tree, tree.active), tree.active, position[:, :1]
    return tuple(part.clone() for part in inputs)


def example(position: Tensor) -> Tree:
    """Return a tree of one leaf."""
    state = HMCState(position, position[:, 0], position)
    return root(state, position, position[:, :1], position[0])
