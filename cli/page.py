"""`tffl page`: writes a page of `results/` from runs, or from the tables that are recorded."""

from __future__ import annotations

from pathlib import Path

import click

from tffl.core.errors import require
from tffl_cli.options import FOLDER


@click.command()
@click.argument("name", required=False)
@click.option(
    "--runs", type=FOLDER, help="Folder of the runs to collect from; by default runs/NAME."
)
@click.option(
    "--out",
    type=FOLDER,
    help="Folder to write the page and its tables to; by default results/NAME.",
)
@click.option("--no-figures", is_flag=True, help="Draw no figures.")
def page(name: str | None, runs: Path | None, out: Path | None, no_figures: bool) -> None:
    """Write the page NAME of results/ again; without NAME, list the pages.

    What runs/NAME has measured replaces the tables in results/NAME. Without runs, the recorded
    tables are read. results/NAME/run.sh makes the runs.
    """
    from tffl.studies.pages import PAGES, find

    if name is None:
        for known, about in PAGES.items():
            click.echo(f"{known:14}{about}")
        return
    chosen = find(name)
    given = runs is None or (runs.is_dir() and any(runs.iterdir()))
    require(given, f"--runs: there are no runs in {runs}")
    from tffl.studies.pages.builder import make

    folder, source = out or chosen.folder, runs or chosen.runs
    collected = make(chosen, folder, source, draw=not no_figures)
    click.echo(f"{folder / 'README.md'}: from {source if collected else 'the recorded tables'}")
