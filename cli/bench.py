"""`tffl bench`: how fast the engine is."""

from __future__ import annotations

import json

import click


@click.group()
def bench() -> None:
    """Measure the speed of the engine."""


@bench.command()
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--rounds", type=click.IntRange(min=1), help="Timed rounds of each contender.")
@click.option("--quick", is_flag=True, help="A smaller workload: minutes become seconds.")
def engine(as_json: bool, rounds: int | None, quick: bool) -> None:
    """Compare the engine with a bare compiled loop, and with a Keras `fit` per client."""
    from tffl.bench import engine as measure

    chosen = {} if rounds is None else {"rounds": rounds}
    figures = measure(quick=quick, **chosen)
    if as_json:
        click.echo(json.dumps(figures, indent=2))
        return
    from tffl_cli.console import print_figures

    print_figures(figures)
