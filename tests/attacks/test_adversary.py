"""What colluders compute: their training, free and confined, and gradients, against plain Keras."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tffl.attacks.adversary import Adversary
from tffl.attacks.chameleon import final_columns
from tffl.config import build
from tffl.core.layout import WeightLayout
from tffl.data.federation import ClientData, Federation
from tffl.engine.contrast import Contrast
from tffl.engine.training import LocalTraining, Trainer

SHAPE, CLASSES, CLIENTS = (8, 8, 1), 3, 4
MALICIOUS = np.array([1, 3])
ROUND = 2


def network() -> keras.Model:
    """BatchNorm makes columns that no gradient trains."""
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(
                4, 3, use_bias=False, kernel_initializer=keras.initializers.HeUniform(1)
            ),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES, kernel_initializer=keras.initializers.HeUniform(2)),
        ]
    )


def federation() -> Federation:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (120, *SHAPE), dtype=np.uint8)
    clients = tuple(
        ClientData(
            generator.choice(120, 15 + 6 * client, replace=False).astype(np.int32),
            generator.integers(0, CLASSES, 15 + 6 * client).astype(np.int32),
        )
        for client in range(CLIENTS)
    )
    dataset = SimpleNamespace(classes=CLASSES, class_names=("a", "b", "c"))
    return Federation(dataset, images, np.arange(120), clients)  # type: ignore[arg-type]


def adversary(**training: object) -> Adversary:
    values = {
        "seed": 7,
        "federation": {"clients": CLIENTS, "rounds": 10},
        "training": {"batch_size": 8, "local_epochs": 2, **training},
    }
    return Adversary(network(), build(values), federation(), MALICIOUS)


def start_of(one: Adversary) -> np.ndarray:
    return one.layout.flatten(one.model.get_weights())


def job_of(one: Adversary, client: int) -> LocalTraining:
    training = one.config.training
    rate = training.learning_rate_of(ROUND, one.config.federation.rounds)
    return LocalTraining.draw(
        federation().clients[client],
        training.local_epochs,
        rate,
        seed=one.seed,
        round=ROUND,
        client=client,
    )


@pytest.mark.parametrize(
    "training",
    [
        {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01},
        {"optimizer": "adam", "learning_rate": 1e-3},
        {"optimizer": "sgd", "schedule": "cosine"},
        {"optimizer": "sgd", "jit": True},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_unconstrained_training_is_the_clients_own_to_the_last_bit(training: dict) -> None:
    one = adversary(**training)
    start = start_of(one)
    for client in MALICIOUS.tolist():
        plain = Trainer(one.model, one.config.training).train(
            tf.constant(start), tf.constant(federation().images), job_of(one, client)
        )
        assert np.abs(plain.numpy()).max() > 1e-3
        np.testing.assert_array_equal(one.train(start, client, ROUND), plain.numpy())


def confined_by_hand(
    one: Adversary,
    client: int,
    mask: np.ndarray,
    radius: float,
    alpha: float = 1.0,
    job: LocalTraining | None = None,
) -> tuple[np.ndarray, list[float]]:
    """Projects after each eager step, in NumPy; returns the update and its norms on the way."""
    model, layout = network(), one.layout
    job, images = job or job_of(one, client), federation().images
    origin = [np.array(variable) for variable in model.trainable_variables]
    start = layout.flatten(model.get_weights())
    optimizer = keras.optimizers.SGD(job.learning_rate, momentum=one.config.training.momentum)
    norms = []
    for order in job.order:
        for begin in range(0, len(order), 8):
            rows = order[begin : begin + 8]
            with tf.GradientTape() as tape:
                logits = model(images[job.data.indices[rows]].astype(np.float32), training=True)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                    job.data.labels[rows], logits
                )
                loss = tf.reduce_mean(losses)
            gradients = tape.gradient(loss, model.trainable_variables)
            moves = [
                np.array(v) - o for v, o in zip(model.trainable_variables, origin, strict=True)
            ]
            length = np.sqrt(sum((move**2).sum() for move in moves)) or 1.0
            gradients = [
                alpha * gradient + (1 - alpha) * move / length
                for gradient, move in zip(gradients, moves, strict=True)
            ]
            optimizer.apply(gradients, model.trainable_variables)
            weights = layout.flatten(model.get_weights()).astype(np.float64)
            move = np.where(layout.trainable & mask, weights - start, 0)
            norms.append(float(np.linalg.norm(move)))
            move *= min(1.0, radius / norms[-1])
            confined = np.where(layout.trainable, start + move, weights).astype(np.float32)
            model.set_weights(layout.unflatten(confined))
    return layout.flatten(model.get_weights()) - start, norms


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("radius", [np.inf, 0.3, 0.02])
def test_confined_training_projects_after_every_step(share: float, radius: float) -> None:
    one = adversary(learning_rate=0.1, momentum=0.5)
    start = start_of(one)
    mask = np.random.default_rng(1).random(one.layout.size) < share
    delta = one.train(start, 3, ROUND, mask=mask, radius=radius)
    expected, norms = confined_by_hand(one, 3, mask, radius)
    if radius < np.inf:
        # The bound is met before the end, so the order of steps and projections matters.
        assert max(norms[:-1]) > radius
    np.testing.assert_allclose(delta, expected, atol=3e-6, rtol=1e-4)
    trainable = one.layout.trainable
    assert (delta[trainable & ~mask] == 0).all()
    assert np.linalg.norm(delta[trainable].astype(np.float64)) <= radius * (1 + 1e-5)
    assert (delta[~trainable] != 0).any()


@pytest.mark.parametrize("alpha", [0.9, 0.3])
def test_the_distance_is_a_term_of_the_loss(alpha: float) -> None:
    one, everything = adversary(momentum=0.5), np.ones(start_of(adversary()).size, bool)
    job = LocalTraining.draw(federation().clients[3], 3, 0.05, seed=7, round=ROUND, client=3)
    options = {"epochs": 3, "learning_rate": 0.05}
    delta = one.train(start_of(one), 3, ROUND, alpha=alpha, **options)
    expected, _ = confined_by_hand(one, 3, everything, np.inf, alpha, job)
    np.testing.assert_allclose(delta, expected, atol=3e-6, rtol=1e-4)
    free = one.train(start_of(one), 3, ROUND, **options)
    trainable = one.layout.trainable
    assert np.linalg.norm(delta[trainable]) < 0.95 * np.linalg.norm(free[trainable])


def test_a_contrast_trains_the_encoder_alone() -> None:
    one, contrast = adversary(), Contrast(target=1, scale=2.0, temperature=0.5)
    images, labels = one.samples(np.array([3]))

    def loss(weights: np.ndarray) -> float:
        model = network()
        model.set_weights(one.layout.unflatten(weights))
        *encoder, _ = model.layers
        features = images.astype(np.float32)
        for layer in encoder:
            features = layer(features, training=True)
        return float(contrast.loss(features, labels))

    start, final = start_of(one), final_columns(one.layout)
    delta = one.train(start, 3, ROUND, mask=~final, contrast=contrast, epochs=30, learning_rate=0.5)
    assert final.sum() == one.layout.size - np.flatnonzero(~final).size > 0
    assert (delta[final] == 0).all() and (delta[~final] != 0).any()
    assert loss(start + delta) < loss(start) - 0.01


@pytest.mark.parametrize("epochs", [1, 2, 3, 4])
def test_the_radius_holds_after_any_number_of_epochs(epochs: int) -> None:
    one = adversary(learning_rate=0.1, local_epochs=epochs)
    delta = one.train(start_of(one), 1, ROUND, radius=0.05)
    norm = np.linalg.norm(delta[one.layout.trainable].astype(np.float64))
    np.testing.assert_allclose(norm, 0.05, rtol=1e-5)


def test_a_mask_of_nothing_leaves_only_statistics() -> None:
    one = adversary()
    delta = one.train(start_of(one), 1, ROUND, mask=np.zeros(one.layout.size, bool))
    assert (delta[one.layout.trainable] == 0).all()
    assert (delta[~one.layout.trainable] != 0).any()


@pytest.mark.parametrize("samples", [1, 5, 256, 300, 513])
def test_gradient_equals_a_plain_tape(samples: int) -> None:
    one = adversary()
    generator = np.random.default_rng(2)
    images = generator.integers(0, 256, (samples, *SHAPE), dtype=np.uint8)
    labels = generator.integers(0, CLASSES, samples).astype(np.int32)
    start = start_of(one)
    # Statistics that are no batch's own, so that inference and training differ.
    start = start + 0.05 * np.abs(generator.normal(size=len(start))).astype(np.float32)
    loss, gradient = one.gradient(start, images, labels)

    model = network()
    model.set_weights(one.layout.unflatten(start))
    with tf.GradientTape() as tape:
        logits = model(images.astype(np.float32), training=False)
        expected = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    by_name = dict(
        zip(
            (v.path for v in model.trainable_variables),
            tape.gradient(expected, model.trainable_variables),
            strict=True,
        )
    )
    parts = [by_name.get(v.path, tf.zeros_like(v.value)) for v in model.weights]
    flat = WeightLayout.of(model).flatten([np.asarray(part) for part in parts])
    np.testing.assert_allclose(loss, float(expected), rtol=1e-5)
    np.testing.assert_allclose(gradient, flat, atol=1e-5, rtol=1e-3)
    assert gradient.dtype == np.float32
    assert (gradient[~one.layout.trainable] == 0).all()
    assert np.abs(gradient).max() > 1e-3


def test_samples_are_the_clients_own() -> None:
    one, whole = adversary(), federation()
    images, labels = one.samples()
    indices = np.concatenate([whole.clients[client].indices for client in (1, 3)])
    np.testing.assert_array_equal(images, whole.images[indices])
    np.testing.assert_array_equal(
        labels, np.concatenate([whole.clients[client].labels for client in (1, 3)])
    )
    images, labels = one.samples(np.array([3]))
    np.testing.assert_array_equal(images, whole.images[whole.clients[3].indices])
    assert len(labels) == 33
