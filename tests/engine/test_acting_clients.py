"""Malicious clients whose data an attack cannot change: a run reports how many act."""

from __future__ import annotations

from typing import Any

import pytest

import tffl
from tffl.config import build, override
from tffl.engine.observer import Observer
from tffl.record.identity import resolved
from tffl.simulation.experiment import Experiment
from tffl.simulation.shared_resources import SharedResources

SHARED = SharedResources()
BASE: dict[str, Any] = {
    "data": {"partition": "shards", "classes_per_client": 1, "train_limit": 400, "test_limit": 100},
    "federation": {"clients": 10, "malicious": 4, "rounds": 1},
    "model": {"name": "lenet5"},
    "attack": {"name": "label-flip", "source": 1},
}
"""Every client holds about one class, so that most attackers have no image to flip."""


class Listener(Observer):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def made(**changes: Any) -> tuple[Experiment, list[str]]:
    """Returns an experiment in which one attacker holds the flipped class, and its warnings."""
    listener = Listener()
    values = {"seed": 2, **{key.replace("__", "."): value for key, value in changes.items()}}
    config = resolved(build(override(BASE, values)))
    return Experiment(config, listener, SHARED), listener.warnings


def test_clients_without_the_flipped_class_do_not_act() -> None:
    experiment, warnings = made()
    acting = experiment.attackers.acting()
    counts = experiment.federation.class_counts()
    honest = [experiment.attackers.honest[client].labels for client in experiment.attackers.ids]
    holders = [
        int(client)
        for client, labels in zip(experiment.attackers.ids, honest, strict=True)
        if (labels == 1).any()
    ]
    assert acting == holders and 0 < len(acting) < 4
    assert all(counts[client, 1] == 0 for client in acting)
    assert warnings == [
        f"label-flip changes the data of {len(acting)} of 4 malicious clients: the others hold "
        "nothing that it could change and train honestly, but recall counts them as malicious all "
        "the same"
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"attack__scale": 2.0},
        {"attack__claims": 3.0},
        {"attack__name": "label-flip+sign-flip"},
        {"attack": {"name": "sign-flip"}},
        {"attack": {"name": "patch-backdoor", "target": 0}, "data__partition": "iid"},
    ],
)
def test_all_attackers_act_if_each_can_change_something(changes: dict[str, Any]) -> None:
    experiment, warnings = made(**changes)
    assert experiment.attackers.acting() == experiment.attackers.ids.tolist() and not warnings


def test_no_warning_without_attackers() -> None:
    experiment, warnings = made(federation__malicious=0)
    assert experiment.attackers.acting() == [] and not warnings


def test_summary_and_report_name_the_acting_clients(tmp_path: Any) -> None:
    from tffl.report.content import build_report

    config = build(override(BASE, {"seed": 2, "record.export": False, "record.figures": False}))
    run = tffl.simulate(config, tmp_path / "run", shared=SHARED)
    acting = run.summary["acting_clients"]
    assert set(acting) < set(run.summary["malicious_clients"])
    about = build_report([tmp_path / "run"]).about[0]
    assert f"4 of them malicious (only {len(acting)} had data to attack with)" in about
