"""The audit as a TensorFlow graph, for exports; it computes the same as `tffl.gan.audit`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tffl.core.thresholds import NORMAL
from tffl.gan.audit import NO_PREDICTION, ROUNDING_MARGIN, Rule

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class AuditGraph:
    """An audit with all its options; see `tffl.gan.audit`.

    Attributes:
      classes: Number of real classes, C.
      outputs: Number of outputs of the models, C or more.
      agreement: As in `audit`.
      balance: As in `audit`.
      rule: As in `threshold`.
      theta: As in `threshold`.
      k: As in `threshold`.
      floor: As in `threshold`.
    """

    classes: int
    outputs: int
    agreement: float
    balance: bool
    rule: Rule
    theta: float
    k: float
    floor: float

    def __call__(self, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """Audits n models by their logits, float32 `[n, m, outputs]`.

        Returns:
          `labels` int64 `[m]`, `kept` bool `[m]`, `accuracy` float32 `[n]`, `threshold` float32,
          `suspected` bool `[n]`; NaN and −1 mean the same as in `tffl.gan.audit`.
        """
        import tensorflow as tf

        usable = tf.reduce_all(tf.math.is_finite(logits), axis=(1, 2))
        predicted = tf.argmax(logits, axis=2)
        voters = tf.boolean_mask(predicted, usable)
        votes = tf.reduce_sum(tf.one_hot(voters, self.outputs, dtype=tf.float64), axis=0)
        support = tf.reduce_max(votes, axis=1)
        no_label = tf.constant(NO_PREDICTION, tf.int64)
        labels = tf.where(support > 0, tf.argmax(votes, axis=1), no_label)
        kept = (labels != no_label) & (labels < self.classes)
        voting = tf.cast(tf.shape(voters)[0], tf.float64)
        kept = kept & (support >= self.agreement * voting)
        if self.balance:
            kept = kept & self._balanced(labels, kept)
        right = tf.cast(predicted == labels, tf.float64)
        accuracy = tf.reduce_mean(tf.boolean_mask(right, kept, axis=1), axis=1)
        accuracy = tf.where(usable, accuracy, tf.constant(float("nan"), tf.float64))
        threshold = self._threshold(tf.boolean_mask(accuracy, tf.math.is_finite(accuracy)))
        return {
            "labels": labels,
            "kept": kept,
            "accuracy": tf.cast(accuracy, tf.float32),
            "threshold": tf.cast(threshold, tf.float32),
            "suspected": ~usable | (accuracy < threshold),
        }

    def _balanced(self, labels: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        most = -(-tf.shape(labels)[0] // self.classes)
        hot = tf.one_hot(tf.where(kept, labels, -1), self.outputs, dtype=tf.int32)
        return tf.reduce_sum(hot * tf.cumsum(hot, axis=0), axis=1) <= most

    def _threshold(self, values: tf.Tensor) -> tf.Tensor:
        """Returns θ for finite accuracies float64 `[n]`; NaN if there are none."""
        import tensorflow as tf

        zero = tf.constant(0.0, tf.float64)
        if self.rule == "two-means":
            return _two_means(values, self.floor)
        if self.rule == "fixed":
            return tf.maximum(self.theta - ROUNDING_MARGIN, zero)
        if self.rule == "mean-std":
            mean = tf.reduce_mean(values)
            return tf.maximum(mean - self.k * tf.math.reduce_std(values) - ROUNDING_MARGIN, zero)
        center = _median(values)
        spread = tf.maximum(NORMAL * _median(tf.abs(values - center)), self.floor)
        return tf.maximum(center - self.k * spread - ROUNDING_MARGIN, zero)


def _median(values: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    ranked, size = tf.sort(values), tf.shape(values)[0]
    return tf.reduce_mean(ranked[(size - 1) // 2 : size // 2 + 1])


def _two_means(values: tf.Tensor, floor: float) -> tf.Tensor:
    """Does as `tffl.gan.audit.two_means`: maximizes the sum of squares between two clusters."""
    import tensorflow as tf

    ranked, size = tf.sort(values), tf.shape(values)[0]
    centered = ranked - tf.reduce_mean(ranked)
    lower = tf.range(1, tf.maximum(size, 2))  # at least one split, so that there is a maximum
    count = tf.cast(size, tf.float64)
    weights = tf.cast(lower, tf.float64) * (count - tf.cast(lower, tf.float64))
    sums = tf.cumsum(tf.concat([centered, [0.0, 0.0]], axis=0))[: tf.shape(lower)[0]]
    best = tf.argmax(tf.square(sums) / weights, output_type=tf.int32) + 1
    apart = tf.reduce_mean(ranked[best:]) - tf.reduce_mean(ranked[:best])
    found = (size >= 2) & (ranked[-1:] > ranked[:1]) & (apart >= floor)
    chosen = tf.concat([ranked, [0.0, 0.0]], axis=0)[best] - ROUNDING_MARGIN
    return tf.where(tf.reduce_any(found), chosen, tf.constant(float("nan"), tf.float64))
