"""Models of plug-ins: built from a seed, checked, and refused in one line that names them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from pydantic import Field

from tffl.config import ModelConfig, build
from tffl.core.errors import UsageError
from tffl.core.registry import Registry
from tffl.data.federation import Dataset
from tffl.models import models, own
from tffl.models.build import build_network
from tffl.models.head import as_logits, final_activation
from tffl.models.shape import describe_network
from tffl.simulation.shared_resources import SharedResources

SHAPE = (6, 6, 1)


class Counting(layers.Layer):
    """Adds a variable whenever it is called."""

    def call(self, x: Any) -> Any:
        self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")
        return x


class Noisy(layers.Layer):
    """Creates a seed generator whenever it is called."""

    def call(self, x: Any) -> Any:
        self.generator = keras.random.SeedGenerator(1)
        return x + keras.random.normal(ops.shape(x), seed=self.generator)


class Undifferentiable(layers.Layer):
    """Fails in training only."""

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            raise KeyError("no training\nwithout a key")
        return x


def network(*ends: Any, shape: tuple[int, ...] = SHAPE, seed: int = 1) -> keras.Model:
    """Returns a model whose last layers are `ends`."""
    images = keras.Input(shape)
    x = layers.Flatten()(layers.Rescaling(1 / 255)(images))
    x = layers.Dense(5, kernel_initializer=keras.initializers.HeUniform(seed))(x)
    for layer in ends:
        x = layer(x)
    return keras.Model(images, x, name="mine")


def documented(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Returns a model as ARCHITECTURE.md describes it, without a seed."""
    return keras.Sequential([keras.Input(image_shape), layers.Flatten(), layers.Dense(classes)])


def seeded(image_shape: tuple[int, int, int], classes: int, *, seed: int) -> keras.Model:
    return network(layers.Dense(classes), shape=image_shape, seed=seed)


def anything(image_shape: tuple[int, int, int], classes: int, **options: Any) -> keras.Model:
    return seeded(image_shape, classes, **options)


