"""Where audit images come from; names joined by `+` pool what each of them makes.

| source          | images                                                     | granted         |
|-----------------|------------------------------------------------------------|-----------------|
| gan             | of a generator that learned from the auxiliary images      | those           |
| model-inversion | that the average of the received models is sure of         | nothing         |
| held-out        | real, of all classes: the upper bound                      | labeled images  |
| auxiliary       | the auxiliary images themselves: why a generator is wanted | those           |
| noise           | uniform gray levels: the control                           | nothing         |

No source gives labels away: the models vote on all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tffl.core import seeds
from tffl.core.errors import UsageError, require, unknown
from tffl.data.samples import AUXILIARY_DATA, PROBE_DATA, Samples
from tffl.explain.probes import draw
from tffl.gan import dcgan
from tffl.gan.inversion import Inversion
from tffl.models.pdgan import LARGEST_IMAGE

if TYPE_CHECKING:
    import keras

GAN, INVERSION, HELD_OUT, AUXILIARY, NOISE = (
    "gan",
    "model-inversion",
    "held-out",
    "auxiliary",
    "noise",
)

PAPER = (("0", "4"), ("dress", "coat", "sandal"))
"""The auxiliary classes of Zhao et al., for MNIST and for Fashion-MNIST."""


@dataclass(frozen=True)
class AuditInputs:
    """What a round's audit images are made of.

    Attributes:
      model: The network, for its structure.
      weights: float32 `[d]`, the average of the received models.
      count: m, how many images each source is to make.
      seed: The experiment's.
      round: 1-based.
      classes: C.
      inversion: How the model is inverted.
      samples: Labeled images of all classes, for `held-out`.
      auxiliary: uint8 `[a, height, width, channels]`.
      gan: The GAN, and its state after this round's training.
    """

    model: keras.Model
    weights: np.ndarray
    count: int
    seed: int
    round: int
    classes: int
    inversion: Inversion
    samples: Samples | None = None
    auxiliary: np.ndarray | None = None
    gan: tuple[dcgan.Dcgan, dcgan.GanState] | None = None


def parse_sources(names: str) -> tuple[str, ...]:
    """Splits names of sources, such as `"gan+model-inversion"`.

    Raises:
      UsageError: A name is unknown, or comes twice.
    """
    parts = tuple(name.strip() for name in names.split("+"))
    for name in parts:
        if name not in SOURCES:
            raise unknown("audit source", name, SOURCES)
    require(len(set(parts)) == len(parts), f"audit source {names} names one more than once")
    return parts


def make_images(names: tuple[str, ...], inputs: AuditInputs) -> np.ndarray:
    """Returns all sources' images, uint8 `[Σ m, height, width, channels]`, in their order."""
    return np.concatenate([SOURCES[name].make(inputs) for name in names])


