"""What values a site can take, as its support is now: free numbers mapped onto it, lists, checks."""

from collections.abc import Iterable

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.transforms import Transform

from pyrolatent.capture.messages import Message
from pyrolatent.distributions import RowDistribution
from pyrolatent.errors import DataError, ModelError
from pyrolatent.transforms import transform_to_constraint


def transform_of(message: Message) -> Transform:
    """Return the bijection onto the site's support as it is now; refuse a site that has none."""
    try:
        support = message["fn"].support
        if not support.is_discrete:
            return transform_to_constraint(support)
    except NotImplementedError as error:
        raise ModelError(
            "a latent site has no support to map free numbers to",
            where=f"site {message['name']!r}",
            why=f"{type(message['fn']).__name__}: {error}",
            remedy="sample its parts, or observe it",
        ) from error
    raise no_list_of_values(message, f"{type(message['fn']).__name__} lists none of its values")


def values_of(message: Message) -> Tensor:
    """Return the list of values of a discrete site `(K, *event)`."""
    fn = message["fn"]
    try:
        return fn.enumerate_support(expand=False).reshape(-1, *fn.event_shape)
    except NotImplementedError as error:
        raise no_list_of_values(message, str(error)) from error


def as_value(message: Message, number: Tensor) -> Tensor:
    """Return whole numbers, as draws are kept, as values of a discrete site: floats for a Bernoulli."""
    return number.to(values_of(message).dtype)


def no_list_of_values(message: Message, why: str) -> ModelError:
    """Return the error of a discrete latent site that can be neither followed by gradients nor summed out."""
    remedy = "bound it (a Categorical over 0, ..., K), or sum it out in the model by pyro.factor"
    if isinstance(message["fn"], dist.Independent):
        remedy = "declare its cells with pyro.plate instead of to_event"
    return ModelError(
        "a latent site is discrete, without a finite list of values to sum over",
        where=f"site {message['name']!r}",
        why=why,
        remedy=remedy,
    )


def check_in_plates(message: Message) -> None:
    """Refuse a discrete site of several cells that no plate declares independent."""
    shape = message["fn"].batch_shape
    plates = {frame.dim for frame in message["cond_indep_stack"] if frame.vectorized}
    if any(size > 1 and axis - len(shape) not in plates for axis, size in enumerate(shape)):
        raise ModelError(
            "a discrete latent site has several cells without a plate",
            where=f"site {message['name']!r}",
            why=f"batch shape {tuple(shape)}",
            remedy="declare them with pyro.plate, so that they can be summed out one by one",
        )


def check_support(message: Message, alternatives: Iterable[int] = ()) -> None:
    """Refuse an observed value that its distribution cannot produce; NaN has a message of its own.

    Of `alternatives`, dimensions with all values of a discrete site, it is enough if one can.
    """
    fn, counts, value = message["fn"], message["mask"], torch.as_tensor(message["value"])
    while isinstance(fn, dist.MaskedDistribution):
        counts, fn = fn._mask if counts is None else counts & fn._mask, fn.base_dist
    if isinstance(fn, RowDistribution):
        fn.check_cells(value, True if counts is None else counts, f"site {message['name']!r}")
        return
    try:
        inside = fn.support.check(value)
    except NotImplementedError:
        return
    for dim in alternatives:
        inside = inside.any(dim, keepdim=True) if inside.ndim >= -dim else inside
    depth = value.ndim - fn.event_dim
    cells = value.to(torch.get_default_dtype()).expand(inside.shape + value.shape[depth:])
    cells = cells.reshape(*inside.shape, -1)
    outside = ~inside & ~cells.isnan().any(-1) & (True if counts is None else counts)
    if outside.any():
        first = outside.nonzero()[0].tolist()
        raise DataError(
            "an observed value lies outside the support of its distribution",
            where=f"site {message['name']!r}, index {first[inside.ndim - depth :]}",
            why=f"{cells[tuple(first)].squeeze().tolist()} under {type(fn).__name__}, "
            f"{int(outside.sum())} of {outside.numel()} values",
            remedy="correct the data, or observe them with another distribution",
        )