def wide(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    return network(layers.Dense(classes + 2), shape=image_shape)


def narrow(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    return network(layers.Dense(classes - 1), shape=image_shape)


def fake_class(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    return network(layers.Dense(classes + 1), shape=image_shape)


def two_outputs(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    model = network(layers.Dense(classes), shape=image_shape)
    return keras.Model(model.inputs, [model.outputs[0], model.layers[-2].output])


def unbuilt(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    return keras.Sequential([layers.Flatten(), layers.Dense(classes)])


class Subclassed(keras.Model):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.dense = layers.Dense(classes)

    def call(self, images: Any) -> Any:
        return self.dense(layers.Flatten()(images))


def subclassed(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    model = Subclassed(classes)
    model(np.zeros((1, *image_shape)))
    return model


def other_images(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    return network(layers.Dense(classes), shape=(8, 8, 3))


def flat_images(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    return keras.Sequential([keras.Input((36,)), layers.Dense(classes)])


def no_model(image_shape: tuple[int, int, int], classes: int) -> None:
    return None


def other_arguments(shape: tuple[int, int, int]) -> keras.Model:
    return documented(shape, 4)


def failing(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    raise ZeroDivisionError("by nothing\nat all")


def weightless(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    return keras.Sequential([keras.Input(image_shape), layers.GlobalAveragePooling2D()])


def double(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    return keras.Sequential(
        [keras.Input(image_shape), layers.Flatten(), layers.Dense(classes, dtype="float64")]
    )


def counting(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    return network(Counting(), layers.Dense(classes), shape=image_shape)


def noisy(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    return network(Noisy(), layers.Dense(classes), shape=image_shape)


def untrainable(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    return network(Undifferentiable(), layers.Dense(classes), shape=image_shape)


def softmax(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    return network(layers.Dense(classes, activation="softmax"), shape=image_shape)


def fixed_softmax(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    return network(layers.Dense(classes), layers.Lambda(ops.softmax), shape=image_shape)


def sigmoids(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    return network(layers.Dense(classes, activation="sigmoid"), shape=image_shape)


def one_sigmoid(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    return network(layers.Dense(1, activation="sigmoid"), shape=image_shape)


def two_inputs(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    images, more = keras.Input(image_shape), keras.Input((3,))
    x = layers.Concatenate()([layers.Flatten()(images), more])
    return keras.Model([images, more], layers.Dense(classes)(x))


def wide_optional(
    image_shape: tuple[int, int, int], classes: int, width: Annotated[int, Field(ge=2)] = 5
) -> keras.Model:
    """A hidden layer of a width.

    Args:
      image_shape: Of an image.
      classes: Number of classes.
      width: Units of the
        hidden layer.
    """
    return network(layers.Dense(width), layers.Dense(classes), shape=image_shape)


PLUGINS: list[Callable[..., Any]] = [
    *(
        documented,
        seeded,
        anything,
        wide,
        narrow,
        fake_class,
        two_outputs,
        unbuilt,
        other_images,
        subclassed,
    ),
    *(flat_images, no_model, other_arguments, failing, weightless, double),
    *(counting, noisy, untrainable, softmax, fixed_softmax, sigmoids, one_sigmoid, two_inputs),
    wide_optional,
]


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry("model", models.builtin)
    targets = {plugin.__name__: f"{__name__}:{plugin.__name__}" for plugin in PLUGINS}
    monkeypatch.setitem(registry.__dict__, "_targets", {**registry.builtin, **targets})
    monkeypatch.setattr("tffl.models.build.models", registry)
    monkeypatch.setattr("tffl.models.own.models", registry)


def dataset() -> Dataset:
    images, labels = np.zeros((4, *SHAPE), np.uint8), np.arange(4, dtype=np.int32)
    return Dataset("mine", images, labels, np.arange(4), images, labels, tuple("abcd"))


def compiled(name: str) -> Any:
    return SharedResources().compiled(build({"model": {"name": name}}), dataset())


@pytest.mark.parametrize("name", ["documented", "seeded", "anything", "fake_class", "double"])
def test_weights_depend_on_the_seed_with_and_without_a_seed_argument(name: str) -> None:
    before = random.getstate()
    first, again, other = (
        np.concatenate([w.ravel() for w in build_network(name, SHAPE, 4, seed).get_weights()])
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert random.getstate() == before
    assert compiled(name).trainer.traces


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wide", "has 6 outputs for 4 classes: it should have 4"),
        ("narrow", "has 3 outputs for 4 classes: it should have 4"),
        (
            "two_outputs",
            r"has 2 outputs of shape \(4,\), \(5,\): it should have one of \(classes\)",
        ),
        ("unbuilt", r"is not built: begin with keras\.Input\(image_shape\)"),
        ("subclassed", r"is a subclass whose layers are unknown: build it with keras\.Model\("),
        ("other_images", r"takes images of \(8, 8, 3\), but these are \(6, 6, 1\)"),
        ("flat_images", r"takes vectors of \(36,\), but these are \(6, 6, 1\)"),
        ("no_model", r"is a builtins\.NoneType: it should be a keras\.Model"),
        ("other_arguments", r"cannot be built for images of \(6, 6, 1\) and 4 classes: TypeError"),
        ("failing", "cannot be built .*: ZeroDivisionError: by nothing$"),
        (
            "counting",
            r"cannot be built .* calling Counting\.call\(\)\. You cannot add new elements",
        ),
        ("noisy", r"cannot be built .* calling Noisy\.call\(\)\. You cannot add new elements"),
        ("untrainable", "cannot be trained: KeyError"),
        ("sigmoids", "ends in sigmoid, but the loss takes logits: leave out sigmoid"),
        ("fixed_softmax", "ends in softmax, which cannot be taken off: leave it out"),
        (
            "one_sigmoid",
            "has one output, such as a sigmoid's: end in a logit for each of 4 classes",
        ),
        (
            "two_inputs",
            r"has 2 inputs of shape \(6, 6, 1\), \(3,\): it should have one of \(height",
        ),
    ],
)
def test_every_error_is_one_line_that_names_the_model(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        compiled(name)
    assert str(caught.value).startswith(f"model {name} ")
    assert "\n" not in str(caught.value)


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(UsageError, match="model weightless has no weights to train"):
        build_network("weightless", (6, 6, 4), 4)


def test_list_of_models_has_the_reason_why_one_cannot_be_built() -> None:
    refusal = describe_network("failing", SHAPE, 4)["refusal"]
    assert refusal.endswith("ZeroDivisionError: by nothing")


def test_original_exception_is_the_cause() -> None:
    with pytest.raises(UsageError) as caught:
        compiled("untrainable")
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_softmax_is_taken_off_and_said_so_in_one_line() -> None:
    heard: list[str] = []
    model = build_network("softmax", SHAPE, 4, seed=1, say=heard.append)
    assert not final_activation(model)
    assert heard == [
        "model softmax ends in softmax: it is taken off, as the loss takes logits; the predicted "
        "classes stay the same, and the exported model returns logits"
    ]
    build_network("documented", SHAPE, 4, seed=1, say=heard.append)
    assert len(heard) == 1


def test_options_of_a_function_are_checked_and_listed() -> None:
    model = build_network(ModelConfig(name="wide_optional", width=7), SHAPE, 4)  # type: ignore[call-arg]
    assert model.layers[-2].units == 7
    (option,) = own.models.explain("wide_optional")["options"]
    assert option == {
        "name": "width",
        "meaning": "Units of the hidden layer.",
        "allowed": "integer >= 2",
        "default": 5,
        "required": False,
    }
    for options, message in (
        ({"widht": 3}, "unknown option of model wide_optional 'widht': did you mean 'width'"),
        ({"width": 1}, "model.width = 1 is not allowed: it should be greater than or equal to 2"),
    ):
        with pytest.raises(UsageError, match=message):
            build_network(ModelConfig(name="wide_optional", **options), SHAPE, 4)


def nested(*ends: Any) -> keras.Model:
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(4), *ends], name="inner")
    return network(inner)


def softmax_operation() -> keras.Model:
    model = network(layers.Dense(4))
    return keras.Model(model.inputs, ops.softmax(model.outputs[0]))


HEADS: dict[str, tuple[Callable[[], keras.Model], str]] = {
    "logits": (lambda: network(layers.Dense(4)), ""),
    "relu": (lambda: network(layers.Dense(4, activation="relu")), ""),
    "log-softmax": (lambda: network(layers.Dense(4, activation="log_softmax")), ""),
    "dense": (lambda: network(layers.Dense(4, activation="softmax")), "softmax"),
    "layer": (lambda: network(layers.Dense(4), layers.Softmax()), "softmax"),
    "activation": (lambda: network(layers.Dense(4), layers.Activation("softmax")), "softmax"),
    "sigmoid": (lambda: network(layers.Dense(4, activation="sigmoid")), "sigmoid"),
    "hard": (lambda: network(layers.Dense(4, activation="hard_sigmoid")), "hard_sigmoid"),
    "tanh": (lambda: network(layers.Dense(4), layers.Activation("tanh")), "tanh"),
    "nested": (lambda: nested(layers.Softmax()), "softmax"),
    "nested-logits": (nested, ""),
    "reshaped": (
        lambda: network(
            layers.Dense(4, activation="softmax"), layers.Reshape((4, 1)), layers.Flatten()
        ),
        "softmax",
    ),
    "linear-after": (
        lambda: network(layers.Dense(4), layers.Softmax(), layers.Activation("linear")),
        "softmax",
    ),
    "sequential": (
        lambda: keras.Sequential(
            [keras.Input(SHAPE), layers.Flatten(), layers.Dense(4, activation="softmax")]
        ),
        "softmax",
    ),
    "shape-free": (
        lambda: keras.Sequential(
            [
                keras.Input((None, None, 1)),
                layers.GlobalAveragePooling2D(),
                layers.Dense(4),
                layers.Softmax(),
            ]
        ),
        "softmax",
    ),
    "hidden-only": (lambda: network(layers.Softmax(), layers.Dense(4)), ""),
    "operation": (softmax_operation, "softmax"),
    "lambda": (lambda: network(layers.Dense(4), layers.Lambda(ops.softmax)), "softmax"),
    "average": (
        lambda: network(lambda x: layers.Average()([layers.Softmax()(x), layers.Softmax()(x)])),
        "softmax",
    ),
}


@pytest.mark.parametrize("head", HEADS)
def test_final_activation_is_found_in_every_form(head: str) -> None:
    make, expected = HEADS[head]
    assert final_activation(make()) == expected


@pytest.mark.parametrize(
    "head",
    [
        name
        for name, (_, end) in HEADS.items()
        if end and name not in ("operation", "lambda", "average")
    ],
)
def test_as_logits_removes_the_final_activation(head: str) -> None:
    model = HEADS[head][0]()
    weights = [np.copy(array) for array in model.get_weights()]
    logits = as_logits(model)
    assert not final_activation(logits)
    assert final_activation(model) == HEADS[head][1]
    for before, after in zip(weights, logits.get_weights(), strict=True):
        assert np.array_equal(before, after)
    images = np.random.default_rng(1).integers(0, 256, (3, *SHAPE)).astype(np.float32)
    function = keras.activations.get(HEADS[head][1])
    again = np.asarray(function(ops.convert_to_tensor(logits(images))))
    assert np.allclose(again, np.asarray(model(images)), atol=1e-5)


@pytest.mark.parametrize("head", ["dense", "layer", "activation", "nested"])
def test_a_model_without_its_softmax_is_loaded_without_tffl(head: str, tmp_path: Path) -> None:
    logits = as_logits(HEADS[head][0]())
    logits.save(tmp_path / "logits.keras")
    again = keras.saving.load_model(tmp_path / "logits.keras")
    images = np.ones((2, *SHAPE), np.float32)
    np.testing.assert_allclose(again(images), logits(images), rtol=1e-6)


def test_as_logits_returns_a_model_with_logits_unchanged() -> None:
    model = network(layers.Dense(4))
    assert as_logits(model) is model


@pytest.mark.parametrize("head", ["operation", "lambda", "average"])
def test_as_logits_refuses_activations_that_cannot_be_removed(head: str) -> None:
    with pytest.raises(UsageError, match="ends in softmax: pass it without softmax"):
        as_logits(HEADS[head][0]())
