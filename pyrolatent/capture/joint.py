"""One run of a model as the terms of its log joint density.

The latents come from a flat vector of free values, and every site's message is kept.  The terms are
made from the messages after the run: only then is it known which sites look alike and can be
evaluated together, and what depends on discrete sites and has to be summed over their values.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, final

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions.transforms import Transform

from pyrolatent.capture.enumeration import enumerating, log_sum_product, sites_in_sum
from pyrolatent.capture.sites import (
    Message,
    Site,
    SiteTable,
    SuppliedSites,
    is_deterministic,
    sum_all,
    sums_over_rows,
)
from pyrolatent.capture.supports import as_value
from pyrolatent.distributions import as_row_distribution
from pyrolatent.errors import ModelError
from pyrolatent.pair import Model

SUMMED = "all that depends on discrete sites"


@final
class LogJoint(SuppliedSites):
    """Supplies the latents from a flat vector of free values and keeps the message of every site.

    Discrete sites get the values in `discrete`, unless a handler within gives them all of theirs.
    """

    def __init__(self, sites: SiteTable, flat: Tensor, discrete: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.sites = sites
        self.free = sites.layout.unpack(flat)
        self.discrete = discrete
        self.messages: dict[str, Message] = {}

    @property
    def log_probs(self) -> dict[str, Tensor]:
        """The terms of the log joint without the Jacobian, `()` each in nats."""
        return log_probs(self.messages, self.sites.summaries)

    @property
    def total(self) -> Tensor:
        """The log joint `()` in nats, with respect to the free values."""
        return torch.as_tensor(sum(self.log_probs.values(), start=self.log_jacobian))

    @property
    def values(self) -> dict[str, Tensor]:
        """Latent and deterministic sites, but for those that hold all values of a discrete one."""
        own = {**self.sites.latents, **self.sites.discrete, **self.sites.deterministics}
        values = {name: message["value"] for name, message in self.messages.items() if name in own}
        return {name: value for name, value in values.items() if value.shape == own[name].shape}

    def free_value(self, name: str, transform: Transform, shape: torch.Size) -> Tensor:
        free = self.free[name]
        if self.sites.discrete:
            check_one_support(name, transform(free), self.sites.latents[name])
        return free

    def discrete_value(self, message: Message) -> Tensor:
        return as_value(message, self.discrete[message["name"]])

    def _pyro_post_sample(self, message: Message) -> None:
        if not site_is_subsample(message):
            self.messages[message["name"]] = message


def log_probs(messages: Mapping[str, Message], summaries: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the terms of the log joint, `()` in nats: one a site, and one for the sum over discrete sites.

    Args:
        messages: All sites of a run.
        summaries: Observed site -> RowDistribution summary.
    """
    summed = sites_in_sum(messages)
    plain = {n: m for n, m in messages.items() if n not in summed and not is_deterministic(m)}
    terms = {name: log_prob(message, summaries.get(name)) for name, message in plain.items()}
    return {**terms, SUMMED: log_sum_product(summed)} if summed else terms


def log_prob(message: Message, summary: Any) -> Tensor:
    """Return the log-probability `()` of a site, from its summary if it has one."""
    fn, value, scale = message["fn"], message["value"], message["scale"]
    summed = summary is not None and sums_over_rows(message)
    if summed and (rows := as_row_distribution(fn, len(value))):
        return scale * rows.log_prob_sum(value, summary)
    elementwise = fn.log_prob(value, *message["args"], **message["kwargs"])
    return sum_all(scale_and_mask(elementwise, scale, message["mask"]))


def evaluate(
    model: Model,
    data: Mapping[str, Any],
    sites: SiteTable,
    flat: Tensor,
    discrete: Mapping[str, Tensor] | None = None,
) -> LogJoint:
    """Run the model with its latents at `flat (D,)`; discrete sites take all their values, or those given."""
    at_once = enumerating(sites.max_plate_nesting) if sites.discrete and not discrete else nullcontext()
    with LogJoint(sites, flat, discrete or {}) as joint, at_once:
        model(**data)
    return joint


def check_one_support(name: str, value: Tensor, site: Site) -> None:
    """Refuse a continuous site that has a value for each value of a discrete one."""
    if value.shape != site.shape:
        raise ModelError(
            "the support of a continuous latent site depends on a discrete one",
            where=f"site {name!r}",
            remedy="sample it on a fixed support and transform it",
        )
