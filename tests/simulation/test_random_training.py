"""Augmentation and Dropout in a run: the same tables on one device, on several, and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

import tffl
from tffl.callbacks import Callback, Round
from tffl.config import override
from tffl.core.errors import UsageError

VALUES: dict[str, Any] = {
    "seed": 3,
    "data": {"train_limit": 90, "test_limit": 40, "server_samples": 10},
    "federation": {"clients": 4, "malicious": 1, "rounds": 2, "server_epochs": 1},
    "training": {"batch_size": 8, "augmentation": "crop+flip", "crop_padding": 2},
    "record": {"tensorboard": False, "export": False, "figures": False},
}


def network(image_shape: tuple[int, ...], classes: int) -> keras.Model:
    """Returns a model with two Dropouts, one of which has no seed of its own."""
    layers = keras.layers
    images = keras.Input(image_shape)
    x = layers.Flatten()(layers.Rescaling(1 / 255)(images))
    x = layers.Dropout(0.2, seed=5)(x)
    x = layers.Dropout(0.3)(layers.Dense(16, activation="relu")(x))
    return keras.Model(images, layers.Dense(classes)(x))


def simulate(out: Path, **options: Any) -> None:
    changes = {key.replace("__", "."): options.pop(key) for key in [*options] if "__" in key}
    tffl.simulate(override(VALUES, changes), out, model=network, attack="patch-backdoor", **options)


def tables(path: Path) -> str:
    """Returns the two tables of a run as text, without the columns of seconds."""
    frames = [pd.read_csv(path / name, dtype=str) for name in ("rounds.csv", "clients.csv")]
    return "".join(
        frame.loc[:, ~frame.columns.str.endswith("_seconds")].to_csv() for frame in frames
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("runs") / "whole"
    simulate(path, runtime__devices=1)
    return tables(path)


class Interruption(Callback):
    """Stops a run after its first round, as Ctrl-C would."""

    def round(self, round: Round) -> None:
        raise KeyboardInterrupt


def test_two_devices_draw_what_one_draws(whole: str, tmp_path: Path) -> None:
    simulate(tmp_path / "run", runtime__devices=2)
    assert tables(tmp_path / "run") == whole


def test_a_resumed_run_draws_what_a_whole_one_draws(whole: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "run", callbacks=[Interruption()])
    simulate(tmp_path / "run", resume=True)
    assert tables(tmp_path / "run") == whole


def test_augmentation_changes_what_is_trained(whole: str, tmp_path: Path) -> None:
    simulate(tmp_path / "plain", training__augmentation="none")
    assert tables(tmp_path / "plain") != whole


def test_feature_vectors_cannot_be_cropped(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    labels = np.arange(40) % 2
    with pytest.raises(UsageError, match="augmentation = 'crop' needs images"):
        tffl.simulate(
            {"training": {"augmentation": "crop"}},
            model="logistic",
            dataset=(rows, labels, rows, labels),
        )
