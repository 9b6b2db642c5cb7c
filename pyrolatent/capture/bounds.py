"""Guide and model run together: what every variational bound is made of.

The guide draws, and the model runs with its latent sites at what the guide drew.  A run can also be
still: it draws nothing, and each site without a given value stands at a fixed point of its support.
Still runs tell how sites and plates are arranged without touching the noise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from pyro.distributions.util import is_identically_zero, scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions.transforms import Transform

from pyrolatent.capture.discrete import check_enumerable
from pyrolatent.capture.enumeration import enumerating, log_sum_product, sites_in_sum
from pyrolatent.capture.grouping import grouped_log_probs
from pyrolatent.capture.matching import check_match
from pyrolatent.capture.messages import (
    Message,
    batch_dims,
    check_new_name,
    is_auxiliary,
    is_deterministic,
    is_enumerable,
)
from pyrolatent.capture.sites import START_RADIUS, SuppliedSites, describe
from pyrolatent.errors import ModelError
from pyrolatent.pair import Model, Pair
from pyrolatent.seeds import generator

Data = Mapping[str, Any]
Messages = Mapping[str, Message]
Values = Mapping[str, Tensor]


@final
@dataclass(frozen=True)
class PairRun:
    """The sites of one run of guide and model, without plates and deterministics.

    Attributes:
        guide: Sites of the guide, auxiliary ones included.
        model: Sites of the model.
        values: What the model was run at: the guide's values and its rows of plates.
    """

    guide: Messages
    model: Messages
    values: Values

    @property
    def discrete(self) -> Messages:
        """The sites of the model that are left to be summed out."""
        return {n: m for n, m in self.model.items() if is_enumerable(m) and n not in self.guide}

    @property
    def batch_dims(self) -> int:
        """Dimensions, counted from the right, that plates and batches of guide and model take up."""
        return max(batch_dims(self.guide), batch_dims(self.model))


@final
class StillSites(SuppliedSites):
    """Sets the sites named in `values`, and every other one to a fixed point of its support."""

    def __init__(self, values: Values) -> None:
        super().__init__()
        self.values = values

    def free_value(self, name: str, transform: Transform, shape: torch.Size) -> Tensor:
        free = transform.inverse_shape(shape)
        return torch.linspace(-START_RADIUS, START_RADIUS, free.numel()).reshape(free)

    def _pyro_sample(self, message: Message) -> None:
        if message["name"] in self.values and not message["is_observed"]:
            message["value"] = self.values[message["name"]]
            message["done"] = True
        else:
            super()._pyro_sample(message)


@final
class RecordedSites(Messenger):
    """Keeps the message of every sample site, plates included."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: dict[str, Message] = {}

    def _pyro_post_sample(self, message: Message) -> None:
        if message["infer"].get("_do_not_trace"):  # as Pyro's own trace: the helper of a reparameterisation
            return
        if not site_is_subsample(message):
            check_new_name(message, self.messages)
        self.messages[message["name"]] = message.copy()


def run_pair(pair: Pair, data: Data, given: Values | None = None) -> PairRun:
    """Run the guide, then the model at its draws; discrete sites that it leaves out take all values.

    With `given` the run is still, and sites of the guide take these values where they are named.

    Raises:
        ModelError: The pair has no guide, or the sites of guide and model do not match.
    """
    plain = run_plain(pair, data, given)
    return replace(plain, model=all_values(pair, data, plain)) if plain.discrete else plain


def run_plain(pair: Pair, data: Data, given: Values | None = None) -> PairRun:
    """The same with one value of each discrete site."""
    guide = guide_of(pair)
    drawn = recorded(guide, data) if given is None else still(guide, data, given)
    values = {n: m["value"] for n, m in drawn.items() if not is_auxiliary(m)}
    found = PairRun(terms(drawn), terms(still(pair.model, data, values)), values)
    check_match(found.guide, found.model)
    return found


def all_values(pair: Pair, data: Data, plain: PairRun) -> Messages:
    """Return the sites of the model with all values of its discrete sites at once."""

    def run(**data: Any) -> None:
        with enumerating(plain.batch_dims):
            pair.model(**data)

    return terms(still(run, data, plain.values))


