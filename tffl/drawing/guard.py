"""How pictures are drawn and written: a failure in drawing is a warning, and never ends a run.

Words are never formulas: names of classes and files may hold dollar signs, so matplotlib's mathtext
is off in whatever is rendered here.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tffl.core.atomic import remove, write_bytes
from tffl.core.errors import TfflError, TfflWarning, first_line
from tffl.untrusted.refusal import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

T = TypeVar("T")

DPI = 150

LARGEST_SIDE = 1 << 15
"""Pixels of a picture's longer side, at most; matplotlib refuses 2^16."""

LIMIT = 1e150
"""Sizes beyond it, and below its inverse, are drawn as it: their ratios would be infinite."""

DECADES = 1e30
"""How many times its linear part the largest value of a logarithmic axis may be."""

STEEP = 30
"""How many times the usual size a value of a linear axis may be."""

LABEL = 40
"""Characters of a name in a picture, at most."""


def attempt(name: object, make: Callable[..., T], *arguments: Any) -> T | None:
    """Returns what `make` returns, or None and a warning that names what could not be drawn.

    Raises:
      TfflError: `make` raises it: a file is damaged or cannot be written.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # letters that no font has, numbers that overflow
            return make(*arguments)
    except TfflError:
        raise
    except Exception as error:
        reason = printable(first_line(error), 200)
    warnings.warn(f"{name} is left out, as it cannot be drawn: {reason}", TfflWarning, stacklevel=2)
    return None


def write(path: Path, draw: Callable[..., Figure], *arguments: Any) -> bool:
    """Draws and writes a picture, or warns and removes the one that was there before.

    Args:
      path: Its suffix chooses the format.
      draw: Returns the figure.
      arguments: What `draw` is called with.

    Returns:
      Whether there is a picture now.

    Raises:
      TfflError: The file cannot be written.
    """
    content = attempt(path, render, path.suffix, draw, *arguments)
    if content is None:
        remove(path)
        return False
    write_bytes(path, content)
    return True


def render(suffix: str, draw: Callable[..., Figure], *arguments: Any) -> bytes:
    """Returns a picture as the bytes of a file, such as one that ends in `".png"`."""
    import matplotlib
    from matplotlib.text import Text

    # Some text, such as that of ticks, is made only when a figure is saved.
    with matplotlib.rc_context({"text.parse_math": False, "text.usetex": False}):
        figure = draw(*arguments)
        for text in figure.findobj(Text):
            text.set_parse_math(False)
        buffer = io.BytesIO()
        dpi = min(DPI, LARGEST_SIDE / max(figure.get_size_inches()))
        figure.savefig(buffer, format=suffix.lstrip(".").lower(), dpi=dpi)
    return buffer.getvalue()


def label(text: str, longest: int = LABEL) -> str:
    r"""Returns a name as pictures show it: one line, cut where it is long, seen in legends.

    >>> label("a\nb"), label("x" * 9, 4)
    ('a\\nb', 'xxx…')
    """
    cut = printable(text, longest)
    return f"\u200b{cut}" if cut.startswith("_") else cut  # matplotlib hides names such as _x


def drawable(values: Any) -> np.ndarray:
    """Returns values as float64 of sizes from 1/`LIMIT` to `LIMIT`, which every axis can show.

    NaN, infinities and 0 stay.
    """
    values = np.asarray(values, np.float64)
    sizes = np.abs(values)
    bounded = np.copysign(np.clip(sizes, 1 / LIMIT, LIMIT), values)
    return np.where(np.isfinite(values) & (sizes > 0), bounded, values)


def usual_size(values: np.ndarray) -> float:
    """Returns the size of a usual value, in the middle of the sizes; 1 if there is none.

    It is at least the largest size divided by `DECADES`: more have no room on an axis.
    """
    sizes = np.abs(drawable(values[np.isfinite(values)]))
    sizes = sizes[sizes > 0]
    return max(_middle(sizes), float(sizes.max()) / DECADES) if len(sizes) else 1.0


def is_steep(values: np.ndarray) -> bool:
    """Says whether a few values would squeeze most others together on a linear axis."""
    sizes = np.abs(drawable(values[np.isfinite(values)]))
    return bool(len(sizes) and sizes.max() > STEEP * _middle(sizes))


def _middle(sizes: np.ndarray) -> float:
    """Returns the lower median: of 1 and 1e12 it is 1, and not half of 1e12."""
    return float(np.quantile(sizes, 0.5, method="lower"))


def at_edges(values: np.ndarray) -> np.ndarray:
    """Returns values with infinite ones a little beyond the finite ones; NaN stays."""
    finite = drawable(values[np.isfinite(values)])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    gap = 0.05 * ((high - low) or abs(high) or 1.0)
    return np.clip(drawable(values), low - gap, high + gap)


def set_scale(axes: Axes, values: np.ndarray) -> None:
    """Makes the vertical axis logarithmic where the values are steep, and linear around 0."""
    if not is_steep(values):
        return
    finite = drawable(values[np.isfinite(values)])
    if finite.min() > 0:
        axes.set_yscale("log")
    else:
        axes.set_yscale("symlog", linthresh=usual_size(values))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda *_: "")
