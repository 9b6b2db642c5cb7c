"""The groups of an export: each a function from a fit to named arrays with labelled axes.

Axes are named and labelled as `labels` says.  A group that cannot be made raises, with the reason.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from torch import Tensor

from pyrolatent.capture.conditioned import log_likelihood
from pyrolatent.capture.messages import DATA_PLATE
from pyrolatent.errors import ArgumentError, ModelError
from pyrolatent.labels import Axes, plate_dim, site_plates, tensor_axes, variable_name
from pyrolatent.observed import (
    Observation,
    model_runs,
    observed_rows,
    observed_sites,
    observed_values,
    row_constants,
)
from pyrolatent.predict import NUM_PREDICTIVE, posterior_predictive, prior_predictive
from pyrolatent.result import Fit, evenly_spaced

if TYPE_CHECKING:  # slow to import, and only an export needs it
    import xarray as xr

PREDICTIVE_NUMBERS = 12_500_000
MAX_LOG_LIKELIHOOD = 10**9  # bytes
LOSSES = {"train": ("loss", "step"), "validation": ("validation_loss", "check")}


@final
@dataclass(frozen=True)
class Source:
    """What the groups are made of.

    Attributes:
        fit: The fit with the draws to export.
        positions: Where these lie in their chains `(draw,)`.
        asked: Whether the user asked for groups by name.
    """

    fit: Fit
    positions: Tensor
    asked: bool

    @property
    def draws(self) -> Axes:
        chains = next((len(draws) for draws in self.fit.samples.values()), 0)
        return {"chain": np.arange(chains), "draw": self.positions.numpy()}

    @cached_property
    def sites(self) -> dict[str, Observation]:
        return observed_sites(self.fit)

    @cached_property
    def prior(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Draws of the model `(draw, *site)`: latent and deterministic sites, and observed ones."""
        return prior_values(self.fit, self.num_prior)

    @property
    def num_prior(self) -> int:
        return min(num_predictive(self.fit), self.fit.num_draws)

    @property
    def prior_axes(self) -> Axes:
        return {"chain": np.arange(1), "draw": np.arange(self.num_prior)}

    def dataset(
        self, values: Mapping[str, Tensor], leading: Axes, plates: Mapping[str, int] | None = None
    ) -> "xr.Dataset":
        """Return tensors `(*leading, *site)` with named and labelled axes.

        `plates` gives each plate's axis; by default each tensor has those of the site of its name.
        """
        import xarray as xr

        variables, coordinates = {}, dict(leading)
        for name, value in values.items():
            own = site_plates(self.fit, name) if plates is None else plates
            axes = tensor_axes(self.fit, name, value.shape[len(leading) :], own)
            variables[variable_name(self.fit, name)] = ((*leading, *axes), value.numpy(force=True))
            coordinates |= axes
        return xr.Dataset(variables, coordinates)

    def predictive(self, values: Mapping[str, Tensor], leading: Axes) -> "xr.Dataset":
        """Return observed sites `(chain * draw, *site)`, drawn anew, in the table's units."""
        shape = [len(labels) for labels in leading.values()]
        seen = {name: value for name, value in values.items() if name in self.sites}
        drawn = {n: self.sites[n].in_units(value).unflatten(0, shape) for n, value in seen.items()}
        return self.dataset(drawn, leading)


