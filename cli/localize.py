"""`tffl localize`: which weights give the attackers away, for a run or in one go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tffl.core.errors import require
from tffl_cli.main import Invocation
from tffl_cli.options import COUNT, PATH, experiment_options, json_option
from tffl_cli.output import print_json
from tffl_cli.simulate import Output, watching

if TYPE_CHECKING:
    import pandas as pd

    from tffl.config import Config


@click.command(epilog="Without RUN, the experiment of the other options is simulated first.")
@click.argument("run", required=False, type=PATH)
@click.option(
    "--reference",
    type=click.Choice(["clients", "joint"]),
    default="clients",
    show_default=True,
    help="Deviation from the clients' mean, or from the joint model they started from.",
)
@click.option(
    "--statistic",
    type=click.Choice(["max", "rms"]),
    default="max",
    show_default=True,
    help="Largest deviation within a variable, or root mean square.",
)
@click.option("--top", type=COUNT, default=10, show_default=True, help="Rows to print.")
@json_option
@click.option(
    "--out", type=PATH, help="Run directory to write, without RUN; by default runs/<time>-localize."
)
@experiment_options()
@click.pass_obj
def localize(
    invocation: Invocation,
    run: Path | None,
    reference: str,
    statistic: str,
    top: int,
    as_json: bool,
    out: Path | None,
    config: Path | None,
    settings: tuple[str, ...],
    **options: Any,
) -> None:
    """Rank the weights that give attackers away.

    For each variable, each client's deviation is compared between malicious and benign clients, in
    every round. The ranking, the rounds and a heat map are written into the run directory.
    """
    from tffl.config.command_line import describes_experiment, read_experiment
    from tffl.studies.localize import localize as rank
    from tffl.studies.localize import report

    described = describes_experiment(config, options, settings)
    if run is not None:
        both = described or out is not None
        require(not both, "give RUN, or the options of an experiment to simulate, not both")
    else:
        require(described, "give RUN, or the options of an experiment to simulate first")
        experiment = read_experiment(config, options, settings)
        run = _simulate(experiment, out, invocation.command, Output(False, as_json))
    ranking = rank(run, reference, statistic)
    if as_json:
        print_json(report(ranking, run, reference, statistic))
    else:
        _print(ranking, run, reference, statistic, top)


def _simulate(experiment: Config, out: Path | None, command: list[str], output: Output) -> Path:
    """Runs an experiment, and returns its directory."""
    from tffl.simulation.preparation import check, new_directory
    from tffl.studies.localize import check_attacked

    check_attacked(experiment)
    check(experiment)

    from tffl import simulate

    directory = out or new_directory("localize")
    with watching(output) as watch:
        simulate(experiment, directory, callbacks=watch(""), command=command)
    return directory


def _print(ranking: pd.DataFrame, run: Path, reference: str, statistic: str, top: int) -> None:
    from tffl.studies.localize import EARLY, PICTURE, describe
    from tffl_cli.console import console
    from tffl_cli.tables import PlainTable

    rates = ("AUC", f"AUC, rounds 1-{EARLY}", "malicious / benign", "malicious", "benign")
    table = PlainTable(
        *("", "variable", *rates),
        right=(0, 2, 3, 4, 5, 6),
        unbroken=(1,),
        title=f"By {describe(reference, statistic)}",
    )
    for row in ranking.head(top).itertuples():
        table.add_row(
            str(row.rank),
            str(row.variable),
            f"{row.auc:.3f}",
            f"{row.auc_early:.3f}",
            f"{row.separation:.2f}",
            f"{row.malicious:.3g}",
            f"{row.benign:.3g}",
        )
    console().print(table)
    click.echo(f"All {len(ranking)} variables: {run / 'localize.csv'}")
    click.echo(f"Heat map, variables by rounds: {run / PICTURE}")
