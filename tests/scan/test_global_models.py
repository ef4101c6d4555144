"""Global models of every kind: the user's own layers, SavedModels, and models of other samples."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from keras import layers
from safetensors.numpy import save_file

from tffl.core.errors import UsageError
from tffl.core.layout import WeightLayout
from tffl.defenses import create_defense
from tffl.scan.scanner import Scanner
from tffl.untrusted.global_model import load_global
from tffl.untrusted.global_variables import GlobalVariables
from tffl_cli.main import cli

CLIENTS = 6

Write = Callable[[keras.Model, Path], object]


def save_clients(model: keras.Model, folder: Path, write: Write, suffix: str) -> None:
    """Writes six clients' models, of which the last one is far from the others."""
    folder.mkdir(exist_ok=True)
    rng, start = np.random.default_rng(0), model.get_weights()
    for number in range(CLIENTS):
        scale = 30 if number == CLIENTS - 1 else 1
        moved = [w + scale * 0.1 * rng.uniform(0.5, 1, w.shape) for w in start]
        model.set_weights([m.astype(w.dtype) for m, w in zip(moved, start, strict=True)])
        write(model, folder / f"{number}{suffix}")
    model.set_weights(start)


def scan(model: Path, folder: Path, *arguments: object) -> Any:
    options = ["--global", model, "--updates", folder, "--json", *arguments]
    return CliRunner().invoke(cli, ["scan", *map(str, options)])


def one_line(result: Any, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert len(result.stderr.strip().splitlines()) == 1
    assert all(word in result.stderr for word in words), result.stderr


MODULE = """
import keras

@keras.saving.register_keras_serializable("mine")
class Shift(keras.layers.Layer):
    def build(self, shape):
        self.by = self.add_weight(shape=shape[-1:], name="by")

    def call(self, inputs):
        return inputs + self.by
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The user's own module `shifting`, which registers a layer; forgotten after the test."""
    (tmp_path / "shifting.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield Path("shifting.py")
    sys.modules.pop("shifting", None)
    keras.saving.get_custom_objects().pop("mine>Shift", None)


def test_layers_of_the_users_own_are_imported_if_asked_for(module: Path, tmp_path: Path) -> None:
    scope: dict[str, Any] = {"__name__": "shifting"}
    exec(MODULE, scope)
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(3)(scope["Shift"](name="shift")(inputs)))
    model.save(tmp_path / "global.keras")
    save_clients(model, tmp_path / "clients", lambda m, path: m.save(path), ".keras")
    keras.saving.get_custom_objects().pop("mine>Shift")
    arguments = (tmp_path / "global.keras", tmp_path / "clients")
    one_line(scan(*arguments), "Shift", "register_keras_serializable", "--import MODULE")
    one_line(scan(*arguments, "--import", "shfting"), "--import shfting is not found")
    result = scan(*arguments, "--import", "shifting")
    assert result.exit_code == 3, result.output
    assert json.loads(result.stdout)["suspects"] == ["5.keras"]


def with_statistics() -> keras.Model:
    """BatchNorm, Dropout's seed, a counter, and two layers of one name."""
    inputs = keras.Input((8, 8, 1))
    x = layers.Normalization(name="scale")(inputs)
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(2, 3, name="conv")(x))
    x = layers.Dropout(0.1)(layers.Flatten()(x))
    return keras.Model(inputs, layers.Add()([head()(x), head()(x)]))


def head() -> keras.Model:
    features = keras.Input((72,))
    return keras.Model(features, layers.Dense(3, name="out")(features))


def named(model: keras.Model) -> dict[str, np.ndarray]:
    layout = WeightLayout.of(model)
    weights = model.get_weights()
    pairs = zip(layout.entries, layout.positions, strict=True)
    return {entry.name: weights[position] for entry, position in pairs}


