"""The GAN of the auditor: the global model learns to distinguish real from generated images.

    D(x) = P(real) = 1 − softmax(f(x))_fake
    V_D = E log D(x) + E log(1 − D(G(z)))                 (eq. 1), D ascends
    V_G = E log(1 − D(G(z)))                              (eq. 2), G descends: "saturating"
    V_G = −E log D(G(z))                                  "non-saturating"

f(x) are the discriminator's C + 1 logits, z ~ N(0, 1)^100. A step trains D on a batch of real and a
batch of generated images, and then G through D. Unless `keep` is set, D starts every round from the
current global model, with a new optimizer; G and its optimizer continue from the last round.

Detecting and mitigating poisoning attacks in federated learning using generative adversarial
networks
    Ying Zhao, Junjun Chen, Jiale Zhang, Di Wu, Michael Blumenstein, Shui Yu. Section 4.1.
Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks
    Alec Radford, Luke Metz, Soumith Chintala. ICLR 2016. Adam's β1 = 0.5.

The paper does not specify how D(x) follows from 11 outputs, the optimizer, its rates, the batches
and the steps. DCGAN's rates are 2e-4, with which images stay gray for many rounds of few steps;
tffl uses 1e-3. Equation 2 has a small gradient as long as D wins (it "saturates"), hence the second
form. Real and generated images are in separate batches, which BatchNorm in DCGAN requires. Images
are generated with BatchNorm's moving statistics, so that an image does not depend on the others of
its batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tffl.core import seeds
from tffl.core.layout import FlatVariables, WeightLayout
from tffl.models.layers import set_weights
from tffl.models.pdgan import LATENT_SIZE, generator

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

GanState = Mapping[str, np.ndarray]
"""The state of a GAN: weights `generator` float32 `[g]` and `discriminator` float32 `[d]`, their
optimizers' variables, the `losses` of D and G in the last step, and the number of `rounds`."""

BETA = 0.5
"""β1 of Adam."""

CHUNK = 100
"""Number of images that are generated at a time."""


@dataclass(frozen=True)
class GanOptions:
    """How a GAN is trained.

    Attributes:
      steps: Number of steps per round; each trains D once and G once.
      batch: Number of real images per step, and of generated images.
      loss: The loss of G.
      generator_rate: Adam's learning rate for G.
      discriminator_rate: Adam's learning rate for D.
      keep: Whether D continues from the last round instead of starting from the global model.
      latent: Length of the generator's input vector.
      width: Filters of the generator's second-to-last layer.
    """

    steps: int = 50
    batch: int = 64
    loss: Literal["saturating", "non-saturating"] = "saturating"
    generator_rate: float = 1e-3
    discriminator_rate: float = 1e-3
    keep: bool = False
    latent: int = LATENT_SIZE
    width: int = 32


