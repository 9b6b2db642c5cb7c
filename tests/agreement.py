"""Does a fit agree with a published posterior?

|difference of means| is counted in combined Monte Carlo standard errors (MCSE): the reference's,
its sd over the root of its 10,000 draws, and ours, in quadrature.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from pyrolatent.diagnostics import mcse_mean
from tests.user_models import by_reference_name

MAX_MCSE = 4.0
SD_RATIO = (0.9, 1.1)


class Agreement(NamedTuple):
    """One parameter of a fit beside the reference's.

    Attributes:
        parameter: The reference's name of it.
        mean, sd: Of the fit.
        errors: |difference of means| in combined MCSE.
        sd_ratio: The fit's sd over the reference's.
    """

    parameter: str
    mean: float
    sd: float
    errors: float
    sd_ratio: float

    @property
    def holds(self) -> bool:
        return self.errors < MAX_MCSE and SD_RATIO[0] < self.sd_ratio < SD_RATIO[1]


def compare(samples: Mapping[str, Any], reference: Mapping[str, Mapping[str, float]]) -> list[Agreement]:
    """Compare sites (chain, draw, *site) with a reference's {parameter: {mean, sd, draws}}."""
    draws = by_reference_name({site: torch.as_tensor(values) for site, values in samples.items()})
    results = []
    for name, expected in reference.items():
        mean, sd = float(draws[name].mean()), float(draws[name].std())
        mcse = math.hypot(float(mcse_mean(draws[name])), expected["sd"] / math.sqrt(expected["draws"]))
        errors = abs(mean - expected["mean"]) / mcse
        results.append(Agreement(name, mean, sd, errors, sd / expected["sd"]))
    return results