WRITERS: dict[str, tuple[Write, str]] = {
    "npz": (lambda model, path: np.savez(path, **cast(Any, named(model))), ".npz"),
    "ordered": (lambda model, path: np.savez(path, *model.get_weights()), ".npz"),
    "safetensors": (lambda model, path: save_file(named(model), path), ".safetensors"),
    "saved_model": (lambda model, path: model.export(str(path), verbose=False), ""),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, keras.Model]:
    """A folder with one model as `global.keras`, and as a SavedModel `global`."""
    folder, model = tmp_path_factory.mktemp("exported"), with_statistics()
    model.save(folder / "global.keras")
    model.export(str(folder / "global"), verbose=False)
    return folder, model


def test_a_saved_model_has_the_variables_of_its_keras_model(exported: Any) -> None:
    folder, model = exported
    found = load_global(folder / "global")
    assert isinstance(found, GlobalVariables)
    wanted = GlobalVariables.of(model)
    assert found.layout.entries == wanted.layout.entries
    assert found.layout.server_variables == wanted.layout.server_variables
    np.testing.assert_array_equal(found.start, wanted.start)
    assert found.expected.paths == wanted.expected.paths


@pytest.mark.parametrize("kind", WRITERS)
def test_clients_of_a_saved_model_are_judged_as_of_a_keras_model(
    kind: str, exported: Any, tmp_path: Path
) -> None:
    folder, model = exported
    save_clients(model, tmp_path / "clients", *WRITERS[kind])
    reports = [
        json.loads(scan(folder / name, tmp_path / "clients", "--seed", 1).stdout)
        for name in ("global.keras", "global")
    ]
    assert reports[0] == reports[1]
    assert len(reports[0]["suspects"]) == 1 and reports[0]["suspects"][0].startswith("5")
    defenses = {opinion["defense"] for opinion in reports[0]["files"][0]["opinions"]}
    assert defenses == {"update-consensus", "statistics-consensus"}


def test_what_a_saved_model_cannot_do_is_said(exported: Any, tmp_path: Path) -> None:
    folder, model = exported
    save_clients(model, tmp_path / "clients", *WRITERS["npz"])
    model.save(tmp_path / "clients" / "one.keras")
    report = json.loads(scan(folder / "global", tmp_path / "clients").stdout)
    refused = {f["file"]: f["reason"] for f in report["files"] if f["verdict"] == "refused"}
    assert {*refused} == {"one.keras"} and "give the global model as a .keras" in str(refused)
    for arguments in (("--defense", "gan-audit"), ("--dataset", "digits")):
        result = scan(folder / "global", tmp_path / "clients", *arguments)
        one_line(result, "looks at images", "give its .keras file")
    tf.saved_model.save(model, str(tmp_path / "unlisted"))
    one_line(scan(tmp_path / "unlisted", tmp_path / "clients"), "write it with model.export")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "saved_model.pb").touch()
    one_line(scan(tmp_path / "damaged", tmp_path / "clients"), "cannot read the global model")


def two_inputs() -> keras.Model:
    one, two = keras.Input((4,), name="one"), keras.Input((5, 2), name="two")
    both = layers.Concatenate()([one, layers.GRU(3)(two)])
    return keras.Model([one, two], [layers.Dense(1)(both), layers.Dense(7)(both)])


def series() -> keras.Model:
    return keras.Sequential([keras.Input((None, 2)), layers.Conv1D(3, 2), layers.Dense(1)])


@pytest.mark.parametrize("build", [two_inputs, series])
def test_models_of_other_samples_are_judged_by_their_updates(
    build: Callable[[], keras.Model], tmp_path: Path
) -> None:
    model = build()
    model.save(tmp_path / "global.keras")
    save_clients(model, tmp_path / "clients", lambda m, path: m.save_weights(path), ".weights.h5")
    arguments = (tmp_path / "global.keras", tmp_path / "clients")
    result = scan(*arguments, "--defense", "update-consensus", "--defense", "multi-krum")
    assert result.exit_code == 3, result.output
    assert "5.weights.h5" in json.loads(result.stdout)["suspects"]
    for options in (("--defense", "gan-audit"), ("--dataset", "digits")):
        one_line(scan(*arguments, *options), "looks at images, and the global model has", "judge")
    with pytest.raises(UsageError, match="gan-audit looks at images, and the global model has"):
        Scanner(model, {"gan-audit": create_defense("gan-audit", {})})