class Dcgan:
    """Trains GANs whose discriminator has the structure of a given network; compiled once.

    Args:
      model: A network with one more output than classes; only its structure is used.
      options: How the GAN is trained.
    """

    def __init__(self, model: keras.Model, options: GanOptions) -> None:
        self._model, self._recipe = model, options
        self._compiled = _compile(model, options)

    @property
    def latent(self) -> int:
        """Length of the generator's input vector."""
        return self._recipe.latent

    def init(self, seed: int) -> GanState:
        """Returns the state before round 1: an untrained generator, and no discriminator."""
        fresh = self._build(seed)
        weights = WeightLayout.of(fresh).flatten(fresh.get_weights())
        slots = _slots_to_state("generator_slots", self._compiled.generator_slots)
        return {"generator": weights, **slots, "rounds": np.zeros(1, np.int64)}

    def train(
        self, state: GanState, weights: np.ndarray, images: np.ndarray, seed: int, round: int
    ) -> GanState:
        """Returns the state after one more round.

        If the training results in a number that is not finite, as with a ruined global model, the
        state is returned unchanged.

        Args:
          state: The state after the previous round.
          weights: float32 `[d]`, the current global model.
          images: uint8 `[a, height, width, channels]`, the auxiliary images, `a >= 1`.
          seed: The experiment's seed.
          round: The round, 1-based; batches, noise and Dropout masks depend on it.
        """
        import tensorflow as tf

        compiled, keep = self._compiled, self._recipe.keep and "discriminator" in state
        slots = compiled.discriminator_slots
        start = state["discriminator"] if keep else weights
        draw = seeds.generator(seed, "gan", round)
        shape = (self._recipe.steps, self._recipe.batch)
        order = draw.integers(len(images), size=shape, dtype=np.int32)
        result = compiled.train(
            tf.constant(start, tf.float32),
            _slots_from_state(state, "discriminator_slots", slots) if keep else slots,
            tf.constant(state["generator"]),
            _slots_from_state(state, "generator_slots", compiled.generator_slots),
            tf.constant(images),
            tf.constant(order),
            tf.constant(draw.integers(2**31, size=(2, 2), dtype=np.uint32)),
        )
        d, d_slots, g, g_slots, losses = _arrays(result)
        if not all(np.isfinite(part).all() for part in (d, g, losses, *d_slots, *g_slots)):
            return state
        return {
            "generator": g,
            "discriminator": d,
            **_slots_to_state("generator_slots", g_slots),
            **(_slots_to_state("discriminator_slots", d_slots) if self._recipe.keep else {}),
            "losses": losses,
            "rounds": state["rounds"] + 1,
        }

    def generate(self, state: GanState, z: np.ndarray) -> np.ndarray:
        """Generates images uint8 `[m, height, width, channels]` from z float32 `[m, latent]`."""
        import tensorflow as tf

        flat = tf.constant(state["generator"])
        parts = [
            self._compiled.generate(flat, tf.constant(z[begin : begin + CHUNK])).numpy()
            for begin in range(0, len(z), CHUNK)
        ]
        return np.concatenate(parts)

    def networks(self, state: GanState) -> dict[str, keras.Model]:
        """Returns `generator` and, after the first training, `discriminator` as Keras models."""
        import keras

        generator_model = self._build(0)
        generator_model.set_weights(WeightLayout.of(generator_model).unflatten(state["generator"]))
        if "discriminator" not in state:
            return {"generator": generator_model}
        discriminator_model = keras.models.clone_model(self._model)
        set_weights(
            discriminator_model, WeightLayout.of(self._model).unflatten(state["discriminator"])
        )
        return {"generator": generator_model, "discriminator": discriminator_model}

    def _build(self, seed: int) -> keras.Model:
        return _build(self._model, self._recipe, seed)


def noise(count: int, latent: int, seed: int, round: int) -> np.ndarray:
    """Returns the input of the generator in a round's audit, float32 `[count, latent]`."""
    draw = seeds.generator(seed, "gan-audit-noise", round)
    return draw.standard_normal((count, latent)).astype(np.float32)


def log_real(logits: tf.Tensor) -> tf.Tensor:
    """Returns log D(x), `[m]`, for logits `[m, C + 1]`."""
    import tensorflow as tf

    return tf.reduce_logsumexp(logits[:, :-1], axis=1) - tf.reduce_logsumexp(logits, axis=1)


def log_fake(logits: tf.Tensor) -> tf.Tensor:
    """Returns log(1 − D(x)), `[m]`, for logits `[m, C + 1]`."""
    import tensorflow as tf

    return logits[:, -1] - tf.reduce_logsumexp(logits, axis=1)


