"""`tffl localize`: which weights give the attackers away, for a run or in one go."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tffl.core.errors import require
from tffl_cli.main import Session
from tffl_cli.options import experiment_options

if TYPE_CHECKING:
    import pandas as pd


@click.command(epilog="Without RUN, the experiment of the other options is simulated first.")
@click.argument("run", required=False, type=click.Path(path_type=Path))
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
@click.option(
    "--top", type=click.IntRange(min=1), default=10, show_default=True, help="Rows to print."
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole ranking as JSON.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to simulate, if not RUN.")
@experiment_options
@click.pass_obj
def localize(
    session: Session,
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
    told = config or settings or any(value is not None for value in options.values())
    if run is not None:
        require(
            not (told or out), "give RUN, or the options of an experiment to simulate, not both"
        )
    else:
        require(bool(told), "give RUN, or the options of an experiment to simulate first")
        out = out or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-localize"
        run = _simulate(session, config, settings, options, out, as_json)

    from tffl.studies.localize import PICTURE, describe
    from tffl.studies.localize import localize as rank

    ranking = rank(run, reference, statistic)
    if as_json:
        _print_json(ranking, run, reference, statistic)
        return
    _print_table(ranking.head(top), describe(reference, statistic))
    click.echo(f"All {len(ranking)} variables: {run / 'localize.csv'}")
    click.echo(f"Heat map, variables by rounds: {run / PICTURE}")


def _simulate(
    session: Session,
    config: Path | None,
    settings: tuple[str, ...],
    options: dict[str, Any],
    out: Path,
    as_json: bool,
) -> Path:
    """Runs the experiment that the options describe, and returns its folder."""
    from tffl_cli.progress import Warnings, Watch
    from tffl_cli.simulate import check, read_experiment

    experiment = read_experiment({}, config, options, settings)
    require(
        experiment.attack.name != "none" and experiment.federation.malicious_count > 0,
        "there is nobody to localize: choose an --attack, and --malicious above 0",
    )
    check(experiment)

    from tffl import simulate

    if as_json:
        simulate(experiment, out, callbacks=[Warnings()], command=session.command)
        return out
    with Watch() as watch:
        simulate(experiment, out, callbacks=[watch.titled("")], command=session.command)
    return out


def _print_json(ranking: pd.DataFrame, run: Path, reference: str, statistic: str) -> None:
    from tffl.core.jsonable import plain
    from tffl.studies.localize import PICTURE

    report = {
        "run": str(run),
        "reference": reference,
        "statistic": statistic,
        "variables": ranking.to_dict("records"),
        "picture": str(run / PICTURE),
    }
    click.echo(json.dumps(plain(report), indent=2))


def _print_table(ranking: pd.DataFrame, measured: str) -> None:
    from tffl.studies.localize import EARLY
    from tffl_cli.console import console
    from tffl_cli.tables import PlainTable

    rates = ("AUC", f"AUC, rounds 1-{EARLY}", "malicious / benign", "malicious", "benign")
    table = PlainTable("", "variable", *rates, title=f"By {measured}")
    table.columns[0].justify, table.columns[1].justify = "right", "left"
    table.columns[1].no_wrap = True
    for row in ranking.itertuples():
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
