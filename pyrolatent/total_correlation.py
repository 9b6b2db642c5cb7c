"""The divergence of a guide from the prior, taken apart: the objective of the beta-TCVAE.

With q(z) = 1/N sum_n q(z | x_n), the latents of a row picked at random, the divergence that the ELBO
pays for is the sum of three (Chen, Li, Grosse and Duvenaud, 2018, eq. 2):

    E_n KL(q(z | x_n) || p(z)) = I(z; n)                    what the latents say about which row it is
                               + KL(q(z) || prod_j q(z_j))  total correlation: their dependence
                               + sum_j KL(q(z_j) || p(z_j))

`tc_elbo` weighs each.  A batch does not have all rows that q(z) is made of.  It has the row itself, whose
share of q(z) is 1/N, and B - 1 others, picked at random, which stand for the N - 1 others: each has the
weight (N - 1) / (N (B - 1)).  So weighted, the sum is an unbiased estimate of q(z_i).  It is the paper's
stratified estimator (appendix C.2) with the last of its weights, which it gives to one row at random,
averaged over all.  Its logarithm is biased, less so with larger batches.
"""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from pyrolatent.capture.bounds import PairRun, guide_of, log_guide, log_model, recorded, run_pair, terms
from pyrolatent.capture.messages import Message, sum_all
from pyrolatent.capture.particles import check_rows
from pyrolatent.errors import ModelError
from pyrolatent.objectives import Data, Noise, Objective, Schedule, check_run, check_weight, weight_at
from pyrolatent.pair import Pair


@final
@dataclass(frozen=True)
class TCELBO(Objective):
    """E[log p(x | z)] - alpha I(z; n) - beta TC(z) - gamma sum_j KL(q(z_j) || p(z_j)), eq. 4 of the paper.

    With all weights 1 it is the `ELBO`.  Every latent must belong to a row, and be independent of the row's
    others under the guide.

    Args:
        beta: Weight of the total correlation.  Each weight may be a function of the step.
        alpha: Weight of the mutual information of latents and rows.
        gamma: Weight of the divergences of single latents.

    Raises:
        ArgumentError: A weight is negative.
    """

    beta: float | Schedule
    alpha: float | Schedule = 1.0
    gamma: float | Schedule = 1.0

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma"):
            check_weight(name, getattr(self, name))

    def check(self, pair: Pair, data: Data) -> None:
        plan = check_run(pair, data)
        check_rows(plan)
        check_independent(pair, data)
        rows = {len(by_component(message)) for message in plan.guide.values()}
        if 1 in rows:
            raise ModelError(
                "total correlation needs several rows in a batch", why="got one", remedy="raise batch_size"
            )

    def __call__(self, pair: Pair, data: Data, noise: Noise, step: Tensor) -> Tensor:
        alpha, beta, gamma = (weight_at(weight, step) for weight in (self.alpha, self.beta, self.gamma))
        with noise:
            run = run_pair(pair, data)
            log_prior, log_likelihood = log_model(run)
            log_q, log_aggregate, log_components = parts(run)
            information = log_q - log_aggregate
            correlation = log_aggregate - log_components
            divergences = log_components - log_prior
            weighted = alpha * information + beta * correlation + gamma * divergences
            return torch.as_tensor(weighted - log_likelihood)


def tc_elbo(beta: float | Schedule, alpha: float | Schedule = 1.0, gamma: float | Schedule = 1.0) -> TCELBO:
    """Return the bound with its divergence taken apart as an objective: the beta-TCVAE's.

    Each weight may be a function of the step: `linear(0, 1, 1_000)` raises it.

    Args:
        beta: Weight of the total correlation.
        alpha: Weight of the mutual information of latents and rows.
        gamma: Weight of the divergences of single latents from their priors.
    """
    return TCELBO(beta, alpha, gamma)


def check_independent(pair: Pair, data: Data) -> None:
    """Refuse a guide whose distributions are others in another run, as where latents depend on drawn ones.

    Raises:
        ModelError: With the site.
    """
    first, second = (terms(recorded(guide_of(pair), data)) for _ in range(2))
    for name, message in first.items():
        value, again = message["value"], second[name]["fn"]
        if not torch.allclose(message["fn"].log_prob(value), again.log_prob(value), rtol=1e-4, atol=1e-3):
            raise ModelError(
                "what the guide draws depends on what it drew before, so a row's latents have no densities "
                "of their own",
                where=f"site {name!r}",
                remedy="take elbo() or iwae(); of a model of two stages the first has a total correlation",
            )


def parts(run: PairRun) -> tuple[Tensor, Tensor, Tensor]:
    """Return estimates of log q(z | x), log q(z) and sum_j log q(z_j), summed over all rows, `()` in nats."""
    messages = list(run.guide.values())
    scale = messages[0]["scale"]
    log_q = sum(sum_all(log_guide(message, message["scale"])) for message in messages)
    log_densities = torch.cat([by_component(message) for message in messages], -1)
    number = len(log_densities)
    log_weights = stratified_log_weights(number, scale * number).to(log_densities)
    log_aggregate, log_components = mixtures(log_densities, log_weights)
    return torch.as_tensor(log_q), (scale * log_aggregate).sum(), (scale * log_components).sum()


def mixtures(log_densities: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return log q(z_i) and sum_j log q(z_ij), `(B,)` each, of mixtures over rows.

    Args:
        log_densities: log q(z_ij | x_n) `(B, N, L)`.
        log_weights: Of row n in the mixture that z_i is looked at in, `(B, N)`.
    """
    by_latent = log_densities.permute(2, 0, 1).contiguous()  # sums over rows run along memory
    joint = (log_weights + by_latent.sum(0)).logsumexp(1)
    return joint, (log_weights + by_latent).logsumexp(2).sum(0)


def stratified_log_weights(batch_size: int, num_rows: Any) -> Tensor:
    """Return log weights `(B, B)` of the rows of a batch in q(z) of `num_rows` rows, at each row's own draw.

    1/N for the row itself, (N - 1) / (N (B - 1)) for each other.
    """
    total = torch.as_tensor(num_rows, dtype=torch.get_default_dtype())
    other = ((total - 1) / (total * (batch_size - 1))).log()
    own = torch.eye(batch_size, dtype=torch.bool, device=total.device)
    return torch.where(own, -total.log(), other)


def by_component(message: Message) -> Tensor:
    """Return log q(z_ij | x_n) `(B, B, L)` of a site's draws `(B, L)`, under the guide at all rows.

    Raises:
        ModelError: The components of the site are not independent under the guide.
    """
    fn: Distribution = message["fn"]
    dims = len(fn.event_shape)
    if isinstance(fn, Independent) and fn.reinterpreted_batch_ndims == dims:
        fn = fn.base_dist
    if fn.event_shape or message["mask"] is not None:
        raise ModelError(
            "the latents of a row are not independent of each other under the guide",
            where=f"site {message['name']!r}",
            why=f"{type(message['fn']).__name__} has no density of single components",
            remedy="give it Normal(location, scale).to_event(1), or another distribution of single numbers",
        )
    value: Tensor = message["value"]
    return fn.log_prob(value[:, None]).flatten(2) if dims else fn.log_prob(value[:, None])[..., None]
