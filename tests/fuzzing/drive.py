"""Takes many cases of a strategy, the same ones every time, and counts how they end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from .outcome import LIMIT, Outcome


@dataclass
class Tally:
    """How the cases of one target ended.

    Attributes:
      endings: Ending → cases.
      slowest: Seconds of the slowest.
      bad: What was wrong → the first case with which it was.
    """

    endings: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    bad: dict[str, str] = field(default_factory=dict)

    def add(self, outcome: Outcome, case: Any) -> None:
        self.endings[outcome.ending] += 1
        self.slowest = max(self.slowest, outcome.seconds)
        if not outcome.good:
            slow = f"more than {LIMIT:g} s" if outcome.seconds > LIMIT else ""
            self.bad.setdefault(f"{outcome.ending}: {outcome.note} {slow}".strip(), repr(case))


def drive(
    strategy: st.SearchStrategy,
    examine: Callable[[Any], Outcome | None],
    cases: int,
    draw: int,
    before: Callable[[Any, Tally], None] = lambda case, tally: None,
) -> Tally:
    """Examines so many cases, drawn by a seed.

    Args:
      strategy: Of the cases.
      examine: Returns None for what cannot be made.
      cases: How many.
      draw: The seed.
      before: Hears of each case before it is examined.
    """
    tally = Tally()

    @seed(draw)
    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def take(case: Any) -> None:
        before(case, tally)
        outcome = examine(case)
        if outcome is not None:
            tally.add(outcome, case)

    take()
    return tally
