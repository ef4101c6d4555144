"""`tffl data`: which datasets there are, and how a split deals them to the clients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tffl_cli.options import allowed, registered

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from tffl.config import Config
    from tffl.data.federation import Federation

MAX_COLUMNS = 12
"""Classes, at most, that get a column each; of more, the table tells each client's largest."""
MAX_ROWS = 40
"""Holders, at most, whose row is printed."""
MAX_SAMPLED = 10_000
"""Clients of a sampled partition, at most: each is drawn on its own."""
PICTURES = (".png", ".svg", ".pdf")

_data_dir = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of prepared datasets; else $TFFL_DATA_DIR.",
)


@click.group()
def data() -> None:
    """List, prepare and inspect datasets."""


@data.command("list")
@_data_dir
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_datasets(data_dir: Path | None, as_json: bool) -> None:
    """List the datasets, and where those are that are prepared."""
    entries = _entries(data_dir)
    if as_json:
        click.echo(json.dumps(entries, indent=2))
        return
    from tffl_cli.console import console
    from tffl_cli.tables import PlainTable

    table = PlainTable("name", "description", "prepared in", numbers=False)
    table.columns[0].no_wrap = True
    table.columns[-1].overflow = "fold"
    for entry in entries:
        table.add_row(entry["name"], entry["summary"], entry["location"] or "not prepared")
    console().print(table, markup=False)


@data.command()
@click.argument("names", nargs=-1, required=True, type=registered("datasets"), metavar="NAME...")
@_data_dir
def prepare(names: tuple[str, ...], data_dir: Path | None) -> None:
    """Download datasets and write them to disk; nothing else in tffl ever downloads.

    GTSRB can be prepared in other sizes, and cropped to the sign: gtsrb/64x64, gtsrb/64x64-crop.
    """
    from tffl.data.build import dataset_source

    # A misspelled last name should not come to light after the download of the first.
    sources = [dataset_source(name) for name in names]
    for name, chosen in zip(names, sources, strict=True):
        ready = chosen.prepared(data_dir)
        folder = chosen.prepare(data_dir)
        click.echo(f"{name} {'was already' if ready else 'is'} prepared in {folder}")


@data.command()
@click.argument("name", required=False, type=registered("datasets"))
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Experiment in TOML; the options below win over it.",
)
@click.option("--dataset", type=registered("datasets"), help="The same as NAME.")
@_data_dir
@click.option("--train-limit", type=int, help="Use only this many training images.")
@click.option(
    "--partition",
    type=allowed("data", "partition"),
    help="How clients share the images: iid, dirichlet, shards, round-robin or sampled.",
)
@click.option("--beta", type=float, help="Evenness of a dirichlet or sampled partition.")
@click.option("--clients", type=int, help="Number of clients.")
@click.option("--seed", type=int, help="Decides every random choice.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Set any other key of the config; wins over all else. Repeatable.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw it: a PNG, SVG or PDF.",
)
def show(
    name: str | None,
    config: Path | None,
    settings: tuple[str, ...],
    out: Path | None,
    **options: Any,
) -> None:
    """Print how many images of each class every client holds, before any poisoning.

    NAME is a dataset of `tffl data list`; else it is the config's, or digits.
    """
    from tffl.core.errors import require
    from tffl_cli.simulate import read_experiment

    require(
        options["dataset"] in (None, name or options["dataset"]),
        f"{name} and --dataset {options['dataset']} name two datasets: give one",
    )
    options["dataset"] = name or options["dataset"]
    require(
        out is None or out.suffix.lower() in PICTURES,
        f"--out {out} is not allowed: the name should end in {', '.join(PICTURES)}",
    )
    if options["data_dir"] is not None:
        options["data_dir"] = str(options["data_dir"])
    experiment = read_experiment({}, config, options, settings)
    sampled = experiment.data.partition == "sampled"
    require(
        not sampled or experiment.federation.clients <= MAX_SAMPLED,
        f"{experiment.federation.clients} sampled clients are too many to show: show the first "
        f"{MAX_SAMPLED} with --clients {MAX_SAMPLED}; they hold the same whoever else there is",
    )
    federation = _federation(experiment)
    holders, counts = _counts(federation)
    _print_split(holders, counts, federation, sampled)
    if out is None:
        return
    from tffl.drawing import guard as drawing
    from tffl.drawing.split import split_picture

    title = f"{federation.dataset.name}, {_describe(experiment)}"
    names = federation.dataset.class_names
    if drawing.write(out, split_picture, counts, holders, names, title):
        click.echo(f"The picture is in {out}")


