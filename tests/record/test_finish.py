import errno
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tffl.config import Config, RecordConfig
from tffl.core.errors import TfflError
from tffl.drawing import figures
from tffl.record.export import export
from tffl.record.tables import CLIENT_COLUMNS, ROUND_COLUMNS, Table
from tffl.record.writer import RunWriter

SERVE = """
import json, sys
for package in ("keras", "tffl"):
    sys.modules[package] = None  # importing it fails
import numpy as np
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
answer = serve(images=tf.constant(np.load(sys.argv[2])))
print(json.dumps({name: tensor.numpy().tolist() for name, tensor in answer.items()}))
"""


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(3)
    images = keras.Input((8, 8, 1))
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, name="conv")(x))
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    return keras.Model(images, keras.layers.Dense(3, name="logits")(x))


def finish(run: RunWriter, model: keras.Model, summary: dict[str, Any]) -> None:
    run.finish(model, summary, {})
    for callback in run.callbacks:
        callback.end(None)


def test_finish_writes_everything_and_twice(tmp_path: Path, model: keras.Model) -> None:
    run = RunWriter.create(tmp_path, Config(), [], {})
    run.write_round(
        {"round": 1, "accuracy": 0.5, "attack_success": 0.25, "threshold": 1.5},
        [{"round": 1, "client": c, "malicious": c == 0, "score": 2.0 - c} for c in range(3)],
    )
    summary = {"accuracy": np.float32(0.5), "auc": float("nan"), "malicious": np.array([1, 2])}
    finish(run, model, summary)
    finish(RunWriter.resume(tmp_path), model, summary)
    assert json.loads((tmp_path / "summary.json").read_text()) == {
        "accuracy": 0.5,
        "auc": None,
        "malicious": [1, 2],
    }
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == [
        "rounds.png",
        "scores.png",
    ]
    assert sorted(file.name for file in (tmp_path / "export").iterdir()) == [
        "global",
        "global.keras",
    ]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_finish_leaves_out_what_is_not_wanted(tmp_path: Path, model: keras.Model) -> None:
    record = RecordConfig(tensorboard=False, figures=False, export=False)
    run = RunWriter.create(tmp_path, Config(record=record), [], {})
    run.write_round({"round": 1}, [])
    finish(run, model, {})
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "clients.csv",
        "config.toml",
        "environment.json",
        "rounds.csv",
        "summary.json",
    ]


def test_exports_answer_as_the_model_does(tmp_path: Path, model: keras.Model) -> None:
    images = np.random.default_rng(0).uniform(0, 255, (5, 8, 8, 1)).astype(np.float32)
    expected = model.predict(images, verbose=0)
    export(model, tmp_path)

    reloaded = keras.models.load_model(tmp_path / "global.keras")
    np.testing.assert_allclose(reloaded.predict(images, verbose=0), expected, rtol=1e-5)

    np.save(tmp_path / "images.npy", images)
    arguments = [str(tmp_path / "global"), str(tmp_path / "images.npy")]
    answer = subprocess.run(
        [sys.executable, "-c", SERVE, *arguments], capture_output=True, text=True, check=True
    )
    told = json.loads(answer.stdout)
    assert list(told) == ["logits"]
    np.testing.assert_allclose(told["logits"], expected, rtol=1e-4, atol=1e-5)


def test_tensorflows_own_file_errors_are_one_line(
    tmp_path: Path, model: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "{{node x}} No space left [Op:SaveV2]")

    export(model, tmp_path / "export")
    before = (tmp_path / "export" / "global" / "fingerprint.pb").read_bytes()
    monkeypatch.setattr(tf.saved_model, "save", full)
    with pytest.raises(TfflError, match=r"cannot write .*export: No space left$") as error:
        export(model, tmp_path / "export")
    cause = error.value.__cause__  # by which `tffl simulate` knows that the disk is full
    assert isinstance(cause, OSError) and cause.errno == errno.ENOSPC
    assert (tmp_path / "export" / "global" / "fingerprint.pb").read_bytes() == before


def test_figures_show_undefined_rounds_and_malicious_clients() -> None:
    rounds, clients = Table(ROUND_COLUMNS), Table(CLIENT_COLUMNS)
    for round in (1, 2):
        rounds.append(round, [{"round": round, "accuracy": 0.5, "threshold": None}])
        clients.append(
            round,
            [
                {"round": round, "client": c, "malicious": int(c == 1), "score": c + 0.5}
                for c in range(4)
            ],
        )
    (axes,) = figures.curves(rounds.frame()).axes
    assert [line.get_label() for line in axes.lines] == ["accuracy"]
    (axes,) = figures.scores(rounds.frame(), clients.frame()).axes
    dots = {str(c.get_label()): np.asarray(c.get_offsets()) for c in axes.collections}
    assert sorted(dots) == ["benign", "malicious"]
    np.testing.assert_array_equal(dots["malicious"], [[1, 1.5], [2, 1.5]])
    assert len(dots["benign"]) == 6


def test_a_heat_map_grows_with_its_rows(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 120 * 4).reshape(120, 4)
    values[3, 1] = np.nan
    names = [f"block{index}/kernel" for index in range(120)]
    figure = figures.heat_map(values, names, [1, 2, 3, 9], "title", "AUC")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3", "9"]
    assert axes.images[0].get_clim() == (0, 1)
    figures.save(figure, tmp_path / "a.png")
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    # Within a pixel, which matplotlib's versions measure differently.
    assert all(upper.y0 >= lower.y1 - 1 for upper, lower in pairwise(boxes))