def discriminator_loss(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    """Returns −V_D for the logits of real and of generated images."""
    import tensorflow as tf

    return -tf.reduce_mean(log_real(real)) - tf.reduce_mean(log_fake(fake))


def generator_loss(fake: tf.Tensor, loss: str) -> tf.Tensor:
    """Returns V_G for the logits of generated images."""
    import tensorflow as tf

    return tf.reduce_mean(log_fake(fake) if loss == "saturating" else -log_real(fake))


@dataclass(frozen=True)
class _Compiled:
    train: Any
    generate: Any
    generator_slots: list[np.ndarray]
    discriminator_slots: list[np.ndarray]


def _build(model: keras.Model, options: GanOptions, seed: int) -> keras.Model:
    return generator(
        tuple(model.input_shape[1:]), latent=options.latent, width=options.width, seed=seed
    )


@lru_cache(maxsize=4)
def _compile(model: keras.Model, options: GanOptions) -> _Compiled:
    import tensorflow as tf

    generator_model = _build(model, options, 0)
    optimize_d, d_slots = _adam(options.discriminator_rate, model)
    optimize_g, g_slots = _adam(options.generator_rate, generator_model)
    of_d, of_g = FlatVariables(model), FlatVariables(generator_model)

    def step(number: Any, d: Any, g: Any, images: Any, order: Any, seed: Any) -> Any:
        (d_free, d_fixed, d_slots), (g_free, g_fixed, g_slots) = d, g
        real = tf.cast(tf.gather(images, order[number]), tf.float32)
        z_seed = tf.bitcast(seed, tf.int32) + tf.stack([0, number])
        z = tf.random.stateless_normal((options.batch, options.latent), z_seed)
        fake, _ = generator_model.stateless_call(g_free, g_fixed, z, training=True)

        def discriminate(free: Any, fixed: Any, images: Any) -> Any:
            logits, new = of_d.call(free, fixed, images, training=True)
            # Seed generators return int64, but the types of a loop's state must not change.
            fixed = [tf.cast(n, o.dtype) for n, o in zip(new, fixed, strict=True)]
            return tf.cast(logits, tf.float32), fixed

        with tf.GradientTape() as tape:
            tape.watch(d_free)
            on_real, d_fixed = discriminate(d_free, d_fixed, real)
            on_fake, d_fixed = discriminate(d_free, d_fixed, tf.stop_gradient(fake))
            d_loss = discriminator_loss(on_real, on_fake)
        gradients = tape.gradient(d_loss, d_free)
        d_free, d_slots = optimize_d(d_slots, gradients, d_free)
        with tf.GradientTape() as tape:
            tape.watch(g_free)
            fake, g_new = generator_model.stateless_call(g_free, g_fixed, z, training=True)
            g_loss = generator_loss(discriminate(d_free, d_fixed, fake)[0], options.loss)
        gradients = tape.gradient(g_loss, g_free)
        g_free, g_slots = optimize_g(g_slots, gradients, g_free)
        after_d = (list(d_free), list(d_fixed), list(d_slots))
        after_g = (list(g_free), list(g_new), list(g_slots))
        return number + 1, after_d, after_g, tf.stack([d_loss, g_loss])

    @tf.function(autograph=False)
    def train(
        d: Any, d_slots: Any, g: Any, g_slots: Any, images: Any, order: Any, seed: Any
    ) -> Any:
        d_free, d_fixed = of_d.split(d, seed[0])
        g_free, g_fixed = of_g.split(g)
        begin = (
            tf.constant(0),
            (d_free, d_fixed, [tf.convert_to_tensor(slot) for slot in d_slots]),
            (g_free, g_fixed, [tf.convert_to_tensor(slot) for slot in g_slots]),
            tf.zeros(2),
        )
        _, d_state, g_state, losses = tf.while_loop(
            lambda number, *_: number < tf.shape(order)[0],
            lambda number, d, g, _: step(number, d, g, images, order, seed[1]),
            begin,
            parallel_iterations=1,
        )
        d, g = of_d.join(*d_state[:2]), of_g.join(*g_state[:2])
        return d, d_state[2], g, g_state[2], losses

    return _Compiled(train, _make_generate(generator_model, options.latent), g_slots, d_slots)


def _make_generate(model: keras.Model, latent: int) -> Any:
    """Returns the compiled generator: weights `[g]`, z `[m, latent]` → uint8 images."""
    import tensorflow as tf

    variables = FlatVariables(model)

    @tf.function(
        input_signature=[
            tf.TensorSpec([WeightLayout.of(model).size], tf.float32),
            tf.TensorSpec([None, latent], tf.float32),
        ],
        autograph=False,
    )
    def generate(flat: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
        images, _ = model.stateless_call(*variables.split(flat), z, training=False)
        return tf.cast(tf.clip_by_value(tf.round(images), 0, 255), tf.uint8)

    return generate


def _adam(rate: float, model: keras.Model) -> tuple[Any, list[np.ndarray]]:
    """Returns Adam as a function (slots, gradients, weights) → (weights, slots), and new slots."""
    import keras

    from tffl.engine.optimizers import stateless

    adam = stateless(keras.optimizers.Adam)(rate, beta_1=BETA)
    adam.build(model.trainable_variables)
    return adam.stateless_apply, [np.asarray(variable) for variable in adam.variables]


def _slots_to_state(name: str, slots: Any) -> dict[str, np.ndarray]:
    """Returns an optimizer's variables as arrays of a state, which have at least one axis."""
    return {f"{name}/{number}": np.atleast_1d(slot) for number, slot in enumerate(slots)}


def _slots_from_state(state: GanState, name: str, like: list[np.ndarray]) -> list[np.ndarray]:
    return [state[f"{name}/{number}"].reshape(slot.shape) for number, slot in enumerate(like)]


def _arrays(result: Any) -> Any:
    if isinstance(result, list | tuple):
        return [_arrays(part) for part in result]
    return result.numpy()
