"""The log joint density of a model over all its unconstrained latents, and back to named sites."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions.transforms import Transform

from pyrolatent.capture.context import model_context
from pyrolatent.capture.ladder import Batched, Rung, climb, map_points
from pyrolatent.capture.modes import FailingCholesky, ReadValues
from pyrolatent.capture.sites import (
    Message,
    SiteTable,
    SuppliedSites,
    is_deterministic,
    read_sites,
    sum_all,
    sums_over_rows,
)
from pyrolatent.distributions import as_row_distribution
from pyrolatent.errors import DataError, ModelError
from pyrolatent.pair import Model
from pyrolatent.seeds import generator


@final
class LogJoint(SuppliedSites):
    """Supplies the latents from named free values and adds up the log density."""

    def __init__(self, free: Mapping[str, Tensor], summaries: Mapping[str, Any]) -> None:
        super().__init__()
        self.free = free
        self.summaries = summaries
        self.log_probs: dict[str, Tensor] = {}
        self.values: dict[str, Tensor] = {}

    @property
    def total(self) -> Tensor:
        return torch.as_tensor(sum(self.log_probs.values(), start=self.log_jacobian))

    def free_value(self, name: str, transform: Transform, shape: torch.Size) -> Tensor:
        return self.free[name]

    def _pyro_post_sample(self, message: Message) -> None:
        if site_is_subsample(message):
            return
        name = message["name"]
        if is_deterministic(message):
            self.values[name] = message["value"]
            return
        if not message["is_observed"]:
            self.values[name] = message["value"]
        self.log_probs[name] = self.log_prob(message)

    def log_prob(self, message: Message) -> Tensor:
        fn, value, scale = message["fn"], message["value"], message["scale"]
        summary = self.summaries.get(message["name"])
        summed = summary is not None and sums_over_rows(message)
        if summed and (rows := as_row_distribution(fn, len(value))):
            return scale * rows.log_prob_sum(value, summary)
        elementwise = fn.log_prob(value, *message["args"], **message["kwargs"])
        return sum_all(scale_and_mask(elementwise, scale, message["mask"]))


@final
@dataclass(frozen=True)
class LogDensity:
    """A captured log density: `(B, D) -> (B,)` with its gradient `(B, D)`.

    `batched` runs the model on B points, on the rung of the ladder that it allows.
    """

    model: Model
    data: Mapping[str, Any]
    sites: SiteTable
    dtype: torch.dtype
    device: torch.device
    batched: Batched

    @property
    def dim(self) -> int:
        return self.sites.layout.size

    @property
    def rung(self) -> Rung:
        return self.batched.rung

    def __call__(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log density `(B,)` in nats and its gradient at `position (B, D)`."""
        with self.context():
            return self.batched(position)

    def context(self) -> AbstractContextManager[None]:
        return model_context(self.dtype, self.device)

    def constrain(self, position: Tensor) -> dict[str, Tensor]:
        """Return latent and deterministic sites `(S, *site)` at `position (S, D)`."""

        def sites(flat: Tensor) -> dict[str, Tensor]:
            return evaluate(self.model, self.data, self.sites, flat).values

        with self.context(), torch.no_grad():
            return map_points(sites, position, self.rung)

    def log_prob_of_sites(self, position: Tensor) -> dict[str, float]:
        """Return each site's log-probability, and the Jacobian's, at one `position (D,)`."""
        with self.context(), torch.no_grad(), FailingCholesky():
            joint = evaluate(self.model, self.data, self.sites, position)
        terms = joint.log_probs | {"log |Jacobian|": torch.as_tensor(joint.log_jacobian)}
        return {name: float(term) for name, term in terms.items()}


def evaluate(model: Model, data: Mapping[str, Any], sites: SiteTable, flat: Tensor) -> LogJoint:
    """Run the model with its latents at `flat (D,)` and return what was added up."""
    with LogJoint(sites.layout.unpack(flat), sites.summaries) as joint:
        model(**data)
    return joint


def capture_density(
    model: Model,
    data: Mapping[str, Any],
    *,
    seed: int,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
) -> LogDensity:
    """Read the sites of `model(**data)` and capture its log density.

    Raises:
        ModelError: The model has a discrete latent site, learnable parameters or no latent site.
        DataError: The entries of `data` do not fit each other.
    """
    device = device or torch.device("cpu")
    random = generator(seed, "sites", device=device)
    with model_context(dtype, device, validate=True):
        sites = run_once(model, data, random)
    check_sampleable(sites)

    def density(summaries: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
        def point(flat: Tensor) -> Tensor:
            with ReadValues(flat), FailingCholesky() as cholesky:
                joint = evaluate(model, data, replace(sites, summaries=summaries), flat)
            return cholesky.guard(joint.total)

        return point

    with model_context(dtype, device):
        examples = 2 * torch.rand(2, sites.layout.size, generator=random, device=device) - 1
        batched = climb(density(sites.summaries), density({}), examples)
    return LogDensity(model, data, sites, dtype, device, batched)


def run_once(model: Model, data: Mapping[str, Any], random: torch.Generator) -> SiteTable:
    """Read the sites; a failure on entries of unequal length is reported as that."""
    try:
        return read_sites(model, data, random)
    except (RuntimeError, ValueError, IndexError) as error:
        lengths = {
            name: len(value) for name, value in data.items() if isinstance(value, Tensor) and value.ndim
        }
        if isinstance(error, ModelError) or len(set(lengths.values())) < 2:
            raise
        raise DataError(
            "the model failed, and the entries of the data have unequal row counts",
            why=f"rows: {lengths}; the model said: {error}",
            remedy="give every per-row entry the same first dimension",
        ) from error


def check_sampleable(sites: SiteTable) -> None:
    """Refuse models without latent sites, and those with parameters to learn."""
    if sites.parameters:
        raise ModelError(
            "the model has learnable parameters, which a sampler would leave at their first values",
            where=f"parameters {list(sites.parameters)}",
            remedy="give them priors with pyro.sample, or use a method that learns parameters",
        )
    if not sites.layout.size:
        raise ModelError(
            "the model has no latent site to infer",
            why=f"its sites: observed {list(sites.observed)}, deterministic {list(sites.deterministics)}",
            remedy="add a pyro.sample statement without obs",
        )
