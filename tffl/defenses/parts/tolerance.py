"""How many attackers a rule is told to expect, or assumes.

A defense never learns the true number. `malicious` is what its user tells it, which need not be
true; told nothing, a rule assumes what its own page says, usually the most that it can bear.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, TypeAlias, TypeVar

from pydantic import BeforeValidator, Field

from tffl.core.errors import require
from tffl.core.options import count_or_fraction

Rule = TypeVar("Rule")

Malicious: TypeAlias = Annotated[
    Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)] | None,
    BeforeValidator(count_or_fraction),
]
"""What a defense is told: a count of a round's participants, a fraction of them, or nothing."""


def told(malicious: int | float | None, participants: int) -> int | None:
    """Returns the count that a defense is told, or None if it is told nothing.

    >>> told(0.25, 10), told(2, 10), told(None, 10)
    (3, 2, None)
    """
    if malicious is None or isinstance(malicious, int):
        return malicious
    return math.floor(malicious * participants + 0.5)


def with_count(rule: Rule, participants: int, removed: int = 0) -> Rule:
    """Returns a rule that is told a count, where it is told a fraction, less those removed.

    Args:
      rule: A dataclass, with an option `malicious` if it is told anything.
      participants: n.
      removed: Worthless rows that were sorted out, which count as attackers found.
    """
    count = told(getattr(rule, "malicious", None), participants)
    if count is None:
        return rule
    return replace(rule, malicious=max(count - removed, 0))  # type: ignore[type-var]


def assumed(malicious: int | float | None, participants: int, most: int) -> int:
    """Returns f: what the defense is told, or the most that the rule can bear.

    Args:
      malicious: As told.
      participants: n.
      most: The largest f for which the rule works with n; negative if there is none.
    """
    count = told(malicious, participants)
    return max(most, 0) if count is None else count


def left(malicious: int, removed: int, most: int) -> int:
    """Returns f for the rows that remain after `removed` worthless ones were sorted out.

    Those count as attackers found. What remains is at most what the rule can bear with the rows
    that are left: clients can always make a round worse than it was announced.
    """
    return max(0, min(malicious - removed, most))


def check_tolerance(
    name: str, malicious: int | float | None, participants: int, most: int, rule: str
) -> None:
    """Raises `UsageError` if the rule cannot bear as many attackers as it is told.

    Args:
      name: The defense's.
      malicious: As told.
      participants: n.
      most: The largest f for which the rule works with n; negative if there is none.
      rule: The condition, for the message: `"n > 2f + 2"`.
    """
    require(
        most >= 0,
        f"{name} needs {rule}: {participants} participants a round are too few for any f",
    )
    count = told(malicious, participants)
    require(
        count is None or count <= most,
        f"{name} needs {rule}: with n = {participants} participants a round, f = {count} is too "
        f"many; set defense.malicious to at most {most}, or take more participants",
    )
