"""Where the processes of a cluster are: from options, or from `TF_CONFIG`, which is such as this.

{"cluster": {"worker": ["10.0.0.2:5000"]}, "task": {"type": "worker", "index": 0}}
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tffl.core.errors import UsageError, require

VARIABLE = "TF_CONFIG"

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How every gRPC client begins: HTTP/2's greeting, and settings without content."""


@dataclass(frozen=True)
class Addresses:
    """The processes that a chief works with.

    Attributes:
      workers: `host:port` of each.
      parameter_server: `host:port`; empty if the chief is to start one of its own.
    """

    workers: tuple[str, ...]
    parameter_server: str = ""

    @classmethod
    def of(
        cls,
        workers: Sequence[str],
        parameter_server: str = "",
        environment: Mapping[str, str] = os.environ,
    ) -> Addresses:
        """Reads what the user gave, or else `TF_CONFIG`.

        Args:
          workers: Each `host:port`, or `host:first-last` for one worker on each of these ports.
          parameter_server: `host:port`, or empty.
          environment: Holds `TF_CONFIG`, where nothing else is given.

        Raises:
          UsageError: There are none, or one is malformed or named twice.
        """
        jobs = {} if workers else _cluster(environment)
        found = [one for text in workers or jobs.get("worker", ()) for one in expand(text)]
        require(
            bool(found),
            "a cluster needs workers: start `tffl worker` on each machine, and name each with "
            f"--worker HOST:PORT, or all in {VARIABLE}",
        )
        twice = sorted({address for address in found if found.count(address) > 1})
        require(not twice, f"worker {', '.join(twice)} is named twice")
        server = parameter_server or next(iter(jobs.get("ps", ())), "")
        if server:
            split(server)
        return cls(tuple(found), server)


def own(environment: Mapping[str, str] = os.environ) -> tuple[str, int] | None:
    """Returns the host and port that `TF_CONFIG` gives this process; None if it says nothing.

    Raises:
      UsageError: It is not valid, or this process is neither a worker nor a parameter server.
    """
    jobs = _cluster(environment)
    if not jobs:
        return None
    task = json.loads(environment[VARIABLE]).get("task", {})
    require(isinstance(task, Mapping), f"{VARIABLE} is not allowed: its `task` is no JSON object")
    job, index = task.get("type"), task.get("index", 0)
    require(
        job in ("worker", "ps"),
        f"{VARIABLE} gives this process the task {job!r}: `tffl worker` is for worker and ps",
    )
    listed = jobs.get(job, [])
    require(
        isinstance(index, int) and 0 <= index < len(listed),
        f"{VARIABLE} has no {job} number {index}: it lists {len(listed)}",
    )
    return split(listed[index])


def expand(text: str) -> list[str]:
    """Returns the addresses that one option names.

    >>> expand("10.0.0.2:5000-5002")
    ['10.0.0.2:5000', '10.0.0.2:5001', '10.0.0.2:5002']
    """
    several = re.fullmatch(r"(.*):(\d+)-(\d+)", text)
    if several is None:
        split(text)
        return [text]
    host = several[1]
    begin, end = (split(f"{host}:{port}")[1] for port in several.groups()[1:])
    require(begin <= end, f"worker {text} is not allowed: the first port comes first")
    return [f"{host}:{port}" for port in range(begin, end + 1)]


def split(address: str) -> tuple[str, int]:
    """Splits `host:port`.

    Raises:
      UsageError: It is not one.
    """
    host, _, port = address.rpartition(":")
    valid = bool(host) and ":" not in host and port.isdecimal() and 0 < int(port) < 2**16
    require(valid, f"address {address!r} is not allowed: give HOST:PORT, such as 10.0.0.2:5000")
    return host, int(port)


def answers(address: str, seconds: float = 3.0) -> bool:
    """Says whether a gRPC server greets at an address; a process that is stopped does not."""
    try:
        with socket.create_connection(split(address), timeout=seconds) as connection:
            connection.sendall(PREFACE)
            return len(connection.recv(1)) == 1
    except OSError:
        return False


def free_port(host: str = "127.0.0.1") -> int:
    """Returns a port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _cluster(environment: Mapping[str, str]) -> dict[str, list[str]]:
    text = environment.get(VARIABLE, "")
    if not text:
        return {}
    try:
        jobs: Any = json.loads(text).get("cluster", {})
    except (json.JSONDecodeError, AttributeError):
        raise UsageError(f"{VARIABLE} is not a JSON object with a `cluster`") from None
    valid = isinstance(jobs, Mapping) and all(
        isinstance(listed, list) and all(isinstance(one, str) for one in listed)
        for listed in jobs.values()
    )
    require(valid, f"{VARIABLE} is not allowed: its `cluster` maps a job to a list of host:port")
    return dict(jobs)
