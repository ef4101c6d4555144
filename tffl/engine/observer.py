"""What is said while something is being prepared or computed."""

from __future__ import annotations


class Observer:
    """Receives the current activity and warnings, and by default ignores them."""

    def phase(self, text: str) -> None:
        """Hears what is being done outside the rounds, such as `"preparing digits"`."""

    def warning(self, text: str) -> None:
        """Hears of something that the user should know, in one line."""
