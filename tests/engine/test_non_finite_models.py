"""A model whose outputs are not finite predicts no class and has no accuracy anywhere."""

from __future__ import annotations

import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import tffl
from tffl.callbacks import Callback
from tffl.core.layout import WeightLayout
from tffl.engine.evaluation import Evaluator
from tffl.engine.placement import LocalDevices
from tffl.engine.voting import Certificates, majority_model
from tffl.report.benchmarks import benchmark_sections
from tffl.report.content import build_report
from tffl.report.sources import RecordedBenchmark
from tffl.studies.benchmark_table import markdown, worst
from tffl.studies.comparison import Outcome, conclusion

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 1), dtype=np.uint8)
LABELS = np.zeros(7, np.int32)  # what argmax makes of NaN


@pytest.fixture(scope="module")
def model() -> keras.Model:
    images = keras.Input((4, 4, 1))
    return keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(images)))


def evaluate(model: keras.Model, weights: np.ndarray) -> tuple[float, float]:
    placement = LocalDevices(["CPU:0"])
    return Evaluator(model).evaluate(weights, placement.to_devices(IMAGES), LABELS, placement)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e37])  # 1e37 · 255 is infinite
def test_non_finite_outputs_have_no_accuracy(model: keras.Model, value: float) -> None:
    size = WeightLayout.of(model).size
    assert all(map(math.isnan, evaluate(model, np.full((1, size), value, np.float32))))
    assert not any(map(math.isnan, evaluate(model, np.zeros((1, size), np.float32))))


def test_one_non_finite_output_makes_the_accuracy_undefined(model: keras.Model) -> None:
    size = WeightLayout.of(model).size
    weights = np.zeros((1, size), np.float32)
    column = int(np.flatnonzero((IMAGES.max() == IMAGES).reshape(7, -1).any(axis=0))[0])
    weights[0, column * 3] = np.finfo(np.float32).max / (int(IMAGES.max()) - 0.5)
    images = IMAGES.reshape(7, -1)[:, column]
    assert 0 < (images == IMAGES.max()).sum() < 7
    assert math.isnan(evaluate(model, weights)[0])


def test_a_non_finite_model_has_no_vote(model: keras.Model) -> None:
    size = WeightLayout.of(model).size
    weights = np.zeros((3, size), np.float32)
    weights[:, -1] = 1.0  # class 2
    weights[0] = math.nan
    weights[1] = math.nan
    placement = LocalDevices(["CPU:0"])
    votes = Evaluator(model).votes(weights, placement.to_devices(IMAGES), placement)
    assert votes.tolist() == [[0, 0, 1]] * 7
    accuracy, loss = evaluate(model, weights)
    assert accuracy == 0 and math.isnan(loss)
    assert math.isnan(evaluate(model, np.full((2, size), math.nan, np.float32))[0])

    layout = WeightLayout.of(model)
    together = majority_model(model, [layout.unflatten(row) for row in weights])
    np.testing.assert_allclose(together.predict(IMAGES, verbose=0), [[0, 0, 1 / 3]] * 7)


def test_no_certificate_without_votes() -> None:
    certificates = Certificates(np.array([[0, 0], [2, 0]]), np.array([0, 0], np.int32))
    assert certificates.predicted.tolist() == [-1, 0]
    assert certificates.accuracy() == [0.5, 0.5]
    assert certificates.rows()[0]["predicted"] is None


RUIN = {
    "data": {"train_limit": 200, "test_limit": 60},
    "federation": {"clients": 4, "malicious": 1, "rounds": 2},
    "model": {"name": "lenet5"},
    "training": {"learning_rate": 1e30},
    "attack": {"name": "patch-backdoor", "target": 0},
    "defense": {"name": "none"},
    "record": {"export": False},
}


