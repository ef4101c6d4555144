"""Columns and variables: models whose variables share a path, count, are shared, or are random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tffl.config import TrainingConfig
from tffl.core.layout import FlatVariables, WeightLayout, unique_names
from tffl.data.federation import ClientData
from tffl.engine.evaluation import Evaluator
from tffl.engine.gradient import Gradient
from tffl.engine.placement import LocalDevices
from tffl.engine.training import LocalTraining, Trainer, mean_cross_entropy

SHAPE, BATCH = (8, 8, 1), 8


def start(seed: int) -> keras.initializers.Initializer:
    return keras.initializers.HeUniform(seed)


def branch(seed: int, bias: bool = True) -> keras.Model:
    """What a helper function makes: its variables are called the same in every model."""
    images = keras.Input(SHAPE)
    features = layers.Conv2D(
        2, 3, use_bias=bias, activation="relu", kernel_initializer=start(seed), name="conv"
    )(images)
    return keras.Model(images, layers.GlobalAveragePooling2D(name="pool")(features))


def twins() -> keras.Model:
    """Two branches of one function: `conv/kernel` twice."""
    images = keras.Input(SHAPE)
    x = layers.Rescaling(1 / 255)(images)
    both = layers.Concatenate()([branch(1, bias=False)(x), branch(2)(x)])
    logits = layers.Dense(3, kernel_initializer=start(3), name="logits")(both)
    return keras.Model(images, logits, name="twins")


@keras.saving.register_keras_serializable("tests")
class Counter(layers.Layer):
    """Counts the batches it has seen, knows whether it has seen one, and halves what it is given.

    The factor of one half hangs on the counter, so that a lost or averaged one shows.
    """

    def build(self, input_shape: tuple[int, ...]) -> None:
        def weight(name: str, dtype: str) -> keras.Variable:
            return self.add_weight(name=name, dtype=dtype, initializer="zeros", trainable=False)

        self.batches, self.seen = weight("batches", "int64"), weight("seen", "bool")
        self.total = weight("total", "float32")

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        factor = keras.ops.cast(self.batches + 1, inputs.dtype)
        if training:
            self.batches.assign(self.batches + 1)
            self.seen.assign(True)
            self.total.assign(self.total + keras.ops.mean(inputs))
        return inputs / (1 + factor)


def counting() -> keras.Model:
    """Integers and booleans: Normalization's, and those of a layer that uses and sets them."""
    images = keras.Input(SHAPE)
    x = layers.Normalization(name="norm")(images)
    x = layers.Conv2D(2, 3, activation="relu", kernel_initializer=start(1))(x)
    x = layers.Flatten()(Counter(name="counter")(x))
    model = keras.Model(images, layers.Dense(3, kernel_initializer=start(2), name="logits")(x))
    pixels = np.random.default_rng(0).integers(0, 256, (16, *SHAPE)).astype(np.float32)
    model.get_layer("norm").adapt(pixels)
    model.get_layer("counter").batches.assign(5)
    return model


def sharing() -> keras.Model:
    """One convolution, called twice; one dense layer, called twice."""
    images = keras.Input(SHAPE)
    x = layers.Rescaling(1 / 255)(images)
    conv = layers.Conv2D(2, 3, activation="relu", padding="same", kernel_initializer=start(1))
    towers = [layers.Flatten()(conv(x)), layers.Flatten()(conv(layers.Rescaling(-1.0, 1.0)(x)))]
    dense = layers.Dense(4, activation="relu", kernel_initializer=start(2))
    x = layers.Concatenate()([dense(tower) for tower in towers])
    return keras.Model(images, layers.Dense(3, kernel_initializer=start(3))(x))


def augmenting() -> keras.Model:
    """Random layers, each with a seed of its own, and BatchNorm."""
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Rescaling(1 / 255),
            layers.RandomFlip("horizontal", seed=1),
            layers.RandomTranslation(0.2, 0.2, seed=2),
            layers.RandomContrast(0.3, seed=3),
            layers.GaussianNoise(0.1, seed=4),
            layers.Conv2D(4, 3, use_bias=False, kernel_initializer=start(1)),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.3, seed=5),
            layers.Flatten(),
            layers.Dense(3, kernel_initializer=start(2)),
        ]
    )


def regularized() -> keras.Model:
    """Layers that add to the loss."""
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(
                3,
                kernel_initializer=start(1),
                kernel_regularizer=keras.regularizers.L2(0.1),
                activity_regularizer=keras.regularizers.L1(0.01),
            ),
        ]
    )


