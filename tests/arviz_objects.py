"""What both kinds of ArviZ objects have: an `InferenceData` before ArviZ 1, a `DataTree` since."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import arviz as az
import xarray as xr

IS_TREE = int(version("arviz").split(".")[0]) >= 1


def groups(found: Any) -> set[str]:
    return set(found.children) if IS_TREE else set(found.groups())


def dataset(found: Any, group: str) -> xr.Dataset:
    return found[group].to_dataset() if IS_TREE else found[group]


def is_export(found: Any) -> bool:
    return isinstance(found, xr.DataTree if IS_TREE else az.InferenceData)


def from_file(found: Any, folder: Path) -> Any:
    """The object written to a file and read again by ArviZ."""
    path = str(folder / "fit.nc")
    found.to_netcdf(path, engine="h5netcdf")
    if IS_TREE:
        with az.from_netcdf(path, engine="h5netcdf") as back:
            return back.load()
    with az.rc_context({"data.load": "eager"}):
        return az.from_netcdf(path, engine="h5netcdf")


def assert_same(back: Any, found: Any) -> None:
    assert groups(back) == groups(found)
    assert back.attrs == found.attrs
    for group in groups(found):
        xr.testing.assert_identical(dataset(back, group), dataset(found, group))


def effective_parameters(loo: Any) -> float:
    return float(loo.p if IS_TREE else loo.p_loo)


def traced(found: Any, names: list[str] | None = None) -> set[str]:
    """The variables that ArviZ draws a trace of."""
    plot = az.plot_trace(found, var_names=names)
    return set(plot.viz["trace"].data_vars) if IS_TREE else {axes.get_title() for axes in plot[:, 1]}
