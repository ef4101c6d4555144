"""Class activation maps of clients' models: where in a probe image each of them looks.

With A_k the k-th feature map of a convolution, y the logit of class c, and sums over pixels ij:

    Grad-CAM      L = ReLU(Σ_k w_k · A_k),   w_k = mean_ij ∂y/∂A_k,ij
    Grad-CAM++    L = ReLU(Σ_k w_k · A_k),   w_k = Σ_ij α_k,ij · ReLU(exp(y) · ∂y/∂A_k,ij)
    LayerCAM      L_ij = ReLU(Σ_k ReLU(∂y/∂A_k,ij) · A_k,ij)

where α_k,ij = a_k,ij / Σ_ij a_k,ij and a_k,ij = g² / (2g² + g³ · Σ_ij A_k,ij) with g = ∂y/∂A_k,ij.

Grad-CAM: Visual Explanations from Deep Networks via Gradient-Based Localization
    Ramprasaath R. Selvaraju et al. ICCV 2017.
Grad-CAM++: Generalized Gradient-Based Visual Explanations for Deep Convolutional Networks
    Aditya Chattopadhay et al. WACV 2018.
LayerCAM: Exploring Hierarchical Class Activation Maps for Localization
    Peng-Tao Jiang et al. IEEE Transactions on Image Processing 2021.

tf-keras-vis computes the same maps for one model at a time and serves the tests as reference; in
the way it computes Grad-CAM++ (first, second and third derivatives times exp(y), zero denominators
replaced by 1) it is followed here. Logits come from BatchNorm in inference mode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from tffl.core.errors import require, unknown
from tffl.core.layout import FlatVariables, WeightLayout
from tffl.core.pixels import BYTES, PixelRange, in_range
from tffl.core.updates import Updates
from tffl.models.layers import feature_layers, outputs_of
from tffl.models.shape import (
    LAST_BLOCK,
    LAST_CONVOLUTION,
    at_image_size,
    last_block,
    last_convolution,
    map_size,
)

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

Method: TypeAlias = Literal["grad-cam", "grad-cam++", "layer-cam"]

Weigh: TypeAlias = "Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]"
"""Features and gradients `[p, h, w, channels]`, logits `[p]` → maps `[p, h, w]`."""

PREDICTED = -1
"""Stands for the class that the model itself ranks highest."""


@dataclass(frozen=True)
class Probes:
    """Images on which the server evaluates clients' models.

    Attributes:
      images: uint8 `[p, height, width, channels]`; or float32, which models get as they are.
      classes: int32 `[p]`, the class whose logit each map explains, or `PREDICTED`.
    """

    images: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        """Returns p."""
        return len(self.classes)


class Explainer:
    """Makes the maps of one network with other weights; compiled once per method and image size.

    Args:
      model: For its structure; its weights do not matter.
      pixels: What it takes for the darkest pixel and the brightest.

    Attributes:
      pixels: As above.
    """

    def __init__(self, model: keras.Model, pixels: PixelRange = BYTES) -> None:
        self.pixels = pixels
        self._model = model
        self._sized: dict[int, keras.Model] = {}
        self._map_sizes: dict[tuple[str, int], tuple[int, int]] = {}
        self._functions: dict[Any, Any] = {}

    def maps(
        self, updates: Updates, probes: Probes, method: Method, layer: str | None = None
    ) -> np.ndarray:
        """Returns raw maps, float32 `[n, p, h, w]`; not finite where a model's outputs are not.

        Args:
          updates: n clients' updates; a map is made of the start weights plus an update.
          probes: p images; square, of any size that the network takes.
          method: How to weigh the feature maps.
          layer: As `layer_name` takes it. Of a layer that is called several times, the last output
            counts.

        Raises:
          UsageError: The layer is unknown or has no maps, or the images do not suit the network.
        """
        import tensorflow as tf

        function = self._function(method, layer, probes.images, _make_maps)
        images, classes = tf.constant(probes.images), tf.constant(probes.classes, tf.int32)
        rows = (
            function(tf.constant(updates.weights(row)), images, classes)
            for row in range(len(updates))
        )
        return np.stack([maps.numpy() for maps in rows])

    def logits(self, updates: Updates, probes: Probes) -> np.ndarray:
        """Returns what each client's model makes of the probes, float32 `[n, p, classes]`."""
        import tensorflow as tf

        size, dtype, images = (
            probes.images.shape[1],
            probes.images.dtype,
            tf.constant(probes.images),
        )
        key = ("logits", size, dtype)
        if key not in self._functions:
            self._functions[key] = _make_logits(self._at(size), self._range(probes.images))
        function = self._functions[key]
        rows = (function(tf.constant(updates.weights(row)), images) for row in range(len(updates)))
        return np.stack([logits.numpy() for logits in rows])

    def distance(
        self,
        weights: np.ndarray,
        probes: Probes,
        method: Method,
        target: np.ndarray,
        layer: str | None = None,
    ) -> tuple[float, np.ndarray]:
        """Returns how far a model's maps are from others, and the gradient with respect to weights.

        Args:
          weights: float32 `[d]`.
          probes: p images.
          method: How to weigh the feature maps.
          target: float32 `[p, h, w]`.
          layer: As in `maps`.

        Returns:
          Σ (L − target)² over all maps and pixels; float32 `[d]`, 0 for BatchNorm's statistics.
        """
        import tensorflow as tf

        function = self._function(method, layer, probes.images, _make_distance)
        images, classes = tf.constant(probes.images), tf.constant(probes.classes, tf.int32)
        value, gradient = function(tf.constant(weights), images, classes, tf.constant(target))
        return float(value), gradient.numpy()

    def loss(self, weights: np.ndarray, probes: Probes) -> tuple[float, np.ndarray]:
        """Returns the mean cross-entropy of a model, and its gradient with respect to weights.

        Args:
          weights: float32 `[d]`.
          probes: p images, `p >= 1`, of known classes.

        Returns:
          The loss; float32 `[d]`, 0 for BatchNorm's statistics.
        """
        import tensorflow as tf

        size, dtype = probes.images.shape[1], probes.images.dtype
        key = ("loss", size, dtype)
        if key not in self._functions:
            self._functions[key] = _make_loss(self._at(size), self._range(probes.images))
        images, classes = tf.constant(probes.images), tf.constant(probes.classes, tf.int32)
        value, gradient = self._functions[key](tf.constant(weights), images, classes)
        return float(value), gradient.numpy()

    def map_size(self, layer: str | None = None, size: int | None = None) -> tuple[int, int]:
        """Returns height and width of the maps of a layer at an image size (the network's own)."""
        path, size = self.layer_name(layer), size or self._model.input_shape[1]
        if (path, size) not in self._map_sizes:
            self._map_sizes[path, size] = map_size(self._at(size), path)
        return self._map_sizes[path, size]

    def layer_name(self, layer: str | None = None) -> str:
        """Returns the path of the layer whose feature maps are used.

        Args:
          layer: A path, such as `"conv2"` or `"backbone/conv2"`, or the end of a path that is the
            only one; or `LAST_BLOCK`; or `LAST_CONVOLUTION`, as if absent or empty.

        Raises:
          UsageError: The layer is unknown, or has no feature maps.
        """
        if layer in (None, "", LAST_CONVOLUTION):
            return last_convolution(self._model)
        if layer == LAST_BLOCK:
            return last_block(self._model)
        known = feature_layers(self._model)
        inside = [path for path in known if path.endswith(f"/{layer}")]
        if layer not in known and len(inside) != 1:
            words = (LAST_BLOCK, LAST_CONVOLUTION)
            raise unknown(f"layer with feature maps of {self._model.name}", layer, [*known, *words])
        return layer if layer in known else inside[0]

    def _at(self, size: int) -> keras.Model:
        if size not in self._sized:
            self._sized[size] = at_image_size(self._model, size)
        return self._sized[size]

    def _function(
        self, method: Method, layer: str | None, images: np.ndarray, make: Callable[..., Any]
    ) -> Any:
        name, size = self.layer_name(layer), images.shape[1]
        key = (method, name, size, images.dtype, make)
        if key not in self._functions:
            pixels = self._range(images)
            self._functions[key] = make(self._at(size), name, METHODS[method], pixels)
        return self._functions[key]

    def _range(self, images: np.ndarray) -> PixelRange | None:
        return self.pixels if images.dtype == np.uint8 else None


