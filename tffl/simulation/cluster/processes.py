"""Worker processes: where they listen, and several of them on one machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from tffl.core.errors import TfflError, require
from tffl.simulation.cluster.addresses import own
from tffl.simulation.cluster.confinement import LOOPBACK, is_loopback

PORT = 5000
"""The first port, where neither the user nor `TF_CONFIG` says another one."""


def choose_address(host: str | None, port: int | None, devices: int) -> tuple[str, int]:
    """Returns host and first port: the user's, else those of `TF_CONFIG`, else the defaults.

    Raises:
      UsageError: `TF_CONFIG` is not valid, or there are not so many ports.
    """
    known = own() if host is None or port is None else None
    default = known or (LOOPBACK, PORT)
    host, port = host or default[0], port or default[1]
    require(
        port + devices <= 2**16,
        f"--devices {devices} is not allowed with --port {port}: the last port is 65535",
    )
    return host, port


def reachable_by_others(host: str) -> bool:
    """Says whether other machines may reach a host; False if there is no such host."""
    try:
        return not is_loopback(socket.gethostbyname(host))
    except OSError:
        return False


def serve(
    host: str,
    port: int,
    data_dir: Path | None,
    number: int,
    say: Callable[[str], None],
    child: bool = False,
) -> None:
    """Trains clients for a chief until Ctrl-C.

    Args:
      host: As `Worker` takes it.
      port: As `Worker` takes it.
      data_dir: As `Worker` takes it.
      number: As `Worker` takes it.
      say: Hears, in one line each, that it is ready and what it has loaded.
      child: Ends the process when standard input ends, as it does when the parent process dies.

    Raises:
      UsageError: The port is taken, or the server cannot be confined to `host`.
    """
    from tffl.simulation.cluster.worker import Worker

    worker = Worker(host, port, data_dir, number, say)
    say(f"Worker at {worker.name} is ready.")
    if child:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    threading.Event().wait()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def serve_many(
    host: str, port: int, devices: int, data_dir: Path | None, verbose: bool = False
) -> None:
    """Runs one process per device until Ctrl-C: a TensorFlow server trains one client at a time.

    Args:
      host: As `Worker` takes it.
      port: The first one.
      devices: How many processes, on as many ports.
      data_dir: As `Worker` takes it.
      verbose: Whether the processes show TensorFlow's messages.

    Raises:
      TfflError: One of them has ended.
    """
    base = [sys.executable, "-m", "tffl", "worker", "--child", "--host", host]
    base += ["--data-dir", str(data_dir)] if data_dir else []
    base += ["--verbose"] if verbose else []
    children = [
        subprocess.Popen(
            [*base, "--port", str(port + number), "--number", str(number)],
            stdin=subprocess.PIPE,
        )
        for number in range(devices)
    ]
    try:
        for number, child in enumerate(children):
            if code := child.wait():
                raise TfflError(f"the worker at port {port + number} has ended with code {code}")
    except KeyboardInterrupt:
        pass
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait()
