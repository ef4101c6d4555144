"""Where reports go, in each of their formats."""

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
    """Writes a report about runs and benchmarks, and returns the files, the main one first.

    Args:
      paths: The folders.
      out: Where to: a file, or for `"md"` a folder. If absent, in the folder that the report is
        about, or here if it is about several.
      format: One of `FORMATS`.
      rounds: Whose heat maps are shown; if none are named, the last round's that has any.

    Raises:
      UsageError: A folder is neither run nor benchmark, or a round has no heat maps.
      TfflError: A file is damaged, or cannot be written.
    """
    paths = [Path(path) for path in paths]
    report = content.report(paths, rounds)
    place = paths[0] if len(paths) == 1 else Path()
    if format == "md":
        from tffl.report import markdown

        return markdown.write(report, out or place / "report")
    if format == "tex":
        from tffl.report.latex import latex as text
    else:
        from tffl.report.page import page as text

    target = out or place / f"report.{format}"
    write_text(target, text(report))
    return [target]
