"""The speed of a cluster next to local devices: `tffl bench cluster`.

Local devices and workers train the same round on the same two cores. They run in separate processes
that take turns round by round, as in `tffl bench engine`.

| contender | trains on |
|---|---|
| local-1, local-2 | one or two one-thread devices of a simulation |
| workers-1, workers-2 | one or two one-thread workers on loopback |

The kernel's counters of the chief's connections give the traffic. Together with the seconds that a
client takes and the seconds that the chief spends per client, it yields an estimate for larger
clusters: a round takes as long as the slowest of training, the chief's network and the chief.
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
"""Numbers of workers in the estimate."""

CLIENTS = 1000
"""Clients per round in the estimate."""

LINK = 1e9 / 8
"""Bytes per second of the network in the estimate: 1 Gbit/s."""

_BYTES_SENT, _BYTES_RECEIVED = 120, 128  # in linux/tcp.h's tcp_info


def bench_cluster(rounds: int = 5, quick: bool = False) -> dict[str, Any]:
    """Compares workers with local devices on two cores.

    Args:
      rounds: Timed rounds of each contender after an untimed first one.
      quick: Whether to do only a small part of the work, to check that everything runs.

    Returns:
      Seconds per round, efficiencies, bytes, and the estimate.

    Raises:
      TfflError: The workers do not start, or a process has died.
    """
    clients = 4 if quick else 10
    with _workers(2) as addresses:
        configs = {
            "local-1": experiment(clients, quick, devices=1),
            "local-2": experiment(clients, quick, devices=2),
            "workers-1": experiment(clients, quick, workers=addresses[:1]),
            "workers-2": experiment(clients, quick, workers=addresses),
        }
        turns = race(configs, rounds)
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
    """Returns the config of a contender: `cnn` on digits, about 570 images per client."""
    placement = {"placement": "cluster", "workers": list(workers)} if workers else {}
    return build(
        {
            "data": {"dataset": "digits", "train_limit": 200 if quick else None},
            "federation": {"clients": clients},
            "model": {"name": "cnn"},
            "training": {"local_epochs": 1 if quick else 4, "learning_rate": 0.01},
            "runtime": {"devices": devices, **placement},
        }
    )


def race(
    configs: dict[str, Config], rounds: int
) -> dict[str, list[tuple[float, float, float, float]]]:
    """Times contenders that take turns round by round.

    Args:
      configs: Name of the contender → experiment.
      rounds: Timed rounds of each.

    Returns:
      Name → for each round: seconds, CPU seconds of the process, bytes sent and bytes received.
    """
    contenders = {
        name: Contender(_serve, config.model_dump_json()) for name, config in configs.items()
    }
    turns: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in configs}
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
    """Estimates a round of `CLIENTS` clients from measurements of a small one.

    Args:
      workers: The number of workers.
      client: The seconds that a worker needs to train a client.
      chief: The seconds that the chief spends per client.
      down: The bytes that the chief sends to each worker in a round.
      up: The bytes that come back per client.

    Returns:
      `seconds` of the round, `efficiency`, the share of the time in which workers train, and
      `limit`, the slowest part.

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
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the comparison is about CPU cores

    from tffl.core.process import silence
    from tffl.engine.observer import Observer

    silence()
    import numpy as np

    from tffl.simulation.cluster.addresses import split
    from tffl.simulation.experiment import Experiment

    config = Config.model_validate_json(text)
    ports = {split(worker)[1] for worker in config.runtime.workers}
    experiment = Experiment(resolved(config), Observer(), trains=True)
    everyone, round = np.arange(config.federation.clients), 0
    while True:
        pipe.recv()
        round += 1
        before, cpu, began = _traffic(ports), _cpu_seconds(), time.perf_counter()
        experiment.train(round, everyone, experiment.first_weights)
        seconds = time.perf_counter() - began
        sent, received = (now - then for now, then in zip(_traffic(ports), before, strict=True))
        pipe.send((seconds, _cpu_seconds() - cpu, sent, received))


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _traffic(ports: set[int]) -> tuple[int, int]:
    """Returns the bytes that connections to some ports sent and received; zeros outside Linux."""
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
    """Yields a duplicate of each socket of this process; the caller closes it."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            file = int(name)
            if stat.S_ISSOCK(os.fstat(file).st_mode):
                yield socket.socket(fileno=os.dup(file))


@contextmanager
def _workers(count: int) -> Iterator[list[str]]:
    """Starts workers on loopback, yields their addresses, and stops them."""
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
