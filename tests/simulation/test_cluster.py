"""Clients trained by other processes: the same tables, whoever dies, hangs or comes late."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import tffl
import tffl.config
from tffl.config import Config, RuntimeConfig, build
from tffl.core.errors import TfflError, UsageError
from tffl.data.build import load_dataset
from tffl.engine.observer import Observer
from tffl.record.identity import identity, resolved
from tffl.simulation.cluster.addresses import Addresses, answers, expand, free_port, own
from tffl.simulation.cluster.chief import connect
from tffl.simulation.cluster.confinement import Exposed, confined
from tffl.simulation.cluster.images import answer, refusal, request, training_images
from tffl_cli.main import cli

ROUNDS = 40
"""Enough that a run does not end while its workers come back, however busy the machine."""
EXPERIMENT: dict[str, Any] = {
    "seed": 4,
    "data": {"train_limit": 300, "test_limit": 100, "partition": "dirichlet", "beta": 1.0},
    "federation": {"clients": 6, "participants": 5, "malicious": 2, "rounds": ROUNDS},
    "model": {"name": "lenet5"},
    "training": {
        "batch_size": 16,
        "momentum": 0.9,
        "local_epochs": 6,
        "augmentation": "crop+flip",
        "crop_padding": 2,
    },
    "attack": {"name": "patch-backdoor", "scale": 2.0},
    "defense": {"name": "bias-anomaly", "window": 3, "votes": 2},
    "record": {"tensorboard": False, "export": False, "figures": False},
}

OTHER_DIGITS = """
from tffl.data.digits import Digits
load = Digits.load
def changed(self, data_dir):
    dataset = load(self, data_dir)
    dataset.train_images[:, 14, 14] ^= 1
    return dataset
Digits.load = changed
from tffl_cli.main import main
from tffl.record.identity import identity, resolved
main()
"""


def experiment(**changes: Any) -> Config:
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return build(tffl.config.override(EXPERIMENT, changes))


def tables(path: Path) -> tuple[str, str]:
    """A run's two tables as text, without the columns of seconds."""
    texts = []
    for name in ("rounds.csv", "clients.csv"):
        frame = pd.read_csv(path / name, dtype=str, keep_default_na=False)
        texts.append(frame.loc[:, ~frame.columns.str.endswith("_seconds")].to_csv())
    return texts[0], texts[1]


