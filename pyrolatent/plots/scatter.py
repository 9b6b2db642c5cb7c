"""Pictures of latents as points in the plane."""

from collections.abc import Hashable, Mapping
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from pyrolatent.column import check_observed, numbers
from pyrolatent.errors import ArgumentError, DataError
from pyrolatent.plots.figures import (
    BLUE,
    OBSERVED,
    add_bar,
    add_legend,
    distinct_colours,
    few_ticks,
    holds_labels,
    in_order,
    label_axes,
    label_panel,
    new_panels,
    shortened,
)

PERPLEXITY = 30.0  # neighbours of t-SNE; fewer of few rows
LEAST_ROWS = 5
LARGEST, CROWD = 14.0, 500  # area of a point; rows from which on points are smaller

Matrix = NDArray[np.float64]


class Paint(NamedTuple):
    """Colours of points `(N, 4)` or `(1, 4)`, and what explains them: a scale of numbers, or labels."""

    colours: Matrix
    scale: ScalarMappable | None = None
    labels: Mapping[Hashable, str] | None = None
    name: str = ""


def latent_scatter(
    latents: pd.DataFrame | Mapping[str, pd.DataFrame],
    colour: pd.Series | None = None,
    method: Literal["pca", "tsne"] = "pca",
) -> Figure:
    """Draw rows as points in two dimensions of their latents, a panel for each table of latents.

    Args:
        latents: `(N, L)` as `encode` returns them, or name -> such tables of the same rows.
        colour: `(N,)`, a value for each row, with the index of the latents: numbers get a colour bar, labels,
            truth values and categories a legend.  Rows without a value are grey.
        method: "pca" projects on the two leading principal components; "tsne" is scikit-learn's t-SNE,
            which keeps neighbours together, and whose axes and far distances mean nothing.

    Raises:
        ArgumentError: The method is unknown or not installed, or there are more than ten labels.
        DataError: There are fewer than two latents or five rows, cells are missing, or the colours have
            another index.
    """
    if method not in ("pca", "tsne"):
        raise ArgumentError("unknown method", why=f"got {method!r}", remedy="choose 'pca' or 'tsne'")
    tables = {"": latents} if isinstance(latents, pd.DataFrame) else latents
    if not tables:
        raise ArgumentError("there are no latents to draw", remedy="pass what encode() returns")
    matrices = [complete(table, colour) for table in tables.values()]
    paint = Paint(to_rgba_array([BLUE])) if colour is None else painted(colour)
    width, height = (3.0, 2.7) if len(tables) > 1 else (5.0, 3.6)
    figure, panels = new_panels(len(tables), 3, width, height)
    for axes, name, matrix in zip(panels, tables, matrices, strict=True):
        draw_points(axes, matrix, paint.colours, method)
        label_panel(axes, name)
    if paint.scale is not None:
        add_bar(figure, paint.scale, panels, paint.name)
    if paint.labels:
        dots = [Line2D([], [], marker="o", ls="", ms=5, color=shade) for shade in paint.labels.values()]
        add_legend(figure, dots, list(paint.labels))
    return figure


def complete(table: pd.DataFrame, colour: pd.Series | None) -> Matrix:
    """Return latents `(N, L)` as a matrix.

    Raises:
        DataError: They are too few, cells are missing, or the colours have other rows.
    """
    values = np.stack([numbers(table[name]) for name in table], 1) if table.columns.size else np.empty((0, 0))
    rows, latents = values.shape
    if rows < LEAST_ROWS or latents < 2:
        why = f"got {rows} rows of {latents} latents"
        raise DataError(f"a picture needs {LEAST_ROWS} rows and two latents", why=why)
    if np.isnan(values).any():
        raise DataError("latents are missing", why=f"{np.isnan(values).sum()} of {values.size} cells")
    if colour is not None and not colour.index.equals(table.index):
        raise DataError(
            "latents and colours have different rows",
            why=f"{rows} and {len(colour)} of them, or another index",
            remedy="give the colours the index of the latents",
        )
    return values


def painted(colour: pd.Series) -> Paint:
    """Return the colours of rows by their values.

    Raises:
        ArgumentError: There are too many labels.
        DataError: Every value is missing, or infinite.
    """
    check_observed(colour)
    name = shortened("" if colour.name is None else colour.name)
    if not holds_labels(colour):
        shades = colormaps["viridis"].with_extremes(bad=OBSERVED)
        values = np.ma.masked_invalid(numbers(colour))
        scale = ScalarMappable(Normalize(values.min(), values.max()), shades)
        return Paint(scale.to_rgba(values), scale, name=name)
    labels = in_order(pd.Index(colour.dropna().unique()), colour)
    known = dict(zip(labels, distinct_colours(labels), strict=True))
    return Paint(to_rgba_array([known.get(label, OBSERVED) for label in colour]), labels=known)


def draw_points(axes: Axes, matrix: Matrix, colours: Matrix, method: str) -> None:
    """Draw latents `(N, L)` as points in two dimensions."""
    if method == "pca":
        points, shares = principal(matrix)
        label_axes(axes, *(f"component {k + 1} ({share:.0%})" for k, share in enumerate(shares)))
        for axis in (axes.xaxis, axes.yaxis):
            few_ticks(axis, 5)
    else:
        points = neighbours(matrix)
        label_axes(axes, "t-SNE 1", "t-SNE 2")
        axes.set(xticks=[], yticks=[])
    area = LARGEST * min(1.0, CROWD / len(points)) ** 0.5
    axes.scatter(points[:, 0], points[:, 1], s=area, c=colours, alpha=0.7, lw=0)
    axes.set_aspect("equal", adjustable="datalim")


def principal(matrix: Matrix) -> tuple[Matrix, Matrix]:
    """Return the two leading principal components `(N, 2)`, and their shares of the variance `(2,)`."""
    left, singular, _ = np.linalg.svd(matrix - matrix.mean(0), full_matrices=False)
    variances = singular**2
    return left[:, :2] * singular[:2], variances[:2] / max(variances.sum(), np.finfo(float).tiny)


def neighbours(matrix: Matrix) -> Matrix:
    """Return the map `(N, 2)` of van der Maaten and Hinton (2008), the same each time.

    Raises:
        ArgumentError: scikit-learn is not installed.
    """
    try:
        from sklearn.manifold import TSNE  # slow to import, and nothing else needs it
    except ImportError as error:
        raise ArgumentError(
            "t-SNE needs scikit-learn",
            why=str(error),
            remedy="pip install scikit-learn, or take method='pca'",
        ) from error
    if not np.ptp(matrix, axis=0).any():  # of a posterior that has collapsed: scikit-learn divides by zero
        return np.zeros((len(matrix), 2))
    perplexity = min(PERPLEXITY, (len(matrix) - 1) / 3)
    return np.asarray(TSNE(perplexity=perplexity, random_state=0).fit_transform(matrix), dtype=np.float64)
