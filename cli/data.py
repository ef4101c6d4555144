"""`tffl data`: which datasets there are, and how a split deals them to the clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tffl.core.errors import require
from tffl_cli.options import FILE, data_dir_option, experiment_options, json_option, registered
from tffl_cli.output import print_json

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from tffl.data.check import Findings
    from tffl.studies.split import Split

MAX_COLUMNS = 12
"""Classes, at most, that get a column each; of more, the table has each client's largest."""
MAX_ROWS = 40
"""Holders, at most, whose row is printed."""


@click.group()
def data() -> None:
    """List, prepare and inspect datasets."""


@data.command("list")
@data_dir_option
@json_option
def list_datasets(data_dir: Path | None, as_json: bool) -> None:
    """List the datasets, and where the prepared ones are."""
    from tffl.data.listing import list_datasets as listed

    entries = listed(data_dir)
    if as_json:
        print_json(entries)
        return
    from tffl_cli.console import console
    from tffl_cli.tables import PlainTable

    headers = ("name", "description", "prepared in")
    table = PlainTable(*headers, right=(), unbroken=(0,), folded=(2,))
    for entry in entries:
        table.add_row(entry["name"], entry["summary"], entry["location"] or "not prepared")
    console().print(table, markup=False)


@data.command()
@click.argument("names", nargs=-1, required=True, type=registered("datasets"), metavar="NAME...")
@data_dir_option
def prepare(names: tuple[str, ...], data_dir: Path | None) -> None:
    """Download datasets and write them to disk.

    No other command downloads anything. GTSRB can be prepared in other sizes, and cropped to the
    sign: gtsrb/64x64, gtsrb/64x64-crop.
    """
    from tffl.data.listing import prepare_datasets

    for name, ready, folder in prepare_datasets(names, data_dir):
        click.echo(f"{name} {'was already' if ready else 'is'} prepared in {folder}")


@data.command()
@click.argument("name", required=False, type=registered("datasets"))
@experiment_options(
    *("config", "dataset", "data_dir", "train_limit", "partition", "beta", "clients", "seed"),
    "settings",
)
@click.option("--out", type=FILE, help="Picture to write, as PNG, SVG or PDF; by default none.")
def show(
    name: str | None,
    config: Path | None,
    settings: tuple[str, ...],
    out: Path | None,
    **options: Any,
) -> None:
    """Print how many images of each class every client holds.

    Poisoned images are not counted. NAME is a dataset of `tffl data list`, as --dataset is; by
    default the config's, or digits.
    """
    require(
        options["dataset"] in (None, name or options["dataset"]),
        f"{name} and --dataset {options['dataset']} name two datasets: give one",
    )
    options["dataset"] = name or options["dataset"]
    from tffl.config import read_experiment
    from tffl.studies.split import Split, check_picture
    from tffl_cli.console import console

    check_picture(out)
    split = Split.of(read_experiment(config, options, settings))
    console().print(_table(split), markup=False)
    console().print(split.sentence(), soft_wrap=True)
    console().print(split.heterogeneity(), soft_wrap=True, highlight=False)
    if out is not None and split.draw(out):
        click.echo(f"The picture is in {out}")


@data.command()
@click.argument("name", type=registered("datasets"), metavar="PATH")
@data_dir_option
@experiment_options("settings")
@json_option
@click.pass_context
def check(
    ctx: click.Context, name: str, data_dir: Path | None, settings: tuple[str, ...], as_json: bool
) -> None:
    """Check your own data: what they hold, and what is wrong with them.

    PATH is a folder of images, or a .npz, .csv or .parquet file; a dataset's name will do too. The
    exit code is 2 if an experiment would refuse them.
    """
    from tffl.config import read_experiment
    from tffl.data.check import check as examine

    options = {"dataset": name, "data_dir": str(data_dir) if data_dir else None}
    found = examine(read_experiment(None, options, settings).data)
    if as_json:
        print_json({**found.figures(), "faults": found.faults, "notes": found.notes})
    else:
        _print_findings(found)
    ctx.exit(2 if found.faults else 0)


def _print_findings(found: Findings) -> None:
    from tffl_cli.console import console
    from tffl_cli.tables import PlainTable

    figures = found.figures()
    if figures:
        table = PlainTable("class", "training", "test")
        for label, counts in list(figures["classes"].items())[:MAX_ROWS]:
            table.add_row(label, str(counts["train"]), str(counts["test"]))
        if len(figures["classes"]) > MAX_ROWS:
            table.add_row(f"… {len(figures['classes']) - MAX_ROWS} more", "", "")
        totals = [sum(c[part] for c in figures["classes"].values()) for part in ("train", "test")]
        table.add_section()
        table.add_row("all", *map(str, totals))
        console().print(table, markup=False)
        shape, low_high = " x ".join(map(str, figures["sample_shape"])), figures["range"]
        what = "images" if len(figures["sample_shape"]) == 3 else "features"
        clients = f", of {figures['clients']} clients" if figures["clients"] else ""
        click.echo(
            f"{shape} {what}, {figures['dtype']} from {low_high[0]:g} to {low_high[1]:g}{clients}"
        )
        if channels := figures["channels"]:
            means, deviations = (" ".join(f"{x:g}" for x in each) for each in channels.values())
            click.echo(
                f"Channels, from black (0) to white (1): mean {means}, deviation {deviations}"
            )
    for line in found.notes:
        click.echo(f"Note: {line}")
    for line in found.faults[:MAX_ROWS]:
        click.echo(f"Fault: {line}")
    if len(found.faults) > MAX_ROWS:
        click.echo(f"… {len(found.faults) - MAX_ROWS} more faults; --json has all")
    if not found.faults:
        click.echo("No faults.")


def _table(split: Split) -> Table:
    """Returns a table of the holders' images, by class where there are few classes."""
    names = split.class_names
    if len(names) <= MAX_COLUMNS:
        return _holders(split, (*names, "images"), lambda row: [*map(str, row), str(row.sum())])
    headers = ("images", "classes", "largest class", "its images")
    return _holders(split, headers, lambda row: _summary(row, names))


def _holders(
    split: Split, headers: Sequence[str], cells: Callable[[np.ndarray], list[str]]
) -> Table:
    """Returns a table with a row for each holder, and one for all of them."""
    from tffl_cli.tables import PlainTable

    table = PlainTable("", *headers, unbroken=(0,))
    for holder, row in zip(split.holders[:MAX_ROWS], split.counts, strict=False):
        table.add_row(holder, *cells(row))
    if len(split.holders) > MAX_ROWS:
        table.add_row(f"… {len(split.holders) - MAX_ROWS} more")
    table.add_section()
    table.add_row("all", *cells(split.counts.sum(axis=0)))
    return table


def _summary(row: np.ndarray, names: tuple[str, ...]) -> list[str]:
    top = int(row.argmax())
    return [str(row.sum()), str((row > 0).sum()), names[top], str(row[top])]
