"""Measures how long the phases of a round take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up the seconds of each phase of a round; a phase may occur several times."""

    def __init__(self) -> None:
        self._totals: dict[str, float] = {}

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Adds the duration of the `with` block to a phase."""
        began = time.perf_counter()
        yield
        self._totals[phase] = self._totals.get(phase, 0.0) + time.perf_counter() - began

    @property
    def seconds(self) -> dict[str, float]:
        """Column name, such as `"training_seconds"`, → seconds."""
        return {f"{phase}_seconds": round(total, 4) for phase, total in self._totals.items()}