@keras.saving.register_keras_serializable("tests")
class Bare(layers.Layer):
    """Variables that Keras takes for trainable, though nothing trains them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.steps, self.flag = keras.Variable(3, dtype="int32"), keras.Variable(True, dtype="bool")
        self.unused = keras.Variable([1.0, 2.0])

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * keras.ops.cast(self.steps, "float32") / 3


def bare() -> keras.Model:
    images = keras.Input(SHAPE)
    x = layers.Flatten()(Bare()(layers.Rescaling(1 / 255)(images)))
    return keras.Model(images, layers.Dense(3, kernel_initializer=start(1))(x))


MODELS: dict[str, Callable[[], keras.Model]] = {
    "twins": twins,
    "counting": counting,
    "sharing": sharing,
    "augmenting": augmenting,
    "regularized": regularized,
    "bare": bare,
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> keras.Model:
    return MODELS[request.param]()


def data(samples: int) -> tuple[np.ndarray, ClientData]:
    draw = np.random.default_rng(1)
    images = draw.integers(0, 256, (40, *SHAPE), dtype=np.uint8)
    labels = draw.integers(0, 3, samples).astype(np.int32)
    return images, ClientData(np.arange(samples, dtype=np.int32), labels)


def by_hand(
    model: keras.Model, images: np.ndarray, job: LocalTraining, momentum: float
) -> np.ndarray:
    """Trains a copy with plain Keras, and returns its flat weights; random layers are seeded."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()
    weights = {id(variable) for variable in copy.weights}
    for number, variable in enumerate(copy.non_trainable_variables):
        if id(variable) not in weights:
            variable.assign(job.seed + np.array([0, number], np.uint32))
    optimizer = keras.optimizers.SGD(job.learning_rate, momentum=momentum)
    for order in job.order:
        for begin in range(0, len(order), BATCH):
            rows = order[begin : begin + BATCH]
            with tf.GradientTape() as tape:
                batch = images[job.data.indices[rows]].astype(np.float32)
                loss = mean_cross_entropy(copy(batch, training=True), job.data.labels[rows])
                loss += sum(copy.losses)
            gradients = tape.gradient(loss, copy.trainable_variables)
            optimizer.apply(gradients, copy.trainable_variables)
    return WeightLayout.of(copy).flatten(copy.get_weights())


def test_flat_weights_are_the_model_s(model: keras.Model) -> None:
    layout, weights = WeightLayout.of(model), model.get_weights()
    flat = layout.flatten(weights)
    assert flat.shape == (layout.size,) and flat.dtype == np.float32
    for before, after in zip(weights, layout.unflatten(flat), strict=True):
        assert np.asarray(after).dtype == before.dtype
        np.testing.assert_array_equal(before, after)


def test_tensors_come_back_as_they_were(model: keras.Model) -> None:
    layout, variables = WeightLayout.of(model), FlatVariables(model)
    flat = np.arange(layout.size, dtype=np.float32)
    trainable, frozen = variables.split(tf.constant(flat), (3, 4))
    model.stateless_call(trainable, frozen, np.zeros((1, *SHAPE), np.float32))
    np.testing.assert_array_equal(variables.join(trainable, frozen).numpy(), flat)


@pytest.mark.parametrize("samples", [21, BATCH + 1], ids=["", "last batch of one"])
def test_training_equals_plain_keras(model: keras.Model, samples: int) -> None:
    images, client = data(samples)
    job = LocalTraining.draw(client, 2, 0.02, seed=1, round=2, client=3)
    layout = WeightLayout.of(model)
    flat = layout.flatten(model.get_weights())
    config = TrainingConfig(batch_size=BATCH, momentum=0.5)
    trained = flat + Trainer(model, config).train(tf.constant(flat), tf.constant(images), job)
    expected = by_hand(model, images, job, momentum=0.5)
    assert np.abs(expected - flat).max() > 1e-3
    np.testing.assert_allclose(trained, expected, atol=2e-6, rtol=1e-4)


BFLOAT16 = [pytest.param(p, marks=pytest.mark.bfloat16) for p in ("bfloat16", "mixed_bfloat16")]