def check_map_size(size: tuple[int, int], what: str) -> None:
    """Raises `UsageError` for maps of one pixel, whose shape says nothing."""
    require(
        size != (1, 1),
        f"the maps of {what} are 1 x 1 pixels and show no place: set a larger "
        "defense.probe_size (such as 64), or take a network with another stem, or another "
        "defense.layer",
    )


class _Maps:
    """The graph from weights to maps; compiled by those who use it."""

    def __init__(
        self, model: keras.Model, layer: str, weigh: Weigh, pixels: PixelRange | None
    ) -> None:
        import tensorflow as tf

        self._layer, self._weigh = feature_layers(model)[layer], weigh
        self._pixels = pixels
        self.variables = FlatVariables(model)
        self.signature = [
            tf.TensorSpec([WeightLayout.of(model).size], tf.float32),
            _images_spec(model, pixels),
            tf.TensorSpec([None], tf.int32),
        ]

    def __call__(
        self, tensors: tuple[list[Any], list[Any]], images: tf.Tensor, classes: tf.Tensor
    ) -> tf.Tensor:
        """Returns maps float32 `[p, h, w]` of trainable and other weights."""
        import tensorflow as tf

        inputs = _inputs(images, self._pixels)
        with tf.GradientTape() as tape, outputs_of(self._layer) as outputs:
            tape.watch(inputs)
            logits, _ = self.variables.call(*tensors, inputs, training=False)
            own = tf.argmax(logits, axis=-1, output_type=tf.int32)
            score = tf.gather(logits, tf.where(classes == PREDICTED, own, classes), batch_dims=1)
        features = outputs[-1]
        gradients = tape.gradient(score, features, unconnected_gradients="zero")
        return self._weigh(*(tf.cast(part, tf.float32) for part in (features, gradients, score)))