def guide_of(pair: Pair) -> Model:
    """Return the guide of a pair that must have one."""
    if pair.guide is None:
        raise ModelError("the pair has no guide", remedy="pass one with guide=...")
    return pair.guide


def recorded(program: Model, data: Data) -> Messages:
    """Run `program(**data)` and return the messages of its sample sites."""
    with RecordedSites() as sites:
        program(**data)
    return sites.messages


def still(program: Model, data: Data, values: Values) -> Messages:
    """The same with its sites at `values`, and those that have none at fixed points."""

    def run(**data: Any) -> None:
        with StillSites(values):
            program(**data)

    return recorded(run, data)


def terms(messages: Messages) -> Messages:
    """Return the sites that have a share in the joint density."""
    return {n: m for n, m in messages.items() if not (site_is_subsample(m) or is_deterministic(m))}


def log_model(run: PairRun) -> tuple[Tensor | float, Tensor | float]:
    """Return log p(z) and log p(x | z) in nats, `()` each, with all discrete sites summed out.

    Where z depends on a discrete site too, log p(x | z) is log p(x, z) - log p(z).
    """
    summed = sites_in_sum(run.model) if run.discrete else {}
    plain = {name: message for name, message in run.model.items() if name not in summed}
    log_prior: Tensor | float = sum(grouped_log_probs(latent(plain)).values())
    log_likelihood: Tensor | float = sum(grouped_log_probs(observed(plain)).values())
    if summed:
        drawn = any(name in run.guide for name in summed)
        marginal = log_sum_product(latent(summed)) if drawn else 0.0  # else probabilities: they add up to 1
        log_prior = log_prior + marginal
        log_likelihood = log_likelihood + log_sum_product(summed) - marginal
    return log_prior, log_likelihood


def latent(messages: Messages) -> Messages:
    """Return the sites of a model that make up its prior."""
    return {name: message for name, message in messages.items() if not message["is_observed"]}


def observed(messages: Messages) -> Messages:
    """Return the sites of a model that make up its likelihood, factors included."""
    return {name: message for name, message in messages.items() if message["is_observed"]}


def log_guide(message: Message, scale: Any) -> Tensor:
    """Return the same as `log_prob` for a site of a guide, which must be reparameterised.

    Raises:
        ModelError: The gradient would not flow through its draws.
    """
    parts = message["fn"].score_parts(message["value"], *message["args"], **message["kwargs"])
    if not is_identically_zero(parts.score_function):
        raise ModelError(
            "a site of the guide is not reparameterised, so no gradient flows through its draws",
            where=f"site {message['name']!r}",
            why=f"{type(message['fn']).__name__} has no pathwise derivative",
            remedy="leave a discrete site to the model, where few values are summed out exactly; give a "
            "continuous one a reparameterised distribution (Normal, LogNormal, Gamma, Beta); and give "
            "pyro.factor has_rsample=True",
        )
    return scale_and_mask(parts.log_prob, scale, message["mask"])


def check_guide(pair: Pair, data: Data) -> None:
    """Refuse a guide whose sites do not match the model's; draws nothing.

    Raises:
        ModelError: A site is missing, unknown, observed by the model, or has another shape.
    """
    check_match(terms(still(guide_of(pair), data, {})), terms(still(pair.model, data, {})))


def check_pathwise(run: PairRun) -> None:
    """Refuse a guide through whose draws no gradient flows."""
    for message in run.guide.values():
        log_guide(message, 1.0)


def check_sums(pair: Pair, data: Data, plain: PairRun) -> None:
    """Refuse a model whose code is wrong for all values of its discrete sites at once."""
    if not plain.discrete:
        return

    def run(values: Values) -> Messages:
        chosen = terms(still(pair.model, data, {**plain.values, **values}))
        return chosen if values else all_values(pair, data, plain)

    sites = {name: describe(message) for name, message in plain.discrete.items()}
    device = next(iter(plain.discrete.values()))["value"].device
    check_enumerable(run, sites, generator(0, "values of discrete sites", device=device))
