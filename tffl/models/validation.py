"""What a model has to be: the one check of models that others have built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tffl.core.errors import require

if TYPE_CHECKING:
    import keras


def check_built(model: Any, what: str) -> None:
    """Raises `UsageError` unless a model of any kind is Keras' and has its weights."""
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
    """Raises `UsageError` unless a model is built, from samples to one row of numbers each.

    Args:
      model: Of any kind.
      what: Its name, for the message.
    """
    check_built(model, what)
    require(
        bool(getattr(model, "outputs", None)),
        f"{what} is a subclass whose layers nobody knows: make it by keras.Model(images, logits) "
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


def check_fits(
    model: keras.Model, what: str, image_shape: tuple[int, ...], classes: int, width: range
) -> None:
    """Raises `UsageError` unless a model takes images of a shape, and its outputs are enough.

    Args:
      model: One that `check_classifier` lets pass.
      what: Its name, for the message.
      image_shape: Height, width, channels; or the number of features.
      classes: Number of classes.
      width: How many outputs it may have.
    """
    taken, outputs = tuple(model.inputs[0].shape[1:]), model.outputs[0].shape[-1]
    require(
        len(taken) == len(image_shape)
        and all(mine in (None, side) for mine, side in zip(taken, image_shape, strict=True)),
        f"{what} takes {samples_of(taken)} of {taken}, and these are {tuple(image_shape)}",
    )
    require(
        outputs in width,
        f"{what} has {_plural(outputs, 'output')} for {classes} classes: it should have {classes}",
    )


def samples_of(shape: tuple[int, ...]) -> str:
    """Says what samples of a shape are."""
    return "images" if len(shape) == 3 else "vectors"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
