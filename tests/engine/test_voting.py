"""Majority votes of several models: certificates, the exported model, whole runs."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import tffl
import tffl.config
from tffl.callbacks import Callback, Round
from tffl.config import Config, build
from tffl.core.errors import UsageError
from tffl.core.layout import WeightLayout
from tffl.core.tensors import read_tensors
from tffl.data.build import load_dataset
from tffl.engine.evaluation import Evaluator
from tffl.engine.placement import LocalDevices
from tffl.engine.voting import Certificates, majority_model
from tffl.models import models
from tffl.record.export import export
from tffl.record.identity import resolved

PREDICT = """
import sys
sys.modules["tffl"] = None  # importing it fails
import keras, numpy as np
model = keras.models.load_model(sys.argv[1])
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]).astype("float32"), verbose=0))
"""


def moved(votes: tuple[int, ...], count: int) -> set[tuple[int, ...]]:
    """Returns all results of an election after at most `count` voters change their vote."""
    results = {votes}
    for _ in range(count):
        for result in list(results):
            for source, target in itertools.permutations(range(len(votes)), 2):
                if result[source]:
                    change = np.array(result)
                    change[source] -= 1
                    change[target] += 1
                    results.add(tuple(change.tolist()))
    return results


def test_certificates_equal_brute_force() -> None:
    """Covers every election of up to six voters and four classes."""
    for voters, classes in ((1, 2), (2, 3), (3, 3), (5, 2), (4, 4), (6, 3)):
        elections = itertools.product(range(voters + 1), repeat=classes)
        votes = np.array([e for e in elections if sum(e) == voters])
        certificates = Certificates(votes, np.zeros(len(votes), np.int32))
        for row, winner, tolerated in zip(
            votes, certificates.predicted, certificates.tolerated, strict=True
        ):
            assert winner == min(k for k in range(classes) if row[k] == max(row))
            safe = [
                all(np.argmax(result) == winner for result in moved(tuple(row.tolist()), m))
                for m in range(voters + 1)
            ]
            assert tolerated == safe.index(False) - 1


def test_certificates_by_hand() -> None:
    votes = np.array([[5, 0, 0], [0, 5, 0], [3, 2, 0], [2, 3, 0], [0, 1, 4]])
    labels = np.array([0, 1, 1, 1, 2], np.int32)
    certificates = Certificates(votes, labels)
    # 5 : 0 tolerates 2; 3 : 2 tolerates 0, whichever wins ties; 4 : 1 for the higher class, 1.
    assert certificates.tolerated.tolist() == [2, 2, 0, 0, 1]
    assert certificates.predicted.tolist() == [0, 1, 0, 1, 2]
    assert certificates.accuracy() == [0.8, 0.6, 0.4]
    assert certificates.rows()[2] == {
        "input": 2,
        "label": 1,
        "predicted": 0,
        "votes": 3,
        "tolerated": 0,
    }


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(3)
    images = keras.Input((8, 8, 1))
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, name="conv")(x))
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    return keras.Model(images, keras.layers.Dense(3, name="logits")(x))


def weights_of(model: keras.Model, count: int) -> list[list[np.ndarray]]:
    layout = WeightLayout.of(model)
    rng = np.random.default_rng(count)
    start = layout.flatten(model.get_weights())
    noise = rng.normal(size=(count, layout.size)) * layout.trainable
    return [layout.unflatten((start + row).astype(np.float32)) for row in noise]


@pytest.mark.parametrize("count", [2, 5])
def test_the_majority_model_counts_votes(model: keras.Model, count: int) -> None:
    members = weights_of(model, count)
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), dtype=np.uint8)
    votes = np.zeros((300, 3), dtype=int)
    before = model.get_weights()
    for arrays in members:
        model.set_weights(arrays)
        votes[range(300), model.predict(images, verbose=0).argmax(axis=1)] += 1
    model.set_weights(before)

    together = majority_model(model, members)
    shares = together.predict(images, verbose=0)
    np.testing.assert_allclose(shares, votes / count, atol=1e-6)
    np.testing.assert_array_equal(shares.argmax(axis=1), votes.argmax(axis=1))
    ranked = np.sort(votes, axis=1)
    assert (ranked[:, -1] == ranked[:, -2]).any()  # ties do occur
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)

    evaluator, placement = Evaluator(model), LocalDevices(["CPU:0", "CPU:1"])
    flat = np.stack([WeightLayout.of(model).flatten(arrays) for arrays in members])
    resident = placement.to_devices(images)
    np.testing.assert_array_equal(evaluator.votes(flat, resident, placement), votes)
    labels = np.random.default_rng(1).integers(0, 3, 300).astype(np.int32)
    accuracy, loss = evaluator.evaluate(flat, resident, labels, placement)
    singles = [evaluator.evaluate(row[None], resident, labels, placement) for row in flat]
    assert accuracy == pytest.approx((votes.argmax(axis=1) == labels).mean())
    assert loss == pytest.approx(np.mean([single[1] for single in singles]))


@pytest.mark.slow
def test_majority_model_loads_without_tffl(model: keras.Model, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    together = majority_model(model, weights_of(model, 3))
    shares = together.predict(images, verbose=0)
    export(together, tmp_path)
    serve = tf.saved_model.load(str(tmp_path / "global")).signatures["serving_default"]
    served = serve(images=tf.constant(images, tf.float32))["logits"].numpy()
    np.testing.assert_allclose(served, shares, atol=1e-6)
    np.save(tmp_path / "images.npy", images)
    files = [str(tmp_path / name) for name in ("global.keras", "images.npy", "shares.npy")]
    subprocess.run([sys.executable, "-c", PREDICT, *files], check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "shares.npy"), shares, atol=1e-6)


@pytest.mark.parametrize(
    "dtype", [pytest.param("mixed_bfloat16", marks=pytest.mark.bfloat16), "float32"]
)
def test_any_precision_and_architecture(dtype: str) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        small = models["resnet18"]((32, 32, 3), 4, seed=1)
    finally:
        keras.config.set_dtype_policy(before)
    arrays = small.get_weights()
    together = majority_model(small, [arrays, arrays])
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    shares, logits = together.predict(images, verbose=0), small.predict(images, verbose=0)
    np.testing.assert_array_equal(shares, np.eye(4)[logits.argmax(axis=1)])


SMALL: dict[str, Any] = {
    "seed": 4,
    "data": {"train_limit": 400, "test_limit": 120},
    "federation": {"clients": 8, "participants": 7, "malicious": 1, "rounds": 4},
    "model": {"name": "lenet5"},
    "training": {"batch_size": 16, "momentum": 0.9, "local_epochs": 3},
    "attack": {"name": "label-flip"},
    "defense": {"name": "flcert"},
    "record": {"tensorboard": False, "figures": False},
}


def config(**changes: Any) -> Config:
    return build(tffl.config.override(SMALL, {k.replace("__", "."): v for k, v in changes.items()}))


def tables(path: Path) -> list[str]:
    texts = [(path / "certificates.csv").read_text()]
    for name in ("rounds.csv", "clients.csv"):
        frame = pd.read_csv(path / name, dtype=str, keep_default_na=False)
        texts.append(frame.loc[:, ~frame.columns.str.endswith("_seconds")].to_csv())
    return texts


def last_weights(path: Path) -> np.ndarray:
    return read_tensors(max((path / "checkpoints").iterdir()))[0]["weights"]


class Killer(Callback):
    """Stops a run after a round, as Ctrl-C does."""

    def __init__(self, after: int) -> None:
        self.after = after

    def round(self, round: Round) -> None:
        if round.number == self.after:
            raise KeyboardInterrupt


VARIANTS: dict[str, dict[str, Any]] = {
    "flcert": {},
    "flcert+median": {
        "defense": {"name": "flcert+median"},
        # An attack that remembers, as the defense's groups do.
        "attack": {"name": "mimic", "warmup": 1},
        "federation__malicious": 3,
    },
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def variant(request: pytest.FixtureRequest) -> dict[str, Any]:
    return VARIANTS[request.param]


@pytest.fixture(scope="module")
def whole(variant: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("voting") / "whole"
    tffl.simulate(config(**variant), path)
    return path


def test_run_writes_certificates(whole: Path, variant: dict[str, Any]) -> None:
    table = pd.read_csv(whole / "certificates.csv")
    groups = 3
    assert len(table) == 120 and table["input"].tolist() == list(range(120))
    assert table["votes"].between(1, groups).all()
    assert table["tolerated"].between(0, groups // 2).all()
    rounds = pd.read_csv(whole / "rounds.csv")
    right = table["label"] == table["predicted"]
    assert rounds["accuracy"].iloc[-1] == pytest.approx(right.mean(), abs=1e-6)
    assert right.mean() > 0.3  # there is something to certify
    summary = pd.read_json(whole / "summary.json", typ="series")
    expected = [(right & (table["tolerated"] >= m)).mean() for m in (0, 1)]
    assert summary["certified_accuracy"][:2] == pytest.approx(expected)

    dataset = load_dataset(resolved(config(**variant)).data)
    exported = keras.models.load_model(whole / "export" / "global.keras")
    answers = exported.predict(dataset.test_images, verbose=0).argmax(axis=1)
    np.testing.assert_array_equal(answers, table["predicted"])
    served = tf.saved_model.load(str(whole / "export" / "global")).signatures["serving_default"]
    logits = served(images=tf.constant(dataset.test_images, tf.float32))["logits"]
    np.testing.assert_array_equal(np.argmax(logits, axis=1), table["predicted"])


def test_every_participant_has_one_row_per_round(whole: Path) -> None:
    clients = pd.read_csv(whole / "clients.csv")
    assert clients.groupby("round")["client"].apply(list).map(sorted).map(len).eq(7).all()
    assert not clients.duplicated(["round", "client"]).any()
    assert clients.groupby("round")["weight"].sum().to_numpy() == pytest.approx(np.ones(4))


def test_resume_after_an_interruption(whole: Path, variant: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        tffl.simulate(config(**variant), tmp_path / "run", callbacks=[Killer(after=2)])
    tffl.simulate(config(**variant, runtime__devices=2), tmp_path / "run", resume=True)
    assert tables(tmp_path / "run") == tables(whole)
    np.testing.assert_array_equal(last_weights(tmp_path / "run"), last_weights(whole))


def test_resume_of_a_finished_run_changes_nothing(whole: Path, variant: dict[str, Any]) -> None:
    before = tables(whole)
    tffl.simulate(config(**variant), whole, resume=True)
    assert tables(whole) == before


@pytest.mark.parametrize("behind", ["", "+fldetector"])
def test_an_attacker_changes_one_model_only(tmp_path: Path, behind: str) -> None:
    """The certificate assumes that models of other groups stay the same to the last bit."""
    same = {
        "defense": {"name": f"flcert{behind}", "groups": 2},
        "federation": {"clients": 8, "rounds": 2, "malicious": 1},
        "record__export": False,
    }
    attacked = tffl.simulate(config(**same, attack__name="label-flip"), tmp_path / "attacked")
    tffl.simulate(config(**same, attack__name="none"), tmp_path / "peace")
    assert len(attacked.summary["malicious_clients"]) == 1
    one, other = last_weights(tmp_path / "attacked"), last_weights(tmp_path / "peace")
    differs = (one != other).any(axis=1)
    assert one.shape[0] == 2 and differs.sum() <= 1
    if not behind:
        assert differs.sum() == 1


def test_impossible_settings_are_refused_before_round_1(tmp_path: Path) -> None:
    cases = [
        ({"defense": {"name": "flcert", "groups": 8}}, "with 7 participants a round"),
        ({"defense": {"name": "flcert+multi-krum", "malicious": 1}}, "n = 2|too few|n > 2f"),
        ({"defense": {"name": "nnm+flcert+median"}}, "name flcert first"),
        ({"defense": {"name": "flcert"}, "record__store_updates": "all"}, "keeps 3 models"),
    ]
    for changes, message in cases:
        with pytest.raises(UsageError, match=message):
            tffl.simulate(config(**changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()
