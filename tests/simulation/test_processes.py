"""Where worker processes listen."""

from __future__ import annotations

import json

import pytest

from tffl.core.errors import UsageError
from tffl.simulation.cluster.processes import choose_address, reachable_by_others


def test_the_user_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert choose_address(None, None, 1) == ("127.0.0.1", 5000)
    task = {"cluster": {"worker": ["a:7"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    assert choose_address(None, None, 1) == ("a", 7)
    assert choose_address("b", None, 1) == ("b", 7)
    assert choose_address("b", 8, 1) == ("b", 8)


def test_ports_end_somewhere() -> None:
    assert choose_address("a", 65535, 1)[1] == 65535
    with pytest.raises(UsageError, match="--devices 2 is not allowed with --port 65535"):
        choose_address("a", 65535, 2)


def test_others_do_not_reach_loopback() -> None:
    assert not reachable_by_others("127.0.0.1")
    assert reachable_by_others("0.0.0.0")
    assert not reachable_by_others("no such host")
