"""How many attackers a rule expects among a round's clients.

A defense never learns the true number. `malicious` is what its user says, which need not be true;
where the user says nothing, a rule assumes what its own page says, usually the most it tolerates.
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
"""What a user says of the attackers: a count of a round's participants, a fraction, or None."""


def attacker_count(malicious: int | float | None, participants: int) -> int | None:
    """Returns a count, given a count or a fraction of the participants; None, given None.

    >>> attacker_count(0.25, 10), attacker_count(2, 10), attacker_count(None, 10)
    (3, 2, None)
    """
    if malicious is None or isinstance(malicious, int):
        return malicious
    return math.floor(malicious * participants + 0.5)


def attacker_note(malicious: int | float | None) -> tuple[str, ...]:
    """Returns what a run's record says of a defense that was given a number of attackers."""
    return () if malicious is None else (f"told malicious = {malicious}",)


def with_count(rule: Rule, malicious: int | float | None, participants: int, removed: int) -> Rule:
    """Returns a rule whose option `malicious` is a count of one round; itself where it is None.

    Args:
      rule: A dataclass.
      malicious: Its `attackers`.
      participants: n.
      removed: Rows that are not finite and were removed, which count as attackers found.
    """
    count = attacker_count(malicious, participants)
    if count is None:
        return rule
    return replace(rule, malicious=max(count - removed, 0))  # type: ignore[type-var]


def assumed_count(malicious: int | float | None, participants: int, most: int) -> int:
    """Returns f: what the user says, or else the most that the rule tolerates.

    Args:
      malicious: A count, a fraction, or None.
      participants: n.
      most: The largest f for which the rule works with n; negative if there is none.
    """
    count = attacker_count(malicious, participants)
    return max(most, 0) if count is None else count


def remaining_count(malicious: int, removed: int, most: int) -> int:
    """Returns f for the rows that remain after `removed` rows that are not finite.

    Those count as attackers found. The result is at most what the rule tolerates with the remaining
    rows, since clients can always make a round worse than the user expects.
    """
    return max(0, min(malicious - removed, most))


def check_tolerance(
    name: str, malicious: int | float | None, participants: int, most: int, rule: str
) -> None:
    """Raises `UsageError` if the rule does not tolerate as many attackers as the user says.

    Args:
      name: The defense's.
      malicious: A count, a fraction, or None.
      participants: n.
      most: The largest f for which the rule works with n; negative if there is none.
      rule: The condition, for the message: `"n > 2f + 2"`.
    """
    require(
        most >= 0,
        f"{name} needs {rule}: {participants} participants a round are too few for any f",
    )
    count = attacker_count(malicious, participants)
    require(
        count is None or count <= most,
        f"{name} needs {rule}: with n = {participants} participants a round, f = {count} is too "
        f"many; set defense.malicious to at most {most}, or take more participants",
    )
