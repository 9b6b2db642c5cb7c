"""Galleries of images: traversals, reconstructions under their originals, mixtures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from pyrolatent.errors import ArgumentError, DataError
from pyrolatent.plots.figures import BAND, DPI, LETTERS_PER_INCH, PAGE, new_figure, shortened

Images = Tensor | NDArray[Any]

LONGEST = 14  # letters of the name of a row
SMALLEST, LARGEST = 0.4, 1.0  # inches of an image
GAP = 0.06  # between images, in their width
ROUNDING = 1e-6  # that values may lie beyond 0 and 1


def image_grid(
    images: Images | Sequence[Images],
    row_names: Sequence[object] | None = None,
    column_names: Sequence[object] | None = None,
) -> Figure:
    """Draw images in rows and columns, pixel by pixel, without interpolation.

    A row may be a latent that is traversed, or the originals above their reconstructions.

    Args:
        images: `(R, C, channels, H, W)` or R rows `(C, channels, H, W)`, between 0 and 1, of one channel
            (grey) or three (red, green, blue).  Pixels that are NaN get the colour of the ground.
        row_names: R names.
        column_names: C names.

    Raises:
        ArgumentError: There are more or fewer names than rows or columns.
        DataError: The images have another shape, or values below 0 or above 1.
    """
    pixels = as_pixels(images)
    rows, columns, height, width, _ = pixels.shape
    gap = max(1, round(GAP * width))
    canvas = side_by_side(pixels, gap)
    inches = max(width / DPI, min(LARGEST, max(SMALLEST, PAGE / columns)))
    per_pixel = inches / width
    beside, above = 0.1 + 0.9 * (row_names is not None), 0.1 + 0.2 * (column_names is not None)
    figure, axes = new_figure(canvas.shape[1] * per_pixel + beside, canvas.shape[0] * per_pixel + above)
    figure.set_layout_engine("compressed")  # leaves room for names beside what has a shape of its own
    axes.imshow(canvas, interpolation="nearest")
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    middles = np.arange(columns) * (width + gap) + (width - 1) / 2
    name_places(axes.xaxis, middles, column_names, "column", int(LETTERS_PER_INCH * inches))
    name_places(axes.yaxis, np.arange(rows) * (height + gap) + (height - 1) / 2, row_names, "row", LONGEST)
    return figure


def as_pixels(images: Images | Sequence[Images]) -> NDArray[np.float64]:
    """Return images as colours `(R, C, H, W, 3)`.

    Raises:
        DataError: They have another shape, or values below 0 or above 1.
    """
    rows = [
        row.detach().cpu().double().numpy() if isinstance(row, Tensor) else np.asarray(row, dtype=np.float64)
        for row in images
    ]
    shapes = sorted({row.shape for row in rows})
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] not in (1, 3) or 0 in shapes[0]:
        raise DataError(
            "images come as rows (C, channels, H, W) of one shape, with 1 or 3 channels",
            why=f"got {', '.join(map(str, shapes)) or 'no rows'}",
        )
    pixels = np.moveaxis(np.stack(rows), 2, -1)
    low, high = np.nanmin(pixels, initial=0), np.nanmax(pixels, initial=1)
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise DataError(
            "images have values between 0 and 1",
            why=f"got {low:g} to {high:g}",
            remedy="divide bytes by 255, clamp the rest",
        )
    coloured = np.broadcast_to(pixels.clip(0, 1), (*pixels.shape[:-1], 3))
    return np.where(np.isnan(coloured), to_rgb(BAND), coloured)


def side_by_side(pixels: NDArray[np.float64], gap: int) -> NDArray[np.float64]:
    """Return images `(R, C, H, W, 3)` as one, with white between them."""
    padded = np.pad(pixels, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=1.0)
    rows, columns, height, width, _ = padded.shape
    return padded.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3)[:-gap, :-gap]


def name_places(
    axis: Axis, places: NDArray[np.float64], names: Sequence[object] | None, what: str, longest: int
) -> None:
    """Name the rows or columns of a gallery at their middles.

    Raises:
        ArgumentError: There are more or fewer names.
    """
    if names is not None and len(names) != len(places):
        raise ArgumentError(
            f"{what}_names has a name for each {what}", why=f"got {len(names)} for {len(places)}"
        )
    texts = [shortened(name, longest) for name in ([] if names is None else names)]
    axis.set_ticks(places[: len(texts)], texts, fontsize=8, parse_math=False)