def thinned(fit: Fit, max_draws: int | None) -> tuple[Fit, Tensor]:
    """Return the fit with evenly spaced draws of each chain, and their positions `(draw,)`."""
    if not fit.samples:
        return fit, torch.arange(0)
    chains, draws = next(iter(fit.samples.values())).shape[:2]
    if max_draws is not None and max_draws < chains:
        raise ArgumentError(
            "max_draws must be at least the number of chains", why=f"got {max_draws} for {chains} chains"
        )
    keep = evenly_spaced(draws, None if max_draws is None else max_draws // chains)
    samples = {name: values[:, keep] for name, values in fit.samples.items()}
    stats = {name: values[:, keep] for name, values in fit.sample_stats.items()}
    return replace(fit, samples=samples, sample_stats=stats), keep


def prior_values(fit: Fit, num_draws: int) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """Return draws of the model itself `(draw, *site)`: latent and deterministic sites, and observed ones.

    Raises:
        ModelError: A prior is improper, the model weighs draws by factors, or it fails.
    """
    if fit.sites.factors:
        raise ModelError(
            "the prior cannot be drawn from",
            where=f"pyro.factor sites {list(fit.sites.factors)}",
            why="they weigh draws and cannot make any",
        )
    with model_runs(fit, "draws from its prior"):
        return prior_predictive(fit, num_draws)


def posterior(source: Source) -> "xr.Dataset":
    """Latent and deterministic sites."""
    if not source.fit.samples:
        raise ModelError("the fit has no draws", why="all that its model leaves open are learnt weights")
    return source.dataset(source.fit.samples, source.draws)


def sample_stats(source: Source) -> "xr.Dataset":
    """Statistics of the sampler, weights of the draws it proposed, and losses on the way."""
    import xarray as xr

    fit = source.fit
    parts = [(fit.sample_stats, source.draws)]
    if fit.weights is not None:
        weights = {"log_weight": fit.weights.raw, "smoothed_log_weight": fit.weights.smoothed}
        parts.append((weights, {"proposal": np.arange(len(fit.weights.raw))}))
    for name, (variable, unit) in LOSSES.items():
        if name in fit.losses and fit.losses[name].numel():
            axes = zip(("refit", unit), fit.losses[name].shape, strict=True)
            parts.append(({variable: fit.losses[name]}, {axis: np.arange(size) for axis, size in axes}))
    return xr.merge([source.dataset(values, axes) for values, axes in parts if values])


def log_likelihoods(source: Source) -> "xr.Dataset":
    """Log-probabilities of observations, those of empty rows left out."""
    fit, sites = source.fit, source.sites
    check_all_drawn(fit)
    draws = {name: values.to(fit.problem.device) for name, values in fit.flat_samples().items()}
    with model_runs(fit, "posterior draws"):
        first = log_likelihood(fit.pair.model, fit.data, {n: v[:1] for n, v in draws.items()}, fit.rung)
        size = sum(value.nbytes for value in first.values()) * fit.num_draws
        if size > MAX_LOG_LIKELIHOOD and not source.asked:
            raise ModelError(f"log-likelihoods would take {size / 1e9:.1f} GB", remedy="ask for them by name")
        values = log_likelihood(fit.pair.model, fit.data, draws, fit.rung)
    shape = [len(labels) for labels in source.draws.values()]
    in_units = {n: sites[n].density_in_units(value).unflatten(0, shape) for n, value in values.items()}
    made = source.dataset(in_units, source.draws)
    rows = observed_rows(fit, sites)
    return made if rows is None else made.isel({plate_dim(fit, DATA_PLATE): rows.numpy(force=True)})


def check_all_drawn(fit: Fit) -> None:
    """Refuse log-likelihoods of a fit in which something unknown does not vary over the draws."""
    fixed = [*fit.sites.parameters, *(name for name in fit.sites.latents if name not in fit.samples)]
    if fixed:
        raise ModelError(
            "log-likelihoods need draws of all that is unknown",
            where=f"{fixed[:5]}",
            why="learnt weights are point estimates, and the latents of rows come from them",
        )


def num_predictive(fit: Fit) -> int:
    """Return the number of predictive draws: 500, or as many as keep a group near 100 MB."""
    cells = sum(site.shape.numel() for site in fit.sites.observed.values())
    return max(1, min(NUM_PREDICTIVE, PREDICTIVE_NUMBERS // max(cells, 1)))


def posterior_predictions(source: Source) -> "xr.Dataset":
    """Observed sites drawn anew, for fewer draws: each is one run of the model."""
    fit = source.fit
    if not fit.samples:
        with model_runs(fit, "posterior draws"):
            drawn = posterior_predictive(fit, num_predictive(fit))
        count = len(next(iter(drawn.values())))
        return source.predictive(drawn, {"chain": np.arange(1), "draw": np.arange(count)})
    fewer, keep = thinned(fit, max(num_predictive(fit), len(source.draws["chain"])))
    thin = replace(source, fit=fewer, positions=source.positions[keep])
    with model_runs(fewer, "posterior draws"):
        drawn = posterior_predictive(fewer, fewer.num_draws)
    return thin.predictive(drawn, thin.draws)


def prior(source: Source) -> "xr.Dataset":
    """Latent and deterministic sites drawn from the model itself."""
    latents, _ = source.prior
    return source.dataset({name: value[None] for name, value in latents.items()}, source.prior_axes)


def prior_predictions(source: Source) -> "xr.Dataset":
    """Observed sites drawn from the model itself."""
    _, observed = source.prior
    return source.predictive(observed, source.prior_axes)


def observed_data(source: Source) -> "xr.Dataset":
    """Observed sites with their holes."""
    values = {name: observed_values(source.fit, site) for name, site in source.sites.items()}
    return source.dataset(values, {})


def constant_data(source: Source) -> "xr.Dataset":
    """Other tensors of the data with one entry for each row."""
    return source.dataset(row_constants(source.fit, source.sites), {}, {DATA_PLATE: 0})


GROUPS: Mapping[str, Callable[[Source], "xr.Dataset"]] = {
    "posterior": posterior,
    "sample_stats": sample_stats,
    "log_likelihood": log_likelihoods,
    "posterior_predictive": posterior_predictions,
    "prior": prior,
    "prior_predictive": prior_predictions,
    "observed_data": observed_data,
    "constant_data": constant_data,
}
