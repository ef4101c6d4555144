"""`tffl scan`: judge a folder of clients' models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tffl_cli.combinations import belongs_to, refuse_both
from tffl_cli.options import (
    FOLDER,
    PATH,
    Command,
    Option,
    data_dir_option,
    import_option,
    json_option,
    part_settings_option,
    pixels_option,
    registered,
    several_option,
)
from tffl_cli.output import print_json

if TYPE_CHECKING:
    from tffl.scan.output import ScanOutput
    from tffl.scan.result import ScanResult
    from tffl.scan.scanner import Scanner

SUSPECTS = 3
"""Exit code where anything is suspect."""


def updates_option(required: bool) -> Option[Command]:
    """Adds `--updates`, the folder of clients' models."""
    return click.option(
        "--updates",
        required=required,
        type=FOLDER,
        help="Folder with one model per client: .keras, .weights.h5, .npz, .safetensors, "
        "SavedModel.",
    )


def global_option(required: bool) -> Option[Command]:
    """Adds `--global`, the model that clients' models are compared with."""
    return click.option(
        "--global",
        "global_model",
        required=required,
        type=PATH,
        help="Your own model that the clients started from: a .keras file, a SavedModel, or a run.",
    )


@click.command(
    epilog="Without --defense, shield judges where there is a --dataset or --probes, and else "
    "update-consensus and statistics-consensus. Exit code: 0 if nothing is suspect, 3 if anything "
    "is, 2 if the files cannot be judged."
)
@global_option(required=True)
@import_option
@updates_option(required=True)
@several_option("defense")
@part_settings_option("defense")
@click.option(
    "--dataset",
    type=registered("datasets"),
    help="Dataset whose test images show what the models look at: one of `tffl list datasets`, a "
    "folder of images per class, or a .npz file.",
)
@data_dir_option
@click.option(
    "--probes",
    type=FOLDER,
    help="Folder with a folder of images per class, all of which show what the models look at.",
)
@click.option(
    "--class-order",
    metavar="NAME[,NAME…]",
    help="Classes in the order of the global model's outputs, where that is not the order of their "
    "names or numbers.",
)
@pixels_option
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**32 - 1),
    help="Seed of every random choice; by default random, so that no attacker knows it, and "
    "printed, so that the scan can be repeated.",
)
@click.option(
    "--watch",
    is_flag=True,
    help="Scan again whenever files arrive or change, until Ctrl-C. With --json, print a line per "
    "scan.",
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.05, max=3600),
    default=2.0,
    show_default=True,
    help="With --watch: seconds between two checks. Files that did not change in between are "
    "complete.",
)
@click.option(
    "--out",
    type=PATH,
    help="Folder to write scan.html, scan.csv, scan.json and heat maps to; by default none. "
    "--watch keeps them up to date.",
)
@json_option
@click.pass_context
def scan(
    ctx: click.Context,
    global_model: Path,
    imports: tuple[str, ...] | None,
    updates: Path,
    defenses: tuple[str, ...],
    settings: tuple[str, ...],
    dataset: str | None,
    data_dir: Path | None,
    probes: Path | None,
    class_order: str | None,
    pixels: tuple[float, float] | None,
    seed: int | None,
    watch: bool,
    interval: float,
    out: Path | None,
    as_json: bool,
) -> None:
    """Find poisoned, damaged and hostile files among clients' models.

    Nothing in a file is executed: only arrays are read, after checks of sizes, names and links.
    A file that is refused is a suspect, and does not stop the others. Defenses compare the models
    with each other, so put all models of a round into the folder.
    """
    belongs_to("interval", "watch", watch)
    belongs_to("data-dir", "dataset", dataset is not None)
    belongs_to("pixels", "dataset", dataset is not None or probes is not None)
    belongs_to("class-order", "probes", dataset is not None or probes is not None)
    refuse_both(dataset=dataset, probes=probes)
    from tffl.scan.image_source import image_source, split_settings
    from tffl.scan.output import ScanOutput
    from tffl.scan.preparation import Inputs, make_scanner

    output = None if out is None else ScanOutput(out, updates, global_model)
    if output is not None:
        output.check()
    data, settings = split_settings(settings)
    names = [name.strip() for name in (class_order or "").split(",") if name.strip()]
    images = image_source(dataset, probes, data, data_dir=data_dir, classes=names)
    inputs = Inputs(global_model, updates, images, pixels, imports or ())
    scanner = make_scanner(inputs, defenses, settings, seed)
    printer = Printer(scanner.seed, as_json, output)
    if watch:
        ctx.exit(_watch(scanner, updates, interval, printer))
    found = scanner.scan(updates)
    printer.show(found, indent=2)
    found.check_judged()
    ctx.exit(SUSPECTS if found.suspects else 0)


def _watch(scanner: Scanner, folder: Path, interval: float, printer: Printer) -> int:
    """Scans until Ctrl-C; returns the exit code of the last scan."""
    code = 0
    try:
        for found in scanner.watch(folder, interval):
            code = SUSPECTS if found.suspects else 0
            printer.show(found, indent=None)
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
    return code


@dataclass(frozen=True)
class Printer:
    """Prints scans, and writes them where they should be written.

    Attributes:
      seed: The scanner's.
      as_json: Print JSON, and no table.
      output: Where the report is written; nowhere if None.
    """

    seed: int
    as_json: bool
    output: ScanOutput | None

    def show(self, found: ScanResult, indent: int | None) -> None:
        """Prints a scan, then writes its report, in which a full disk is an error."""
        if self.as_json:
            print_json({"seed": self.seed, **found.as_dict()}, indent)
        else:
            self._print(found)
        written = self.output.write(found, self.seed) if self.output else []
        if written and not self.as_json:
            click.echo(f"The report is in {written[0]}")

    def _print(self, found: ScanResult) -> None:
        _print_table(found)
        for warning in found.warnings:
            click.echo(f"Warning: {warning}")
        for name, reason in found.unjudged.items():
            click.echo(f"Not judged by {name}: {reason}")
        count = len(found.files)
        suspects = f"{len(found.suspects)} of {count} file{'' if count == 1 else 's'} suspect."
        click.echo(f"{suspects} (Repeat this scan with --seed {self.seed}.)")


def _print_table(found: ScanResult) -> None:
    from tffl.untrusted import printable
    from tffl_cli.console import console, number
    from tffl_cli.tables import PlainTable

    headers = ("file", "verdict", "defense", "score", "threshold", "reason")
    table = PlainTable(*headers, right=(3, 4), unbroken=(1, 3, 4), folded=(0, 5))
    for name, opinions in found.files.items():
        begin = (printable(name), found.verdict(name))
        for opinion in opinions:
            convicted = opinion.suspect and len(opinions) > 1
            table.add_row(
                *begin,
                opinion.defense or "–",
                number(opinion.score),
                number(opinion.threshold),
                opinion.reason or ("suspect" if convicted else ""),
                style="red" if opinion.suspect else None,
            )
            begin = ("", "")
        if not opinions:
            table.add_row(*begin, "–", "–", "–", "")
    console().print(table)
