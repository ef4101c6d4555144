"""The GAN of the auditor: the global model learns to tell real images from a generator's.

    D(x) = P(real) = 1 − softmax(f(x))_fake
    V_D = E log D(x) + E log(1 − D(G(z)))                 (eq. 1), D ascends
    V_G = E log(1 − D(G(z)))                              (eq. 2), G descends: "saturating"
    V_G = −E log D(G(z))                                  "non-saturating"

f is the discriminator's C + 1 logits, z ~ N(0, 1)^100. A step trains D on a batch of each, then G
through D. Every round D starts from the current global model, `keep` aside, and so do its
optimizer's moments; G and its own go on.

Detecting and mitigating poisoning attacks in federated learning using generative adversarial
networks
    Ying Zhao, Junjun Chen, Jiale Zhang, Di Wu, Michael Blumenstein, Shui Yu. Section 4.1.
Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks
    Alec Radford, Luke Metz, Soumith Chintala. ICLR 2016. Adam's β1 = 0.5.

The paper leaves open: how D(x) follows from 11 outputs, the optimizer, its rates, batches and
steps. DCGAN's rates are 2e-4, with which the few steps of a round leave images gray for long; tffl
takes 1e-3. Equation 2 has little gradient as long as D wins ("saturates"), hence the second form. D
sees real and generated images in batches of their own, as BatchNorm in DCGAN wants. Images are
generated with BatchNorm's moving statistics, so that one does not depend on the others of its
batch.
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
"""What is remembered of a GAN: `generator` float32 `[g]`, `discriminator` float32 `[d]`, variables
of their optimizers, `losses` of the last step (D's and G's), and `rounds` that it was trained."""

BETA = 0.5
"""β1 of Adam."""

CHUNK = 100
"""Images that are generated at a time."""


@dataclass(frozen=True)
class GanOptions:
    """How a GAN is trained.

    Attributes:
      steps: Steps a round, each one of D and one of G.
      batch: Real and generated images of a step, as many of each.
      loss: G's.
      generator_rate: Of Adam.
      discriminator_rate: Of Adam.
      keep: D goes on from where it was, instead of starting from the global model.
      latent: Numbers that an image is made of.
      width: Filters of the generator's last but one layer.
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
    """Trains GANs whose discriminator has the structure of one network; compiled once.

    Args:
      model: A network with one output more than classes, for its structure.
      options: How to train.
    """

    def __init__(self, model: keras.Model, options: GanOptions) -> None:
        self._model, self._recipe = model, options
        self._compiled = _compile(model, options)

    @property
    def latent(self) -> int:
        """Numbers that an image is made of."""
        return self._recipe.latent

    def init(self, seed: int) -> GanState:
        """Returns the state before round 1: an untrained generator, and no discriminator yet."""
        fresh = self._build(seed)
        weights = WeightLayout.of(fresh).flatten(fresh.get_weights())
        slots = _named("generator_slots", self._compiled.generator_slots)
        return {"generator": weights, **slots, "rounds": np.zeros(1, np.int64)}

    def train(
        self, state: GanState, weights: np.ndarray, images: np.ndarray, seed: int, round: int
    ) -> GanState:
        """Returns the state after one more round.

        If the training leaves a number that is not finite, as it may if the global model was
        ruined, the state stays as it was.

        Args:
          state: After the round before.
          weights: float32 `[d]`, of the current global model.
          images: uint8 `[a, height, width, channels]`, the auxiliary images, `a >= 1`.
          seed: The experiment's.
          round: 1-based; draws batches, noise and Dropout's masks.
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
            _unnamed(state, "discriminator_slots", slots) if keep else slots,
            tf.constant(state["generator"]),
            _unnamed(state, "generator_slots", compiled.generator_slots),
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
            **_named("generator_slots", g_slots),
            **(_named("discriminator_slots", d_slots) if self._recipe.keep else {}),
            "losses": losses,
            "rounds": state["rounds"] + 1,
        }

    def generate(self, state: GanState, z: np.ndarray) -> np.ndarray:
        """Returns images uint8 `[m, height, width, channels]` of noise float32 `[m, latent]`."""
        import tensorflow as tf

        flat = tf.constant(state["generator"])
        parts = [
            self._compiled.generate(flat, tf.constant(z[begin : begin + CHUNK])).numpy()
            for begin in range(0, len(z), CHUNK)
        ]
        return np.concatenate(parts)

    def networks(self, state: GanState) -> dict[str, keras.Model]:
        """Returns `generator` and, once it was trained, `discriminator`, as Keras models."""
        import keras

        made = self._build(0)
        made.set_weights(WeightLayout.of(made).unflatten(state["generator"]))
        if "discriminator" not in state:
            return {"generator": made}
        twin = keras.models.clone_model(self._model)
        set_weights(twin, WeightLayout.of(self._model).unflatten(state["discriminator"]))
        return {"generator": made, "discriminator": twin}

    def _build(self, seed: int) -> keras.Model:
        return _build(self._model, self._recipe, seed)


def noise(count: int, latent: int, seed: int, round: int) -> np.ndarray:
    """Returns what a round's audit images are generated of, float32 `[count, latent]`."""
    draw = seeds.generator(seed, "gan-audit-noise", round)
    return draw.standard_normal((count, latent)).astype(np.float32)


