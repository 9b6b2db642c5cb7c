"""Discrete latent sites: all their values at once, and summed out exactly.

A site with a finite list of values gets all of them in a new dimension, to the left of the plates,
and the model's code broadcasts over it: `loc[z]` has one row for each value of z.  From the
log-probabilities of all sites the values are then summed out, so that gradients see a density of the
continuous latents alone.  Pyro's rules for such code hold (its tutorial "Inference with Discrete
Latent Variables"): tables are indexed with `Vindex`, dimensions counted from the right, and nothing
outside of a plate depends on a discrete site within.  Sites need no annotation.

In a loop over `pyro.markov` each site sees only its neighbours, so a chain costs as much as the
forward algorithm.  It is still a loop in Python, about 50 operations a step; where the states are not
asked for, `DiscreteHMM` observes the whole chain at once, many times faster.

What a mask and a scale mean: a mask hides observations, while a discrete site keeps its own
probabilities, which add up to one.  A scale raises all that lies in its reach to a power after the
discrete sites in its reach were summed out, as weights of rows do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

import pyro.distributions as dist
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyrolatent.capture.elimination import Factor, Plates, Variable, eliminate, log_product
from pyrolatent.capture.messages import Message, is_deterministic, is_enumerable, log_prob
from pyrolatent.errors import ModelError


@final
class AllValues(EnumMessenger):
    """Gives every enumerable site all its values, in a dimension of their own."""

    def _pyro_sample(self, message: Message) -> None:
        if is_enumerable(message):
            check_parallel(message)
            expand = message["infer"].get("expand", False)
            message["infer"] |= {"enumerate": "parallel", "expand": expand, "num_samples": None}
        super()._pyro_sample(message)

    def _pyro_post_sample(self, message: Message) -> None:
        """Keep which dimensions belong to which site, as the base class does, but where `vmap` runs too."""
        if site_is_subsample(message):
            return
        name, value, infer = message["name"], message["value"], message["infer"]
        shape = value.shape[: value.ndim - message["fn"].event_dim] if isinstance(value, Tensor) else ()
        infer["_dim_to_id"] = {**infer.get("_dim_to_id", {}), **self._param_dims.get(name, {})}
        self._value_dims[name] = {d: v for d, v in infer["_dim_to_id"].items() if d in long_dims(shape)}


def enumerating(max_plate_nesting: int) -> Messenger:
    """Return what makes a model run with all values of its enumerable sites.

    Enter it after handlers that keep messages, which it completes once the site is done.

    Args:
        max_plate_nesting: Dimensions, counted from the right, that plates take up.
    """
    return AllValues(-1 - max_plate_nesting)


def check_parallel(message: Message) -> None:
    """Refuse a site whose author says that the code takes one value at a time."""
    if message["infer"].get("enumerate") == "sequential":
        raise ModelError(
            "a discrete site asks for its values one after the other",
            where=f"site {message['name']!r}",
            why="all values are taken at once, in a dimension of their own",
            remedy='let the code broadcast over them and drop infer={"enumerate": "sequential"}',
        )


def log_sum_product(messages: Mapping[str, Message], plate: str | None = None) -> Tensor:
    """Return the log of the sum, over enumerated sites, of the product of all sites' probabilities.

    Args:
        messages: The sample sites of a run within `enumerating`, masks and scales included.
        plate: For models of which each of these sites lies in one plate: the plate whose rows are
            kept apart.

    Returns:
        In nats, `()`, or `(N,)` for N rows.

    Raises:
        ModelError: A site depends on a discrete site of a plate or `pyro.markov` step in which it
            does not lie, or discrete sites of different plates depend on each other.
    """
    factors, variables = factor_graph(messages)
    left, _ = eliminate(factors.values(), variables)
    return log_product(left, plate)


def sites_in_sum(messages: Mapping[str, Message]) -> dict[str, Message]:
    """Return the sample sites that enumerated values concern; all others are factors of their own."""
    return {n: m for n, m in messages.items() if not is_deterministic(m) and depends_on_discrete(m)}


def factor_graph(messages: Mapping[str, Message]) -> tuple[dict[str, Factor], dict[int, Variable]]:
    """Return the log-probability of each sample site as a factor, and the discrete variables."""
    sampled = {name: message for name, message in messages.items() if not is_deterministic(message)}
    discrete = {variable_of(m): m for m in sampled.values() if is_enumerated(m)}
    variables = {variable: Variable(plates_of(m), m["scale"]) for variable, m in discrete.items()}
    factors = {name: as_factor(message) for name, message in sampled.items()}
    for name, factor in factors.items():
        check_reach(name, factor, discrete)
    return {name: together(factor) for name, factor in factors.items()}, variables


def is_enumerated(message: Message) -> bool:
    """True for a site that has all its values."""
    return "_enumerate_dim" in message["infer"]


def variable_of(message: Message) -> int:
    """Return the number by which an enumerated site is known."""
    return message["infer"]["_dim_to_id"][message["infer"]["_enumerate_dim"]]


def plates_of(message: Message) -> Plates:
    """Return the dimension of each vectorised plate that the site lies in."""
    return {frame.name: frame.dim for frame in message["cond_indep_stack"] if frame.vectorized}


def depends_on_discrete(message: Message) -> bool:
    """True where the value of a site, or its probability, varies with enumerated values."""
    fn, value, mask = message["fn"], message["value"], message["mask"]
    shapes = [fn.batch_shape]
    shapes += [value.shape[: value.ndim - fn.event_dim]] if isinstance(value, Tensor) else []
    shapes += [mask.shape] if isinstance(mask, Tensor) else []
    return is_enumerated(message) or any(variable_dims(message, shape) for shape in shapes)


def variable_dims(message: Message, shape: Sequence[int]) -> dict[int, int]:
    """Return which dimensions of a shape belong to the values of which discrete variable."""
    infer, long = message["infer"], long_dims(shape)
    own = infer.get("_enumerate_dim")
    return {v: dim for dim, v in infer.get("_dim_to_id", {}).items() if dim in long or dim == own}


def long_dims(shape: Sequence[int]) -> set[int]:
    """Return the dimensions, counted from the right, that have several entries."""
    return {axis - len(shape) for axis, size in enumerate(shape) if size > 1}


def log_prob_of_cells(message: Message) -> Tensor:
    """Return the log-probability of each cell of a site, and of each value that it depends on.

    A mask does not concern a discrete latent site: its probabilities add up to one in any case.
    """
    fn = message["fn"]
    if not is_enumerable(message):
        return log_prob(message, 1.0)
    while isinstance(fn, dist.MaskedDistribution):
        fn = fn.base_dist
    return fn.log_prob(message["value"])


def as_factor(message: Message) -> Factor:
    """Return a site's log-probability and what its dimensions are; plates have expanded it to their size."""
    cells = log_prob_of_cells(message)
    return Factor(cells, variable_dims(message, cells.shape), plates_of(message), message["scale"])


