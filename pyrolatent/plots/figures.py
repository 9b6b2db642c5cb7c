"""What all pictures share: the figure, its colours, the text on it, and the way into a page.

Figures are made for a page: no titles, sized in inches so that their text is as large as that of
the page around them.  They are plain `Figure` objects, unknown to pyplot.  Names that come from data
are never read as formulas.
"""

import base64
import io
import warnings
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Literal

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from pyrolatent.column import holds_numbers
from pyrolatent.errors import ArgumentError

INK, SOFT, BAND, BLUE, ORANGE = "#1c2430", "#6b7685", "#e8ebf0", "#2f6690", "#d1661a"
OBSERVED = "#c9d0d9"
PALETTE = (BLUE, ORANGE, "#3f8f5b", "#a83254", "#7a5ba6", "#b08d1e", "#4fa3c7", "#8a5a3c", "#d67fa6", INK)
DPI = 150
PAGE = 8.0  # inches across
LONGEST_LABEL = 24
STEEP = 20.0  # largest over smallest value, from which on a log scale is used
LETTERS_PER_INCH, LETTERS_OF_HANDLE, LINE = 14, 7, 0.19  # of a legend, whose lines are so many inches high
LARGE = 10_000.0  # number from which on ticks are shortened


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of so many inches, and its axes without a frame."""
    figure, (axes,) = new_panels(1, 1, width, height)
    return figure, axes


def new_panels(
    count: int, across: int, width: float, height: float, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels of so many inches each, at most `across` in a row; `shared` are axes."""
    down = -(-count // across)
    across = -(-count // down)  # rows of about the same length
    figure = Figure((across * width, down * height), dpi=DPI, layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False, **shared).flat)
    for axes in panels:
        axes.spines[:].set_visible(False)
        axes.tick_params(colors=INK, labelsize=8)
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def shortened(name: object, longest: int = LONGEST_LABEL) -> str:
    """Return a label of at most so many characters, the middle of a longer one left out."""
    text = " ".join(str(name).split())
    if len(text) <= longest:
        return text
    head = (longest - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def label_axes(axes: Axes, x: str = "", y: str = "") -> None:
    """Say what the axes are."""
    axes.set_xlabel(x, color=SOFT, fontsize=9, parse_math=False)
    axes.set_ylabel(y, color=SOFT, fontsize=9, parse_math=False)


def label_panel(axes: Axes, text: object, longest: int = LONGEST_LABEL) -> None:
    """Say above a panel what it shows."""
    axes.set_title(shortened(text, longest), color=SOFT, fontsize=9, parse_math=False)


def add_note(figure: Figure, note: str) -> None:
    """Say below all panels what they leave out, if anything."""
    if note:
        figure.supxlabel(note, color=SOFT, fontsize=8)


def few_ticks(axis: Axis, most: int) -> None:
    """Put a few round numbers on an axis of numbers."""
    axis.set_major_locator(MaxNLocator(most))
    shorten_large(axis)


def shorten_large(axis: Axis) -> None:
    """Write large numbers on an axis as 20k for 20000."""
    if max(abs(end) for end in axis.get_view_interval()) >= LARGE:
        axis.set_major_formatter(EngFormatter(sep=""))


def add_legend(
    figure: Figure, handles: Iterable[Artist], names: Sequence[object], beside: bool = False
) -> None:
    """Say above the panels, or beside them, what the lines and areas are."""
    texts = [shortened(name) for name in names]
    each = max(map(len, texts)) + LETTERS_OF_HANDLE
    width, height = figure.get_size_inches()
    columns = 1 if beside else max(1, int(LETTERS_PER_INCH * width) // each)
    place: Literal["outside right upper", "outside upper left"]
    place = "outside right upper" if beside else "outside upper left"
    if not beside:
        figure.set_size_inches(width, height + LINE * -(-len(texts) // columns))
    legend = figure.legend(
        list(handles), texts, loc=place, ncols=columns, frameon=False, fontsize=8, labelcolor=INK
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def add_bar(figure: Figure, image: Any, panels: Sequence[Axes], label: str) -> None:
    """Draw the colour bar of an image or of points beside the panels it belongs to."""
    bar = figure.colorbar(image, ax=list(panels), shrink=0.7, aspect=30, pad=0.02)
    bar.set_label(label, color=SOFT, fontsize=9, parse_math=False)
    bar.ax.tick_params(labelsize=8, length=0)
    shorten_large(bar.ax.yaxis)
    bar.outline.set_visible(False)


def distinct_colours(names: Iterable[object]) -> list[str]:
    """Return a colour for each of a few names.

    Raises:
        ArgumentError: There are none, or more than can be told apart.
    """
    count = len(list(names))
    if not count:
        raise ArgumentError("there is nothing to draw", remedy="pass one or more by name")
    if count > len(PALETTE):
        raise ArgumentError(
            f"colours tell at most {len(PALETTE)} apart",
            why=f"got {count}",
            remedy="leave some out, or draw them in pictures of their own",
        )
    return list(PALETTE[:count])


def holds_labels(column: pd.Series) -> bool:
    """Whether the cells are drawn as labels: truth values, categories and all else that is no number."""
    return pd.api.types.is_bool_dtype(column) or not holds_numbers(column)


def in_order(labels: pd.Index, column: pd.Series) -> list[Hashable]:
    """Return labels in the order of a column's categories where it has them, else in that of the alphabet."""
    known = list(column.cat.categories) if isinstance(column.dtype, pd.CategoricalDtype) else []
    return [label for label in known if label in labels] + sorted(set(labels) - set(known), key=str)


def png_uri(figure: Figure) -> str:
    """Return a figure as a PNG picture inside a data URI."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Names in a script that the font lacks show as boxes; the page spells them out beside the picture.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(buffer, format="png", dpi=DPI)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
