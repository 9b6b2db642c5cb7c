"""One run of a model as the terms of its log joint density.

The latents come from a flat vector of free values, and every site's message is kept.  The terms are
made from the messages after the run: only then is it known which sites look alike and can be
evaluated together, and what depends on discrete sites and has to be summed over their values.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, final

import torch
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions.transforms import Transform

from pyrolatent.capture.enumeration import enumerating, log_sum_product, sites_in_sum
from pyrolatent.capture.expansions import Expansions
from pyrolatent.capture.grouping import grouped_log_probs
from pyrolatent.capture.messages import Message, is_deterministic, log_prob_sum
from pyrolatent.capture.sites import Site, SiteTable, SuppliedSites, sums_over_rows
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
        self.expansions = Expansions()

    @property
    def terms(self) -> dict[str, Tensor]:
        """The log joint without the Jacobian, `()` in nats: one term a site, one for a sum over values."""
        summed, plain = split_by_sum(self.messages)
        terms = {name: log_prob_sum(m) for name, m in plain.items()}
        return {**terms, SUMMED: log_sum_product(summed)} if summed else terms

    def plain_total(self) -> Tensor:
        """Return the log joint `()` in nats with respect to the free values, site by site."""
        return torch.as_tensor(sum(self.terms.values(), start=self.log_jacobian))

    def total(self) -> Tensor:
        """Return the same with every shortcut: rows by their summary, sites that look alike together."""
        summed, plain = split_by_sum(self.messages)
        summaries = {name: rows for name, rows in self.sites.summaries.items() if name in plain}
        by_summary = {name: self.from_summary(plain[name], rows) for name, rows in summaries.items()}
        known = {name: term for name, term in by_summary.items() if term is not None}
        terms = known | grouped_log_probs({n: m for n, m in plain.items() if n not in known})
        rest = self.log_jacobian + log_sum_product(summed) if summed else self.log_jacobian
        return torch.as_tensor(sum(terms.values(), start=rest))

    def from_summary(self, message: Message, summary: Any) -> Tensor | None:
        """Return the log-probability `()` of all rows of a site from their summary, if it holds."""
        if not sums_over_rows(message):
            return None
        rows = as_row_distribution(message["fn"], len(message["value"]), self.expansions.unexpanded)
        return message["scale"] * rows.log_prob_sum(message["value"], summary) if rows else None

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


def split_by_sum(messages: Mapping[str, Message]) -> tuple[dict[str, Message], dict[str, Message]]:
    """Return the sites that are part of a sum over discrete values, and those that stand alone."""
    summed = sites_in_sum(messages)
    alone = {n: m for n, m in messages.items() if n not in summed and not is_deterministic(m)}
    return dict(summed), alone


def evaluate(
    model: Model,
    data: Mapping[str, Any],
    sites: SiteTable,
    flat: Tensor,
    discrete: Mapping[str, Tensor] | None = None,
) -> LogJoint:
    """Run the model with its latents at `flat (D,)`; discrete sites take all their values, or those given."""
    at_once = enumerating(sites.max_plate_nesting) if sites.discrete and not discrete else nullcontext()
    with LogJoint(sites, flat, discrete or {}) as joint, joint.expansions, at_once:
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