def log_real(logits: tf.Tensor) -> tf.Tensor:
    """Returns log D(x) `[m]` of logits `[m, C + 1]`."""
    import tensorflow as tf

    return tf.reduce_logsumexp(logits[:, :-1], axis=1) - tf.reduce_logsumexp(logits, axis=1)


def log_fake(logits: tf.Tensor) -> tf.Tensor:
    """Returns log(1 − D(x)) `[m]` of logits `[m, C + 1]`."""
    import tensorflow as tf

    return logits[:, -1] - tf.reduce_logsumexp(logits, axis=1)


def discriminator_loss(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    """Returns −V_D of the logits of real and of generated images."""
    import tensorflow as tf

    return -tf.reduce_mean(log_real(real)) - tf.reduce_mean(log_fake(fake))


def generator_loss(fake: tf.Tensor, loss: str) -> tf.Tensor:
    """Returns V_G of the logits of generated images."""
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

    made = _build(model, options, 0)
    optimize_d, d_slots = _adam(options.discriminator_rate, model)
    optimize_g, g_slots = _adam(options.generator_rate, made)
    of_d, of_g = FlatVariables(model), FlatVariables(made)

    def step(number: Any, d: Any, g: Any, images: Any, order: Any, seed: Any) -> Any:
        (d_free, d_fixed, d_slots), (g_free, g_fixed, g_slots) = d, g
        real = tf.cast(tf.gather(images, order[number]), tf.float32)
        z_seed = tf.bitcast(seed, tf.int32) + tf.stack([0, number])
        z = tf.random.stateless_normal((options.batch, options.latent), z_seed)
        fake, _ = made.stateless_call(g_free, g_fixed, z, training=True)

        def judged(free: Any, fixed: Any, images: Any) -> Any:
            logits, new = of_d.call(free, fixed, images, training=True)
            # Seed generators come back as int64, and a loop's state must keep its types.
            fixed = [tf.cast(n, o.dtype) for n, o in zip(new, fixed, strict=True)]
            return tf.cast(logits, tf.float32), fixed

        with tf.GradientTape() as tape:
            tape.watch(d_free)
            on_real, d_fixed = judged(d_free, d_fixed, real)
            on_fake, d_fixed = judged(d_free, d_fixed, tf.stop_gradient(fake))
            d_loss = discriminator_loss(on_real, on_fake)
        gradients = tape.gradient(d_loss, d_free)
        d_free, d_slots = optimize_d(d_slots, gradients, d_free)
        with tf.GradientTape() as tape:
            tape.watch(g_free)
            fake, g_new = made.stateless_call(g_free, g_fixed, z, training=True)
            g_loss = generator_loss(judged(d_free, d_fixed, fake)[0], options.loss)
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

    return _Compiled(train, _make_generate(made, options.latent), g_slots, d_slots)


def _make_generate(made: keras.Model, latent: int) -> Any:
    """Returns a compiled function (generator's weights `[g]`, z `[m, latent]`) → uint8 images."""
    import tensorflow as tf

    variables = FlatVariables(made)

    @tf.function(
        input_signature=[
            tf.TensorSpec([WeightLayout.of(made).size], tf.float32),
            tf.TensorSpec([None, latent], tf.float32),
        ],
        autograph=False,
    )
    def generate(flat: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
        images, _ = made.stateless_call(*variables.split(flat), z, training=False)
        return tf.cast(tf.clip_by_value(tf.round(images), 0, 255), tf.uint8)

    return generate


def _adam(rate: float, model: keras.Model) -> tuple[Any, list[np.ndarray]]:
    """Returns a function (slots, gradients, weights) → (weights, slots), and the first slots."""
    import keras

    from tffl.engine.optimizers import stateless

    adam = stateless(keras.optimizers.Adam)(rate, beta_1=BETA)
    adam.build(model.trainable_variables)
    return adam.stateless_apply, [np.asarray(variable) for variable in adam.variables]


def _named(name: str, slots: Any) -> dict[str, np.ndarray]:
    """Returns an optimizer's variables for a checkpoint, whose arrays have an axis at least."""
    return {f"{name}/{number}": np.atleast_1d(slot) for number, slot in enumerate(slots)}


def _unnamed(state: GanState, name: str, like: list[np.ndarray]) -> list[np.ndarray]:
    return [state[f"{name}/{number}"].reshape(slot.shape) for number, slot in enumerate(like)]


def _arrays(result: Any) -> Any:
    if isinstance(result, list | tuple):
        return [_arrays(part) for part in result]
    return result.numpy()