def wait_for(what: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


class Machines:
    """The processes of a cluster, and what they say."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: object, program: tuple[str, ...] = ("-m", "tffl")) -> Any:
        number = len(self.started)
        with open(self.folder / f"{number}.out", "wb") as out:
            process = subprocess.Popen(
                [sys.executable, *program, *map(str, arguments)],
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            )
        process.said = lambda: (self.folder / f"{number}.out").read_text()  # type: ignore
        self.started.append(process)
        return process

    def worker(self, address: str, **options: Any) -> Any:
        return self.start("worker", "--port", address.rpartition(":")[2], **options)

    def chief(self, out: Path, workers: list[str], *more: object, rounds: int = ROUNDS) -> Any:
        config = self.folder / "experiment.toml"
        config.write_text(experiment(federation__rounds=rounds).to_toml())
        named = [word for worker in workers for word in ("--worker", worker)]
        return self.start("simulate", "--config", config, "--out", out, *named, *more)

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    machines = Machines(tmp_path_factory.mktemp("machines"))
    yield machines
    machines.close()


def rounds_of(run: Path) -> int:
    table = run / "rounds.csv"
    return len(table.read_text().splitlines()) - 1 if table.exists() else 0


@pytest.mark.slow
def test_workers_come_late_die_hang_come_back_and_are_refused(
    machines: Machines, tmp_path: Path
) -> None:
    """One story, because every process takes seconds to start."""
    first, second, third, liar = (f"127.0.0.1:{free_port()}" for _ in range(4))
    local, pair, trio = tmp_path / "local", tmp_path / "pair", tmp_path / "trio"

    # Two workers, the second of which comes late; the first is killed in the middle of the run,
    # which has so many rounds that the fastest machine has not ended it by then.
    one = machines.worker(first)
    chief = machines.chief(pair, [first, second])
    tffl.simulate(experiment(), local)
    two = machines.worker(second)
    wait_for(lambda: rounds_of(pair) >= 1 or chief.poll() is not None)
    one.kill()
    one.wait()
    three = machines.worker(third)
    one = machines.worker(first)
    false = machines.worker(liar, program=("-c", OTHER_DIGITS))
    assert chief.wait(120) == 0, chief.said()
    assert f"worker {first} does not answer" in " ".join(chief.said().split())
    assert tables(pair) == tables(local)

    # One of two has other images: nothing begins, and its name is told.
    refused = machines.chief(tmp_path / "refused", [second, liar], rounds=3)
    assert refused.wait(120) == 2
    said = " ".join(refused.said().split())
    assert f"refused: worker {liar}" in said and "has another digits" in said
    assert "fingerprint" in said and not (tmp_path / "refused").exists()
    false.kill()

    # Three workers: one hangs, then one dies and comes back, then the others die, then that one.
    wait_for(lambda: answers(first) and answers(third))
    chief = machines.chief(trio, [first, second, third], "--set", "runtime.wait=2")
    wait_for(lambda: rounds_of(trio) >= 1 or chief.poll() is not None)
    os.kill(three.pid, signal.SIGSTOP)
    before = rounds_of(trio)
    wait_for(lambda: rounds_of(trio) > before or chief.poll() is not None)
    os.kill(three.pid, signal.SIGCONT)
    wait_for(lambda: f"worker {third} is back" in " ".join(chief.said().split()))
    one.kill()
    one.wait()
    wait_for(lambda: f"worker {first} does not answer" in " ".join(chief.said().split()))
    os.kill(chief.pid, signal.SIGSTOP)  # the run is not to end before the worker is back
    one = machines.worker(first)
    wait_for(lambda: answers(first))
    os.kill(chief.pid, signal.SIGCONT)
    wait_for(lambda: "Loaded" in one.said() or chief.poll() is not None)
    two.kill()
    three.kill()
    before = rounds_of(trio)
    wait_for(lambda: rounds_of(trio) > before or chief.poll() is not None)
    one.kill()
    assert chief.wait(60) == 1, chief.said()
    said = " ".join(chief.said().split())
    assert "Error: the last worker is gone" in said and f"tffl simulate --resume {trio}" in said
    assert 3 <= rounds_of(trio) < ROUNDS

    tffl.simulate(experiment(), trio, resume=True)  # on local devices
    assert tables(trio) == tables(local)


def test_placement_is_not_part_of_an_experiment() -> None:
    cluster = experiment(runtime__placement="cluster", runtime__workers=["a:1"])
    assert identity(cluster) == identity(experiment())


def test_addresses_come_from_options_or_the_environment() -> None:
    jobs = {"chief": ["a:1"], "worker": ["b:2", "c:3"], "ps": ["d:4"]}
    task = {"type": "worker", "index": 1}
    environment = {"TF_CONFIG": json.dumps({"cluster": jobs, "task": task})}
    assert Addresses.of((), "", environment) == Addresses(("b:2", "c:3"), "d:4")
    assert Addresses.of(("e:5-6",), "", environment) == Addresses(("e:5", "e:6"))
    assert own(environment) == ("c", 3)
    assert own({}) is None
    assert expand("h:7") == ["h:7"]


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        ((), "needs workers"),
        (("a",), "HOST:PORT"),
        (("a:0",), "HOST:PORT"),
        (("a:70000",), "HOST:PORT"),
        (("a:9-7",), "first port"),
        (("a:1-3", "a:2"), "a:2 is named twice"),
    ],
)
def test_impossible_addresses_are_refused(workers: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Addresses.of(workers, "", {})


@pytest.mark.parametrize("text", ["{", "[]", '{"cluster": {"worker": "a:1"}}'])
def test_a_malformed_environment_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="TF_CONFIG"):
        Addresses.of((), "", {"TF_CONFIG": text})


def test_a_malformed_task_is_refused() -> None:
    with pytest.raises(UsageError, match="its `task` is no JSON object"):
        own({"TF_CONFIG": json.dumps({"cluster": {"worker": ["a:1"]}, "task": []})})


def test_a_chief_is_no_worker() -> None:
    told = {"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}
    with pytest.raises(UsageError, match="'chief'"):
        own({"TF_CONFIG": json.dumps(told)})


def test_what_does_not_speak_grpc_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not answers(f"127.0.0.1:{silent.getsockname()[1]}", seconds=0.1)
    assert not answers(f"127.0.0.1:{free_port()}", seconds=0.1)


def test_a_run_does_not_wait_for_ever_for_its_first_worker() -> None:
    runtime = RuntimeConfig(workers=(f"127.0.0.1:{free_port()}",), wait=1)
    with pytest.raises(TfflError, match="no worker answers at 127"):
        connect(runtime, Observer())


def test_the_command_refuses_what_it_cannot_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", "{")
    for arguments in (["--port", "65535", "--devices", "2", "--host", "127.0.0.1"], []):
        result = CliRunner().invoke(cli, ["worker", *arguments])
        assert result.exit_code == 2
        assert "--devices 2" in result.stderr or "TF_CONFIG" in result.stderr


def outer_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        return str(probe.getsockname()[0])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux' socket filters")
def test_a_confined_server_is_reached_by_loopback_only() -> None:
    outer = outer_address()
    if outer is None or outer.startswith("127."):
        pytest.skip("this machine has no other address")
    dual = (
        {"family": socket.AF_INET6, "dualstack_ipv6": True} if socket.has_dualstack_ipv6() else {}
    )

    def reached(host: str, port: int) -> bool:
        try:
            socket.create_connection((host, port), timeout=0.3).close()
        except OSError:
            return False
        return True

    def serve(host: str) -> dict[str, bool]:
        with confined(host):
            server = socket.create_server(("", 0), **dual)  # type: ignore[arg-type]
        with server:
            port = server.getsockname()[1]
            tried = ["127.0.0.1", "127.0.0.2", outer, *(["::1"] if dual else [])]
            return {host: reached(host, port) for host in tried}

    try:
        inner = serve("127.0.0.1")
    except Exposed:
        pytest.skip("this system allows no filters")
    assert inner.pop(outer) is False
    assert all(inner.values())
    assert all(serve(outer).values())
    assert all(serve("0.0.0.0").values())


def test_a_worker_makes_the_chiefs_images_and_refuses_others() -> None:
    """The attack appends poisoned images to the pool, which a worker must do as well."""
    config = resolved(experiment())
    dataset = load_dataset(config.data)
    images = training_images(config, dataset)
    assert len(images) > 300
    text = request(config, images).encode()
    assert "data_dir" not in text.decode() and "runtime" not in text.decode()
    np.testing.assert_array_equal(answer(text, "here", None, lambda _: dataset), images)

    changed = images.copy()
    changed[-1, 0, 0] ^= 1
    with pytest.raises(ValueError) as caught:
        answer(request(config, changed).encode(), "here", None, lambda _: dataset)
    line = refusal(RuntimeError(f"a\nb {caught.value} c"))
    assert line is not None and line.startswith("worker here: has another digits")

    def broken(config: Config) -> Any:
        raise FileNotFoundError("no\nfile")

    with pytest.raises(ValueError) as caught:
        answer(text, "here", None, broken)
    assert refusal(caught.value) == "worker here: FileNotFoundError: no file"
    assert refusal(ValueError("anything else")) is None
