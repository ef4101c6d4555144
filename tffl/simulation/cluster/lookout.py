"""Which workers of a cluster answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from tffl.simulation.cluster.addresses import answers

TICK = 0.5
"""Seconds between two looks at who answers."""


class Lookout(threading.Thread):
    """Knows which workers answer, and for how long nobody has been of use.

    One that comes back is of use when TensorFlow takes it back, which it does only when none is
    missing any more.

    Attributes:
      down: Those that do not answer.
      lost: Whether there ever were any.
    """

    def __init__(self, workers: Sequence[str]) -> None:
        super().__init__(daemon=True, name="tffl-lookout")
        self._workers = workers
        self._alone: float | None = None  # since when
        self._away: frozenset[str] = frozenset()  # missing, or back before all others are
        self.down: frozenset[str] = frozenset()
        self.lost = False
        self.start()

    def run(self) -> None:
        """Looks again and again, until the process ends."""
        with suppress(RuntimeError), ThreadPoolExecutor(min(32, len(self._workers))) as threads:
            while True:
                found = zip(self._workers, threads.map(answers, self._workers), strict=True)
                self.down = frozenset(worker for worker, there in found if not there)
                self._away = self._away | self.down if self.down else self.down
                self.lost = self.lost or bool(self.down)
                if len(self._away) < len(self._workers):
                    self._alone = None
                elif self._alone is None:
                    self._alone = time.monotonic()
                time.sleep(TICK)

    def alone(self) -> float:
        """Returns the seconds since the last worker went that was of use; 0 if one is."""
        since = self._alone
        return 0.0 if since is None else time.monotonic() - since
