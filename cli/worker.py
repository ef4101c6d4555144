"""`tffl worker`: lend this machine to a run of `tffl simulate --placement cluster`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import click

from tffl.core.errors import TfflError, require
from tffl_cli.main import Session

PORT = 5000

RISK = (
    "{} is not loopback, and TensorFlow's gRPC has no authentication or encryption: whoever "
    "reaches the port can run code here; use a private network or a tunnel"
)


@click.command(
    epilog="Without --host and --port they are those of this process' task in TF_CONFIG, if set."
)
@click.option("--host", help="Address of this machine to be reached at.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(1, 65535), help="The first port.  [default: 5000]")
@click.option(
    "--devices",
    type=click.IntRange(min=1, max=256),
    default=1,
    show_default=True,
    help="Workers to start, on as many ports: one per core or GPU to lend.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of prepared datasets; else $TFFL_DATA_DIR.",
)
@click.option("--number", type=int, default=0, hidden=True, help="Which of several devices.")
@click.option("--child", is_flag=True, hidden=True, help="End when standard input ends.")
@click.pass_obj
def worker(
    session: Session,
    host: str | None,
    port: int | None,
    devices: int,
    data_dir: Path | None,
    number: int,
    child: bool,
) -> None:
    """Train clients for a chief, until Ctrl-C.

    A worker loads datasets itself and refuses to train on others than the chief's. It runs what
    whoever reaches its port sends: keep it on loopback, or in a network of your own.
    """
    from tffl.simulation.cluster.addresses import own

    told = own() if host is None or port is None else None
    host = host or (told[0] if told else "127.0.0.1")
    port = port or (told[1] if told else PORT)
    require(port + devices <= 2**16, f"--devices {devices} is not allowed from port {port} on")
    if not child:
        _warn(host)
    if devices > 1:
        _serve_many(host, port, devices, data_dir, session)
    else:
        _serve(host, port, data_dir, number, child)


def _warn(host: str) -> None:
    import socket

    from tffl.simulation.cluster.confinement import is_loopback

    try:
        private = is_loopback(socket.gethostbyname(host))
    except OSError:
        return  # the worker will say that there is no such host
    if not private:
        click.echo(f"Warning: {RISK.format(host)}", err=True)


def _serve(host: str, port: int, data_dir: Path | None, number: int, child: bool) -> None:
    from tffl.simulation.cluster.worker import Worker

    serving = Worker(host, port, data_dir, number, _say)
    _say(f"Worker at {serving.name} is ready.")
    if child:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
    sys.stderr.flush()
    os._exit(0)  # TensorFlow's servers cannot be shut down, only left


def _say(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _serve_many(
    host: str, port: int, devices: int, data_dir: Path | None, session: Session
) -> None:
    """Runs one process per device: a TensorFlow server trains one client at a time."""
    base = [sys.executable, "-m", "tffl", "worker", "--child", "--host", host]
    base += ["--data-dir", str(data_dir)] if data_dir else []
    base += ["--verbose"] if session.verbose else []
    children = [
        subprocess.Popen(
            [*base, "--port", str(port + number), "--number", str(number)],
            stdin=subprocess.PIPE,
        )
        for number in range(devices)
    ]
    try:
        for number, one in enumerate(children):
            code = one.wait()
            if code:
                raise TfflError(f"the worker at port {port + number} has ended with code {code}")
    except KeyboardInterrupt:
        pass
    finally:
        for one in children:
            one.terminate()
        for one in children:
            one.wait()
