"""`tffl recover`: the global model of a run, rebuilt without convicted clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tffl.core.errors import require
from tffl_cli.options import COUNT, FOLDER, PATH, json_option
from tffl_cli.output import print_json


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--clients", metavar="IDS", help="Clients to leave out, such as 3,7.")
@click.option(
    "--convicted",
    is_flag=True,
    help="Leave out those that the run's defense flagged in most of their rounds.",
)
@click.option("--retrain", is_flag=True, help="Train without them from scratch too, to compare.")
@click.option(
    "--warm-up", type=COUNT, default=20, show_default=True, help="First rounds that are exact."
)
@click.option(
    "--correct-every",
    type=COUNT,
    default=10,
    show_default=True,
    help="Every how many rounds all clients are asked.",
)
@click.option(
    "--tuning", type=COUNT, default=5, show_default=True, help="Last rounds that are exact."
)
@click.option("--out", type=PATH, help="Folder to write; by default RUN/recovered.")
@json_option
def recover(
    run: Path,
    clients: str | None,
    convicted: bool,
    retrain: bool,
    warm_up: int,
    correct_every: int,
    tuning: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Rebuild RUN's model without convicted clients (FedRecover).

    The server repeats the run, and estimates most updates from those that RUN has stored; in some
    rounds the remaining clients train. Make such a run with `tffl simulate --store-updates all`.
    """
    from tffl.record.run_directory import RunDirectory
    from tffl.studies import recover as study
    from tffl_cli.progress import Watch

    require(bool(clients) != convicted, "name the clients to leave out: --clients or --convicted")
    directory = RunDirectory.open(run)
    excluded = study.parse_clients(clients) if clients else study.convicted(directory)
    plan = study.Plan(warm_up=warm_up, correct_every=correct_every, tuning=tuning)
    with Watch() as watch:
        found = study.recover(directory, excluded, plan, retrain, watch, out)
    if as_json:
        print_json(found)
        return
    _print(found)


def _print(found: dict[str, Any]) -> None:
    from tffl_cli.console import PlainTable, console, rate

    table = PlainTable("", "accuracy", "attack success", right=(1, 2))
    for name, rates in found["models"].items():
        table.add_row(name, rate(rates["accuracy"]), rate(rates["attack_success"]))
    console().print(table)
    left_out = ", ".join(map(str, found["excluded"]))
    click.echo(
        f"\nWithout clients {left_out}. The others were saved {found['saved']:.0%} of their "
        f"trainings; {found['abnormal']} estimates were abnormal."
    )
    if found["missed"]:
        click.echo(f"Malicious, but not left out: {', '.join(map(str, found['missed']))}.")
    click.echo(f"The recovered model is in {found['folder']}")
