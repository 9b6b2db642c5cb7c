"""Runs of a model with its latent sites at given values: what is left to read or to draw."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, final

from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyrolatent.capture.enumeration import (
    enumerating,
    log_prob_of_cells,
    log_sum_product,
    plates_of,
    sites_in_sum,
)
from pyrolatent.capture.ladder import Rung, map_points
from pyrolatent.capture.messages import (
    DATA_PLATE,
    Message,
    batch_dims,
    is_enumerable,
    is_factor,
    is_latent,
    is_observation,
)
from pyrolatent.capture.supports import as_value
from pyrolatent.capture.vector import stacked
from pyrolatent.errors import ModelError
from pyrolatent.lkj import corrected_draw
from pyrolatent.pair import Model

Values = Mapping[str, Tensor]
NOISE = "noise of missing cells"  # beside the sites, so that one map runs over both


@final
class Conditioned(Messenger):
    """Sets the sites named in `values`, draws observed sites anew if `redraw`, and keeps every message.

    Latent sites without a value come from their priors.
    """

    def __init__(self, values: Values, *, redraw: bool = False) -> None:
        super().__init__()
        self.values = values
        self.redraw = redraw
        self.messages: dict[str, Message] = {}

    def _pyro_sample(self, message: Message) -> None:
        if is_observation(message):
            if self.redraw:
                message["value"] = message["fn"]()
                message["done"] = True
        elif message["name"] in self.values and is_latent(message):
            value = self.values[message["name"]]
            message["value"] = as_value(message, value) if is_enumerable(message) else value
            message["done"] = True
        elif is_latent(message) and (drawn := corrected_draw(message["fn"])) is not None:
            message["value"] = drawn
            message["done"] = True

    def _pyro_post_sample(self, message: Message) -> None:
        if not (site_is_subsample(message) or is_factor(message)):
            self.messages[message["name"]] = message

    def observations(self) -> dict[str, Message]:
        return {name: message for name, message in self.messages.items() if is_observation(message)}


def observations(model: Model, data: Mapping[str, Any], values: Values) -> dict[str, Message]:
    """Return the messages of the observed sites of one run."""
    with Conditioned(values) as run:
        model(**data)
    return run.observations()


def log_likelihood(model: Model, data: Mapping[str, Any], draws: Values, rung: Rung) -> dict[str, Tensor]:
    """Return the log-probability of each observation `(S, *batch)` in nats, for `draws (S, *site)`.

    Discrete latent sites are summed out where they, and all that depends on them, lie in the data
    plate and in no other.  Each observed site then counts given those before it, `(S, N)`, so that
    the sites of a row add up to the log-probability of the row.  Otherwise the numbers are
    conditional on the discrete sites in `draws`.

    Raises:
        ModelError: The discrete sites can neither be summed out nor are they in `draws`.
    """
    nesting = nesting_of_rows(model, data, {name: value[0] for name, value in draws.items()})

    def of_one(values: Values) -> dict[str, Tensor]:
        at_once = nullcontext() if nesting is None else enumerating(nesting)
        with Conditioned(values) as run, at_once:
            model(**data)
        unscaled = {name: {**message, "scale": 1.0} for name, message in run.messages.items()}
        in_rows = log_likelihood_of_rows(sites_in_sum(unscaled))
        plain = {n: unscaled[n] for n in run.observations() if n not in in_rows}
        return {name: log_prob_of_cells(message) for name, message in plain.items()} | in_rows

    return map_points(of_one, draws, rung)


def nesting_of_rows(model: Model, data: Mapping[str, Any], values: Values) -> int | None:
    """Return the depth of plates in a model whose discrete sites can be summed out row by row, else None."""
    with Conditioned(values) as plain:
        model(**data)
    discrete = [name for name, message in plain.messages.items() if is_enumerable(message)]
    if not discrete:
        return None
    nesting = batch_dims(plain.messages)
    with Conditioned(values) as run, enumerating(nesting):
        model(**data)
    if all(set(plates_of(message)) == {DATA_PLATE} for message in sites_in_sum(run.messages).values()):
        return nesting
    if unknown := [name for name in discrete if name not in values]:
        raise ModelError(
            "the discrete sites cannot be summed out row by row, and no draws of them are known",
            where=f"sites {unknown}",
            why="they, or sites that depend on them, lie outside of plate 'data' or in another plate",
        )
    return None


def log_likelihood_of_rows(summed: Mapping[str, Message]) -> dict[str, Tensor]:
    """Return the log-probability `(N,)` of each observed site given those before, discrete sites unknown."""
    if not summed:
        return {}
    known = {name: message for name, message in summed.items() if not is_observation(message)}
    before, found = log_sum_product(known, DATA_PLATE), {}
    for name in (name for name in summed if name not in known):
        known[name] = summed[name]
        so_far = log_sum_product(known, DATA_PLATE)
        found[name], before = so_far - before, so_far
    return found


def predictive(model: Model, data: Mapping[str, Any], draws: Values, num_draws: int) -> dict[str, Tensor]:
    """Return the sites that `draws` leave open `(S, *site)`, drawn anew for each of `draws (S, *site)`.

    These are the observed sites, with their data (`obs=y`) or without (`obs=None`).  Random numbers
    come from torch's own stream; call under `seeds.seeded`.
    """
    runs = []
    for index in range(num_draws):
        values = {name: value[index] for name, value in draws.items()}
        with Conditioned(values, redraw=True) as run:
            model(**data)
        runs.append({name: message["value"] for name, message in run.messages.items() if name not in values})
    return stacked(runs)


def prior_draws(model: Model, data: Mapping[str, Any], num_draws: int) -> tuple[Values, Values]:
    """Return draws `(S, *site)` of the model itself: latent and deterministic sites, and observed ones.

    Raises:
        NotImplementedError: A prior is improper.
    """
    unknown, known = [], []
    for _ in range(num_draws):
        with Conditioned({}, redraw=True) as run:
            model(**data)
        observed = run.observations()
        known.append({name: message["value"] for name, message in observed.items()})
        unknown.append({n: as_draw(message) for n, message in run.messages.items() if n not in observed})
    return stacked(unknown), stacked(known)


def as_draw(message: Message) -> Tensor:
    """Return a site's value as draws are kept: discrete latent sites as whole numbers."""
    return message["value"].long() if is_enumerable(message) else message["value"]


def completed(
    model: Model, data: Mapping[str, Any], site: str, draws: Values, noise: Tensor, rung: Rung
) -> Tensor:
    """Return `site` with its missing cells drawn given the observed ones `(S, N, D)`.

    `draws` are latent sites `(S, *site)`, `noise` standard normal numbers `(S, N, D)`.
    """

    def of_one(point: Values) -> dict[str, Tensor]:
        message = observations(model, data, point)[site]
        return {site: message["fn"].complete(message["value"], point[NOISE])}

    return map_points(of_one, {**draws, NOISE: noise}, rung)[site]