def required_data(names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns what a server must have for the sources."""
    return tuple(dict.fromkeys(word for name in names for word in SOURCES[name].needs))


def choose_classes(chosen: str, names: tuple[str, ...], classes: int) -> tuple[int, ...]:
    """Returns the auxiliary classes.

    Args:
      chosen: Numbers or names, separated by commas; names match whatever their case. If empty, the
        paper's where the dataset's classes are named so, else all.
      names: Of the dataset's classes; may be empty.
      classes: C.

    Raises:
      UsageError: There is no such class.

    >>> choose_classes("2, cat", ("Bird", "Cat", "Dog"), 3)
    (1, 2)
    >>> choose_classes("", tuple("0123456789"), 10)
    (0, 4)
    """
    lower = [name.lower() for name in names]
    if not chosen.strip():
        paper = next((p for p in PAPER if classes == 10 and set(p) <= set(lower)), None)
        return tuple(range(classes)) if paper is None else tuple(sorted(map(lower.index, paper)))
    wanted = [part.strip().lower() for part in chosen.split(",") if part.strip()]
    require(bool(wanted), f"defense.auxiliary = {chosen!r} names no class")
    return tuple(sorted({_class_number(part, lower, classes) for part in wanted}))


def _class_number(text: str, names: list[str], classes: int) -> int:
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < classes:
        return int(text)
    if text.lstrip("-").isdecimal() or not names:
        raise UsageError(
            f"defense.auxiliary = {text} is not allowed: classes are 0 to {classes - 1}"
        )
    raise unknown("auxiliary class", text, names)


def auxiliary_images(
    samples: Samples, classes: tuple[int, ...], count: int | None, seed: int
) -> np.ndarray:
    """Returns X_aux, uint8 `[a, height, width, channels]`: the same in every round.

    Args:
      samples: What the server has.
      classes: Which classes of it.
      count: a, as evenly over the classes as possible; all there are if None.
      seed: The experiment's.

    Raises:
      UsageError: There are none, or fewer than `count`.
    """
    mine = np.isin(samples.labels, classes)
    have = int(mine.sum())
    listed = ", ".join(map(str, classes))
    require(
        have > 0,
        f"defense.auxiliary = {listed} is not allowed: the server has no image of these classes",
    )
    require(
        count is None or count <= have,
        f"defense.auxiliary_images = {count} is not allowed: the server has {have} images of the "
        f"auxiliary classes {listed}; data.server_samples gives it more",
    )
    pool = Samples(samples.images[mine], samples.labels[mine], samples.classes)
    return draw(pool, have if count is None else count, seed).images


def check_gan(network: keras.Model, classes: int, source: str) -> None:
    """Checks that a network can be a GAN's discriminator, and that images are not too large.

    Args:
      network: The global model.
      classes: C.
      source: What the user chose, for the message.

    Raises:
      UsageError: The network has no output for fakes, or the generator makes no images of its size.
    """
    name, (height, width, _) = network.name, network.input_shape[1:]
    outputs = network.output_shape[-1]
    require(
        outputs == classes + 1,
        f"defense.source = {source} is not allowed with {name}, which has {outputs} "
        f"outputs for {classes} classes: the GAN's discriminator needs one more, for fakes; "
        "take model.name = pdgan-cnn",
    )
    require(
        max(height, width) <= LARGEST_IMAGE,
        f"defense.source = {source} is not allowed with images of {height} x {width}: the "
        f"generator makes up to {LARGEST_IMAGE} x {LARGEST_IMAGE}; set data.image_size = "
        f"{LARGEST_IMAGE}",
    )


def _gan(inputs: AuditInputs) -> np.ndarray:
    assert inputs.gan is not None
    gan, state = inputs.gan
    return gan.generate(state, dcgan.noise(inputs.count, gan.latent, inputs.seed, inputs.round))


def _invert(inputs: AuditInputs) -> np.ndarray:
    return inputs.inversion.images(
        inputs.model,
        inputs.weights,
        inputs.count,
        inputs.classes,
        inputs.seed,
        inputs.round,
    )


def _held_out(inputs: AuditInputs) -> np.ndarray:
    assert inputs.samples is not None
    return draw(inputs.samples, inputs.count, inputs.seed, round=inputs.round).images


def _auxiliary(inputs: AuditInputs) -> np.ndarray:
    """As many as there are, if they are fewer than wanted."""
    assert inputs.auxiliary is not None
    generator = seeds.generator(inputs.seed, "gan-audit-auxiliary", inputs.round)
    return inputs.auxiliary[generator.permutation(len(inputs.auxiliary))[: inputs.count]]


def _noise(inputs: AuditInputs) -> np.ndarray:
    generator = seeds.generator(inputs.seed, "gan-audit-control", inputs.round)
    shape = (inputs.count, *inputs.model.input_shape[1:])
    return generator.integers(0, 256, shape, dtype=np.uint8)


@dataclass(frozen=True)
class Source:
    """A function that makes audit images uint8 `[m, …]`, and what the server must have for it."""

    make: Callable[[AuditInputs], np.ndarray]
    needs: tuple[str, ...] = ()


SOURCES: Mapping[str, Source] = {
    GAN: Source(_gan, (AUXILIARY_DATA,)),
    INVERSION: Source(_invert),
    HELD_OUT: Source(_held_out, (PROBE_DATA,)),
    AUXILIARY: Source(_auxiliary, (AUXILIARY_DATA,)),
    NOISE: Source(_noise),
}
