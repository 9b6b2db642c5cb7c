"""The way back: from values of the latent sites to the flat vector behind them.

A support may depend on other sites, so the model runs once for each draw, and the transform that
holds in that run is inverted.
"""

import math
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor
from torch.distributions.transforms import Transform

from pyrolatent.capture.density import LogDensity
from pyrolatent.capture.ladder import map_points
from pyrolatent.capture.modes import FailingCholesky
from pyrolatent.capture.sites import SuppliedSites
from pyrolatent.errors import ModelError

FREE, LOG_JACOBIAN, ERROR = "free", "log_jacobian", "error"
ROUNDING = 1e-4  # of a value in single precision that went through a transform and back


@final
class GivenSites(SuppliedSites):
    """Sets each latent site to its value, by way of the free number that the transform makes of it."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values
        self.free: dict[str, Tensor] = {}
        self.errors: dict[str, Tensor] = {}

    def free_value(self, name: str, transform: Transform, shape: torch.Size) -> Tensor:
        value = self.values[name]
        outermost = -math.log(torch.finfo(value.dtype).tiny)  # in place of infinity, on the boundary
        inverse = transform.inv(value)
        self.free[name] = torch.nan_to_num(inverse, nan=torch.nan, posinf=outermost, neginf=-outermost)
        self.errors[name] = ((transform(self.free[name]) - value).abs() / (1 + value.abs())).max()
        return self.free[name]


def unconstrain(density: LogDensity, samples: Mapping[str, Tensor]) -> Tensor:
    """Return the positions `(S, D)` at which the latent sites have the values `samples (S, *site)`.

    The inverse of `LogDensity.constrain`.  A value on the boundary of its support becomes one just
    inside.

    Raises:
        ModelError: A value lies outside the support of its site.
    """
    return unconstrain_with_jacobian(density, samples)[0]


def unconstrain_with_jacobian(density: LogDensity, samples: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return positions `(S, D)`, and log |det d sites / d position| there `(S,)`.

    Raises:
        ModelError: A value lies outside the support of its site.
    """
    layout = density.sites.layout

    def of_one(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with FailingCholesky(), GivenSites(values) as run:
            density.model(**density.data)
        errors = torch.stack([run.errors[name] for name in layout.names])
        return {FREE: layout.pack(run.free), LOG_JACOBIAN: torch.as_tensor(run.log_jacobian), ERROR: errors}

    values = {name: samples[name].to(device=density.device, dtype=density.dtype) for name in layout.names}
    with density.context(), torch.no_grad():
        found = map_points(of_one, values, density.rung)
    check_inside(found[ERROR], values)
    return found[FREE], found[LOG_JACOBIAN]


def check_inside(errors: Tensor, values: Mapping[str, Tensor]) -> None:
    """Refuse values that no position leads to, by their `errors (S, sites)`."""
    outside = ~(errors <= ROUNDING)
    if outside.any():
        draw, site = outside.nonzero()[0].tolist()
        name = list(values)[site]
        raise ModelError(
            "a value lies outside the support of its site",
            where=f"site {name!r}, draw {draw}",
            why=f"{values[name][draw].tolist()!s:.100}, {int(outside[:, site].sum())} of {len(errors)} draws",
            remedy="take draws from a fit of the same model",
        )
