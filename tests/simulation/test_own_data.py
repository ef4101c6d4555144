"""Experiments on data of the user's own: a real table, float images, arrays, data that change."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from PIL import Image
from sklearn.datasets import load_breast_cancer

import tffl
from tffl.config import Config
from tffl.core.errors import UsageError
from tffl.core.layout import WeightLayout
from tffl.core.tensors import read_tensors
from tffl_cli.main import cli

QUIET = {"tensorboard": False, "export": False, "figures": False}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = load_breast_cancer(as_frame=True).frame
    found["target"] = found["target"].map({0: "malignant", 1: "benign"})
    path = tmp_path_factory.mktemp("table") / "cancer.csv"
    found.to_csv(path, index=False)
    return path


def experiment(path: Path | str, **sections: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "data": {"dataset": str(path), "label": "target"},
        "federation": {"clients": 12, "malicious": 3, "rounds": 3},
        "model": {"name": "mlp"},
        "training": {"learning_rate": 0.2, "batch_size": 16},
        "record": QUIET,
    }
    return {key: values.get(key, {}) | sections.get(key, {}) for key in {**values, **sections}}


def test_a_real_table_learns_under_an_attack_and_a_defense(table: Path) -> None:
    attack = {"name": "lie", "z": 1.0}
    defense = {"name": "multi-krum", "malicious": 3}
    run = tffl.simulate(experiment(table, attack=attack, defense=defense))
    assert run.rounds["accuracy"].iloc[-1] > 0.8  # 63% are benign
    assert run.model.input_shape == (None, 30) and run.model.output_shape == (None, 2)
    assert run.clients["malicious"].sum() == 9


def test_labels_are_flipped_in_a_table(table: Path) -> None:
    attack = {"name": "label-flip", "source": "malignant", "target": "benign"}
    run = tffl.simulate(experiment(table, attack=attack, model={"name": "logistic"}))
    assert run.rounds["attack_success"].notna().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"attack": {"name": "patch-backdoor"}},
            "patch-backdoor needs images, and cancer.csv holds",
        ),
        ({"attack": {"name": "dba"}}, "dba needs images, and cancer.csv holds vectors of 30 feat"),
        ({"attack": {"name": "edge-case"}}, "edge-case needs images"),
        ({"attack": {"name": "semantic-backdoor"}}, "semantic-backdoor needs images"),
        ({"attack": {"name": "adaptive-cam"}}, "adaptive-cam needs images"),
        (
            {"defense": {"name": "shield"}},
            "shield looks at images, and the data are feature vectors",
        ),
        ({"defense": {"name": "gan-audit"}}, "gan-audit looks at images"),
        (
            {"model": {"name": "cnn"}},
            "cnn takes images, not vectors of 30 features: set model.name",
        ),
        ({"data": {"image_size": 8}}, "data.image_size needs images"),
        ({"data": {"shift": "rotation"}}, "data.shift = 'rotation' needs images"),
    ],
)
def test_what_needs_images_says_so(table: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tffl.simulate(experiment(table, **change))


def test_other_data_are_refused_on_resuming(tmp_path: Path, table: Path) -> None:
    path, out = tmp_path / "mine.csv", tmp_path / "run"
    lines = table.read_text().splitlines()
    path.write_text("\n".join(lines) + "\n")
    config = experiment(path, federation={"rounds": 1})
    run = tffl.simulate(config, out)
    assert run.config.data.dataset == str(path)
    longer = Config.model_validate(config).with_rounds(2)
    path.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(UsageError, match=r"mine\.csv has changed since .*run began: restore the"):
        tffl.simulate(longer, out, resume=True)
    path.write_text("\n".join(lines) + "\n")
    assert len(tffl.simulate(longer, out, resume=True).rounds) == 2


def blocks(count: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images, bright on the left or on the right."""
    draw, labels = np.random.default_rng(0), np.arange(count) % 2
    images = draw.integers(0, 120, (count, 8, 8, 1), np.uint8)
    images[labels == 0, :, :4] += 120
    images[labels == 1, :, 4:] += 120
    return images, labels


