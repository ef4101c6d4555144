"""`tffl pretrain`: weights from central training, and experiments that start from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import tffl
from tffl.callbacks import Callback
from tffl.config import build
from tffl.core.errors import TfflError, UsageError
from tffl.simulation.pretrain import Epoch, Pretraining, pretrain
from tffl.simulation.weights_files import other_normalization
from tffl_cli.main import cli

SMALL = {
    "seed": 1,
    "data": {"train_limit": 1000, "test_limit": 100},
    "model": {"name": "mlp", "hidden": [32]},
    "training": {"batch_size": 16, "learning_rate": 0.05, "schedule": "cosine"},
}


class Heard(Callback):
    def start(self, start) -> None:
        self.accuracy = start.accuracy

    def warning(self, text: str) -> None:
        self.said = text


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Epoch]]:
    path = tmp_path_factory.mktemp("pretrained") / "digits.npz"
    heard: list[Epoch] = []
    history = pretrain(Pretraining(build(SMALL), 4, path), heard.append, print, ["tffl", "x"])
    assert heard == history
    return path, history


def test_it_learns_and_says_how_the_weights_were_made(weights: tuple[Path, list[Epoch]]) -> None:
    path, history = weights
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3, 4]
    assert history[-1]["accuracy"] > 0.5
    about = json.loads(Path(f"{path}.json").read_text())
    assert about["epochs"] == history and about["command"] == ["tffl", "x"]
    assert about["model"]["hidden"] == [32] and about["training_samples"] == 1000
    assert set(np.load(path)) == {
        f"{x}/{y}" for x in ("dense1", "logits") for y in ("kernel", "bias")
    }


def test_a_run_starts_from_the_weights_and_says_how_accurate_they_are(
    weights: tuple[Path, list[Epoch]],
) -> None:
    path, history = weights
    callback = Heard()
    still = {"clients": 3, "rounds": 1, "server_learning_rate": 1e-30}
    model = {**SMALL["model"], "weights": str(path)}
    run = tffl.simulate({**SMALL, "model": model, "federation": still}, callbacks=[callback])
    assert callback.accuracy == run.summary["start_accuracy"]
    assert run.summary["start_accuracy"] == pytest.approx(history[-1]["accuracy"])
    assert run.rounds["accuracy"][0] == pytest.approx(history[-1]["accuracy"])
    random = tffl.simulate({**SMALL, "federation": still}, callbacks=[callback])
    assert callback.accuracy is None and "start_accuracy" not in random.summary


def test_weights_of_another_normalization_are_said(weights: tuple[Path, list[Epoch]]) -> None:
    path, _ = weights
    assert other_normalization(path, "none") == ""
    assert "trained with data.normalization = 'none', and" in other_normalization(
        path, "per-channel"
    )
    values = {**SMALL, "data": {**SMALL["data"], "normalization": "per-channel"}}
    values["model"] = {**SMALL["model"], "weights": str(path)}
    callback = Heard()
    tffl.simulate({**values, "federation": {"clients": 3, "rounds": 1}}, callbacks=[callback])
    assert "sees other inputs than those it was trained on" in callback.said


def test_weights_from_elsewhere_say_nothing_of_normalization(tmp_path: Path) -> None:
    for text in (None, "[]", "{}", "nothing", '{"data": 3}'):
        if text is not None:
            (tmp_path / "w.npz.json").write_text(text)
        assert other_normalization(tmp_path / "w.npz", "per-channel") == ""


def test_a_model_that_diverges_and_a_file_that_exists_are_errors(tmp_path: Path) -> None:
    wild = {**SMALL, "training": {"learning_rate": 1e30}}
    with pytest.raises(TfflError, match="not finite after epoch 1: take a smaller"):
        pretrain(Pretraining(build(wild), 1, tmp_path / "w.npz"), print, print)
    assert not list(tmp_path.iterdir())
    (tmp_path / "w.npz").touch()
    with pytest.raises(UsageError, match="exists: remove it, or give another --out"):
        Pretraining(build(SMALL), 1, tmp_path / "w.npz").check()
    with pytest.raises(UsageError, match=r"w\.npz is no folder that you can write to"):
        Pretraining(build(SMALL), 1, tmp_path / "w.npz" / "inner" / "w.npz").check()


def test_finished_epochs_survive_an_interruption(tmp_path: Path) -> None:
    def interrupt(epoch: Epoch) -> None:
        if epoch["epoch"] == 2:
            raise KeyboardInterrupt

    job = Pretraining(build(SMALL), 4, tmp_path / "w.npz")
    with pytest.raises(KeyboardInterrupt):
        pretrain(job, interrupt, print)
    assert len(json.loads(job.about.read_text())["epochs"]) == 2
    start = {"clients": 3, "rounds": 1}
    model = {**SMALL["model"], "weights": str(job.path)}
    run = tffl.simulate({**SMALL, "model": model, "federation": start})
    accuracy = json.loads(job.about.read_text())["epochs"][-1]["accuracy"]
    assert run.summary["start_accuracy"] == pytest.approx(accuracy)


def test_on_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "w.weights.h5"
    options = ["--train-limit", "100", "--set", "data.test_limit=50", "--model", "logistic"]
    result = CliRunner().invoke(
        cli, ["pretrain", *options, "--epochs", "2", "--out", str(out)], catch_exceptions=False
    )
    assert result.exit_code == 0 and "epoch 2/2 · accuracy " in result.stderr
    assert "how they were made in" in result.stdout and out.exists()
    for option, message in (("w.txt", "it should end in .keras"), (str(out), "exists: remove")):
        refused = CliRunner().invoke(cli, ["pretrain", *options, "--out", option])
        assert refused.exit_code == 2 and message in refused.stderr
