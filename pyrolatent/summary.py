"""A table of the posterior: one row for each scalar.

Standard errors and effective sample sizes say how well the draws know the row's numbers; nested
R-hat says whether chains from different starts agree.  Draws that need no such judgement, as those
of a normal approximation, have no such columns.
"""

import numpy as np
import pandas as pd
from torch import Tensor

from pyrolatent.diagnostics import mcse_mean
from pyrolatent.labels import scalar_names
from pyrolatent.result import Fit

PROBABILITIES = (0.05, 0.95)
COLUMNS = ("mean", "sd", "q5", "q95", "mcse_mean")
DIAGNOSTICS = ("ess", "rhat")


def summary(fit: Fit) -> pd.DataFrame:
    """Summarise every latent and deterministic site of a fit.

    Args:
        fit: A fit.

    Returns:
        One row for each scalar, named as in `mean[age]` or `theta[0]`: `mean`, `sd`, the 5 % and
        95 % quantiles `q5` and `q95`, the Monte Carlo standard error of the mean `mcse_mean`, and
        where the method judges its draws the smallest of bulk, tail and sd effective sample sizes
        `ess`, and nested R-hat `rhat`.  A constant, such as the diagonal of a correlation matrix,
        has NaN for the last three.  A fit that drew nothing has no rows.
    """
    if not fit.samples:
        return pd.DataFrame(columns=list(COLUMNS), dtype=float)
    return pd.concat([site_summary(fit, name, draws) for name, draws in fit.samples.items()])


def site_summary(fit: Fit, name: str, draws: Tensor) -> pd.DataFrame:
    """Return the rows of one site with draws `(chain, draw, *site)`."""
    shape = tuple(draws.shape[2:])
    scalars = draws.double().flatten(0, 1).reshape(draws.shape[0] * draws.shape[1], -1)
    with np.errstate(invalid="ignore"):  # draws that are infinite have no quantile between them
        low, high = np.quantile(scalars.numpy(), PROBABILITIES, axis=0)
    columns = {
        "mean": scalars.mean(0).numpy(),
        "sd": scalars.std(0).numpy(),
        "q5": low,
        "q95": high,
        "mcse_mean": mcse_mean(draws).flatten().numpy(),
    } | {key: values.flatten().numpy() for key, values in judged(fit, name).items()}
    return pd.DataFrame(columns, index=scalar_names(fit, name, shape))


def judged(fit: Fit, name: str) -> dict[str, Tensor]:
    """Return the diagnostics of a site `(*site)` in their order, those that the method computed."""
    found = fit.diagnostics.get(name, {})
    return {key: found[key] for key in DIAGNOSTICS if key in found}
