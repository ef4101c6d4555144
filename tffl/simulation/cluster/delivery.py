"""Rows that come back from workers, in any order, late, or never."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

import tensorflow as tf

from tffl.simulation.cluster.lookout import TICK

LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
"""What a client's training ends with if its worker does, and TensorFlow does not mend it itself."""


def deliver(row: int, schedule: Callable[[int], Any], back: SimpleQueue[tuple[int, Any]]) -> None:
    """Schedules a row, and puts its value or error into a queue when it is there: maybe never."""
    try:
        value = schedule(row)
    except LOST as error:  # of an earlier row
        back.put((row, error))
        return

    def wait() -> None:
        try:
            back.put((row, value.fetch()))
        except Exception as error:
            back.put((row, error))

    threading.Thread(target=wait, daemon=True).start()


def next_back(back: SimpleQueue[tuple[int, Any]]) -> tuple[int, Any]:
    """Returns the next row that came back, and its value or error; (-1, None) if none has yet."""
    try:
        return back.get(timeout=TICK)
    except Empty:
        return -1, None
