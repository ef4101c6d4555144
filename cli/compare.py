"""`tffl compare`: the figures of several runs, and what differs in their configs."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument(
    "runs", metavar="RUN RUN...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("comparison.png"),
    show_default=True,
    help="Chart to write.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON, and only that.")
def compare(runs: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Put several runs side by side, in a table and a chart."""
    from tffl.core.jsonable import plain
    from tffl.report.run_comparison import compare_runs

    comparison = compare_runs(runs)
    drawn = comparison.draw(out)
    if as_json:
        values = {**comparison.values(), "chart": out if drawn else None}
        click.echo(json.dumps(plain(values), indent=2))
        return
    from tffl_cli.console import print_report_tables

    tables = [comparison.figures.transposed(), comparison.differences]
    print_report_tables(tables, comparison.warnings)
    if drawn:
        click.echo(str(out))