class Listener(Callback):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture(scope="module")
def ruined(tmp_path_factory: pytest.TempPathFactory) -> tuple[tffl.Run, list[str]]:
    listener = Listener()
    path = tmp_path_factory.mktemp("ruined") / "run"
    return tffl.simulate(RUIN, path, callbacks=[listener]), listener.warnings


def test_a_non_finite_run_has_empty_cells_and_one_warning(ruined: tuple) -> None:
    run, warnings = ruined
    empty = ["accuracy", "loss", "attack_success", "attack_loss"]
    assert run.rounds[empty].isna().all(axis=None)
    assert len(warnings) == 1 and warnings[0].startswith("round 1: outputs of the global model")
    summary = json.loads((run.directory / "summary.json").read_text())
    assert [summary[name] for name in empty] == [None] * 4


def test_report_and_comparison_mark_a_non_finite_run(ruined: tuple) -> None:
    from tffl_cli.main import cli

    run, _ = ruined
    report = build_report([run.directory])
    sentence = "in 2 of 2 rounds, first in round 1, the outputs of the global model"
    assert sentence in report.warnings[0]
    for command in (["report", str(run.directory)], ["localize", str(run.directory)]):
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 0, result.output
    assert "not finite" in (run.directory / "report.html").read_text(encoding="utf-8")


def outcome(accuracy: float, success: float) -> Outcome:
    return Outcome(accuracy, success, 0.5, 1.0, 0.0, 2, 2, 4, 0, 6, "test")


def test_summary_sentence_reports_no_result_for_a_non_finite_model() -> None:
    fine, harmed, ruin = outcome(0.9, 0.0), outcome(0.5, 0.9), outcome(math.nan, math.nan)

    def sentence(*runs: Outcome) -> str:
        names = ("attack-free", "undefended", "defended")
        return conclusion(dict(zip(names, runs, strict=True)), "krum")

    assert "the attack ruined the model" in sentence(fine, ruin, fine)
    assert sentence(fine, ruin, fine).endswith(
        "saved the model: it ends with accuracy 90.0% and attack success 0.0%."
    )
    assert sentence(fine, ruin, ruin).endswith("saved nothing: the defended model is ruined too.")
    assert sentence(fine, harmed, ruin).endswith("saved nothing: the defended model is ruined.")
    assert "Even without an attacker the model is ruined" in sentence(
        ruin, ruin, ruin
    ) and "raised" not in sentence(ruin, ruin, ruin)


def test_benchmark_lists_non_finite_runs() -> None:
    figures = dict.fromkeys(("recall", "precision", "fpr", "f1", "auc", "defense_seconds"))
    rows = [
        {**figures, "setting": "", "attack": attack, "defense": "none", "seed": seed,
         "accuracy": accuracy, "attack_success": None, "error": ""}
        for attack, seed, accuracy in (
            ("none", 0, 0.9), ("none", 1, 0.9), ("lie", 0, 0.1), ("lie", 1, 0.1),
            ("ipm", 0, 0.8), ("ipm", 1, None),
        )
    ]  # fmt: skip
    name, value = worst(rows) or ("", 0)
    assert name == "ipm" and math.isnan(value)
    text = markdown(rows)
    assert "80.0, 1 of 2 ruined" in text and "ruined (ipm)" in text
    table = benchmark_sections(RecordedBenchmark(Path("b"), "b", rows))[1].blocks[0].table
    assert ["worst case", "ruined"] in table.rows and ["worst attack", "ipm"] in table.rows


def test_terminal_table_marks_a_non_finite_worst_case(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from tffl_cli.console import print_benchmark

    figures = dict.fromkeys(("recall", "fpr", "defense_seconds"))
    rows = [
        {"setting": "", "attack": "lie", "defense": defense, "seed": 0, "error": "", **figures}
        | {"accuracy": accuracy}
        for defense, accuracy in (("none", None), ("median", 0.25))
    ]
    print_benchmark(rows)
    shown = capsys.readouterr().out
    assert "ruined" in shown and "25.0%" in shown
