"""`tffl bench`: how fast the engine is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from tffl_cli.options import registered


@click.group()
def bench() -> None:
    """Measure the speed of the engine."""


@bench.command()
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--rounds", type=click.IntRange(min=1), help="Timed rounds of each contender.")
@click.option("--quick", is_flag=True, help="A smaller workload: minutes become seconds.")
def engine(as_json: bool, rounds: int | None, quick: bool) -> None:
    """Compare the engine with a bare compiled loop, and with a Keras `fit` per client."""
    from tffl.studies.bench.engine import bench_engine as measure

    chosen = {} if rounds is None else {"rounds": rounds}
    figures = measure(quick=quick, **chosen)
    _show(figures, as_json)


@bench.command()
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option(
    "--clients", type=click.IntRange(min=1), multiple=True, help="Repeatable; else 20, 100."
)
@click.option(
    "--model",
    "models",
    type=click.Choice(["cnn", "resnet18"]),
    multiple=True,
    help="Repeatable; else both: 0.8 and 11.2 million weights.",
)
@click.option("--no-peers", is_flag=True, help="Leave out Flower and naive NumPy.")
def defenses(
    names: tuple[str, ...],
    as_json: bool,
    clients: tuple[int, ...],
    models: tuple[str, ...],
    no_peers: bool,
) -> None:
    """Measure seconds and memory of defenses, all or NAMES, next to Flower and naive NumPy.

    100 clients of resnet18 take 8 GiB of memory, and Flower's functions more.
    """
    from tffl.defenses import defenses as registry
    from tffl.studies.bench.defenses import SIZES
    from tffl.studies.bench.defenses import bench_defenses as measure
    from tffl_cli.progress import Watch

    for name in names:
        registry[name]
    with Watch() as watch:
        figures = measure(
            clients or (20, 100), models or tuple(SIZES), names, not no_peers, watch.phase
        )
    _show(figures, as_json)


@bench.command()
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--model", default="resnet18", show_default=True, help="The clients' network.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, help="Timed turns of each.")
@click.option("--clients", type=click.IntRange(min=5), default=20, help="How many.")
def maps(as_json: bool, model: str, rounds: int, clients: int) -> None:
    """Compare heat-map detectors with the clients' training, and the maps with tf-keras-vis."""
    from tffl.models import models

    models[model]
    from tffl.studies.bench.maps import bench_maps as measure

    figures = measure(model, rounds, clients)
    _show(figures, as_json)


@bench.command()
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option(
    "--clients",
    "numbers",
    type=click.IntRange(min=1),
    multiple=True,
    help="Registered clients. Repeatable; else 1,000, 100,000 and 1,000,000.",
)
@click.option(
    "--participants",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="How many take part in a round.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=3, help="Timed rounds of each.")
@click.option(
    "--malicious", type=click.IntRange(min=0), default=0, help="How many flip labels; else nobody."
)
@click.option("--defense", type=registered("defenses"), default="none", help="Against them.")
def clients(
    as_json: bool,
    numbers: tuple[int, ...],
    participants: int,
    rounds: int,
    malicious: int,
    defense: str,
) -> None:
    """Measure what registered clients cost that do not take part."""
    from tffl.studies.bench.clients import REGISTERED, ClientsWorkload
    from tffl.studies.bench.clients import bench_clients as measure
    from tffl_cli.progress import Watch

    workload = ClientsWorkload(participants, rounds=rounds, malicious=malicious, defense=defense)
    with Watch() as watch:
        figures = measure(numbers or REGISTERED, workload, watch.phase)
    _show(figures, as_json)


@bench.command()
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, help="Timed rounds of each.")
@click.option("--quick", is_flag=True, help="A smaller workload: minutes become seconds.")
def cluster(as_json: bool, rounds: int, quick: bool) -> None:
    """Compare workers with local devices on two cores, and estimate a cluster."""
    from tffl.studies.bench.cluster import bench_cluster as measure

    figures = measure(rounds, quick)
    _show(figures, as_json)


@bench.command("on-disk")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def updates_on_disk(as_json: bool) -> None:
    """Run 200 clients of resnet18 with updates on disk, in 6 GiB of memory; as root, on Linux."""
    from tffl.studies.bench.on_disk import on_disk as measure

    _show(measure(), as_json)


def _show(figures: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(figures, indent=2))
        return
    from tffl_cli.console import print_figures

    print_figures(figures)
