"""Sources of audit images; names joined by `+` combine the images of several sources.

| source          | images                                                      | required data    |
|-----------------|-------------------------------------------------------------|------------------|
| gan             | from a generator that was trained on the auxiliary images   | auxiliary images |
| model-inversion | that the average of the received models is confident about  | none             |
| held-out        | real images of all classes, as an upper bound               | labeled images   |
| auxiliary       | the auxiliary images, to compare the generator with         | auxiliary images |
| noise           | uniform gray levels, as a control                           | none             |

Labels of the images are not used: the models vote on all of them.
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

PAPER_CLASSES = (("0", "4"), ("dress", "coat", "sandal"))
"""Names of the auxiliary classes of Zhao et al., for MNIST and for Fashion-MNIST."""


@dataclass(frozen=True)
class AuditInputs:
    """The inputs from which a round's audit images are made.

    Attributes:
      model: The network; only its structure is used.
      weights: float32 `[d]`, the average of the received models.
      count: Number of images of each source, m.
      seed: The experiment's seed.
      round: The round, 1-based.
      classes: Number of real classes, C.
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
    """Returns the names of sources in a text such as `"gan+model-inversion"`.

    Raises:
      UsageError: A name is unknown or occurs twice.
    """
    parts = tuple(name.strip() for name in names.split("+"))
    for name in parts:
        if name not in SOURCES:
            raise unknown("audit source", name, SOURCES)
    require(
        len(set(parts)) == len(parts),
        f"audit source {names} is not allowed: a source occurs more than once",
    )
    return parts


def make_images(names: tuple[str, ...], inputs: AuditInputs) -> np.ndarray:
    """Returns the images of the sources in order, uint8 `[Σ m, height, width, channels]`."""
    return np.concatenate([SOURCES[name].make(inputs) for name in names])


def required_data(names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the data that a server must have for the sources."""
    return tuple(dict.fromkeys(need for name in names for need in SOURCES[name].needs))


def choose_classes(chosen: str, names: tuple[str, ...], classes: int) -> tuple[int, ...]:
    """Returns the numbers of the auxiliary classes, in ascending order.

    Args:
      chosen: Numbers or names, separated by commas; names in any case. If empty, the classes of the
        paper if the dataset has classes of these names, else all classes.
      names: Names of the dataset's classes; may be empty.
      classes: Number of real classes, C.

    Raises:
      UsageError: There is no such class.

    >>> choose_classes("2, cat", ("Bird", "Cat", "Dog"), 3)
    (1, 2)
    >>> choose_classes("", tuple("0123456789"), 10)
    (0, 4)
    """
    lower = [name.lower() for name in names]
    if not chosen.strip():
        paper = next((p for p in PAPER_CLASSES if classes == 10 and set(p) <= set(lower)), None)
        return tuple(range(classes)) if paper is None else tuple(sorted(map(lower.index, paper)))
    parts = [part.strip().lower() for part in chosen.split(",") if part.strip()]
    require(bool(parts), f"defense.auxiliary = {chosen!r} names no class")
    return tuple(sorted({_class_number(part, lower, classes) for part in parts}))


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
    """Returns the auxiliary images X_aux, uint8 `[a, height, width, channels]`.

    They are the same in every round.

    Args:
      samples: The server's labeled images.
      classes: The auxiliary classes.
      count: Number of images, a, spread evenly over the classes; None takes all images.
      seed: The experiment's seed.

    Raises:
      UsageError: The server has no images of these classes, or fewer than `count`.
    """
    eligible = np.isin(samples.labels, classes)
    available = int(eligible.sum())
    listed = ", ".join(map(str, classes))
    require(
        available > 0,
        f"defense.auxiliary = {listed} is not allowed: the server has no image of these classes",
    )
    require(
        count is None or count <= available,
        f"defense.auxiliary_images = {count} is not allowed: the server has {available} images of "
        f"the auxiliary classes {listed}; set a larger data.server_samples",
    )
    pool = Samples(samples.images[eligible], samples.labels[eligible], samples.classes)
    return draw(pool, available if count is None else count, seed).images


def check_gan(network: keras.Model, classes: int, source: str) -> None:
    """Checks that a network can be a GAN's discriminator, and that its images are not too large.

    Args:
      network: The global model.
      classes: Number of real classes, C.
      source: The chosen sources, for the message.

    Raises:
      UsageError: The network has no output for fakes, or the generator cannot make images of its
        size.
    """
    name, (height, width, _) = network.name, network.input_shape[1:]
    outputs = network.output_shape[-1]
    require(
        outputs == classes + 1,
        f"defense.source = {source} is not allowed with {name}, which has {outputs} "
        f"outputs for {classes} classes: the GAN's discriminator needs one more, for fakes; "
        "set model.name = pdgan-cnn",
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
    """Returns `count` auxiliary images, or all of them if there are fewer."""
    assert inputs.auxiliary is not None
    generator = seeds.generator(inputs.seed, "gan-audit-auxiliary", inputs.round)
    return inputs.auxiliary[generator.permutation(len(inputs.auxiliary))[: inputs.count]]


def _noise(inputs: AuditInputs) -> np.ndarray:
    generator = seeds.generator(inputs.seed, "gan-audit-control", inputs.round)
    shape = (inputs.count, *inputs.model.input_shape[1:])
    return generator.integers(0, 256, shape, dtype=np.uint8)


@dataclass(frozen=True)
class Source:
    """A function that makes audit images uint8 `[m, …]`, and the data that it requires."""

    make: Callable[[AuditInputs], np.ndarray]
    needs: tuple[str, ...] = ()


SOURCES: Mapping[str, Source] = {
    GAN: Source(_gan, (AUXILIARY_DATA,)),
    INVERSION: Source(_invert),
    HELD_OUT: Source(_held_out, (PROBE_DATA,)),
    AUXILIARY: Source(_auxiliary, (AUXILIARY_DATA,)),
    NOISE: Source(_noise),
}
