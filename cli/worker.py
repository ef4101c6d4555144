"""`tffl worker`: lend this machine to a run of `tffl simulate --placement cluster`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from tffl_cli.main import Invocation
from tffl_cli.options import data_dir_option

RISK = (
    "{} is not loopback, and TensorFlow's gRPC has no authentication or encryption: whoever "
    "reaches the port can run code here; use a private network or a tunnel"
)


@click.command(
    epilog="If TF_CONFIG is set, the defaults of --host and --port are those that it has for this "
    "process."
)
@click.option(
    "--host", help="Address at which other machines reach this one.  [default: 127.0.0.1]"
)
@click.option("--port", type=click.IntRange(1, 65535), help="The first port.  [default: 5000]")
@click.option(
    "--devices",
    type=click.IntRange(min=1, max=256),
    default=1,
    show_default=True,
    help="Workers to start, each on its own port: one per core or GPU to lend.",
)
@data_dir_option
@click.option("--number", type=int, default=0, hidden=True, help="Which of several devices.")
@click.option("--child", is_flag=True, hidden=True, help="End when standard input ends.")
@click.pass_obj
def worker(
    invocation: Invocation,
    host: str | None,
    port: int | None,
    devices: int,
    data_dir: Path | None,
    number: int,
    child: bool,
) -> None:
    """Train clients for a run on another machine, until Ctrl-C.

    The run is a `tffl simulate` that names this worker. The worker loads the dataset itself, and
    refuses to train on other images than the run's. Whoever reaches its port can run code on this
    machine: keep it on loopback, or in a network of your own.
    """
    from tffl.simulation.cluster.processes import (
        choose_address,
        reachable_by_others,
        serve,
        serve_many,
    )

    host, port = choose_address(host, port, devices)
    if not child and reachable_by_others(host):
        click.echo(f"Warning: {RISK.format(host)}", err=True)
    if devices > 1:
        serve_many(host, port, devices, data_dir, invocation.verbose)
        return
    try:
        serve(host, port, data_dir, number, _say, child)
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
    sys.stderr.flush()
    os._exit(0)  # TensorFlow's servers cannot be shut down, only left


def _say(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()
