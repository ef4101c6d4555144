"""Graphs of correlated features: their adjacency, their Fourier basis, and a graph autoencoder.

    adjacency      A_mm' = cos(f_m, f_m') where that exceeds a threshold, m ≠ m'
    Fourier basis  diag(A1) − A = B Λ Bᵀ,  Λ ascending
    autoencoder    Z = N·ReLU(N·X·W_0)·W_1,  Â = σ(ZZᵀ),  N = D^(−1/2)(A + I)D^(−1/2)

Variational Graph Auto-Encoders
    Thomas N. Kipf, Max Welling. 2016. (the autoencoder without variation)

Eigenvectors have no sign of their own; here their largest entry is positive. Matrices are small,
and go through TensorFlow's single-threaded operations, so that results do not depend on cores.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

HIDDEN, LATENT = 32, 16
"""Units of the encoder's two layers."""


def cosine_adjacency(features: np.ndarray, threshold: float) -> np.ndarray:
    """Returns which features go together, float64 `[k, k]`, symmetric, with a zero diagonal.

    Args:
      features: float64 `[k, n]`, a row per node. A row of zeros has no edge.
      threshold: At least 0; only a larger cosine makes an edge.

    >>> cosine_adjacency(np.array([[1.0, 0.0], [1.0, 1.0], [0.0, -1.0]]), 0.5).round(3)
    array([[0.   , 0.707, 0.   ],
           [0.707, 0.   , 0.   ],
           [0.   , 0.   , 0.   ]])
    """
    norms = np.sqrt(np.einsum("ij,ij->i", features, features))
    directions = features / np.where(norms > 0, norms, 1)[:, None]
    cosines = np.einsum("in,jn->ij", directions, directions)
    adjacency = np.where(cosines > threshold, np.minimum(cosines, 1), 0)
    np.fill_diagonal(adjacency, 0)
    return adjacency


def fourier_basis(adjacency: np.ndarray) -> np.ndarray:
    """Returns the eigenvectors B float64 `[k, k]` of a graph's Laplacian, a column each.

    They are in order of ascending eigenvalues. The largest entry of each is positive; of equal
    ones, the first.
    """
    import tensorflow as tf

    laplacian = np.diag(adjacency.sum(axis=1)) - adjacency
    with tf.device("CPU:0"):
        vectors = tf.linalg.eigh(tf.constant(laplacian, tf.float64))[1].numpy()
    # Rounding must not decide which of two equal entries is the larger one.
    largest = np.argmax(np.abs(vectors).round(9), axis=0)
    return vectors * np.where(vectors[largest, np.arange(len(vectors))] < 0, -1, 1)


def decoded(
    adjacency: np.ndarray, features: np.ndarray, epochs: int, generator: np.random.Generator
) -> np.ndarray:
    """Trains a graph autoencoder, and returns the adjacency that it decodes, float64 `[k, k]`.

    The loss is the cross-entropy between σ(ZZᵀ) and A + I, in which edges and non-edges have equal
    weight in total; the optimizer is Adam with a learning rate of 0.01.

    Args:
      adjacency: float64 `[k, k]`, symmetric, in 0 … 1.
      features: float64 `[k, n]`.
      epochs: Steps of training, each on the whole graph.
      generator: Draws the initial weights (Glorot and Bengio's uniform distribution).
    """
    import tensorflow as tf

    with_loops = adjacency + np.eye(len(adjacency))
    scale = 1 / np.sqrt(with_loops.sum(axis=1))
    weights = [_glorot(generator, features.shape[1], HIDDEN), _glorot(generator, HIDDEN, LATENT)]
    with tf.device("CPU:0"):
        logits = _fit()(
            tf.constant(with_loops * scale * scale[:, None], tf.float32),
            tf.constant(with_loops, tf.float32),
            tf.constant(features, tf.float32),
            *(tf.constant(weight, tf.float32) for weight in weights),
            tf.constant(epochs, tf.int32),
        ).numpy()
    return inner_product_graph(logits)


def inner_product_graph(logits: np.ndarray) -> np.ndarray:
    """Returns σ(ZZᵀ) without its diagonal, float64 `[k, k]`, of ZZᵀ `[k, k]`."""
    adjacency = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -50, 50)))
    np.fill_diagonal(adjacency, 0)
    return (adjacency + adjacency.T) / 2


def _glorot(generator: np.random.Generator, fan_in: int, fan_out: int) -> np.ndarray:
    limit = np.sqrt(6 / (fan_in + fan_out))
    return generator.uniform(-limit, limit, (fan_in, fan_out))


@lru_cache(maxsize=1)
def _fit() -> Any:
    """Builds the training once for graphs of every size; it is traced once."""
    import tensorflow as tf

    matrix = tf.TensorSpec([None, None], tf.float32)

    def encode(propagation: Any, features: Any, first: Any, second: Any) -> Any:
        hidden = tf.nn.relu(propagation @ (features @ first))
        latent = propagation @ (hidden @ second)
        return tf.matmul(latent, latent, transpose_b=True)

    @tf.function(input_signature=[matrix] * 5 + [tf.TensorSpec([], tf.int32)], autograph=False)
    def fit(
        propagation: Any, labels: Any, features: Any, first: Any, second: Any, epochs: Any
    ) -> Any:
        edges = tf.reduce_sum(labels)
        balance = (tf.cast(tf.size(labels), tf.float32) - edges) / edges

        def step(epoch: Any, weights: Any, means: Any, squares: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(weights)
                logits = encode(propagation, features, *weights)
                losses = tf.nn.weighted_cross_entropy_with_logits(labels, logits, balance)
                loss = tf.reduce_mean(losses)
            gradients = tape.gradient(loss, weights)
            return (epoch + 1, *_adam(epoch + 1, weights, gradients, means, squares))

        zeros = [tf.zeros_like(first), tf.zeros_like(second)]
        state = (tf.constant(0), [first, second], zeros, zeros)
        shapes = (tf.TensorShape([]), *[[first.shape, second.shape]] * 3)
        _, weights, _, _ = tf.while_loop(
            lambda epoch, *_: epoch < epochs, step, state, shape_invariants=shapes
        )
        return encode(propagation, features, *weights)

    return fit


def _adam(step: Any, weights: Any, gradients: Any, means: Any, squares: Any) -> Any:
    """Returns weights and moments after one step of Adam (Kingma and Ba, 2015)."""
    import tensorflow as tf

    count = tf.cast(step, tf.float32)
    means = [0.9 * m + 0.1 * g for m, g in zip(means, gradients, strict=True)]
    squares = [0.999 * s + 0.001 * g * g for s, g in zip(squares, gradients, strict=True)]
    rate = 0.01 * tf.sqrt(1 - 0.999**count) / (1 - 0.9**count)
    moved = [
        w - rate * m / (tf.sqrt(s) + 1e-7) for w, m, s in zip(weights, means, squares, strict=True)
    ]
    return moved, means, squares
