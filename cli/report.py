"""`tffl report`: runs and benchmarks as a page, as Markdown, or as LaTeX tables."""

from __future__ import annotations

from pathlib import Path

import click

from tffl_cli.options import PATH, rounds_option


@click.command()
@click.argument("folders", metavar="RUN_OR_BENCHMARK...", nargs=-1, required=True, type=PATH)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["html", "md", "tex"]),
    default="html",
    show_default=True,
    help="A page, Markdown with pictures, or LaTeX tables.",
)
@click.option(
    "--out",
    type=PATH,
    help="File to write, or with --format md a folder; by default in the run's directory, or if "
    "there are several runs in the current one.",
)
@rounds_option
def report(
    folders: tuple[Path, ...], format_: str, out: Path | None, rounds: tuple[int, ...]
) -> None:
    """Show what happened: curves, verdicts, heat maps, matrices.

    The page is one file that needs no network. The curves of several runs are drawn together; name
    undefended and attack-free runs to compare with. Those that `tffl simulate --compare` put into
    a run's folder are found without being named.
    """
    from tffl.report.write import write

    written = write(folders, out, format=format_, rounds=rounds)
    click.echo(str(written[0]))
