"""`tffl replay`: attacks and defenses on the stored updates of an honest run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tffl.core.errors import require
from tffl_cli.options import registered

if TYPE_CHECKING:
    from tffl.config import ComponentConfig


@click.command()
@click.argument("run", type=click.Path(file_okay=False, path_type=Path))
@click.option("--attack", "attacks", multiple=True, type=registered("attacks"), help="Repeatable.")
@click.option(
    "--defense", "defenses", multiple=True, type=registered("defenses"), help="Repeatable."
)
@click.option(
    "--grid",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML with lists of attacks and defenses, as for `tffl benchmark`.",
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
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How often to draw the malicious clients anew.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="attack.KEY=VALUE|defense.KEY=VALUE",
    help="An option of every --attack or --defense that has it. Repeatable.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Else RUN/replay.csv.")
@click.option("--json", "as_json", is_flag=True, help="Print the means as JSON, and only that.")
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

    Only malicious clients with poisoned data are trained again. It measures single rounds, each
    from the honest run's weights, not trajectories. Make a run to replay with
    `tffl simulate --store-updates 1,5,10 --attack none`.
    """
    from tffl.core.atomic import write_text
    from tffl.record.tables import to_csv
    from tffl.studies.replay import ReplayGrid, summarize
    from tffl.studies.replay import replay as measure
    from tffl_cli.console import print_replay
    from tffl_cli.progress import Watch

    chosen = _chosen("attack", attacks, grid, settings)
    judges = _chosen("defense", defenses, grid, settings)
    require(
        bool(chosen and judges),
        "name at least one --attack and one --defense, or a --grid that lists them",
    )
    with Watch() as watch:
        rows = measure(run, ReplayGrid(chosen, judges, malicious, draws), watch)
    records: list[Any] = rows.to_dict("records")
    target = out or run / "replay.csv"
    write_text(target, to_csv(list(rows.columns), records))
    means = summarize(rows)
    if as_json:
        click.echo(json.dumps(json.loads(means.to_json(orient="records")), indent=2))
        return
    lines: list[Any] = means.to_dict("records")
    print_replay(lines, int(rows["round"].nunique()))
    click.echo(f"\nEvery round: {target}")


def _chosen(
    section: str, names: Sequence[str], grid: Path | None, settings: Sequence[str]
) -> dict[str, ComponentConfig]:
    """Returns label → attacks or defenses from the command line and the grid file."""
    from tffl.attacks import attacks
    from tffl.config import build, build_from_file, override, parse_setting
    from tffl.defenses import defenses
    from tffl.studies.benchmark import ReplayFile, labeled

    registry = {"attack": attacks, "defense": defenses}[section]
    file = build_from_file(grid, cls=ReplayFile) if grid else build({}, ReplayFile)
    listed = {"attack": file.attacks, "defense": file.defenses}[section]
    pairs = [parse_setting(text) for text in settings]
    sections = [key.partition(".")[0] for key, _ in pairs]
    require(
        all(name in ("attack", "defense") for name in sections),
        f"--set {settings[0] if settings else ''}: a replay takes attack.KEY and defense.KEY only",
    )
    own = {key.partition(".")[2]: value for key, value in pairs if key.startswith(f"{section}.")}
    given = override({}, own)
    entries: list[str | dict[str, Any]] = [*listed]
    unused = set(given)
    for name in names:
        known = {key: value for key, value in given.items() if registry.has_option(name, key)}
        unused -= set(known)
        entries.append({"name": name, **known})
    require(not unused, f"no --{section} has an option {', '.join(sorted(unused))}")
    result = labeled(entries)
    asked = [entry if isinstance(entry, str) else entry["name"] for entry in entries]
    if "none" not in asked:
        del result["none"]
    for named in result.values():
        registry.create_parts(named.name, named.options)
    return result
