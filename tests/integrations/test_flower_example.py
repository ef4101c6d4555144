"""The Flower example: its parts, and with TFFL_FLOWER_EXAMPLE=1 the whole of it."""

from __future__ import annotations

import importlib
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("flwr.supercore.task_identity")

from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

if sys.version_info < (3, 11):
    import tomli as tomllib
else:
    import tomllib

EXAMPLE = Path(__file__).parents[2] / "examples" / "flower"

whole = pytest.mark.skipif(
    os.environ.get("TFFL_FLOWER_EXAMPLE") != "1",
    reason="starts dozens of processes for minutes: set TFFL_FLOWER_EXAMPLE=1",
)


@pytest.fixture(scope="module")
def example() -> Iterator[None]:
    """Makes the example's modules importable."""
    sys.path.insert(0, str(EXAMPLE))
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    yield
    sys.path.remove(str(EXAMPLE))
    TaskIdentity._run_id = TaskIdentity._node_id = TaskIdentity._task_id = None


@pytest.fixture
def loopback(example: None) -> ModuleType:
    return importlib.import_module("loopback")


def settings(**changed: Any) -> dict[str, Any]:
    config = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["tool"]["flwr"]["app"][
        "config"
    ]
    changed = {name.replace("_", "-"): value for name, value in changed.items()}
    assert set(changed) <= set(config)
    return {**config, **changed}


class Nodes:
    """A Flower grid whose nodes run the example's ClientApp in this process."""

    def __init__(self, count: int, config: dict[str, Any]) -> None:
        from defended import client_app

        self._handlers = {"train": client_app.train, "query": client_app.query}
        self._parts = {1000 - part: part for part in range(count)}
        self._config = config

    def get_node_ids(self) -> list[int]:
        return list(self._parts)

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            about = {"partition-id": self._parts[node], "num-partitions": len(self._parts)}
            context = Context(1, node, about, RecordDict(), self._config)
            reply = self._handlers[message.metadata.message_type](message, context)
            reply.metadata.__dict__["_src_node_id"] = node
            replies.append(reply)
        return replies


def judged(out: Path) -> pd.DataFrame:
    """Returns the verdicts of a run with the truth."""
    numbers = {"node": "uint64"}
    clients = pd.read_csv(out / "clients.csv").drop(columns="malicious", errors="ignore")
    if "node" not in clients:
        clients = clients.merge(pd.read_csv(out / "nodes.csv", dtype=numbers), on="client")
    truth = pd.read_csv(out / "truth.csv", dtype=numbers)
    return clients.astype(numbers).merge(truth, on="node", validate="m:1")


@pytest.mark.parametrize("defense", ["update-consensus", "flower-multi-krum"])
def test_the_app_plays_a_round_and_catches_its_attackers(
    example: None, tmp_path: Path, defense: str
) -> None:
    from defended import server_app

    config = settings(
        nodes=5,
        malicious=1,
        defense=defense,
        attack="sign-flip",
        train_limit=100,
        local_epochs=1,
        num_server_rounds=1,
        ask_nodes=True,
        out=str(tmp_path),
    )
    context = Context(1, 1, {}, RecordDict(), config)
    server_app.main(Nodes(5, config), context)
    rows = judged(tmp_path)
    assert len(rows) == 5
    assert (rows["accepted"] == 1 - rows["malicious"]).all()
    assert len(pd.read_csv(tmp_path / "accuracy.csv")) == 2


def test_parts_are_disjoint_and_without_the_servers_samples(example: None) -> None:
    from defended.task import SERVER_SAMPLES, Task

    task = Task.of(settings())
    parts = [task.part(number, 4) for number in range(4)]
    images = [image.tobytes() for part, _ in parts for image in part]
    kept = [image.tobytes() for image in task.server_samples().images]
    everything = {image.tobytes() for image in task.data().train_images}
    assert len(kept) == SERVER_SAMPLES
    assert len(images) + len(kept) == len(task.data().train_labels)
    assert set(images) | set(kept) == everything


