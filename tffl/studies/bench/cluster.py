"""What a cluster costs next to local devices: `tffl bench cluster`.

The same round is trained by local devices and by workers on the same two cores, each in processes
of their own, which take turns round by round, as in `tffl bench engine`.

| contender | what it does |
|---|---|
| local-1, local-2 | a simulation's training on one and two one-thread devices |
| workers-1, workers-2 | the same by one and two one-thread workers on loopback |

What travels is read from the kernel's counters of the chief's connections. From that, the seconds
of a client and the chief's own seconds per client follows an estimate for more workers than there
are here: a round takes as long as the slowest of training, the chief's network and the chief.
"""

from __future__ import annotations

import os
import resource
import socket
import stat
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from tffl.config import Config, build
from tffl.core.errors import TfflError
from tffl.record.identity import resolved
from tffl.simulation.cluster.addresses import answers, free_port
from tffl.studies.bench.process import Contender

WORKERS = (10, 100, 1000)
"""For the estimate."""

CLIENTS = 1000
"""In a round of the estimate."""

LINK = 1e9 / 8
"""Bytes per second of the estimate's network: 1 Gbit/s."""

_BYTES_SENT, _BYTES_RECEIVED = 120, 128  # in linux/tcp.h's tcp_info


def bench_cluster(rounds: int = 5, quick: bool = False) -> dict[str, Any]:
    """Measures workers against local devices, on two cores.

    Args:
      rounds: Timed rounds of each contender, after one that is not counted.
      quick: A small part of the work, for a look at the wiring.

    Returns:
      Nested figures: seconds per round, efficiencies, bytes, and the estimate.
    """
    clients = 4 if quick else 10
    with _workers(2) as addresses:
        chosen = {
            "local-1": experiment(clients, quick, devices=1),
            "local-2": experiment(clients, quick, devices=2),
            "workers-1": experiment(clients, quick, workers=addresses[:1]),
            "workers-2": experiment(clients, quick, workers=addresses),
        }
        turns = race(chosen, rounds)
    seconds = {name: statistics.median(turn[0] for turn in turns[name]) for name in turns}
    busy, sent, received = (
        statistics.median(turn[kind] for turn in turns["workers-2"]) for kind in (1, 2, 3)
    )
    traffic = {"down_per_worker_and_round": sent / 2, "up_per_client": received / clients}
    client = seconds["workers-1"] / clients
    return {
        "rounds": rounds,
        "clients": clients,
        "seconds_per_round": seconds,
        "efficiency": {
            "1_worker": seconds["local-1"] / seconds["workers-1"],
            "2_workers": seconds["local-2"] / seconds["workers-2"],
        },
        "bytes": traffic,
        "chief_seconds_per_client": busy / clients,
        f"estimate_for_{CLIENTS}_clients": {
            f"{count}_workers": estimate(count, client, busy / clients, *traffic.values())
            for count in WORKERS
        },
    }


def experiment(clients: int, quick: bool, devices: int = 1, workers: Sequence[str] = ()) -> Config:
    """Returns the experiment of a contender: `cnn` on digits, about 570 images a client."""
    where = {"placement": "cluster", "workers": list(workers)} if workers else {}
    return build(
        {
            "data": {"dataset": "digits", "train_limit": 200 if quick else None},
            "federation": {"clients": clients},
            "model": {"name": "cnn"},
            "training": {"local_epochs": 1 if quick else 4, "learning_rate": 0.01},
            "runtime": {"devices": devices, **where},
        }
    )


def race(
    chosen: dict[str, Config], rounds: int
) -> dict[str, list[tuple[float, float, float, float]]]:
    """Lets contenders take turns.

    Args:
      chosen: Name → experiment.
      rounds: Timed rounds of each.

    Returns:
      For each one's rounds: seconds, CPU seconds of the process, bytes sent and received.
    """
    contenders = {
        name: Contender(_serve, config.model_dump_json()) for name, config in chosen.items()
    }
    turns: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in chosen}
    try:
        for contender in contenders.values():
            contender.request()
        for _ in range(rounds):
            for name, contender in contenders.items():
                turns[name].append(contender.request())
    finally:
        for contender in contenders.values():
            contender.close()
    return turns


def estimate(
    workers: int, client: float, chief: float, down: float, up: float
) -> dict[str, float | str]:
    """Estimates a round of `CLIENTS` clients; nothing of it is measured.

    Args:
      workers: How many.
      client: Seconds that a worker trains a client.
      chief: Seconds that the chief is busy per client.
      down: Bytes that it sends each worker in a round.
      up: Bytes that come back per client.

    Returns:
      Seconds of the round, the share of them that workers train, and what limits them.

    >>> estimate(100, client=0.5, chief=0.001, down=3e6, up=3e6)["limit"]
    'network'
    """
    seconds = {
        "training": -(-CLIENTS // workers) * client,
        "network": (min(workers, CLIENTS) * down + CLIENTS * up) / LINK,
        "chief": CLIENTS * chief,
    }
    limit = max(seconds, key=lambda name: seconds[name])
    useful = CLIENTS * client / workers / seconds[limit]
    return {"seconds": seconds[limit], "efficiency": useful, "limit": limit}


def _serve(text: str, pipe: Connection) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what is compared is cores

    from tffl.core.process import silence
    from tffl.engine.observer import Observer

    silence()
    import numpy as np

    from tffl.simulation.cluster.addresses import split
    from tffl.simulation.experiment import Experiment

    config = Config.model_validate_json(text)
    ports = {split(worker)[1] for worker in config.runtime.workers}
    played = Experiment(resolved(config), Observer(), trains=True)
    everyone, round = np.arange(config.federation.clients), 0
    while True:
        pipe.recv()
        round += 1
        before, busy, began = _traffic(ports), _busy(), time.perf_counter()
        played.train_round(round, everyone, played.first_weights)
        seconds = time.perf_counter() - began
        sent, received = (now - then for now, then in zip(_traffic(ports), before, strict=True))
        pipe.send((seconds, _busy() - busy, sent, received))


def _busy() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _traffic(ports: set[int]) -> tuple[int, int]:
    """Returns the bytes sent and received by this process' connections to some ports; on Linux."""
    sent = received = 0
    if not (ports and os.path.isdir("/proc/self/fd")):
        return 0, 0
    for connection in _sockets():
        with suppress(OSError), connection:
            internet = connection.family in (socket.AF_INET, socket.AF_INET6)
            if not internet or connection.getpeername()[1] not in ports:
                continue
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            sent += struct.unpack_from("Q", info, _BYTES_SENT)[0]
            received += struct.unpack_from("Q", info, _BYTES_RECEIVED)[0]
    return sent, received


def _sockets() -> Iterator[socket.socket]:
    """Yields this process' sockets, each a duplicate that is to be closed."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            file = int(name)
            if stat.S_ISSOCK(os.fstat(file).st_mode):
                yield socket.socket(fileno=os.dup(file))


@contextmanager
def _workers(count: int) -> Iterator[list[str]]:
    """Starts workers on loopback, and ends them."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(count)]
    command = [sys.executable, "-m", "tffl", "worker", "--port"]
    processes = [
        subprocess.Popen(
            [*command, address.rpartition(":")[2]],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )
        for address in addresses
    ]
    try:
        deadline = time.monotonic() + 120
        while not all(map(answers, addresses)):
            if time.monotonic() > deadline:
                raise TfflError("the workers have not started within 120 s")
            time.sleep(0.5)
        yield addresses
    finally:
        for process in processes:
            process.kill()
            process.wait()
