"""`tffl replay`: attacks and defenses on the stored updates of an honest run."""

from __future__ import annotations

from pathlib import Path

import click

from tffl_cli.options import COUNT, FILE, FOLDER, json_option, part_settings_option, several_option
from tffl_cli.output import print_json


@click.command()
@click.argument("run", type=FOLDER)
@several_option("attack")
@several_option("defense")
@click.option(
    "--grid",
    type=FILE,
    help="TOML file with lists of attacks and defenses, as for `tffl benchmark`.",
)
@click.option(
    "--malicious",
    metavar="COUNT|FRACTION",
    default="0.2",
    show_default=True,
    help="Malicious clients: 2, 0.2 or 20%.",
)
@click.option(
    "--draws",
    type=COUNT,
    default=1,
    show_default=True,
    help="How many times to draw the malicious clients.",
)
@part_settings_option("attack", "defense")
@click.option("--out", type=FILE, help="Table to write; by default RUN/replay.csv.")
@json_option
def replay(
    run: Path,
    attacks: tuple[str, ...],
    defenses: tuple[str, ...],
    grid: Path | None,
    malicious: str,
    draws: int,
    settings: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> None:
    """Try attacks and defenses on the honest updates that RUN has stored.

    Only malicious clients whose data is poisoned are trained again. Every round is judged on its
    own, starting from the honest run's weights, so that damage does not add up over rounds. Make
    a run to replay with `tffl simulate --store-updates 1,5,10 --attack none`.
    """
    from tffl.studies.replay import replay as replay_run
    from tffl.studies.replay import summarize
    from tffl.studies.replay_grid import read_grid
    from tffl_cli.console import print_replay
    from tffl_cli.progress import Watch

    chosen = read_grid(attacks, defenses, grid, settings, malicious, draws)
    target = out or run / "replay.csv"
    with Watch() as watch:
        rows = replay_run(run, chosen, watch, target)
    means = summarize(rows)
    if as_json:
        print_json(means.to_dict("records"))
        return
    print_replay(means.to_dict("records"), int(rows["round"].nunique()))
    click.echo(f"\nEvery round: {target}")
