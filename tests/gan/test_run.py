"""Runs with the auditor: resumed after an interruption, and exported for plain TensorFlow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

import tffl
from tffl.callbacks import Callback, Round
from tffl.config import build
from tffl.core.verdict import AuditImages
from tffl.record.run_directory import RunDirectory
from tffl.record.shown import to_arrays
from tffl.simulation.shared_resources import SharedResources

SETTING: dict[str, Any] = {
    "seed": 3,
    "data": {"dataset": "digits", "image_size": 8, "train_limit": 200, "test_limit": 100},
    "federation": {
        "clients": 6,
        "participants": 5,
        "malicious": 2,
        "malicious_participants": 1,
        "rounds": 3,
    },
    "model": {"name": "pdgan-cnn"},
    "training": {"batch_size": 16},
    "attack": {"name": "label-flip", "scale": 5.0},
    "defense": {
        "name": "gan-audit",
        "source": "gan+auxiliary",
        "from_round": 2,
        "images": 20,
        "balance": True,
        "gan_steps": 2,
        "gan_batch": 4,
        "generator_width": 1,
        "keep_discriminator": True,
    },
    "runtime": {"devices": 1},
    "record": {"tensorboard": False, "figures": False, "export": True},
}
SHARED = SharedResources()

BARE = """
import json, sys
import numpy as np, tensorflow as tf
folder, out = sys.argv[1:]
served = tf.saved_model.load(folder + "/saved_model").signatures
z = tf.random.stateless_normal((3, 100), [1, 2])
made = served["generate"](z=z)["images"]
seen = served["discriminate"](images=made)
images = tf.cast(np.load(folder + "/audit_images.npy"), tf.float32)
logits = np.random.default_rng(0).normal(size=(4, len(images), 11)).astype(np.float32)
judged = served["audit"](images=images, logits=tf.constant(logits))
assert not any(name.startswith("tffl") for name in sys.modules)
parts = {**{"seen_" + k: v for k, v in seen.items()}, **judged, "made": made, "sent": logits}
np.savez(out, z=z.numpy(), **{k: np.asarray(v) for k, v in parts.items()})
"""


class Stop(Callback):
    """Interrupts the run after round 2."""

    def round(self, round: Round) -> None:
        if round.number == 2:
            raise KeyboardInterrupt


def run(out: Path, **options: Any) -> tffl.Run:
    return tffl.simulate(build(SETTING), out, shared=SHARED, **options)


def tables(path: Path) -> list[str]:
    frames = [pd.read_csv(path / f"{name}.csv", dtype=str) for name in ("rounds", "clients")]
    return [f.loc[:, ~f.columns.str.endswith("_seconds")].to_csv() for f in frames]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gan") / "whole"
    result = run(path)
    assert result.clients.groupby("round")["malicious"].sum().tolist() == [1, 1, 1]
    return path


def test_resumed_run_continues_with_the_same_gan(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", callbacks=[Stop()])
    run(tmp_path / "parts", resume=True)
    assert tables(tmp_path / "parts") == tables(whole)
    ends = [RunDirectory.open(path).shown(3)[1] for path in (whole, tmp_path / "parts")]
    one, other = map(to_arrays, ends)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_audit_images_are_stored_from_the_first_audit_on(whole: Path) -> None:
    directory = RunDirectory.open(whole)
    assert directory.shown(1)[1] == ()
    (shown,) = directory.shown(3)[1]
    assert isinstance(shown, AuditImages)
    assert shown.images.shape == (40, 8, 8, 1)
    clients = directory.frames()[1]
    scores = clients[clients["round"] == 3]["score"]
    np.testing.assert_allclose(shown.accuracies, 1 - scores)
    granted = json.loads((whole / "environment.json").read_text())["granted"]["defense"]
    assert granted == ["auxiliary images from the test set"]


def test_exports_load_in_plain_tensorflow(whole: Path, tmp_path: Path) -> None:
    from tffl.gan import audit

    folder, out = whole / "export" / "detector", tmp_path / "out.npz"
    script = [sys.executable, "-c", BARE, str(folder), str(out)]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    served = np.load(out)
    made = np.asarray(keras.models.load_model(folder / "generator.keras")(served["z"]))
    np.testing.assert_allclose(served["made"], made, atol=1e-3)
    twin = keras.models.load_model(folder / "discriminator.keras")
    logits = np.asarray(twin(made), np.float64)
    fake = np.exp(logits[:, -1]) / np.exp(logits).sum(axis=1)
    np.testing.assert_allclose(served["seen_real"], 1 - fake, atol=1e-4)
    expected = audit.audit(served["sent"], 10, balance=True)
    np.testing.assert_array_equal(served["labels"], expected.labels)
    np.testing.assert_allclose(served["accuracy"], expected.accuracies, rtol=1e-6)
    assert served["real"].shape == (len(expected.labels),)
    about = json.loads((folder / "detector.json").read_text())
    assert about["auxiliary"] == [0, 4]
    assert about["rule"] == "median-mad" and 0 <= about["threshold"] <= 1
