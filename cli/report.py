"""`tffl report`: runs and benchmarks as a page, as Markdown, or as LaTeX tables."""

from __future__ import annotations

from pathlib import Path

import click

FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("folders", metavar="RUN_OR_BENCHMARK...", nargs=-1, required=True, type=FOLDER)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["html", "md", "tex"]),
    default="html",
    show_default=True,
    help="One page; Markdown with pictures; or LaTeX tables.",
)
@click.option(
    "--out",
    type=FOLDER,
    help="File to write, or folder for md; else in the run, or here if there are several.",
)
@click.option(
    "--round",
    "rounds",
    multiple=True,
    type=click.IntRange(min=1),
    help="Round whose heat maps are shown; else the last that has any. Repeatable.",
)
def report(
    folders: tuple[Path, ...], format_: str, out: Path | None, rounds: tuple[int, ...]
) -> None:
    """Show what happened: curves, verdicts, heat maps, matrices.

    The page is one file that needs no network. Of several runs, the curves are drawn together;
    name undefended and attack-free runs to compare with. Those that --compare has put into a run's
    folder are found.
    """
    from tffl.report.write import write

    written = write(folders, out, format=format_, rounds=rounds)
    click.echo(str(written[0]))
