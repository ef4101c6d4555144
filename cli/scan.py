"""`tffl scan`: judge a folder of clients' models."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tffl.core.errors import UsageError, require
from tffl_cli.belonging import belongs_to
from tffl_cli.options import registered

if TYPE_CHECKING:
    from tffl.defenses import Defense
    from tffl.scan.output import ScanOutput
    from tffl.scan.scanner import Scanner, ScanResult

SUSPECTS = 3
"""Exit code where anything is suspect."""


class PixelRangeType(click.ParamType):
    """Two numbers, the first smaller, as in `0,1`."""

    name = "range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns both, or says what they should be."""
        try:
            low, high = map(float, value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not two numbers, as in 0,1", param, ctx)
        if not -math.inf < low < high < math.inf:
            self.fail(f"{value!r} does not go from a smaller number to a larger one", param, ctx)
        return low, high


@click.command(
    epilog="Exit code: 0 if nothing is suspect, 3 if anything is, 2 if the files cannot be judged."
)
@click.option(
    "--global",
    "global_model",
    required=True,
    type=click.Path(path_type=Path),
    help="Your own model that the clients started from: a .keras file, or a run.",
)
@click.option(
    "--updates",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder with one model per client: .keras, .weights.h5, .npz, .safetensors, SavedModel.",
)
@click.option(
    "--defense",
    "defenses",
    multiple=True,
    type=registered("defenses"),
    help="Repeatable; else shield with a --dataset, and update-consensus and statistics-consensus "
    "without.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="defense.KEY=VALUE",
    help="An option of every --defense that has it. Repeatable.",
)
@click.option(
    "--dataset", type=registered("datasets"), help="Its test images show what models look at."
)
@click.option(
    "--pixels",
    type=PixelRangeType(),
    metavar="LOW,HIGH",
    help="What the global model takes for the darkest pixel and the brightest, if it is not 0,255: "
    "0,1 or -1,1 where images are scaled outside of it.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of prepared datasets; else $TFFL_DATA_DIR.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**32 - 1),
    help="Of which images, and all else that is drawn; random, so that no attacker knows it. A "
    "scan tells its seed, which repeats it.",
)
@click.option("--watch", is_flag=True, help="Scan again when files arrive or change, until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.05, max=3600),
    default=2.0,
    show_default=True,
    help="Seconds between two looks of --watch; files at rest for so long are complete.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for scan.html, scan.csv, scan.json and heat maps; --watch keeps them up to date.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch, a line per scan.")
@click.pass_context
def scan(
    ctx: click.Context,
    global_model: Path,
    updates: Path,
    defenses: tuple[str, ...],
    settings: tuple[str, ...],
    dataset: str | None,
    pixels: tuple[float, float] | None,
    data_dir: Path | None,
    seed: int | None,
    watch: bool,
    interval: float,
    out: Path | None,
    as_json: bool,
) -> None:
    """Find poisoned, damaged and hostile files among clients' models.

    Nothing in a file is executed: only arrays are read, after checks of sizes, names and links.
    Files that are refused are suspects, and do not stop the others. Defenses compare the models
    with each other, so give them all models of a round at once.
    """
    chosen = choose(defenses, settings, dataset is not None)
    belongs_to("interval", "watch", watch)
    belongs_to("data-dir", "dataset", dataset is not None)
    require(pixels is None or dataset is not None, "--pixels belongs to images: give a --dataset")
    place = _place(out, updates, global_model)
    check_inputs(global_model, updates, dataset, data_dir)

    from tffl.core.layout import WeightLayout
    from tffl.scan.scanner import Scanner, load_samples, usual_defenses
    from tffl.untrusted.global_model import load_global

    model = load_global(global_model)
    samples = None if dataset is None else load_samples(model, dataset, data_dir)
    if not defenses:
        usual = usual_defenses(dataset is not None, WeightLayout.of(model))
        chosen = {name: chosen[name] for name in usual}
    scanner = Scanner(model, chosen, samples, seed, pixels)
    told = Told(scanner.seed, as_json, place)
    if watch:
        ctx.exit(_watch(scanner, updates, interval, told))
    found = scanner.scan(updates)
    told.tell(found, indent=2)
    for name, reason in found.unjudged.items() if not found.suspects else ():
        raise UsageError(f"{name} could not judge: {reason}")
    ctx.exit(SUSPECTS if found.suspects else 0)


def check_inputs(
    global_model: Path, updates: Path, dataset: str | None, data_dir: Path | None
) -> None:
    """Refuses, without TensorFlow, what is not there.

    Raises:
      UsageError: There is no such model or folder, or the dataset is unknown or not prepared.
    """
    from tffl.config import DataConfig
    from tffl.data.build import check_prepared
    from tffl.untrusted.global_model import find_global
    from tffl.untrusted.model_folder import file_names

    find_global(global_model)
    file_names(updates)
    if dataset is not None:
        check_prepared(DataConfig(dataset=dataset, data_dir=data_dir))


def choose(names: Sequence[str], settings: Sequence[str], samples: bool) -> dict[str, Defense]:
    """Returns name → defense with its options.

    Args:
      names: As given; if empty, the default that samples allow.
      settings: The `--set` arguments.
      samples: Whether there are images.

    Raises:
      UsageError: A name or an option does not exist, or a value is out of range.
    """
    from tffl.config import override, parse_setting
    from tffl.defenses import create_defense
    from tffl.defenses import defenses as registry
    from tffl.scan.scanner import usual_defenses

    names = tuple(dict.fromkeys(names)) or usual_defenses(samples)
    pairs = [parse_setting(text) for text in settings]
    for key, _ in pairs:
        require(key.startswith("defense."), f"--set {key}: a scan takes defense.KEY only")
    given = override({}, {key.removeprefix("defense."): value for key, value in pairs})
    options: dict[str, Mapping[str, Any]] = {
        name: {key: given[key] for key in given if registry.has_option(name, key)} for name in names
    }
    unused = set(given).difference(*options.values())
    require(not unused, f"no --defense has an option {', '.join(sorted(unused))}")
    return {name: create_defense(name, options[name]) for name in names}


def _place(out: Path | None, updates: Path, model: Path) -> ScanOutput | None:
    """Returns where the results go, if they go anywhere, checked."""
    if out is None:
        return None
    from tffl.scan.output import ScanOutput

    place = ScanOutput(out, updates, model)
    place.check()
    return place


def _watch(scanner: Scanner, folder: Path, interval: float, told: Told) -> int:
    """Scans until Ctrl-C; returns the exit code of the last scan."""
    code = 0
    try:
        for found in scanner.watch(folder, interval):
            code = SUSPECTS if found.suspects else 0
            told.tell(found, indent=None)
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
    return code


@dataclass(frozen=True)
class Told:
    """How a scan is told, and where it is written.

    Attributes:
      seed: The scanner's.
      as_json: Print JSON, and no table.
      place: Where the report goes; nowhere if None.
    """

    seed: int
    as_json: bool
    place: ScanOutput | None

    def tell(self, found: ScanResult, indent: int | None) -> None:
        """Prints what was found and writes the report, which a full disk may keep from ending."""
        if self.as_json:
            from tffl.core.jsonable import plain

            click.echo(json.dumps(plain({"seed": self.seed, **found.report()}), indent=indent))
            self._write(found)
            return
        _print_table(found)
        for warning in found.warnings:
            click.echo(f"Warning: {warning}")
        for name, reason in found.unjudged.items():
            click.echo(f"Not judged by {name}: {reason}")
        count = len(found.files)
        suspects = f"{len(found.suspects)} of {count} file{'' if count == 1 else 's'} suspect."
        click.echo(f"{suspects} (Seed {self.seed}: --seed repeats what was drawn.)")
        for page in self._write(found)[:1]:
            click.echo(f"The report is in {page}")

    def _write(self, found: ScanResult) -> list[Path]:
        return self.place.write(found, self.seed) if self.place else []


def _print_table(found: ScanResult) -> None:
    from tffl.untrusted import printable
    from tffl_cli.console import console, defined
    from tffl_cli.tables import PlainTable

    table = PlainTable("file", "verdict", "defense", "score", "threshold", "reason", numbers=False)
    table.columns[0].overflow = table.columns[5].overflow = "fold"
    for column in (table.columns[1], table.columns[3], table.columns[4]):
        column.no_wrap = True
    table.columns[3].justify = table.columns[4].justify = "right"
    for name, opinions in found.files.items():
        for opinion in opinions:
            table.add_row(
                printable(name),
                "suspect" if opinion.suspect else "ok",
                opinion.defense or "–",
                f"{opinion.score:.4g}" if defined(opinion.score) else "–",
                f"{opinion.threshold:.4g}" if defined(opinion.threshold) else "–",
                opinion.reason,
                style="red" if opinion.suspect else None,
            )
        if not opinions:
            table.add_row(printable(name), "not judged", "–", "–", "–", "")
    console().print(table)