def test_floats_are_seen_as_bytes_are(tmp_path: Path) -> None:
    x, y = blocks()
    outcomes = []
    for samples in (x, (x / 255).astype(np.float32), (x / 127.5 - 1).astype(np.float32)):
        run = tffl.simulate(
            experiment("", attack={"name": "patch-backdoor"}, defense={"name": "shield"})
            | {"model": {"name": "cnn"}},
            dataset=(samples[:160], y[:160], samples[160:], y[160:]),
        )
        outcomes.append(run.rounds[["accuracy", "attack_success"]].to_numpy())
    for outcome in outcomes[1:]:
        np.testing.assert_allclose(outcome, outcomes[0], atol=0.1)


def test_a_tf_data_dataset_is_a_dataset() -> None:
    x, y = blocks(40)
    data = tf.data.Dataset.from_tensor_slices((x, y))
    config = experiment("", federation={"rounds": 1, "clients": 4, "malicious": 1})
    runs = [tffl.simulate(config, dataset=each) for each in (data, data.batch(7))]
    np.testing.assert_array_equal(runs[0].rounds["loss"], runs[1].rounds["loss"])
    assert tffl.simulate(config, dataset=(data.batch(9), data)).rounds["accuracy"].notna().all()
    with pytest.raises(UsageError, match=r"should yield pairs \(sample, label\)"):
        tffl.simulate(config, dataset=data.map(lambda image, label: image))
    with pytest.raises(UsageError, match="dataset arrays yields nothing"):
        tffl.simulate(config, dataset=data.take(0))


def test_a_scan_judges_models_of_a_table(table: Path, tmp_path: Path) -> None:
    config = experiment(table, record={**QUIET, "export": True, "store_updates": "all"})
    run = tffl.simulate(config, tmp_path / "run")
    updates = run_updates(run.directory, 3)
    model = run.model
    layout = WeightLayout.of(model)
    (tmp_path / "clients").mkdir()
    for client, delta in zip(updates["client_ids"], updates["deltas"], strict=True):
        sent = -9 * delta if client == 4 else delta
        model.set_weights(layout.unflatten(updates["start"] + sent))
        model.save_weights(tmp_path / "clients" / f"{client:02d}.weights.h5")
    model.set_weights(layout.unflatten(updates["start"]))
    model.save(tmp_path / "global.keras")
    command = ["scan", "--global", str(tmp_path / "global.keras"), "--json"]
    done = CliRunner().invoke(cli, [*command, "--updates", str(tmp_path / "clients")])
    assert done.exit_code == 3 and "04.weights.h5" in json.loads(done.output)["suspects"]
    for data, message in (("digits", "takes feature vectors"), (str(table), "is a table: leave")):
        again = [*command, "--updates", str(tmp_path / "clients"), "--dataset", data]
        done = CliRunner().invoke(cli, again)
        assert done.exit_code == 2 and message in done.stderr + str(done.exception)


def run_updates(folder: Path | None, round: int) -> dict[str, np.ndarray]:
    assert folder is not None
    return read_tensors(folder / "updates" / f"round-{round:06d}.safetensors")[0]


def test_a_folder_per_client_runs_and_resumes_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = blocks(120)
    for number, (image, label) in enumerate(zip(images[..., 0], labels, strict=True)):
        place = tmp_path / "pictures" / f"client-{number // 2 % 5}" / ("left", "right")[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    attack = ["--attack", "label-flip", "--set", "attack.source=left", "--set"]
    command = ["simulate", "--dataset", "pictures", "--partition", "natural", "--clients", "5"]
    command += [*attack, "attack.target=right", "--malicious", "1", "--model", "lenet5"]
    command += ["--set", "data.image_size=12", "--set", "defense.cam-consensus.probes=16"]
    command += ["--set", "defense.probe-loss.probes=16"]
    command += ["--defense", "shield", "--rounds", "1", "--out", str(tmp_path / "run")]
    quiet = [part for key in QUIET for part in ("--set", f"record.{key}=false")]
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, [*command, *quiet, "--quiet"])
    assert done.exit_code == 0, done.output
    monkeypatch.chdir("/")
    again = ["simulate", "--resume", str(tmp_path / "run"), "--rounds", "2", "--quiet"]
    done = CliRunner().invoke(cli, again)
    assert done.exit_code == 0, done.output
    assert len((tmp_path / "run" / "rounds.csv").read_text().splitlines()) == 3
