"""The GAN auditor's networks: shapes, the extra output, and deterministic Dropout."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tffl.config import TrainingConfig
from tffl.core.errors import UsageError
from tffl.core.layout import WeightLayout
from tffl.data.federation import ClientData
from tffl.engine.placement import LocalDevices
from tffl.engine.training import LocalTraining, Trainer
from tffl.models import models
from tffl.models.pdgan import generator


def test_network_is_as_the_paper_describes() -> None:
    model = models["pdgan-cnn"]((32, 32, 1), 10)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds.count("Conv2D") == kinds.count("BatchNormalization") == 6
    assert "Dropout" in kinds
    sizes = [w.shape[:2] for w in model.weights if len(w.shape) == 4]
    assert sizes == [(4, 4), (3, 3)] * 3
    assert model.output_shape == (None, 11)
    assert model.name == "pdgan-cnn"
    assert WeightLayout.of(model).final_bias.stop == WeightLayout.of(model).size


@pytest.mark.parametrize("size", [8, 16, 28, 32])
def test_generator_has_four_deconvolutions(size: int) -> None:
    model = generator((size, size, 3), width=2, seed=1)
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2DTranspose)]
    assert [layer.kernel_size for layer in layers] == [(4, 4)] * 4
    images = np.asarray(model(np.random.default_rng(0).normal(size=(3, 100))))
    assert images.shape == (3, size, size, 3)
    assert images.min() >= 0 and images.max() <= 255
    assert not np.array_equal(images[0], images[1])


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="pdgan-cnn takes images from 8 x 8 to 256 x 256"):
        models["pdgan-cnn"]((4, 4, 1), 10)
    with pytest.raises(UsageError, match="the generator takes images from 8 x 8 to 32 x 32"):
        generator((64, 64, 3))


@pytest.fixture(scope="module")
def setting() -> tuple[keras.Model, np.ndarray, list[LocalTraining]]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)

    def job(client: int) -> LocalTraining:
        data = ClientData(np.arange(20, dtype=np.int32), np.arange(20, dtype=np.int32) % 3)
        return LocalTraining.draw(data, 1, 0.01, seed=1, round=1, client=client)

    return models["pdgan-cnn"]((8, 8, 1), 3, seed=1), images, [job(1), job(2), job(3)]


@pytest.fixture(scope="module")
def trainer(setting) -> Trainer:
    return Trainer(setting[0], TrainingConfig(batch_size=10))


def test_dropout_depends_on_the_client_only(setting, trainer) -> None:
    model, images, jobs = setting
    weights = WeightLayout.of(model).flatten(model.get_weights())

    def train(names: list[str], order: list[int]) -> dict[int, np.ndarray]:
        placement = LocalDevices(names)
        resident = placement.to_devices(images)
        rows = trainer.train_all(weights, resident, [jobs[j] for j in order], placement)
        return dict(zip(order, rows, strict=True))

    one = train(["CPU:0"], [0, 1, 2])
    two = train(["CPU:0", "CPU:1"], [2, 0, 1])
    for client in (0, 1, 2):
        np.testing.assert_array_equal(one[client], two[client])
    assert not np.array_equal(one[0], one[1])


def test_dropout_masks_differ_with_the_seed_and_are_absent_in_inference(setting) -> None:
    from tffl.core.layout import FlatVariables

    model, images, _ = setting
    flat = WeightLayout.of(model).flatten(model.get_weights())
    variables = FlatVariables(model)
    batch = images.astype(np.float32)

    def logits(seed: tuple[int, int], training: bool) -> np.ndarray:
        tensors = variables.split(flat, seed)
        return model.stateless_call(*tensors, batch, training=training)[0].numpy()

    np.testing.assert_array_equal(logits((1, 2), True), logits((1, 2), True))
    assert not np.array_equal(logits((1, 2), True), logits((1, 3), True))
    np.testing.assert_array_equal(logits((1, 2), False), logits((5, 6), False))
    np.testing.assert_allclose(logits((1, 2), False), model(batch), rtol=1e-5, atol=1e-6)


def test_training_on_real_classes_lowers_the_fake_output(setting, trainer) -> None:
    model, images, jobs = setting
    layout = WeightLayout.of(model)
    flat = layout.flatten(model.get_weights())
    placement = LocalDevices(["CPU:0"])
    update = trainer.train_all(flat, placement.to_devices(images), jobs[:1], placement)[0]
    moved = update[layout.final_bias]
    assert moved[3] < 0 and moved[3] == moved.min()