def _images_spec(model: keras.Model, pixels: PixelRange | None) -> tf.TensorSpec:
    """Returns what compiled functions take: bytes, or floats if there is no range for bytes."""
    import tensorflow as tf

    dtype = tf.float32 if pixels is None else tf.uint8
    return tf.TensorSpec([None, *model.input_shape[1:]], dtype)


def _inputs(images: tf.Tensor, pixels: PixelRange | None) -> tf.Tensor:
    """Returns bytes in the range that a model takes; floats are in it already."""
    import tensorflow as tf

    return images if pixels is None else in_range(tf.cast(images, tf.float32), pixels)


def _make_maps(model: keras.Model, layer: str, weigh: Weigh, pixels: PixelRange | None) -> Any:
    """Compiles weights `[d]`, images `[p, …]`, classes `[p]` → maps float32 `[p, h, w]`."""
    import tensorflow as tf

    graph = _Maps(model, layer, weigh, pixels)

    @tf.function(input_signature=graph.signature, autograph=False)
    def maps(flat: tf.Tensor, images: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        return graph(graph.variables.split(flat), images, classes)

    return maps


def _make_logits(model: keras.Model, pixels: PixelRange | None) -> Any:
    """Compiles weights `[d]`, images `[p, …]` → logits float32 `[p, classes]`."""
    import tensorflow as tf

    variables = FlatVariables(model)
    signature = [
        tf.TensorSpec([WeightLayout.of(model).size], tf.float32),
        _images_spec(model, pixels),
    ]

    @tf.function(input_signature=signature, autograph=False)
    def logits(flat: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        inputs = _inputs(images, pixels)
        return variables.call(*variables.split(flat), inputs, training=False)[0]

    return logits


def _make_loss(model: keras.Model, pixels: PixelRange | None) -> Any:
    """Compiles weights `[d]`, images `[p, …]`, classes `[p]` → mean loss, gradient `[d]`."""
    import tensorflow as tf

    variables = FlatVariables(model)
    signature = [
        tf.TensorSpec([WeightLayout.of(model).size], tf.float32),
        _images_spec(model, pixels),
        tf.TensorSpec([None], tf.int32),
    ]

    @tf.function(input_signature=signature, autograph=False)
    def loss(flat: tf.Tensor, images: tf.Tensor, classes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        trainable, frozen = variables.split(flat)
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            inputs = _inputs(images, pixels)
            logits = tf.cast(
                variables.call(trainable, frozen, inputs, training=False)[0], tf.float32
            )
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
            value = tf.reduce_mean(losses)
        gradients = tape.gradient(value, trainable, unconnected_gradients="zero")
        return value, variables.join(gradients, [tf.zeros_like(part) for part in frozen])

    return loss


def _make_distance(model: keras.Model, layer: str, weigh: Weigh, pixels: PixelRange | None) -> Any:
    """Compiles weights, images, classes, target maps → squared distance, gradient `[d]`."""
    import tensorflow as tf

    graph = _Maps(model, layer, weigh, pixels)
    target = tf.TensorSpec([None, None, None], tf.float32)

    @tf.function(input_signature=[*graph.signature, target], autograph=False)
    def distance(
        flat: tf.Tensor, images: tf.Tensor, classes: tf.Tensor, target: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        trainable, frozen = graph.variables.split(flat)
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            value = tf.reduce_sum(tf.square(graph((trainable, frozen), images, classes) - target))
        # The final bias moves a logit but none of its derivatives: it has no gradient at all.
        gradients = tape.gradient(value, trainable, unconnected_gradients="zero")
        return value, graph.variables.join(gradients, [tf.zeros_like(part) for part in frozen])

    return distance


def grad_cam(features: tf.Tensor, gradients: tf.Tensor, score: tf.Tensor) -> tf.Tensor:
    """Weighs channels by their mean gradient."""
    import tensorflow as tf

    weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))


def grad_cam_plus_plus(features: tf.Tensor, gradients: tf.Tensor, score: tf.Tensor) -> tf.Tensor:
    """Weighs channels by their positive gradients, pixel by pixel."""
    import tensorflow as tf

    first = tf.exp(score)[:, None, None, None] * gradients
    second, third = first * gradients, first * gradients * gradients
    total = tf.reduce_sum(features, axis=(1, 2), keepdims=True)
    alphas = second / _unless_zero(2 * second + third * total, second)
    sums = tf.reduce_sum(alphas, axis=(1, 2), keepdims=True)
    alphas /= _unless_zero(sums, sums)
    weights = tf.reduce_sum(tf.nn.relu(first) * alphas, axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))


def layer_cam(features: tf.Tensor, gradients: tf.Tensor, score: tf.Tensor) -> tf.Tensor:
    """Weighs every pixel of every channel by its own positive gradient."""
    import tensorflow as tf

    return tf.nn.relu(tf.reduce_sum(tf.nn.relu(gradients) * features, axis=-1))


def _unless_zero(denominator: tf.Tensor, test: tf.Tensor) -> tf.Tensor:
    """Adds 1 to a denominator where `test` is 0."""
    import tensorflow as tf

    return denominator + tf.cast(test == 0, denominator.dtype)


METHODS: dict[str, Weigh] = {
    "grad-cam": grad_cam,
    "grad-cam++": grad_cam_plus_plus,
    "layer-cam": layer_cam,
}


@dataclass(frozen=True)
class Findings:
    """What is wrong with maps, before anything is computed from them.

    Attributes:
      dead: int64 `[n]`, how many of a client's maps are zero everywhere.
      non_finite: int64 `[n]`, how many hold NaN or infinity.
    """

    dead: np.ndarray
    non_finite: np.ndarray

    @classmethod
    def of(cls, maps: np.ndarray) -> Findings:
        """Counts in raw maps `[n, p, h, w]`."""
        return cls(
            dead=(maps == 0).all(axis=(2, 3)).sum(axis=1),
            non_finite=(~np.isfinite(maps)).any(axis=(2, 3)).sum(axis=1),
        )


def scaled(maps: Any) -> Any:
    """Returns each map scaled to 0 … 1: (L − min) / (max − min + 1e-7); dead maps stay zero.

    Args:
      maps: float32 `[…, h, w]`, finite; an array or a tensor, and a tensor comes back.
    """
    from keras import ops

    low = ops.min(maps, axis=(-2, -1), keepdims=True)
    span = ops.max(maps, axis=(-2, -1), keepdims=True) - low
    return (maps - low) / (span + 1e-7)
