"""A report of a fit: one HTML page with its pictures inside, to read, print or send.

Warnings come first, then what was fitted, the summary, and pictures: correlations and what is left
of the observed ones, completed cells, the trace of the log density.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, final

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from pyrolatent.cells import cell_table, coverage
from pyrolatent.column import numbers
from pyrolatent.folders import write_text
from pyrolatent.impute import Imputations
from pyrolatent.infer.hmc import MAX_RHAT, MIN_ESS
from pyrolatent.plots import interval_plot, matrix_map, png_uri, trace_plot
from pyrolatent.result import Fit
from pyrolatent.saved_parts import model_name
from pyrolatent.store import MissingData
from pyrolatent.summary import summary

MOST_ROWS = 50  # of one site, in the summary
MOST_CELLS = 60  # completed ones, in pictures
MOST_PANELS = 12  # columns, in pictures
PER_PANEL = 15  # cells of one column
PROBABILITY = 0.9

Facts = dict[str, str]


@final
@dataclass(frozen=True)
class Picture:
    """A picture inside the page."""

    uri: str
    width: int  # CSS pixels
    alt: str


@final
@dataclass(frozen=True)
class SiteRows:
    """The rows of one site in the summary."""

    name: str
    size: int
    worst_rhat: float
    least_ess: float
    rows: list[tuple[str, dict[str, float]]]


def report(
    fit: Fit,
    path: str | os.PathLike[str] | None = None,
    imputations: Imputations | None = None,
    truth: pd.DataFrame | None = None,
) -> str:
    """Describe a fit on a page that needs nothing but itself.

    Args:
        fit: A fit.
        path: Where to write the page; a file there is replaced.
        imputations: From `impute(fit)`; without them completed cells are not shown.
        truth: The same rows as the completed table with the values that were hidden, to be drawn
            beside the intervals.

    Returns:
        The page, HTML.

    Raises:
        StoreError: The page cannot be written.
        DataError: `truth` belongs to another table.
    """
    cells = None if imputations is None else cell_table(imputations, PROBABILITY, truth)
    page = environment().get_template("report.html").render(
        name=model_name(fit.pair),
        subtitle=subtitle(fit),
        warnings=fit.warnings,
        facts=facts(fit),
        columns=column_rows(fit),
        sites=site_rows(fit),
        limits={"rhat": MAX_RHAT, "ess": MIN_ESS},
        correlation=correlation_pictures(fit),
        cells=completed_pictures(imputations, cells),
        trace=picture(trace_plot(fit.sample_stats["lp"].numpy(), "log density (nats)"), "trace of the log density"),
        version=fit.info["versions"]["pyrolatent"],
    )
    if path is not None:
        write_text(path, page)
    return page
