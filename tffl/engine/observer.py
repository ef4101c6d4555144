"""What is said while something is being prepared or computed."""

from __future__ import annotations


class Observer:
    """Hears what is being done; as it is, it does nothing: override what you want to hear."""

    def phase(self, text: str) -> None:
        """Hears what is being done outside the rounds, such as `"preparing digits"`."""

    def warning(self, text: str) -> None:
        """Hears of something that the user should know, in one line."""
