"""Runs of a model with its latent sites at given values: what is left to read or to draw."""

from collections.abc import Mapping
from typing import Any, final

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyrolatent.capture.ladder import Rung, map_points
from pyrolatent.capture.sites import Message, is_deterministic, is_factor, is_latent
from pyrolatent.distributions import RowDistribution
from pyrolatent.pair import Model

Values = Mapping[str, Tensor]
NOISE = "noise of missing cells"  # beside the sites, so that one map runs over both


def is_observation(message: Message) -> bool:
    """True for a site with data: observed, and neither a deterministic nor a factor."""
    fixed = is_deterministic(message) or is_factor(message) or site_is_subsample(message)
    return bool(message["is_observed"]) and not fixed


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
            message["value"] = self.values[message["name"]]
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
    """Return the log-probability of each observation `(S, *batch)` in nats, for `draws (S, *site)`."""

    def of_one(values: Values) -> dict[str, Tensor]:
        messages = observations(model, data, values)
        return {
            name: scale_and_mask(message["fn"].log_prob(message["value"]), 1.0, message["mask"])
            for name, message in messages.items()
        }

    return map_points(of_one, draws, rung)


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
    return stack_draws(runs)


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
        unknown.append({n: message["value"] for n, message in run.messages.items() if n not in observed})
    return stack_draws(unknown), stack_draws(known)


def stack_draws(runs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return runs as one tensor a site `(S, *site)`."""
    return {name: torch.stack([run[name] for run in runs]) for name in runs[0]}


def row_sites(model: Model, data: Mapping[str, Any], values: Values) -> list[str]:
    """Return the observed sites that know their missing cells."""
    messages = observations(model, data, values)
    return [name for name, message in messages.items() if isinstance(message["fn"], RowDistribution)]


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
