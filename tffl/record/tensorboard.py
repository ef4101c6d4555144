"""A run's numbers, histograms and pictures for TensorBoard.

Values are written in the form that TensorBoard's plugins read: `tf.summary.histogram` overflows on
scores as large as attackers make them, and `tf.summary.image` would compress pictures again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core.atomic import remove, tensorflow_writing
from tffl.drawing.guard import attempt

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
    """Writes finite values `[n]` as a histogram."""
    import tensorflow as tf

    found = attempt(f"TensorBoard's {name} of round {step}", buckets, values.astype(np.float64))
    if found is not None:
        tf.summary.write(name, tf.constant(found, tf.float64), step, metadata("histograms"))


def buckets(values: np.ndarray) -> np.ndarray:
    """Returns the left and right edge, and the count, of each bucket of a histogram.

    Args:
      values: Finite, float64 `[n]`, n > 0.

    Returns:
      float64 `[buckets, 3]`: `BUCKETS` of equal width; of values that lie too close together for
      so many edges between them, one.

    >>> buckets(np.array([1e300, 1e300])).tolist()
    [[1e+300, 1e+300, 2.0]]
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    share = np.linspace(0, 1, BUCKETS + 1)
    edges = low * (1 - share) + high * share  # high - low may overflow
    if not (np.diff(edges) > 0).all():
        return np.array([[low, high, len(values)]])
    counts, _ = np.histogram(values, edges)
    return np.stack([edges[:-1], edges[1:], counts], axis=1)


def write_image(name: str, file: Path, step: int) -> None:
    """Writes a PNG file."""
    import tensorflow as tf

    found = attempt(f"TensorBoard's {file}", _image, file)
    if found is not None:
        tf.summary.write(name, tf.constant(found), step, metadata("images"))


def _image(file: Path) -> list[bytes]:
    """Returns width, height and content of a PNG file."""
    from PIL import Image

    with Image.open(file) as image:
        width, height = image.size
    return [str(width).encode(), str(height).encode(), file.read_bytes()]


def metadata(plugin: str, content: bytes = b"") -> Any:
    """Returns what tells TensorBoard which plugin reads a value."""
    import tensorflow as tf

    data = tf.compat.v1.SummaryMetadata.PluginData(plugin_name=plugin, content=content)
    return tf.compat.v1.SummaryMetadata(plugin_data=data)
