"""How long the phases of a round take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Measures the phases of a round; a phase may come in several parts."""

    def __init__(self) -> None:
        self._parts: dict[str, float] = {}

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Adds how long the block takes to `phase`."""
        began = time.perf_counter()
        yield
        self._parts[phase] = self._parts.get(phase, 0.0) + time.perf_counter() - began

    @property
    def seconds(self) -> dict[str, float]:
        """`phase_seconds` → seconds."""
        return {f"{phase}_seconds": round(total, 4) for phase, total in self._parts.items()}
