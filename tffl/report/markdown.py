"""A report as Markdown with pictures, for pull requests and notes."""

from __future__ import annotations

from pathlib import Path

from tffl.core.atomic import write_text
from tffl.report.document import Block, Report, Table
from tffl.report.png import write_picture
from tffl.studies.benchmark import slug
from tffl.studies.benchmark_table import escape

LONG_TABLES = ("Config", "Environment")
"""Long tables that Markdown includes, because no chart shows their content."""


def write(report: Report, folder: Path) -> list[Path]:
    """Writes `report.md` and its pictures.

    Args:
      report: The report.
      folder: The folder that they are written to.

    Returns:
      The paths of the text and of the pictures, in this order.

    Raises:
      TfflError: A file cannot be written.
    """
    lines = [f"# {escape(report.title)}", *map(escape, report.about)]
    lines += [f"> **Note:** {escape(line)}" for line in report.warnings]
    pictures: list[Path] = []
    for section in report.sections:
        lines.append(f"{'#' * section.level} {escape(section.title)}")
        lines += [escape(section.text)] if section.text else []
        for block in section.blocks:
            lines += _block(block, folder, pictures)
    text = folder / "report.md"
    write_text(text, "\n\n".join(lines) + "\n")
    return [text, *pictures]


def markdown_table(table: Table) -> str:
    """Returns a table as Markdown; columns of numbers are aligned right."""
    rule = ["---" if column in table.words else "--:" for column in range(len(table.header))]
    lines = [list(map(escape, row)) for row in [table.header, *table.rows]]
    lines.insert(1, rule)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _block(block: Block, folder: Path, pictures: list[Path]) -> list[str]:
    lines = []
    if block.chart or block.gallery:
        number = len(pictures) + 1
        name = f"{number:02d}-{slug(block.table.title).lower()}.png"
        if write_picture(block, folder / name):
            pictures.append(folder / name)
            lines.append(f"![{escape(block.table.title)}]({name})")
    if block.table.short or block.table.title in LONG_TABLES:
        lines += [f"**{escape(block.table.title)}**", markdown_table(block.table)]
    return lines + ([escape(block.note)] if block.note else [])