def test_certificates_are_trusted_by_their_authority_only(
    loopback: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    tls, other = (
        loopback.make_certificates(tmp_path),
        loopback.make_certificates(tmp_path / "other"),
    )
    assert tls["key"].stat().st_mode & 0o077 == 0
    for authority, trusted in ((tls["ca"], True), (other["ca"], False)):
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(tls["server"], tls["key"])
        client = ssl.create_default_context(cafile=str(authority))
        here, there = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [
            client.wrap_bio(here, there, server_hostname="127.0.0.1"),
            server.wrap_bio(there, here, server_side=True),
        ]
        assert _shake_hands(ends) is trusted


def _shake_hands(ends: list[ssl.SSLObject]) -> bool:
    """Says whether two ends come to trust each other."""
    done: set[int] = set()
    while len(done) < 2:
        for number, end in enumerate(ends):
            try:
                end.do_handshake()
                done.add(number)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return True


def test_ports_are_free_and_different(loopback: ModuleType) -> None:
    ports = loopback.free_ports(20)
    assert len(set(ports)) == 20


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc")
def test_everything_is_stopped_even_what_was_detached_or_does_not_listen(
    loopback: ModuleType,
) -> None:
    detached = (
        "import subprocess, sys, time\n"
        "stubborn = 'import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(99)'\n"
        "subprocess.Popen([sys.executable, '-c', stubborn], start_new_session=True)\n"
        "time.sleep(99)\n"
    )
    with pytest.raises(loopback.RunFailed, match="stopped by signal"), loopback.cleaned_up() as all:
        all.patience = 1.0
        all.start("parent", [sys.executable, "-c", detached])
        until = time.monotonic() + 30
        while len(set(loopback._marked(all.mark))) < 2 and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(1.0)  # until the stubborn one has made itself so
        assert len(set(loopback._marked(all.mark))) == 2
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        time.sleep(30)
    assert not list(loopback._marked(all.mark))
    assert not all.home.exists()


def test_a_command_that_takes_too_long_or_fails_is_a_failure(loopback: ModuleType) -> None:
    with loopback.cleaned_up() as processes:
        with pytest.raises(loopback.RunFailed, match="slow did not finish in time"):
            processes.run("slow", ["sleep", "60"], time.monotonic() + 0.5)
        with pytest.raises(loopback.RunFailed, match="bad failed: why"):
            processes.run("bad", ["sh", "-c", "echo why; exit 3"], time.monotonic() + 30)
        assert processes.run("good", ["echo", "fine"], time.monotonic() + 30) == "fine\n"


def play(tmp_path: Path, kind: str, *more: str) -> Path:
    """Runs the script as its README says; returns its folder."""
    out = tmp_path / "run"
    command = [sys.executable, str(EXAMPLE / "loopback.py"), kind, "--out", str(out)]
    sizes = ["--nodes", "6", "--malicious", "2", "--timeout", "1500"]
    done = subprocess.run(
        [*command, *sizes, *more, "--config", "num-server-rounds=2"],
        capture_output=True,
        text=True,
        timeout=1600,
    )
    assert done.returncode == 0, done.stderr
    return out


def check(out: Path) -> None:
    rows = judged(out)
    assert len(rows) == 12
    assert (rows["accepted"] == 1 - rows["malicious"]).all()
    assert pd.read_csv(out / "accuracy.csv")["accuracy"].iloc[-1] > 0.8


@whole
@pytest.mark.slow
def test_the_example_runs_in_flowers_simulation(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    check(play(tmp_path, "simulation"))


@whole
@pytest.mark.slow
def test_the_example_runs_on_supernodes_with_tls_and_authentication(tmp_path: Path) -> None:
    out = play(tmp_path, "deployment", "--impostor")
    check(out)
    link = (out / "superlink.log").read_text()
    assert "Uvicorn running on https://127.0.0.1" in link
    assert "No SuperNode found with the given public key" in link
    assert "SuperNode authentication is disabled" not in link
