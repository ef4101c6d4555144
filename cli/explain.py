"""`tffl explain`: what clients' models look at, and who pushes together, for rounds of a run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from tffl_cli.options import FOLDER, json_option, rounds_option
from tffl_cli.output import print_json


@click.command()
@click.argument("run", type=FOLDER)
@rounds_option
@json_option
def explain(run: Path, rounds: tuple[int, ...], as_json: bool) -> None:
    """Draw what a heat-map defense or coalition saw in a round.

    For each client: where its model looks, how well the detector rebuilds that, and how far it is
    from what the clients have in common. If the defense of RUN does not use heat maps, they are
    made from the updates that --store-updates kept. Of coalition, also as part of shield: who
    pushes together and what that costs, in which rounds, and where the models of a coalition look.
    Pictures are written to RUN/figures.
    """
    from tffl.studies.explain_rounds import draw_rounds, report

    drawn = draw_rounds(run, rounds)
    if as_json:
        print_json(report(run, drawn))
        return
    from tffl_cli.console import print_coalition, print_explanation

    for found, pictures in drawn.explanations:
        print_explanation(found)
        _print_paths(pictures)
    for seen, pictures in drawn.coalitions:
        print_coalition(seen)
        _print_paths(pictures)
    _print_paths(drawn.overview)


def _print_paths(pictures: Iterable[Path]) -> None:
    for path in pictures:
        click.echo(str(path))
