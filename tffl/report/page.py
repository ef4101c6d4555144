"""A report as one web page, which needs no network: scripts, styles and pictures are in it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl import __version__
from tffl.drawing.guard import attempt
from tffl.report.document import Block, Gallery, Grid, Report, Section
from tffl.report.plotly_charts import figure
from tffl.untrusted.refusal import escape_controls

if TYPE_CHECKING:
    from tffl.drawing.heat_maps import Panel

LARGEST = 224
"""Pixels across of a picture; larger ones are reduced."""

SMALL = 48
"""Pictures of at most so many pixels across are kept exactly."""

VERDICTS = {
    "flagged": "flagged",
    "passed": "not flagged",
    "accepted": "accepted",
    "rejected": "left out of the average",
    "missed": "malicious, not flagged",
    "blamed": "honest, but flagged",
}
"""What the verdict filter offers: word in the rows' keys → what it says."""


@dataclass(frozen=True)
class Picture:
    """A cell of a gallery: the address of an image that holds its data, or a word."""

    source: str
    word: str
    title: str


def page(report: Report) -> str:
    """Returns the whole page as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("tffl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
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


def _visible(value: Any) -> Any:
    """Lets nobody's words turn the direction of a page; what is HTML already stays."""
    return escape_controls(value, keep="\n") if type(value) is str else value


def _section(number: int, section: Section) -> dict[str, Any]:
    blocks = [_block(f"part-{number}-{index}", block) for index, block in enumerate(section.blocks)]
    return {"id": f"part-{number}", "about": section, "blocks": blocks}


def _block(name: str, block: Block) -> dict[str, Any]:
    return {
        "id": name,
        "about": block,
        "figure": block.chart and attempt(block.chart.title, figure, block.chart),
        "gallery": block.gallery and attempt(block.table.title, _gallery, block.gallery),
        "wide": isinstance(block.chart, Grid) or bool(block.table.keys),
    }


def _gallery(gallery: Gallery) -> dict[str, Any]:
    from tffl.drawing.heat_maps import panels

    found, caption = panels(gallery.look)
    # The caption of the drawn picture speaks of colors that are not those of the page.
    shown = [{"about": panel, "pictures": _pictures(panel)} for panel in found]
    return {"panels": shown, "title": caption[0], "caption": caption[2:]}


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
    """Returns an image, float `[height, width, 3]` in 0 … 1, as an address that holds it.

    Small images are PNG, which keeps every pixel; larger ones are reduced, and JPEG.
    """
    from PIL import Image

    picture = Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8))
    small = max(picture.size) <= SMALL
    picture.thumbnail((LARGEST, LARGEST))
    kind, options = ("png", {"optimize": True}) if small else ("jpeg", {"quality": 82})
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
