"""Writes reports in each of their formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tffl.core.atomic import write_text
from tffl.report import content

FORMATS = ("html", "md", "tex")


def write(
    paths: Sequence[Path],
    out: Path | None = None,
    *,
    format: str = "html",
    rounds: Sequence[int] = (),
) -> list[Path]:
    """Writes a report about runs and benchmarks.

    Args:
      paths: The folders of the runs and benchmarks.
      out: The file to write; for `"md"` a folder. By default the report goes into the only folder,
        or into the current folder if there are several.
      format: One of `FORMATS`.
      rounds: The rounds whose heat maps are shown; by default the last one that has any.

    Returns:
      The files, the main one first.

    Raises:
      UsageError: A folder is neither a run nor a benchmark, or a round has no heat maps.
      TfflError: A file is damaged, or cannot be written.
    """
    paths = [Path(path) for path in paths]
    report = content.build_report(paths, rounds)
    folder = paths[0] if len(paths) == 1 else Path()
    if format == "md":
        from tffl.report import markdown

        return markdown.write(report, out or folder / "report")
    if format == "tex":
        from tffl.report.latex import latex_tables as render
    else:
        from tffl.report.page import html_page as render

    target = out or folder / f"report.{format}"
    write_text(target, render(report))
    return [target]
