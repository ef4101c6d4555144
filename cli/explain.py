"""`tffl explain`: pictures of what clients' models look at, for rounds of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tffl.drawing.explanation import Explanation


@click.command()
@click.argument("run", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--round",
    "rounds",
    multiple=True,
    type=click.IntRange(min=1),
    help="Which round; the last one with heat maps if not given. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the tables as JSON, and only that.")
def explain(run: Path, rounds: tuple[int, ...], as_json: bool) -> None:
    """Draw what a heat-map defense saw in a round.

    For each client: where its model looks, how well the detector rebuilds that, and how far it is
    from what the clients have in common. Where the defense of RUN does not look at heat maps, they
    are made of the updates that `--store-updates` kept. Pictures are written into RUN/figures.
    """
    from tffl.core.jsonable import plain
    from tffl.drawing import heat_maps as pictures
    from tffl.record.run_directory import FIGURES
    from tffl.studies import explain_rounds as study

    drawn = [(seen, pictures.write(seen, run / FIGURES)) for seen in study.explain(run, rounds)]
    if as_json:
        reports = [_report(seen, paths) for seen, paths in drawn]
        click.echo(json.dumps(plain({"run": str(run), "looks": reports}), indent=2))
        return

    from tffl_cli.console import print_explanation

    for seen, paths in drawn:
        print_explanation(seen)
        for path in paths:
            click.echo(str(path))


def _report(found: Explanation, paths: list[Path]) -> dict[str, Any]:
    return {
        "round": found.round,
        "detector": found.part or None,
        "score": found.score_name,
        "threshold": found.threshold,
        "clients": found.rows(),
        "pictures": [str(path) for path in paths],
    }
