"""One log-probability for many sites that look alike.

A Python loop that observes something in each step pays for each operation at each step.  Sites whose
distributions have one class and one shape are therefore stacked and evaluated at once, which leaves
to the loop only what differs.  Classes and shapes decide, never values of tensors.
"""

import inspect
from collections.abc import Hashable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions.utils import lazy_property
from torch.utils._pytree import tree_flatten, tree_map

from pyrolatent.capture.messages import Message, log_prob_sum

Recipe = tuple[Any, dict[str, Any]]  # a class, and its arguments: tensors, recipes and plain values
PLAIN = (bool, int, float, str)


def grouped_log_probs(messages: Mapping[str, Message]) -> dict[str, Tensor]:
    """Return the log-probabilities of sites, summed over those that look alike.

    Args:
        messages: Sites after their run, by name.

    Returns:
        First site of each group -> the group's sum `()` in nats, with scale and mask taken in.
    """
    recipes = {name: recipe_of(message) for name, message in messages.items()}
    groups: dict[Hashable, list[str]] = {}
    for name, recipe in recipes.items():
        key = name if recipe is None else likeness(recipe, messages[name])
        groups.setdefault(key, []).append(name)
    sums = {}
    for first, *others in groups.values():
        message = messages[first]
        if others:
            names = [first, *others]
            fn = make(tree_map(stack, *(recipes[name] for name in names)))
            message = {**message, "fn": fn, "value": stack(*(messages[name]["value"] for name in names))}
        sums[first] = log_prob_sum(message)
    return sums


def likeness(recipe: Recipe, message: Message) -> Hashable:
    """Return what the sites of one group have in common.

    Data stay among themselves, since a stack of constants is a constant.
    """
    leaves, structure = tree_flatten((recipe, message["value"]))
    described = [(leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    return (str(structure), *described, message["scale"], message["is_observed"])


def recipe_of(message: Message) -> Recipe | None:
    """Return how to make a site's distribution anew, or None for a site that must stay alone."""
    fn, value = message["fn"], message["value"]
    fits = isinstance(value, Tensor) and value.shape == fn.shape()
    plain = message["mask"] is None and isinstance(message["scale"], float | int)
    return recipe_for(fn, fn.batch_shape) if fits and plain and not message["args"] else None


def recipe_for(fn: Any, batch_shape: Size) -> Recipe | None:
    """Return how to make `fn` anew with all of its tensors over the whole `batch_shape`; None if unknown."""
    if isinstance(fn, dist.ExpandedDistribution):
        return recipe_for(fn.base_dist, batch_shape)
    if isinstance(fn, dist.MaskedDistribution):
        base = recipe_for(fn.base_dist, batch_shape)
        return base and (type(fn), {"base_dist": base, "mask": whole(fn._mask, 0, batch_shape)})
    if isinstance(fn, torch.distributions.Independent):
        ndims = fn.reinterpreted_batch_ndims
        base = recipe_for(fn.base_dist, batch_shape + fn.event_shape[:ndims])
        return base and (type(fn), {"base_distribution": base, "reinterpreted_batch_ndims": ndims})
    arguments = arguments_of(fn, batch_shape)
    return None if arguments is None else (type(fn), arguments)


def arguments_of(fn: Any, batch_shape: Size) -> dict[str, Any] | None:
    """Return the arguments of a distribution's constructor, or None where it does not tell them all.

    Where one is given in several ways (probs or logits), the way taken comes first among the
    attributes, and the others are computed when somebody asks for them.
    """
    cls = type(fn)
    parameters = inspect.signature(cls.__init__).parameters
    ways = [name for name in parameters if isinstance(inspect.getattr_static(cls, name, None), lazy_property)]
    taken = [name for name in vars(fn) if name in ways][:1]
    arguments = {}
    for name, parameter in parameters.items():
        if name not in {"self", "validate_args", *ways} or name in taken:
            arguments[name] = argument(fn, name, batch_shape)
            if arguments[name] is None or (parameter.default is None and name not in taken):
                return None
    return arguments


def argument(fn: Any, name: str, batch_shape: Size) -> Any:
    """Return one argument of a distribution's constructor, or None where it is not told."""
    value = getattr(fn, name, None)
    if isinstance(value, Tensor) and name in fn.arg_constraints:
        try:
            return whole(value, fn.arg_constraints[name].event_dim, batch_shape)
        except NotImplementedError:  # some constraints depend on another argument
            return None
    return value if isinstance(value, PLAIN) else None


def whole(part: Any, event_dim: int, batch_shape: Size) -> Any:
    """Return a tensor as `(*batch_shape, *event)`, None if it does not fit; plain values as they are."""
    if not isinstance(part, Tensor):
        return part
    missing = len(batch_shape) - (part.ndim - event_dim)
    fits = missing >= 0 and all(
        size in (1, full) for size, full in zip(part.shape, batch_shape[missing:], strict=False)
    )
    return part.expand(batch_shape + part.shape[part.ndim - event_dim :]) if fits else None


def make(recipe: Recipe) -> Any:
    """Return the distribution of a recipe."""
    cls, arguments = recipe
    return cls(**{name: make(part) if isinstance(part, tuple) else part for name, part in arguments.items()})


def stack(*parts: Any) -> Any:
    """Return K tensors as one `(K, ...)`, expanded where all are the same; of plain values the first."""
    first = parts[0]
    if not isinstance(first, Tensor):
        return first
    return (
        first.expand(len(parts), *first.shape)
        if all(same(first, part) for part in parts)
        else torch.stack(parts)
    )


def same(first: Tensor, second: Tensor) -> bool:
    """True for one tensor, or for views of the same part of one."""
    if first is second:
        return True
    of_one = first._base is not None and first._base is second._base
    return of_one and first.stride() == second.stride() and first.storage_offset() == second.storage_offset()
