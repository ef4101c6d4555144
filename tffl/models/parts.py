"""What the networks have in common: seeded weights, checked image sizes, a citation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from tffl import seeds
from tffl.errors import require

if TYPE_CHECKING:
    import keras

Function = TypeVar("Function", bound=Callable)


def cited(reference: str) -> Callable[[Function], Function]:
    """Attaches the citation that `tffl list models` prints to a model function."""

    def attach(function: Function) -> Function:
        setattr(function, "reference", reference)  # noqa: B010 (functions have no such field)
        return function

    return attach


def he_uniform(seed: int, layer: str) -> keras.initializers.Initializer:
    """Returns the He-uniform initializer of one layer, U(±√(6 / fan_in)).

    It depends on the seed and the layer's name only, not on what was built before.
    """
    import keras

    return keras.initializers.HeUniform(seed=seeds.integer(seed, f"weights of {layer}"))


def check_size(
    model: str, image_shape: tuple[int, int, int], smallest: int, largest: int = 512
) -> None:
    """Raises `UsageError` unless `smallest <= height, width <= largest`."""
    height, width, _ = image_shape
    require(
        smallest <= min(height, width) and max(height, width) <= largest,
        f"{model} takes images from {smallest} x {smallest} to {largest} x {largest}, "
        f"not {height} x {width}: set data.image_size",
    )
