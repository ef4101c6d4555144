"""Compiled client training against plain Keras, step by step."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tffl.config import TrainingConfig
from tffl.core.layout import WeightLayout
from tffl.data.federation import ClientData
from tffl.engine.optimizers import make_optimizer
from tffl.engine.training import LocalTraining, Trainer, mean_cross_entropy

SHAPE = (8, 8, 1)
SAMPLES, BATCH, EPOCHS = 21, 8, 2


def network() -> keras.Model:
    """Returns a small network whose training has state: BatchNorm and Dropout."""
    return keras.Sequential(
        [
            keras.Input(SHAPE, name="images"),
            keras.layers.Rescaling(1 / 255),
            # No bias before BatchNorm: its gradient is rounding noise, which Adam would amplify.
            keras.layers.Conv2D(
                4, 3, use_bias=False, kernel_initializer=keras.initializers.HeUniform(1)
            ),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(3, kernel_initializer=keras.initializers.HeUniform(2)),
        ]
    )


def data(samples: int = SAMPLES, seed: int = 0) -> tuple[np.ndarray, ClientData]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (60, *SHAPE), dtype=np.uint8)
    indices = rng.choice(60, samples, replace=False).astype(np.int32)
    return images, ClientData(indices, rng.integers(0, 3, samples).astype(np.int32))


def by_hand(
    model: keras.Model, config: TrainingConfig, images: np.ndarray, job: LocalTraining
) -> np.ndarray:
    """Trains the model in place with eager GradientTape steps."""
    options = {"learning_rate": job.learning_rate, "weight_decay": config.weight_decay or None}
    if config.optimizer == "sgd":
        options.update(momentum=config.momentum, nesterov=config.nesterov)
    name = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}[config.optimizer]
    optimizer = getattr(keras.optimizers, name)(**options)
    before = WeightLayout.of(model).flatten(model.get_weights())
    for order in job.order:
        for begin in range(0, len(order), config.batch_size):
            rows = order[begin : begin + config.batch_size]
            batch = images[job.data.indices[rows]].astype(np.float32)
            with tf.GradientTape() as tape:
                logits = model(batch, training=True)
                loss = mean_cross_entropy(logits, tf.constant(job.data.labels[rows]))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(gradients, model.trainable_variables)
    return WeightLayout.of(model).flatten(model.get_weights()) - before


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        {"optimizer": "adam", "learning_rate": 1e-3},
        {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.02},
        {"optimizer": "sgd", "jit": True},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_equals_plain_gradient_tape_steps(options: dict) -> None:
    config = TrainingConfig(batch_size=BATCH, **options)
    images, client = data()
    rate = config.learning_rate / 2  # a schedule's, not the config's
    job = LocalTraining.draw(client, EPOCHS, rate, seed=1, round=2, client=3)
    model = network()
    start = WeightLayout.of(model).flatten(model.get_weights())

    delta = Trainer(model, config).train(tf.constant(start), tf.constant(images), job).numpy()
    expected = by_hand(model, config, images, job)

    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(delta, expected, atol=2e-6, rtol=1e-4)


def test_last_partial_batch_is_trained() -> None:
    config = TrainingConfig(batch_size=BATCH)
    images, client = data(BATCH + 1)
    job = LocalTraining.draw(client, 1, 0.1, seed=0, round=1, client=0)
    cut = LocalTraining(client, job.order[:, :BATCH], job.seed, 0.1)
    model = network()
    start = tf.constant(WeightLayout.of(model).flatten(model.get_weights()))
    whole = Trainer(model, config).train(start, tf.constant(images), job).numpy()
    np.testing.assert_allclose(whole, by_hand(model, config, images, job), atol=2e-6, rtol=1e-4)
    model.set_weights(WeightLayout.of(model).unflatten(start.numpy()))
    assert np.abs(whole - by_hand(model, config, images, cut)).max() > 1e-4


def test_one_trace_serves_clients_of_all_sizes() -> None:
    images, _ = data()
    model = network()
    trainer = Trainer(model, TrainingConfig(batch_size=BATCH))
    start = tf.constant(WeightLayout.of(model).flatten(model.get_weights()))
    for size, epochs in itertools.product((1, 7, 8, 30), (1, 3)):
        _, client = data(size)
        job = LocalTraining.draw(client, epochs, 0.1, seed=0, round=1, client=size)
        trainer.train(start, tf.constant(images), job)
    assert trainer.traces == 1


def test_clients_do_not_share_state() -> None:
    """Optimizer state and BatchNorm statistics are reset for each client."""
    images, client = data()
    _, other = data(30, seed=5)
    model = network()
    trainer = Trainer(model, TrainingConfig(batch_size=BATCH, momentum=0.9))
    start = tf.constant(WeightLayout.of(model).flatten(model.get_weights()))
    job = LocalTraining.draw(client, 2, 0.1, seed=0, round=1, client=0)
    first = trainer.train(start, tf.constant(images), job).numpy()
    trainer.train(
        start, tf.constant(images), LocalTraining.draw(other, 2, 0.1, seed=0, round=1, client=1)
    )
    again = trainer.train(start, tf.constant(images), job).numpy()
    np.testing.assert_array_equal(first, again)


def test_dropout_depends_on_the_clients_seed() -> None:
    model = keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dropout(0.5, seed=3),
         keras.layers.Dense(3)]
    )  # fmt: skip
    images, client = data()
    trainer = Trainer(model, TrainingConfig(batch_size=BATCH, learning_rate=1e-3))
    start = tf.constant(WeightLayout.of(model).flatten(model.get_weights()))

    def train(round: int) -> np.ndarray:
        job = LocalTraining.draw(client, 1, 1e-3, seed=0, round=round, client=0)
        same = LocalTraining(client, np.arange(SAMPLES, dtype=np.int32)[None], job.seed, 1e-3)
        return trainer.train(start, tf.constant(images), same).numpy()

    np.testing.assert_array_equal(train(1), train(1))
    assert np.abs(train(1) - train(2)).max() > 1e-6


@pytest.mark.parametrize(
    "precision", [pytest.param("mixed_bfloat16", marks=pytest.mark.bfloat16), "mixed_float16"]
)
def test_mixed_precision_is_close_to_float32(precision: str) -> None:
    images, client = data()
    job = LocalTraining.draw(client, EPOCHS, 0.05, seed=0, round=1, client=0)
    deltas = {}
    for policy in ("float32", precision):
        keras.config.set_dtype_policy(policy)
        try:
            model = network()
        finally:
            keras.config.set_dtype_policy("float32")
        start = tf.constant(WeightLayout.of(model).flatten(model.get_weights()))
        trainer = Trainer(model, TrainingConfig(batch_size=BATCH, precision=policy))
        deltas[policy] = trainer.train(start, tf.constant(images), job).numpy()
    exact, mixed = deltas["float32"], deltas[precision]
    assert mixed.dtype == np.float32
    cosine = exact @ mixed / np.linalg.norm(exact) / np.linalg.norm(mixed)
    assert cosine > 0.97
    assert not np.array_equal(exact, mixed)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_stateless_optimizers_equal_keras_to_the_last_bit(name: str) -> None:
    config = TrainingConfig(optimizer=name, learning_rate=0.01, weight_decay=0.01)
    rng = np.random.default_rng(0)
    values = [rng.normal(size=s).astype(np.float32) for s in ((3, 2), (5,))]
    gradients = [[rng.normal(size=v.shape).astype(np.float32) for v in values] for _ in range(4)]

    optimizer = make_optimizer(config)
    optimizer.build([keras.Variable(v) for v in values])
    state = [tf.constant(np.asarray(v)) for v in optimizer.variables]
    weights = [tf.constant(v) for v in values]
    for step in gradients:
        weights, state = optimizer.stateless_apply(state, [tf.constant(g) for g in step], weights)

    plain_class = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}[name]
    plain = getattr(keras.optimizers, plain_class)(learning_rate=0.01, weight_decay=0.01)
    variables = [keras.Variable(v) for v in values]
    for step in gradients:
        plain.apply([tf.constant(g) for g in step], variables)
    for functional, variable in zip(weights, variables, strict=True):
        np.testing.assert_array_equal(functional.numpy(), variable.numpy())
