"""The guide of a fit: the user's function, or one of Pyro's autoguides made inside the fit."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.infer.autoguide import AutoGuide, AutoMultivariateNormal, AutoNormal
from torch import Tensor

from pyrolatent.capture.messages import Message, is_latent
from pyrolatent.capture.sites import SiteTable, random_start
from pyrolatent.capture.supports import transform_of
from pyrolatent.errors import ModelError
from pyrolatent.pair import FunctionPair, Pair

MAX_DENSE_GUIDE = 200  # dimensions up to which the default guide has a full covariance


def with_guide(pair: Pair, sites: SiteTable, random: torch.Generator) -> Pair:
    """Return a pair that has a guide function.

    Without a guide: `AutoMultivariateNormal` up to 200 dimensions, else `AutoNormal`; and for a
    model without latent sites an empty one.  A class of autoguides, or a `functools.partial` of one,
    is called with the model.

    Raises:
        ModelError: The guide is an autoguide that was made outside the fit.
    """
    guide = pair.guide
    if guide is None and not sites.layout.size:
        return FunctionPair(pair.model, nothing)
    if guide is None:
        guide = AutoMultivariateNormal if sites.layout.size <= MAX_DENSE_GUIDE else AutoNormal
    if isinstance(guide, AutoGuide):
        name = type(guide).__name__
        raise ModelError(
            "the guide was made outside the fit",
            why=f"{name} keeps the parameters and shapes of the model that it saw first",
            remedy=f"pass the class, guide={name}, or functools.partial({name}, ...)",
        )
    if not is_autoguide(guide):
        return FunctionPair(pair.model, guide)
    continuous = pyro.poutine.block(pair.model, hide_fn=is_discrete_latent)
    options = {"init_loc_fn": starting_value(random)} if takes_start(guide) else {}
    return FunctionPair(pair.model, guide(continuous, **options))


def is_autoguide(guide: Any) -> bool:
    """True for a class of autoguides, or a `functools.partial` of one."""
    made = guide.func if isinstance(guide, functools.partial) else guide
    return isinstance(made, type) and issubclass(made, AutoGuide)


def is_amortised(pair: Pair) -> bool:
    """True where the user's own guide makes latents, those of rows from the rows."""
    return pair.guide is not None and not is_autoguide(pair.guide)


def check_no_local_autoguide(pair: Pair, sites: SiteTable) -> None:
    """Refuse to divide rows whose latents have a parameter each.

    Raises:
        ModelError: With the sites.
    """
    local = sites.row_latents
    if local and not is_amortised(pair):
        raise ModelError(
            "the rows have latents that an autoguide cannot make for batches of rows",
            where=f"latents of rows {local}",
            why="each row would need parameters of its own",
            remedy="pass a guide that makes them from the rows, or leave out batch_size, "
            "validation_fraction and num_refits, and fit in one process",
        )


def is_discrete_latent(message: Message) -> bool:
    """True for a latent site that is summed out, so that no guide proposes it."""
    return message["type"] == "sample" and is_latent(message) and message["fn"].support.is_discrete


def takes_start(guide: Callable[..., Any]) -> bool:
    """True where the autoguide can be told where to begin, and was not told yet."""
    told = isinstance(guide, functools.partial) and "init_loc_fn" in guide.keywords
    return "init_loc_fn" in inspect.signature(guide).parameters and not told


def starting_value(random: torch.Generator) -> Callable[[Message], Tensor]:
    """Return a start strategy that needs no prior draw, so that improper priors work."""

    def start(message: Message) -> Tensor:
        transform = transform_of(message)
        shape = transform.inverse_shape(message["fn"].shape())
        return transform(random_start(shape, random))

    return start


def nothing(**data: Any) -> None:
    """The guide of a model without latent sites."""
