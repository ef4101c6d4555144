"""A run's numbers, histograms and pictures for TensorBoard.

Its plugins' values are written as they read them: `tf.summary.scalar` and the like need the package
tensorboard, which TensorFlow no longer brings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core.atomic import remove, tensorflow_writing

if TYPE_CHECKING:
    import pandas as pd

BUCKETS = 30
"""Of a histogram."""


class EventLog:
    """The event files of one run. What an earlier process wrote there is written anew.

    Args:
      folder: TensorBoard's log directory.

    Attributes:
      logged: The last round that it has, or 0.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logged = 0
        self._writer: Any = None

    def write(
        self,
        rounds: pd.DataFrame,
        clients: pd.DataFrame,
        pictures: Callable[[int], Sequence[tuple[str, Path]]],
    ) -> None:
        """Adds the rounds that it does not have yet.

        Args:
          rounds: `rounds.csv`, at least those that it does not have.
          clients: `clients.csv` of the same rounds.
          pictures: Round → names and PNG files of its pictures.

        Raises:
          TfflError: A file cannot be written.
        """
        import tensorflow as tf

        with tensorflow_writing(self.folder):
            if self._writer is None:
                remove(self.folder)
                self._writer = tf.summary.create_file_writer(str(self.folder))
            with self._writer.as_default():
                for row in rounds[rounds["round"] > self.logged].to_dict("records"):
                    round = int(row["round"])
                    _write_round(round, row)
                    _write_scores(round, clients[clients["round"] == round])
                    for name, file in pictures(round):
                        write_image(name, file, round)
            self._writer.flush()
        self.logged = max([self.logged, *rounds["round"].tolist()])


def _write_round(round: int, row: Mapping[Any, float]) -> None:
    for column, value in row.items():
        if column != "round" and not math.isnan(value):
            write_scalar(column, value, round)


def _write_scores(round: int, clients: pd.DataFrame) -> None:
    """Writes how the scores of honest and malicious clients of one round are spread."""
    for name, malicious in (("honest", 0), ("malicious", 1)):
        scores = clients.loc[clients["malicious"] == malicious, "score"].to_numpy(float)
        if np.isfinite(scores).any():
            write_histogram(f"scores/{name}", scores[np.isfinite(scores)], round)


def write_scalar(name: str, value: float, step: int) -> None:
    """Writes a number to the default writer."""
    import tensorflow as tf

    tf.summary.write(name, tf.constant(value, tf.float32), step, metadata("scalars"))


def write_histogram(name: str, values: np.ndarray, step: int) -> None:
    """Writes finite values `[n]` as a histogram: left and right edge, and count, by bucket."""
    import tensorflow as tf

    counts, edges = np.histogram(values.astype(np.float64), bins=BUCKETS)
    buckets = np.stack([edges[:-1], edges[1:], counts], axis=1)
    tf.summary.write(name, tf.constant(buckets, tf.float64), step, metadata("histograms"))


def write_image(name: str, file: Path, step: int) -> None:
    """Writes a PNG file."""
    import tensorflow as tf

    png = file.read_bytes()
    height, width, _ = tf.io.decode_png(png).shape
    value = tf.constant([str(width).encode(), str(height).encode(), png])
    tf.summary.write(name, value, step, metadata("images"))


def metadata(plugin: str, content: bytes = b"") -> Any:
    """Returns what tells TensorBoard which plugin reads a value."""
    import tensorflow as tf

    data = tf.compat.v1.SummaryMetadata.PluginData(plugin_name=plugin, content=content)
    return tf.compat.v1.SummaryMetadata(plugin_data=data)
