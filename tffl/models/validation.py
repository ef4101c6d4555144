"""Checks models that do not come from tffl itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tffl.core.errors import UsageError, require

if TYPE_CHECKING:
    import keras

SCOPE = r"[A-Za-z0-9_.\\/>-]*"
"""What TensorFlow takes as the name of a scope in a graph."""


def check_built(model: Any, what: str) -> None:
    """Raises `UsageError` unless `model` is a `keras.Model` that is built."""
    import keras

    require(
        isinstance(model, keras.Model),
        f"{what} is a {type(model).__module__}.{type(model).__name__}: it should be a keras.Model",
    )
    require(
        bool(model.built),
        f"{what} is not built: begin with keras.Input(image_shape), and end with "
        "keras.Model(images, logits) or keras.Sequential",
    )


def check_classifier(model: Any, what: str) -> None:
    """Raises `UsageError` unless a model is built and maps samples to one row of outputs each.

    Args:
      model: Any object.
      what: What the message calls it, such as `"model cnn"`.
    """
    check_built(model, what)
    require(
        bool(getattr(model, "outputs", None)),
        f"{what} is a subclass whose layers are unknown: build it with keras.Model(images, logits) "
        "or keras.Sequential",
    )
    for kind, tensors, allowed in (
        ("input", model.inputs, (("height", "width", "channels"), ("features",))),
        ("output", model.outputs, (("classes",),)),
    ):
        shapes = [tuple(tensor.shape[1:]) for tensor in tensors]
        wanted = " or ".join(f"({', '.join(axes)})" for axes in allowed)
        fits = len(shapes) == 1 and len(shapes[0]) in map(len, allowed)
        require(
            fits and shapes[0][-1] is not None,
            f"{what} has {_plural(len(shapes), kind)} of shape {', '.join(map(str, shapes))}: it "
            f"should have one of {wanted}",
        )


def check_names(model: keras.Model, what: str) -> None:
    """Raises `UsageError` for names that TensorFlow cannot use in a graph.

    Keras notices only while it traces, and then leaves the name in front of all later variables.
    """
    refused = [
        layer.name for layer in model._flatten_layers() if not re.fullmatch(SCOPE, layer.name)
    ]
    if refused:
        raise UsageError(
            f"{what} has a layer named {refused[0]!r}, which TensorFlow cannot compile: use the "
            "letters A to Z, digits, '_', '.' and '-'"
        )


def check_fits(
    model: keras.Model,
    what: str,
    image_shape: tuple[int, ...],
    classes: int,
    allowed: range,
) -> None:
    """Raises `UsageError` unless a model takes images of a shape and has the right outputs.

    Args:
      model: A model that `check_classifier` accepts.
      what: What the message calls it, such as `"model cnn"`.
      image_shape: Height, width, channels; or the number of features.
      classes: Number of classes.
      allowed: Numbers of outputs that are allowed.
    """
    taken, outputs = tuple(model.inputs[0].shape[1:]), model.outputs[0].shape[-1]
    require(
        len(taken) == len(image_shape)
        and all(
            expected in (None, side) for expected, side in zip(taken, image_shape, strict=True)
        ),
        f"{what} takes {samples_of(taken)} of {taken}, but these are {tuple(image_shape)}"
        f"{_how_to_resize(taken, tuple(image_shape))}",
    )
    require(
        outputs != 1,
        f"{what} has one output, such as a sigmoid's: end in a logit for each of {classes} classes",
    )
    require(
        outputs in allowed,
        f"{what} has {_plural(outputs, 'output')} for {classes} classes: it should have {classes}",
    )


def samples_of(shape: tuple[int, ...]) -> str:
    """Says what samples of a shape are."""
    return "images" if len(shape) == 3 else "vectors"


def _how_to_resize(taken: tuple[Any, ...], given: tuple[int, ...]) -> str:
    """Says how images become as large as a model takes them, if that is all that is wrong."""
    square = len(taken) == len(given) == 3 and taken[0] == taken[1] and taken[2] == given[2]
    return f": set data.image_size = {taken[0]}" if square else ""


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
