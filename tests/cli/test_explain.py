"""`tffl explain`, and the pictures that a run draws by itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import tffl
from tffl.core.errors import UsageError
from tffl.record.run_directory import PICTURES, RunDirectory
from tffl.record.writer import RunWriter
from tffl_cli.explain import explain as command

SETTING: dict[str, Any] = {
    "data": {"train_limit": 300, "test_limit": 100},
    "federation": {"clients": 8, "malicious": 2, "rounds": 2},
    "model": {"name": "lenet5"},
    "attack": {"name": "uniform"},
    "defense": {"name": "gradcam-ae", "epochs": 5},
}
RECORD = {"export": False, "tensorboard": False, "figures": False}


def call(*arguments: object) -> Any:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def images(path: Path) -> list[tuple[int, str, bytes]]:
    """Reads round, name and PNG of every picture that TensorBoard would show."""
    (file,) = (path / "tensorboard").iterdir()
    records = tf.data.TFRecordDataset([str(file)]).as_numpy_iterator()
    events = [tf.compat.v1.Event.FromString(record) for record in records]
    found = []
    for event in events:
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "images":
                width, height, png = tf.make_ndarray(value.tensor).tolist()
                assert tf.io.decode_png(png).shape[:2] == [int(height), int(width)]
                found.append((event.step, value.tag, png))
    return found


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "seen"
    tffl.simulate({**SETTING, "record": RECORD}, path)
    return path


@pytest.fixture
def run(recorded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(recorded, tmp_path / "run")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose defense looks at no maps, and that has kept the updates of round 2."""
    path = tmp_path_factory.mktemp("runs") / "stored"
    record = {**RECORD, "store_updates": "2"}
    tffl.simulate({**SETTING, "defense": {"name": "median"}, "record": record}, path)
    return path


def test_the_last_round_by_default_as_a_table(run: Path) -> None:
    assert not (run / "figures").exists()
    result = call(run)
    assert result.exit_code == 0, result.exception
    assert "Round 2: uniform against gradcam-ae" in result.stdout
    assert "Score: reconstruction error, threshold" in result.stdout
    assert result.stdout.count("malicious") == 2
    written = sorted(file.name for file in (run / "figures").iterdir())
    assert written == [f"{name}_round_0002.png" for name in ("consensus", "errors", "heat_maps")]
    assert all(str(run / "figures" / name) in result.stdout for name in written)


def test_several_rounds_as_json(run: Path) -> None:
    result = call(run, "--round", 2, "--round", 1, "--json")
    told = json.loads(result.stdout)
    assert [seen["round"] for seen in told["explanations"]] == [2, 1]
    clients = RunDirectory.open(run).frames()[1]
    for seen in told["explanations"]:
        mine = clients[clients["round"] == seen["round"]]
        rows = seen["clients"]
        assert [row["score"] for row in rows] == pytest.approx(mine["score"].tolist())
        assert [row["malicious"] for row in rows] == (mine["malicious"] == 1).tolist()
        assert [row["flagged"] for row in rows] == (mine["flagged"] == 1).tolist()
        assert np.median([row["distance"] for row in rows]) == pytest.approx(1)
        assert len(seen["pictures"]) == 3 and all(Path(path).exists() for path in seen["pictures"])


def test_probes_are_kept_with_the_maps(run: Path) -> None:
    (shown,) = RunDirectory.open(run).shown(2)[1]
    assert shown.probes.shape == (1, 28, 28, 1)
    assert shown.probes.dtype == np.uint8
    assert len(shown.maps) == len(shown.rebuilt) == 8


def test_maps_are_made_of_stored_updates(stored: Path) -> None:
    result = call(stored, "--json")
    assert result.exit_code == 0, result.exception
    (seen,) = json.loads(result.stdout)["explanations"]
    assert seen["round"] == 2
    assert seen["score"] == "score of median"
    far = {row["client"]: row["distance"] for row in seen["clients"]}
    wrong = [row["client"] for row in seen["clients"] if row["malicious"]]
    assert len(wrong) == 2 and min(far[c] for c in wrong) > max(far[c] for c in set(far) - {*wrong})
    assert (stored / "figures" / "heat_maps_round_0002.png").exists()
    assert not (stored / PICTURES).exists()


