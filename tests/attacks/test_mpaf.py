"""MPAF: a fixed random model pulls."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tffl.attacks import attacks
from tffl.config import ModelConfig
from tffl.core import seeds
from tffl.core.layout import WeightLayout
from tffl.models import models


def test_pulls_towards_the_base_model(a_round, layout) -> None:
    this = a_round()
    base = np.random.default_rng(1).normal(size=layout.size).astype(np.float32)
    attack = attacks.create("mpaf", {"amplification": 4})
    sent, state = this.attacked(attack, {"base": base})
    way = (base - this.updates.start.astype(np.float64))[layout.trainable]
    np.testing.assert_allclose(
        sent.matrix[this.malicious][:, layout.trainable], [4 * way] * 3, 1e-6
    )
    np.testing.assert_array_equal(state["base"], base)


def test_n_over_m_reaches_it_in_one_round(a_round, layout) -> None:
    this = a_round(honest=9, malicious=3)
    base = np.ones(layout.size, np.float32)
    sent, _ = this.attacked(attacks.create("mpaf", {"amplification": 4}), {"base": base})
    sent.matrix[~this.malicious] = 0
    joint = this.updates.start + sent.matrix.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(joint[layout.trainable], 1, rtol=1e-5)


@pytest.mark.parametrize(("name", "size"), [("cnn", 6), ("pdgan-cnn", 28)])
def test_the_base_model_is_fresh_and_fixed(name: str, size: int) -> None:
    def adversary(seed: int) -> SimpleNamespace:
        model = models[name]((size, size, 2), 4, seed=seeds.integer(seed, "model"))
        config, layout = SimpleNamespace(model=ModelConfig(name=name)), WeightLayout.of(model)
        return SimpleNamespace(seed=seed, model=model, layout=layout, config=config, classes=4)

    one = adversary(1)
    first = one.layout.flatten(one.model.get_weights())
    attack = attacks.create("mpaf", {})
    base = attack.init(one)["base"]
    assert base.dtype == np.float32 and base.shape == first.shape
    np.testing.assert_array_equal(base, attack.init(one)["base"])
    kernel = one.layout[f"{one.layout.final_layer}/kernel"]
    assert abs(np.corrcoef(base[kernel], first[kernel])[0, 1]) < 0.05
    assert base[kernel].std() == pytest.approx(first[kernel].std(), rel=0.02)
    assert (attack.init(adversary(2))["base"][kernel] != base[kernel]).any()
    np.testing.assert_array_equal(one.layout.flatten(one.model.get_weights()), first)


def test_the_published_factor_overflows_silently(a_round, layout, recwarn) -> None:
    this = a_round()
    base = np.full(layout.size, 1e35, np.float32)
    sent, _ = this.attacked(attacks.create("mpaf", {}), {"base": base})
    assert np.isposinf(sent.matrix[this.malicious][:, layout.trainable]).all()
    assert not recwarn.list