def together(factor: Factor) -> Factor:
    """Multiply over cells that no plate declares independent."""
    declared = {*factor.plates.values(), *factor.dims.values()}
    cells = sorted(long_dims(factor.log_prob.shape) - declared)
    return replace(factor, log_prob=factor.log_prob.sum(cells, keepdim=True)) if cells else factor


def check_reach(name: str, factor: Factor, discrete: Mapping[int, Message]) -> None:
    """Refuse a site that depends on a discrete one of a plate or a step in which it does not lie."""
    stray = long_dims(factor.log_prob.shape) - set(factor.dims.values())
    first = max((message["infer"]["_enumerate_dim"] for message in discrete.values()), default=None)
    if first is not None and min(stray, default=0) <= first:
        raise ModelError(
            "a site depends on a discrete site that is out of its reach",
            where=f"site {name!r}",
            why="in pyro.markov a site sees the steps of its history only, and after the loop none",
            remedy="raise history, keep what depends on the step inside the loop, or drop pyro.markov",
        )
    for variable in factor.dims:
        missing = plates_of(discrete[variable]).keys() - factor.plates.keys()
        if missing:
            raise ModelError(
                "a site outside of a plate depends on a discrete site within",
                where=f"site {name!r}, discrete site {discrete[variable]['name']!r}",
                why=f"plate {sorted(missing)} would have to be summed out as a whole",
                remedy="move the site into the plate, or write the plate as a loop",
            )
