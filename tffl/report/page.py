"""A report as a single HTML file that contains its scripts, styles and pictures."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl import __version__
from tffl.drawing.guard import attempt
from tffl.report.document import Block, Gallery, MatrixChart, Report, Section
from tffl.report.plotly_charts import plotly_figure
from tffl.untrusted.refusal import escape_controls

if TYPE_CHECKING:
    from tffl.drawing.heat_maps import Panel

MAX_SIDE = 224
"""The longest side of a picture in pixels; larger pictures are scaled down."""

LOSSLESS_SIDE = 48
"""Pictures up to this size in pixels are stored without loss."""

VERDICTS = {
    "flagged": "flagged",
    "passed": "not flagged",
    "accepted": "accepted",
    "rejected": "left out of the average",
    "missed": "malicious, not flagged",
    "blamed": "honest, but flagged",
}
"""The choices of the verdict filter: word in the rows' keys → label."""


@dataclass(frozen=True)
class Picture:
    """A cell of a gallery.

    Attributes:
      source: The image as a data URI; empty if there is none.
      word: The text shown instead of an image.
      title: The description for tooltips and screen readers.
    """

    source: str
    word: str
    title: str


def html_page(report: Report) -> str:
    """Returns the report as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("tffl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_escape_direction_marks,
    )
    folder = files("tffl.report") / "templates"
    return environment.get_template("report.html").render(
        report=report,
        sections=[_section(number, section) for number, section in enumerate(report.sections)],
        version=__version__,
        verdicts=VERDICTS,
        style=Markup((folder / "report.css").read_text(encoding="utf-8")),
        script=Markup((folder / "report.js").read_text(encoding="utf-8")),
        plotly=Markup(get_plotlyjs()),
    )


def _escape_direction_marks(value: Any) -> Any:
    """Escapes control characters in plain text, but leaves markup as it is."""
    # `Markup` is a subclass of `str`, so `isinstance` would not tell them apart.
    return escape_controls(value, keep="\n") if type(value) is str else value


def _section(number: int, section: Section) -> dict[str, Any]:
    blocks = [_block(f"part-{number}-{index}", block) for index, block in enumerate(section.blocks)]
    return {"id": f"part-{number}", "content": section, "blocks": blocks}


def _block(name: str, block: Block) -> dict[str, Any]:
    return {
        "id": name,
        "content": block,
        "figure": block.chart and attempt(block.chart.title, plotly_figure, block.chart),
        "gallery": block.gallery and attempt(block.table.title, _gallery, block.gallery),
        "wide": isinstance(block.chart, MatrixChart) or bool(block.table.keys),
    }


def _gallery(gallery: Gallery) -> dict[str, Any]:
    from tffl.drawing.heat_maps import panels

    found, caption = panels(gallery.explanation)
    # The second line of the caption describes colors that only the PNG picture uses.
    cells = [{"content": panel, "pictures": _pictures(panel)} for panel in found]
    return {"panels": cells, "title": caption[0], "caption": caption[2:]}


def _pictures(panel: Panel) -> list[Picture]:
    names = ("map", "reconstruction", "error") if len(panel.cells) == 3 else ()
    return [
        Picture(
            "" if cell.image is None else data_uri(cell.image),
            cell.word,
            f"{panel.name}: {names[index] if names else f'picture {index + 1}'}",
        )
        for index, cell in enumerate(panel.cells)
    ]


def data_uri(image: np.ndarray) -> str:
    """Returns an image as a data URI: a small one as PNG, a large one scaled down as JPEG.

    Args:
      image: Float `[height, width, 3]` in 0 … 1.
    """
    from PIL import Image

    picture = Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8))
    small = max(picture.size) <= LOSSLESS_SIDE
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    kind, options = ("png", {"optimize": True}) if small else ("jpeg", {"quality": 82})
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
