"""What a simulation tells whoever watches it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Observer:
    """Watches a simulation and, as it is, says nothing: override what you want to hear."""

    def phase(self, text: str) -> None:
        """Hears what is being done outside the rounds, such as `"preparing digits"`."""

    def start(self, rounds: int, first: int) -> None:
        """Hears that rounds `first … rounds`, 1-based, are about to run."""

    def round(self, row: Mapping[str, Any]) -> None:
        """Hears the row of `rounds.csv` that has just been written."""

    def warning(self, text: str) -> None:
        """Hears of something that the user should know, in one line."""
