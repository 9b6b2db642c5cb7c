"""Export of a fit to ArviZ: draws, statistics, data and predictions as named groups of arrays.

ArviZ before 1 gets an `InferenceData`, later versions an `xarray.DataTree`; the groups are the same.
Axes are named and labelled as `labels` says.  For a fit to a table, data, predictions and
log-likelihoods are in the table's units.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from pyrolatent.errors import ArgumentError, PyrolatentError
from pyrolatent.groups import GROUPS, Source, thinned
from pyrolatent.labels import method_text
from pyrolatent.result import Fit

LARGEST_INTEGER = 2**63 - 1  # that an attribute of a netCDF file holds


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
