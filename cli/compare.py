"""`tffl compare`: the figures of several runs, and what differs in their configs."""

from __future__ import annotations

from pathlib import Path

import click

from tffl_cli.options import FILE, PATH, json_option
from tffl_cli.output import print_json


@click.command()
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True, type=PATH)
@click.option(
    "--out",
    type=FILE,
    default=Path("comparison.png"),
    show_default=True,
    help="Chart to write.",
)
@json_option
def compare(runs: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Put several runs side by side, in a table and a chart."""
    from tffl.report.run_comparison import compare_runs

    comparison = compare_runs(runs)
    drawn = comparison.draw(out)
    if as_json:
        print_json({**comparison.values(), "chart": out if drawn else None})
        return
    from tffl_cli.console import print_report_tables

    tables = [comparison.figures.transposed(), comparison.differences]
    print_report_tables(tables, comparison.warnings)
    if drawn:
        click.echo(str(out))