@pytest.mark.parametrize(
    ("round", "message"),
    [
        (1, "neither heat maps nor updates of round 1: choose another round (2), or run it again"),
        (3, "has no round 3: choose one of 1 to 2"),
    ],
)
def test_what_there_is_nothing_of_is_refused(stored: Path, round: int, message: str) -> None:
    result = call(stored, "--round", round)
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    result = call(tmp_path)
    assert isinstance(result.exception, UsageError) and "holds no run" in str(result.exception)


def test_a_run_with_neither_says_what_to_do(stored: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(stored, tmp_path / "bare", ignore=shutil.ignore_patterns("updates"))
    result = call(bare)
    assert isinstance(result.exception, UsageError)
    assert "updates of round 2: run it again with a defense that uses" in str(result.exception)


def test_each_detector_of_a_combination_has_its_pictures(tmp_path: Path) -> None:
    parts = {"gradcam-ae": {"epochs": 2}, "gradcam-krum": {}}
    defense = {"name": "any-of", "of": list(parts), **parts}
    tffl.simulate({**SETTING, "defense": defense, "record": RECORD}, tmp_path / "run")
    told = json.loads(call(tmp_path / "run", "--json").stdout)
    assert [seen["detector"] for seen in told["explanations"]] == list(parts)
    assert (tmp_path / "run" / "figures" / "heat_maps_gradcam-krum_round_0002.png").exists()


def test_coalitions_are_drawn_with_heat_maps_or_without(tmp_path: Path) -> None:
    defense = {"name": "coalition", "images": 20}
    record = {**RECORD, "figures": True, "store_updates": "2"}
    tffl.simulate({**SETTING, "defense": defense, "record": record}, tmp_path / "run")
    folder = tmp_path / "run" / "figures"
    assert (folder / "coalition_round_0002.png").exists()
    first = json.loads(call(tmp_path / "run", "--round", 1, "--json").stdout)
    assert first["explanations"] == []
    (seen,) = first["coalitions"]
    assert (seen["round"], len(seen["clients"])) == (1, 8)
    assert seen["pictures"] == [str(folder / "coalition_round_0001.png")]
    assert first["pictures"] == [str(folder / "coalition_rounds.png")]
    assert all(Path(path).exists() for path in (*seen["pictures"], *first["pictures"]))

    said = call(tmp_path / "run").stdout
    assert said.index("(LayerCAM)") < said.index("Coalitions of round 2: uniform against coalition")
    assert "the limit" in said
    assert all(name in said for name in ("consensus_round_0002.png", "coalition_round_0002.png"))
    assert call(tmp_path / "run", "--round", 3).exception is not None


def test_a_run_draws_every_k_rounds_and_resumes(tmp_path: Path) -> None:
    """The pictures of an interrupted run are those of an uninterrupted one, each of them once."""
    record = {**RECORD, "tensorboard": True, "pictures_every": 2}
    setting = {**SETTING, "federation": {**SETTING["federation"], "rounds": 4}, "record": record}
    tffl.simulate(setting, tmp_path / "whole")
    names = ("consensus", "errors", "heat_maps")
    whole = images(tmp_path / "whole")
    assert [(step, tag) for step, tag, _ in whole] == [(r, name) for r in (2, 4) for name in names]
    for step, tag, png in whole:
        file = tmp_path / "whole" / "figures" / f"{tag}_round_{step:04d}.png"
        assert file.read_bytes() == png

    interrupted = shutil.copytree(tmp_path / "whole", tmp_path / "interrupted")
    (interrupted / "checkpoints" / "round-000004.safetensors").unlink()
    RunWriter.resume(interrupted).load_checkpoint(pytest.fail)
    kept = sorted(file.name for file in (interrupted / "figures").iterdir())
    assert kept == [f"{name}_round_0002.png" for name in names]
    tffl.simulate(setting, interrupted, resume=True)
    assert images(interrupted) == whole


def test_by_default_the_last_round_is_drawn(tmp_path: Path) -> None:
    tffl.simulate({**SETTING, "record": {**RECORD, "figures": True}}, tmp_path / "run")
    drawn = sorted(file.name for file in (tmp_path / "run" / "figures").glob("*_round_*"))
    assert drawn == [f"{name}_round_0002.png" for name in ("consensus", "errors", "heat_maps")]
