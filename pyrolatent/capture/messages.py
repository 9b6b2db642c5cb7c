"""What the message of a site says: its role, its plates, its log-probability.

A message is what Pyro hands to effect handlers: distribution, value, mask, scale and plates of a site.
"""

from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
from pyro.distributions.util import scale_and_mask
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyrolatent.errors import ModelError

Message = Any  # pyro.poutine.runtime.Message, a TypedDict whose entries are optional

DATA_PLATE = "data"
WRAPPERS = (dist.Independent, dist.MaskedDistribution, dist.ExpandedDistribution)


def sum_all(terms: Tensor) -> Tensor:
    """Return the sum `()`; a scalar needs no operation in the graph."""
    return terms.sum() if terms.ndim else terms


def is_deterministic(message: Message) -> bool:
    """True for `pyro.deterministic`, and for what a reparameterisation leaves of a site."""
    masked = isinstance(message["fn"], dist.MaskedDistribution) and is_delta(message["fn"])
    return bool(message["infer"].get("_deterministic")) or (message["is_observed"] and masked)


def is_delta(fn: Any) -> bool:
    """True for a point mass, also behind `to_event`, `mask` and `expand`."""
    while isinstance(fn, WRAPPERS):
        fn = fn.base_dist
    return isinstance(fn, dist.Delta)


def is_factor(message: Message) -> bool:
    """True for `pyro.factor`."""
    return isinstance(message["fn"], dist.Unit)


def is_observation(message: Message) -> bool:
    """True for a site with data: observed, and neither a deterministic nor a factor."""
    fixed = is_deterministic(message) or is_factor(message) or site_is_subsample(message)
    return bool(message["is_observed"]) and not fixed


def is_latent(message: Message) -> bool:
    """True for sites whose value a method supplies; a Delta fixes its own."""
    given = message["is_observed"] or site_is_subsample(message) or message["done"]
    return not given and not is_delta(message["fn"])


def is_enumerable(message: Message) -> bool:
    """True for a discrete latent site whose values can be listed, so that they can be summed over."""
    fn, given = message["fn"], message["is_observed"] or site_is_subsample(message)
    return not given and not is_delta(fn) and fn.has_enumerate_support and fn.support.is_discrete


def in_data_plate(message: Message) -> bool:
    """True for a site whose rows are observations."""
    return any(frame.name == DATA_PLATE for frame in message["cond_indep_stack"])


def is_auxiliary(message: Message) -> bool:
    """True for a site of a guide that helps to draw others and is none of the model's."""
    return bool(message["infer"].get("is_auxiliary"))


def batch_dims(messages: Mapping[str, Message]) -> int:
    """Return the number of dimensions that plates, and batches without one, take up."""
    depths = [0]
    for message in messages.values():
        fn, value = message["fn"], message["value"]
        depths += [-frame.dim for frame in message["cond_indep_stack"] if frame.vectorized]
        depths += [len(fn.batch_shape)]
        depths += [value.ndim - fn.event_dim] if isinstance(value, Tensor) else []
    return max(depths)


def log_prob(message: Message, scale: Any) -> Tensor:
    """Return the log-probability of a site, `(*batch)` in nats, times `scale` and masked."""
    elementwise = message["fn"].log_prob(message["value"], *message["args"], **message["kwargs"])
    return scale_and_mask(elementwise, scale, message["mask"])


def log_prob_sum(message: Message) -> Tensor:
    """Return the log-probability of all cells of a site `()` in nats, with scale and mask taken in."""
    return sum_all(log_prob(message, message["scale"]))


def check_new_name(message: Message, known: Mapping[str, Message]) -> None:
    """Refuse a second site of one name."""
    if message["name"] in known:
        raise ModelError("two sites share one name", where=f"site {message['name']!r}", remedy="rename one")