def _entries(data_dir: Path | None) -> list[dict[str, Any]]:
    """Returns what is known of the registered names, and of their variants that are prepared."""
    from tffl.data import datasets

    def described(name: str) -> list[dict[str, Any]]:
        return [_entry(one, data_dir) for one in [name, *_variants(name, data_dir)]]

    return [entry for entries in datasets.usable(described) for entry in entries]


def _variants(name: str, data_dir: Path | None) -> list[str]:
    from tffl.data import datasets
    from tffl.data.tfds import resolve_data_dir

    if "variant" not in datasets.describe(name)["options"]:
        return []
    found = (resolve_data_dir(data_dir) / name).glob("*x*/*.*.*/dataset_info.json")
    return sorted({f"{name}/{path.parents[1].name}" for path in found})


def _entry(name: str, data_dir: Path | None) -> dict[str, Any]:
    from tffl.data import datasets
    from tffl.data.build import dataset_source

    chosen = dataset_source(name)
    ready = chosen.prepared(data_dir)
    return {
        "name": name,
        "summary": datasets.describe(name.partition("/")[0])["summary"],
        "prepared": ready,
        "location": str(chosen.location(data_dir)) if ready else None,
    }


def _federation(config: Config) -> Federation:
    """Splits the images as a simulation would: without those that the attack keeps to itself."""
    from tffl.attacks import create_attack
    from tffl.data.build import build_federation, load_dataset

    attack = create_attack(config.attack.name, config.attack.options)
    dataset = load_dataset(config.data)
    attack.check(dataset)
    return build_federation(config, dataset, attack.reserve(dataset))


def _counts(federation: Federation) -> tuple[list[str], np.ndarray]:
    """Returns the holders' names and int `[holders, classes]`; the server first, if it has any."""
    import numpy as np

    holders = [f"client {index}" for index in range(len(federation.clients))]
    counts = federation.class_counts()
    if federation.server is None:
        return holders, counts
    own = np.bincount(federation.server.labels, minlength=federation.dataset.classes)
    return ["server", *holders], np.vstack([own, counts])


def _describe(config: Config) -> str:
    data = config.data
    detail = {
        "dirichlet": f" (beta = {data.beta:g})",
        "sampled": f" (beta = {data.beta:g})",
        "shards": f" ({data.classes_per_client} classes a client)",
    }
    return f"{data.partition}{detail.get(data.partition, '')}, seed {config.seed}"


def _print_split(
    holders: list[str], counts: np.ndarray, federation: Federation, sampled: bool
) -> None:
    from tffl_cli.console import console

    names = federation.dataset.class_names
    wide = len(names) <= MAX_COLUMNS
    table = _class_table(holders, counts, names) if wide else _summary_table(holders, counts, names)
    out = console()
    out.print(table, markup=False)
    sizes = counts.sum(axis=1)
    held = (counts > 0).sum(axis=1)
    images = f"{counts.sum()} training images in {len(holders)} shards"
    if sampled:
        images = f"{len(holders)} clients who share {len(federation.images)} training images"
    out.print(
        f"{images}, each with {_range(sizes)} "
        f"images of {_range(held)} classes; {len(federation.dataset.test_labels)} test images.",
        soft_wrap=True,
    )


def _range(values: np.ndarray) -> str:
    low, high = values.min(), values.max()
    return str(low) if low == high else f"{low} to {high}"


def _class_table(holders: list[str], counts: np.ndarray, names: tuple[str, ...]) -> Table:
    from tffl_cli.tables import PlainTable

    table = PlainTable("", *names, "images")
    table.columns[0].no_wrap = True
    for holder, row in zip(holders[:MAX_ROWS], counts, strict=False):
        table.add_row(holder, *map(str, row), str(row.sum()))
    _add_rest(table, len(holders))
    table.add_section()
    table.add_row("all", *map(str, counts.sum(axis=0)), str(counts.sum()))
    return table


def _summary_table(holders: list[str], counts: np.ndarray, names: tuple[str, ...]) -> Table:
    from tffl_cli.tables import PlainTable

    table = PlainTable("", "images", "classes", "largest class", "its images")
    table.columns[0].no_wrap = True
    for holder, row in zip(holders[:MAX_ROWS], counts, strict=False):
        table.add_row(holder, *_summary(row, names))
    _add_rest(table, len(holders))
    table.add_section()
    table.add_row("all", *_summary(counts.sum(axis=0), names))
    return table


def _summary(row: np.ndarray, names: tuple[str, ...]) -> list[str]:
    top = int(row.argmax())
    return [str(row.sum()), str((row > 0).sum()), names[top], str(row[top])]


def _add_rest(table: Table, holders: int) -> None:
    if holders > MAX_ROWS:
        table.add_row(f"… {holders - MAX_ROWS} more")
