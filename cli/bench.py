"""`tffl bench`: how fast the engine and the defenses are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from tffl_cli.options import COUNT, experiment_options, json_option, registered
from tffl_cli.output import print_json

quick_option = click.option(
    "--quick", is_flag=True, help="A smaller workload: seconds instead of minutes."
)


def rounds_option(default: int | None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds the number of timed rounds."""
    return click.option(
        "--rounds",
        type=COUNT,
        default=default,
        show_default=default is not None,
        help="Timed rounds of each contender.",
    )


@click.group()
def bench() -> None:
    """Measure the speed of the engine and the defenses."""


@bench.command("engine")
@json_option
@rounds_option(None)
@quick_option
def engine(as_json: bool, rounds: int | None, quick: bool) -> None:
    """Compare the engine with plain training loops.

    One is a bare compiled loop, the other calls Keras' `fit` for each client.
    """
    from tffl.studies.bench.engine import bench_engine

    chosen = {} if rounds is None else {"rounds": rounds}
    _show(bench_engine(quick=quick, **chosen), as_json)


@bench.command("defenses")
@click.argument("names", nargs=-1, type=registered("defenses"))
@json_option
@click.option(
    "--clients",
    type=COUNT,
    multiple=True,
    help="Number of clients; by default 20 and 100. Repeatable.",
)
@click.option(
    "--model",
    "models",
    type=click.Choice(["cnn", "resnet18"]),
    multiple=True,
    help="Network of 0.8 or 11.2 million weights; by default both. Repeatable.",
)
@click.option("--no-peers", is_flag=True, help="Leave out Flower and naive NumPy.")
def defenses(
    names: tuple[str, ...],
    as_json: bool,
    clients: tuple[int, ...],
    models: tuple[str, ...],
    no_peers: bool,
) -> None:
    """Measure seconds and memory of defenses.

    All of them, or NAMES, next to Flower's functions and naive NumPy. 100 clients of resnet18 take
    8 GiB of memory, and Flower's functions more.
    """
    from tffl.studies.bench.defenses import SIZES, bench_defenses
    from tffl_cli.progress import Watch

    sizes = clients or (20, 100), models or tuple(SIZES)
    with Watch() as watch:
        figures = bench_defenses(*sizes, names, not no_peers, watch.phase)
    _show(figures, as_json)


@bench.command("maps")
@json_option
@click.option(
    "--model",
    type=registered("models"),
    default="resnet18",
    show_default=True,
    help="Model, one of `tffl list models`.",
)
@rounds_option(3)
@click.option(
    "--clients",
    type=click.IntRange(min=5),
    default=20,
    show_default=True,
    help="Number of clients.",
)
def maps(as_json: bool, model: str, rounds: int, clients: int) -> None:
    """Measure what heat maps cost.

    Heat-map detectors are compared with the clients' training, and the maps with tf-keras-vis.
    """
    from tffl.studies.bench.maps import bench_maps

    _show(bench_maps(model, rounds, clients), as_json)


@bench.command("clients")
@json_option
@click.option(
    "--clients",
    "numbers",
    type=COUNT,
    multiple=True,
    help="Registered clients; by default 1,000, 100,000 and 1,000,000. Repeatable.",
)
@click.option(
    "--participants",
    type=COUNT,
    default=100,
    show_default=True,
    help="Clients drawn each round.",
)
@rounds_option(3)
@click.option(
    "--malicious",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Clients that flip labels.",
)
@click.option(
    "--defense",
    type=registered("defenses"),
    default="none",
    show_default=True,
    help="Defense, one of `tffl list defenses`.",
)
def clients(
    as_json: bool,
    numbers: tuple[int, ...],
    participants: int,
    rounds: int,
    malicious: int,
    defense: str,
) -> None:
    """Measure the cost of clients that do not take part."""
    from tffl.studies.bench.clients import REGISTERED, ClientsWorkload, bench_clients
    from tffl_cli.progress import Watch

    workload = ClientsWorkload(participants, rounds=rounds, malicious=malicious, defense=defense)
    with Watch() as watch:
        figures = bench_clients(numbers or REGISTERED, workload, watch.phase)
    _show(figures, as_json)


@bench.command("evaluation")
@json_option
@experiment_options("config", "data_dir", "settings")
@click.option(
    "--every",
    type=COUNT,
    default=5,
    show_default=True,
    help="Rounds from one evaluation to the next, compared with 1.",
)
@click.option("--repeats", type=COUNT, default=5, show_default=True, help="Timed runs of each.")
def evaluation(
    as_json: bool,
    config: Path | None,
    data_dir: Path | None,
    settings: tuple[str, ...],
    every: int,
    repeats: int,
) -> None:
    """Measure what evaluating less often saves.

    An experiment, by default quickstart, runs with and without an evaluation in every round.
    """
    from tffl.config import read_experiment
    from tffl.core.process import silence

    chosen = read_experiment(config or Path("quickstart"), {"data_dir": data_dir}, settings)
    silence()
    from tffl.studies.bench.evaluation import bench_evaluation

    _show(bench_evaluation(chosen, every, repeats), as_json)


@bench.command("cluster")
@json_option
@rounds_option(5)
@quick_option
def cluster(as_json: bool, rounds: int, quick: bool) -> None:
    """Compare cluster workers with local devices.

    Both run on two cores of this machine; the time of a real cluster is estimated from that.
    """
    from tffl.studies.bench.cluster import bench_cluster

    _show(bench_cluster(rounds, quick), as_json)


@bench.command("on-disk")
@json_option
def updates_on_disk(as_json: bool) -> None:
    """Measure a run whose updates exceed the memory.

    200 clients of resnet18 run in 6 GiB of memory with their updates on disk. Linux only, as root.
    """
    from tffl.studies.bench.on_disk import on_disk

    _show(on_disk(), as_json)


def _show(figures: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(figures)
        return
    from tffl_cli.console import print_figures

    print_figures(figures)
