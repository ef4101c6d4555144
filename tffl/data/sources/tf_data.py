"""A `tf.data.Dataset` of (sample, label), batched or not, as arrays in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from tffl.core.errors import UsageError, first_line, require


def is_tf_data(value: Any) -> bool:
    """Says whether a value is a `tf.data.Dataset`; imports no TensorFlow."""
    return any(
        base.__name__ == "DatasetV2" and base.__module__.startswith("tensorflow")
        for base in type(value).__mro__
    )


def arrays_of(data: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads a `tf.data.Dataset` into memory, once and in its order.

    Args:
      data: It yields pairs (sample, label), or batches of them.
      what: For messages.

    Returns:
      Samples `[n, …]` and labels `[n]`.

    Raises:
      UsageError: It yields something else, samples of different shapes, or nothing.
    """
    spec = data.element_spec
    require(
        isinstance(spec, tuple) and len(spec) == 2,
        f"{what} should yield pairs (sample, label), and yields {spec}",
    )
    try:
        pairs = list(data.as_numpy_iterator())
        require(bool(pairs), f"{what} yields nothing")
        batched = np.ndim(pairs[0][1]) > 0
        join = np.concatenate if batched else np.stack
        return join([sample for sample, _ in pairs]), join([label for _, label in pairs])
    except UsageError:
        raise
    except Exception as error:  # of the pipeline's own functions, or shapes that differ
        raise UsageError(f"{what} cannot be read: {first_line(error)}") from error
