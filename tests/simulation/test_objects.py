"""Experiments from objects: nothing is packaged, and the config still says what was run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import keras
import numpy as np
import pytest
from pydantic import Field
from sklearn.datasets import load_digits

import tffl
from tffl.attacks.sign_flip import SignFlip
from tffl.core.errors import UsageError
from tffl.core.updates import Updates
from tffl.defenses.detector import Detector
from tffl.simulation.objects import described

SMALL: dict[str, Any] = {
    "data": {"train_limit": 200, "test_limit": 50},
    "federation": {"clients": 5, "malicious": 1, "rounds": 2},
    "model": {"name": "lenet5"},
    "record": {"tensorboard": False, "export": False, "figures": False},
}


@dataclass(frozen=True)
class NormLimit(Detector):
    """Rejects updates that are much longer than the others."""

    factor: Annotated[float, Field(gt=1)] = 3.0

    def score(self, updates, server):
        return updates.norms()

    def threshold(self, scores):
        return self.factor * float(np.median(scores))


def arrays() -> tuple[np.ndarray, ...]:
    digits = load_digits()
    images = np.minimum(digits.images * 16, 255).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    return images[:400], labels[:400], images[400:500], labels[400:500]


def network(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    layers = [keras.layers.Flatten(), keras.layers.Dense(classes)]
    return keras.Sequential([keras.Input(image_shape), keras.layers.Rescaling(1 / 255), *layers])


def test_objects_and_names_are_two_ways_to_one_run(tmp_path) -> None:
    attack = tffl.attacks.LabelFlip(scale=3.0)
    defense = tffl.defenses.MultiKrum(malicious=1)
    run = tffl.simulate(SMALL, attack=attack, defense=defense)
    named = {"attack": {"name": "label-flip", "scale": 3.0}}
    named |= {"defense": {"name": "multi-krum", "malicious": 1}}
    same = tffl.simulate({**SMALL, **named})
    assert run.config == same.config
    np.testing.assert_array_equal(run.clients["score"], same.clients["score"])


@dataclass(frozen=True)
class Overwriter(NormLimit):
    """Centers the matrix of the server in place."""

    def score(self, updates, server):
        updates.matrix[:] -= updates.matrix.mean(axis=0)
        return updates.norms()


@dataclass(frozen=True)
class Saboteur(SignFlip):
    """Writes into the rows of others."""

    def craft(self, updates, malicious, adversary, state):
        updates.matrix[~malicious] = 0
        return super().craft(updates, malicious, adversary, state)


@pytest.mark.parametrize("parts", [{"defense": Overwriter()}, {"attack": Saboteur()}])
def test_nobody_writes_to_the_updates(parts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="read-only"):
        tffl.simulate(SMALL, **parts)


def test_a_class_of_the_session_is_named_and_resumes(tmp_path) -> None:
    run = tffl.simulate(SMALL, tmp_path / "run", attack="label-flip", defense=NormLimit(factor=2))
    assert run.config.defense.name == "norm-limit"
    assert 'name = "norm-limit"' in (tmp_path / "run" / "config.toml").read_text()
    longer = {**SMALL, "federation": {**SMALL["federation"], "rounds": 3}}
    run = tffl.simulate(
        longer, tmp_path / "run", resume=True, attack="label-flip", defense=NormLimit(factor=2)
    )
    assert len(run.rounds) == 3
    assert "norm-limit" in tffl.defenses.defenses
    tffl.register("norm-limit", NormLimit)  # a notebook's cell may run twice
    with pytest.raises(UsageError, match="'krum' is tffl's own"):
        tffl.register("krum", NormLimit)
    with pytest.raises(UsageError, match="write it like my-defense"):
        tffl.register("Norm Limit", NormLimit)
    with pytest.raises(UsageError, match="odd = 3 cannot be registered"):
        tffl.register("odd", 3)


def test_a_model_starts_from_its_own_weights_and_arrays_are_a_dataset() -> None:
    model = network((8, 8, 1), 10)
    before = model.get_weights()
    still = {"federation": {"clients": 4, "rounds": 1, "server_learning_rate": 1e-30}}
    run = tffl.simulate(still, attack="none", model=model, dataset=arrays())
    for value, expected in zip(run.model.get_weights(), before, strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-6)
    assert run.config.data.dataset == "arrays" and run.summary["parameters"] == 650
    again = tffl.simulate(still, attack="none", model=network, dataset=arrays())
    assert again.config.model.name == "network"


def test_options_of_a_function_stand_in_the_config() -> None:
    def sized(image_shape: tuple[int, ...], classes: int, units: int = 3) -> keras.Model:
        start = [keras.Input(image_shape), keras.layers.Flatten(), keras.layers.Dense(units)]
        return keras.Sequential([*start, keras.layers.Dense(classes)])

    still = {"federation": {"clients": 4, "rounds": 1}, "model": {"units": 5}}
    run = tffl.simulate(still, attack="none", model=sized, dataset=arrays())
    assert run.model.layers[1].units == 5 and run.config.model.options == {"units": 5}
    named = {"model": {"name": "mlp", "hidden": [3], "imports": ["os"]}}
    other = described(tffl.Config.model_validate(named), model="logistic").model
    assert (other.name, other.options, other.imports) == ("logistic", {}, ("os",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": arrays()[:2]}, "give \\(x_train, y_train, x_test, y_test\\)"),
        ({"dataset": (arrays()[0], np.eye(10)[arrays()[1]], *arrays()[2:])}, "y_train of shape"),
        ({"model": network((12, 12, 1), 10), "dataset": arrays()}, "takes images of"),
        ({"attack": "banana"}, "unknown attack 'banana'"),
        ({"attack": 3}, "attack = 3 is not allowed: give a name, or an object"),
        ({"defense": tffl.defenses.Krum}, "defense = .*Krum.* is not allowed"),
        (
            {"defense": tffl.defenses.ScoreDetector(score=Updates.norms)},
            "functions cannot be recorded in a config; write a class",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(change: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tffl.simulate({"federation": {"clients": 4, "rounds": 1}}, **change)


def test_a_run_says_what_it_was() -> None:
    run = tffl.simulate(SMALL, attack="label-flip", defense="median")
    assert repr(run).startswith("<Run: label-flip against median on digits, 2 rounds, accuracy ")
    page = run._repr_html_()
    assert page.startswith("<p>&lt;Run:") and page.count("<tr") == 3