@pytest.mark.parametrize("policy", ["float64", "float16", *BFLOAT16])
def test_training_in_other_precisions_equals_plain_keras(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        model = counting()
    finally:
        keras.config.set_dtype_policy("float32")
    images, client = data(21)
    job = LocalTraining.draw(client, 1, 0.02, seed=1, round=2, client=3)
    flat = WeightLayout.of(model).flatten(model.get_weights())
    config = TrainingConfig(batch_size=BATCH, momentum=0.5)
    trained = flat + Trainer(model, config).train(tf.constant(flat), tf.constant(images), job)
    expected = by_hand(model, images, job, momentum=0.5)
    assert np.abs(expected - flat).max() > 0.1
    # A value of bfloat16 has 8 bits; 64-bit sums are rounded to float32 here and not there.
    tolerance = {"float64": 1e-6, "float16": 0.005}.get(policy, 0.04)
    np.testing.assert_allclose(trained, expected, atol=tolerance, rtol=tolerance)


def test_what_normalization_derives_follows_the_weights_it_is_called_with() -> None:
    """As when Keras loads them from a file; the model itself stays as it was."""
    model, other = counting(), counting()
    other.get_layer("norm").adapt(np.linspace(0, 9, 64).reshape(1, *SHAPE))
    images, client = data(30)
    inputs, placement = images[:30].astype(np.float32), LocalDevices(["CPU:0"])
    before = model(inputs, training=False).numpy()
    flat = WeightLayout.of(other).flatten(other.get_weights())
    _, loss = Evaluator(model).evaluate(
        flat[None], placement.to_devices(images[:30]), client.labels, placement
    )
    logits = other(inputs, training=False)
    assert loss == pytest.approx(float(mean_cross_entropy(logits, client.labels)), rel=1e-4)
    np.testing.assert_array_equal(model(inputs, training=False).numpy(), before)
    assert np.abs(logits.numpy() - before).max() > 0.1


def test_evaluation_and_gradient_equal_plain_keras(model: keras.Model) -> None:
    images, client = data(30)
    layout, placement = WeightLayout.of(model), LocalDevices(["CPU:0"])
    flat = layout.flatten(model.get_weights())
    inputs = images[:30].astype(np.float32)
    logits = model(inputs, training=False).numpy()
    targets = tf.constant(client.labels)
    resident = placement.to_devices(images[:30])
    accuracy, loss = Evaluator(model).evaluate(flat[None], resident, client.labels, placement)
    assert accuracy == pytest.approx((logits.argmax(axis=1) == client.labels).mean())
    assert loss == pytest.approx(float(mean_cross_entropy(logits, targets)), rel=1e-5)
    with tf.GradientTape() as tape:
        wanted = mean_cross_entropy(model(inputs, training=False), targets)
    trained = [v for v in model.trainable_variables if v.dtype == "float32"]
    pairs = zip(trained, tape.gradient(wanted, trained), strict=True)
    by_variable = [np.zeros(v.shape) if slope is None else slope for v, slope in pairs]
    _, gradient = Gradient(model)(flat, images[:30], client.labels)
    expected = np.concatenate([np.ravel(part) for part in by_variable])
    assert not gradient[~layout.trainable].any()
    np.testing.assert_allclose(gradient[layout.trainable], expected, atol=1e-6, rtol=1e-4)


def test_names_are_unique_and_end_as_the_variables_do() -> None:
    layout = WeightLayout.of(twins())
    names = [entry.name for entry in layout.entries]
    assert names == [
        "conv/kernel",
        "conv (2)/kernel",
        "conv (2)/bias",
        "logits/kernel",
        "logits/bias",
    ]
    assert layout.final_layer == "logits"
    assert [span.stop - span.start for span in layout.spans] == [e.size for e in layout.entries]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/w", "a/b", "c/w"], ["a/w", "a/b", "c/w"]),
        (["a/w", "a/w", "a/b"], ["a/w", "a (2)/w", "a (2)/b"]),
        (["x/a/w", "b/w", "x/a/w"], ["x/a/w", "b/w", "x/a (2)/w"]),
        (["w", "w"], ["w", "w (2)"]),
        (["a/w", "a/w", "a (2)/w"], ["a/w", "a (3)/w", "a (2)/w"]),
        ([], []),
    ],
)
def test_layers_that_share_a_path_are_numbered(paths: list[str], names: list[str]) -> None:
    assert unique_names(paths) == names


def test_integers_and_booleans_are_no_columns() -> None:
    model = counting()
    layout = WeightLayout.of(model)
    own = {variable.name: variable.value for variable in layout.server_variables}
    assert own == {"norm/count": 0, "counter/batches": 5, "counter/seen": False}
    assert "norm/mean" in layout.slices and "counter/total" in layout.slices
    assert layout.size == sum(np.size(w) for w in model.get_weights()) - 3
