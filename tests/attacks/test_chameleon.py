"""Chameleon: the contrastive loss against the authors', both stages, and the target it takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tffl.attacks import attacks, create_attack
from tffl.attacks.chameleon import Chameleon, final_columns
from tffl.attacks.composed import Composed
from tffl.core.errors import UsageError
from tffl.engine.contrast import Contrast
from tffl.testing.fixtures import small_dataset

from .conftest import received

FEATURES = np.array([[3, 4], [4, 3], [0, 5], [5, 0], [-3, 4], [1, -1]], np.float32)
LABELS = np.array([0, 0, 1, 1, 1, 2], np.int32)


def create(**options: object) -> Chameleon:
    return attacks.create("chameleon", options)


@pytest.mark.parametrize(
    ("target", "scale", "temperature", "expected"),
    [
        (1, 1.0, 0.07, 5.439111339771727),
        (1, 6.0, 0.07, 32.46437623012293),
        (0, 1.0, 0.5, 1.478526848231254),
        (0, 6.0, 0.5, 3.0497649041226285),
    ],
)
def test_the_loss_is_the_authors(
    target: int, scale: float, temperature: float, expected: float
) -> None:
    """Numbers of utils/losses.py in ybdai7/Chameleon-durable-backdoor (commit 83e8f13)."""
    loss = Contrast(target, scale, temperature).loss(tf.constant(FEATURES), tf.constant(LABELS))
    np.testing.assert_allclose(float(loss), expected, rtol=1e-4)


@dataclass
class Recorder:
    """An adversary that notes how it is asked to train; its stages return 3 and 4."""

    seed: int = 0
    class_names: tuple[str, ...] = ("a", "b", "c")
    calls: list[dict[str, Any]] = field(default_factory=list)

    def train(self, start: np.ndarray, client: int, round: int, **options: Any) -> np.ndarray:
        self.calls.append({"start": start, "client": client, **options})
        return np.where(options["mask"], 3 if "contrast" in options else 4, 0).astype(np.float32)


def test_the_encoder_is_trained_first_and_then_the_final_layer(a_round, layout) -> None:
    this, adversary = a_round(malicious=2), Recorder()
    attack = create(facilitator="c", epochs=7, contrastive_epochs=2, learning_rate=0.3)
    sent, _ = received(attack, this.updates, this.malicious, adversary, {})
    final = np.zeros(layout.size, bool)
    final[layout["logits/kernel"]] = final[layout["logits/bias"]] = True
    np.testing.assert_array_equal(final_columns(layout), final)
    for encoder, head in zip(adversary.calls[::2], adversary.calls[1::2], strict=True):
        np.testing.assert_array_equal(encoder["mask"], ~final)
        np.testing.assert_array_equal(encoder["start"], this.updates.start)
        assert encoder["contrast"] == Contrast(2, 6.0, 0.07) and encoder["epochs"] == 2
        np.testing.assert_array_equal(head["mask"], final)
        moved = this.updates.start + np.where(final, 0, 3)
        np.testing.assert_allclose(head["start"], moved, rtol=1e-6)
        assert (head["epochs"], head["learning_rate"]) == (7, 0.3)
    np.testing.assert_array_equal(sent.matrix[this.malicious], [np.where(final, 4, 3)] * 2)
    np.testing.assert_array_equal(
        sent.matrix[~this.malicious], this.updates.matrix[~this.malicious]
    )


def test_the_radius_bounds_what_is_sent(a_round, layout) -> None:
    this = a_round()
    attack = create(facilitator=0, radius=0.5)
    sent, _ = received(attack, this.updates, this.malicious, Recorder(), {})
    rows = sent.matrix[this.malicious][:, layout.trainable]
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 0.5, rtol=1e-5)


def test_it_takes_the_target_of_the_attack_on_data() -> None:
    attack = create_attack("chameleon", {"target": 3})
    assert isinstance(attack, Composed) and attack.parts[1] == create(facilitator=3)
    assert create_attack("chameleon", attack.options()) == attack
    joined = create_attack("edge-case+chameleon", {})
    assert isinstance(joined, Composed) and joined.parts[1] == create(facilitator=1)
    with pytest.raises(UsageError, match="another attack poisons: join both"):
        create().check(small_dataset())
    with pytest.raises(UsageError, match=r"attack\.facilitator = 10 is not a class"):
        create(facilitator=10).check(small_dataset())
