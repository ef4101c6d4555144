"""Settings that change nothing are said, and so is a run that has nothing left to do."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import tffl
from tffl.callbacks import Callback
from tffl.config import build, load
from tffl.core.errors import UsageError
from tffl.record.identity import resolved
from tffl.simulation.unused import unused_settings
from tffl.studies.comparison import compare
from tffl_cli.main import cli

TINY = {
    "data": {"train_limit": 60, "test_limit": 20},
    "model": {"name": "lenet5"},
    "federation": {"clients": 5, "rounds": 1},
    "record": {"export": False, "figures": False, "tensorboard": False},
}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"federation": {"malicious": 3}, "defense": {"name": "krum"}},
            "federation.malicious = 3 changes nothing: nobody attacks, as attack.name is none",
        ),
        (
            {"federation": {"malicious_participants": 2}},
            "federation.malicious_participants = 2 changes nothing: nobody attacks",
        ),
        (
            {"data": {"beta": 0.5}},
            "data.beta = 0.5 changes nothing: data.partition is iid, not dirichlet or "
            "dirichlet-size or sampled",
        ),
        (
            {"data": {"label": "kind"}},
            "data.label = kind changes nothing: digits is not a table",
        ),
        (
            {"data": {"test_share": 0.5}},
            "data.test_share = 0.5 changes nothing: digits has a test part, and images that can",
        ),
        (
            {"data": {"shift_strength": 3.0}},
            "data.shift_strength = 3.0 changes nothing: data.shift is none",
        ),
        (
            {"training": {"crop_padding": 2, "augmentation": "flip"}},
            "training.crop_padding = 2 changes nothing: training.augmentation is flip",
        ),
        (
            {"data": {"classes_per_client": 3, "partition": "dirichlet"}},
            "data.classes_per_client = 3 changes nothing: data.partition is dirichlet, not shards",
        ),
        (
            {"data": {"samples_per_client": 9}},
            "data.samples_per_client = 9 changes nothing: data.partition is iid, not sampled",
        ),
        (
            {"training": {"decay": 0.9}},
            "training.decay = 0.9 changes nothing: training.schedule is constant, not exponential",
        ),
        (
            {"training": {"nesterov": True, "optimizer": "adam"}},
            "training.nesterov = true changes nothing: training.optimizer is adam, not sgd",
        ),
        (
            {"runtime": {"workers": ["10.0.0.1:5000"]}},
            "runtime.workers = ('10.0.0.1:5000',) changes nothing: runtime.placement is local",
        ),
        (
            {"attack": {"name": "lie"}, "federation": {"malicious": 0.01}},
            "federation.malicious = 0.01 of 10 clients is less than half a client",
        ),
        (
            {"attack": {"name": "lie", "from_round": 11}},
            "attack.from_round = 11 lies after the last of 10 rounds: nobody attacks",
        ),
        (
            {"attack": {"name": "ipm", "on_rounds": 3}},
            "attack.on_rounds = 3 changes nothing: attack.off_rounds is 0",
        ),
        (
            {"record": {"store_updates": "12,20"}},
            "record.store_updates = '12,20' names none of 10 rounds: nothing is stored",
        ),
    ],
)
def test_what_changes_nothing_is_said(values: dict[str, Any], line: str) -> None:
    found = unused_settings(build(values))
    assert [said for said in found if said.startswith(line)], found


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"federation": {"malicious": 3}, "attack": {"name": "lie"}},
        {"federation": {"malicious": 0}},
        {"data": {"partition": "dirichlet", "beta": 0.1}},
        {"data": {"partition": "sampled", "beta": 0.1, "samples_per_client": 3}},
        {"training": {"momentum": 0.9}},
        {"record": {"store_updates": "3"}},
    ],
)
def test_what_changes_something_is_not_said(values: dict[str, Any]) -> None:
    assert unused_settings(build(values)) == []


def test_a_file_of_every_key_says_nothing_of_what_was_wanted(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(resolved(build(TINY)).to_toml())
    assert unused_settings(load(tmp_path / "config.toml")) == []


class Listener(Callback):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def test_simulate_takes_a_file_and_says_what_changes_nothing(tmp_path: Path) -> None:
    file, listener = tmp_path / "experiment.toml", Listener()
    file.write_text(build({**TINY, "seed": 3}).to_toml())
    run = tffl.simulate(str(file), callbacks=[listener])
    assert run.config.seed == 3 and listener.warnings == []
    tffl.simulate({**TINY, "data": {**TINY["data"], "beta": 0.2}}, callbacks=[listener])
    assert [line.partition(" = ")[0] for line in listener.warnings] == ["data.beta"]


def test_compare_takes_nested_values_and_warns_once() -> None:
    listener = Listener()
    values = {**TINY, "attack": {"name": "label-flip"}, "defense": {"name": "median"}}
    values["data"] = {**TINY["data"], "beta": 0.2}
    runs = compare(values, watch=lambda variant: [listener])
    assert set(runs) == {"defended", "undefended", "attack-free"}
    assert len([line for line in listener.warnings if "data.beta" in line]) == 1


@pytest.mark.parametrize("wrong", [3, None, ["digits"]])
def test_an_experiment_of_another_kind_is_one_line(wrong: Any) -> None:
    for function in (tffl.simulate, compare):
        with pytest.raises(UsageError, match="an experiment is a Config, nested values or"):
            function(wrong)


def test_dir_names_what_there_is() -> None:
    assert {"simulate", "load", "Config", "UsageError", "__version__"} <= set(dir(tffl))
    assert all(hasattr(tffl, name) for name in dir(tffl))


def test_resuming_a_finished_run_is_said(tmp_path: Path) -> None:
    tffl.simulate(TINY, tmp_path / "run")
    for option in ((), ("--json",)):
        result = CliRunner().invoke(cli, ["simulate", "--resume", str(tmp_path / "run"), *option])
        assert result.exit_code == 0, result.stderr
        assert "All 1 rounds are finished already: nothing is trained" in result.stderr


def test_malicious_clients_without_an_attack_are_said(tmp_path: Path) -> None:
    settings = ["data.train_limit=60", "data.test_limit=20", "record.export=false"]
    words = ["simulate", "--clients", "8", "--rounds", "1", "--model", "lenet5"]
    words += [word for setting in settings for word in ("--set", setting)]
    words += ["--malicious", "2", "--defense", "krum", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.stderr
    assert "Warning: federation.malicious = 2 changes nothing: nobody attacks" in result.stderr
