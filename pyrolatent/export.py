"""Export of a fit to ArviZ: draws, statistics, data and predictions as named groups of arrays.

ArviZ before 1 gets an `InferenceData`, later versions an `xarray.DataTree`; the groups are the same.
Axes are named and labelled as `labels` says.  For a fit to a table, data, predictions and
log-likelihoods are in the table's units.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from pyrolatent.capture.conditioned import log_likelihood
from pyrolatent.capture.sites import DATA_PLATE
from pyrolatent.errors import ArgumentError, ModelError, PyrolatentError
from pyrolatent.labels import Axes, method_text, plate_dim, site_plates, tensor_axes, variable_name
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
LARGEST_INTEGER = 2**63 - 1  # that an attribute of a netCDF file holds
LOSSES = {"train": ("loss", "step"), "validation": ("validation_loss", "check")}


def to_inference_data(fit: Fit, groups: Sequence[str] | None = None, max_draws: int | None = None) -> Any:
    """Return a fit as an ArviZ object.

    Groups, with dimensions (chain, draw, *site) unless stated otherwise:

    - `posterior`: latent and deterministic sites.
    - `sample_stats`: statistics of the sampler under ArviZ's names.  For importance sampling
      `log_weight` and `smoothed_log_weight` of every draw made, (proposal), and for fits that learn
      `loss` and `validation_loss`, (refit, step) and (refit, check), all in nats.
    - `log_likelihood`: each observation's log-probability in nats, one variable for each observed
      site, without rows of which nothing is observed.  Left out above 1 GB unless asked for, and
      for models with learnt weights, whose draws do not vary with the data as a posterior's do.
    - `posterior_predictive`: observed sites drawn anew, for at most 500 evenly spaced draws; counts
      are not rounded.
    - `prior`, `prior_predictive`: at most 500 draws of the model itself, in one chain.
    - `observed_data`: observed sites (*site), NaN where missing.
    - `constant_data`: the mask, and other per-row tensors of the data that are not observed.

    A group that cannot be made is left out, and the attribute `GROUP_left_out` says why.  Other
    attributes tell method, seed, versions, rung, warnings, the seconds the fit took and Pareto k.

    Args:
        fit: A fit.
        groups: The groups wanted, by name; by default all that can be made.
        max_draws: The most draws of all chains together, evenly spaced in each chain.

    Returns:
        An `InferenceData`, or a `DataTree` from ArviZ 1 on.

    Raises:
        ArgumentError: A group has no such name, or `max_draws` is below the number of chains.
        PyrolatentError: A group asked for by name cannot be made.
    """
    check_groups(groups)
    source = Source(*thinned(fit, max_draws), asked=groups is not None)
    attributes, made = describe(fit), {}
    for group in GROUPS if groups is None else groups:
        try:
            made[group] = GROUPS[group](source).assign_attrs(describe(fit))
        except PyrolatentError as error:
            if groups is not None:
                raise
            attributes[f"{group}_left_out"] = str(error)
    return wrap({group: dataset for group, dataset in made.items() if dataset.data_vars}, attributes)


def wrap(groups: Mapping[str, Any], attributes: Mapping[str, Any], arviz: str | None = None) -> Any:
    """Return the datasets as the object of ArviZ's version `arviz`, by default the one installed."""
    import xarray as xr

    if int((arviz or version("arviz")).split(".")[0]) >= 1:
        return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attributes), **groups})
    from arviz import InferenceData

    return InferenceData(attrs=attributes, **groups)


def check_groups(groups: Sequence[str] | None) -> None:
    """Refuse names of groups that do not exist."""
    unknown = [group for group in groups or () if group not in GROUPS]
    if unknown:
        raise ArgumentError(f"unknown groups {unknown}", remedy=f"choose from {list(GROUPS)}")


def describe(fit: Fit) -> dict[str, Any]:
    """Return attributes that a netCDF file can hold."""
    versions = {**fit.info["versions"], "arviz": version("arviz")}
    library = fit.info.get("library", "pyrolatent")
    told = {
        "inference_library": library,
        "inference_library_version": versions[library],
        "creation_library": "pyrolatent",
        "creation_library_version": version("pyrolatent"),
        "creation_library_language": "Python",
        "method": method_text(fit.method),
        "seed": fit.seed if fit.seed <= LARGEST_INTEGER else str(fit.seed),
        "rung": fit.rung,
        "warnings": "\n".join(fit.warnings),
    }
    if "seconds" in fit.info:
        told["wall_time"] = sum(fit.info["seconds"].values())
    if fit.weights is not None:
        told["pareto_k"] = fit.weights.pareto_k
    return told | {f"{name}_version": number for name, number in versions.items()}


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
        drawn = {n: self.sites[n].in_units(value).unflatten(0, shape) for n, value in values.items()}
        return self.dataset(drawn, leading)


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
        if name in fit.losses:
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
    fewer, keep = thinned(source.fit, max(num_predictive(source.fit), len(source.draws["chain"])))
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
