"""Verdicts on claims: a claim holds, fails, or is undecided. They are computed, never typed.

A claim is a sentence and one or more comparisons of measured numbers. It holds if all of them do.
It is undecided if a number of any of them is missing or undefined.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["holds", "fails", "undecided"]
Operator = Literal[">=", ">", "<=", "<", "~"]

VERDICTS: tuple[Verdict, ...] = ("holds", "fails", "undecided")


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict.

    Attributes:
      text: The claim.
      verdict: See the module.
      numbers: What was compared, or why nothing could be.
    """

    text: str
    verdict: Verdict
    numbers: str


def judged(text: str, numbers: str, *comparisons: bool | None) -> Judged:
    """Returns a claim with the verdict that its comparisons give.

    >>> judged("It rains.", "3 mm", True, None).verdict
    'undecided'
    """
    return Judged(text, verdict(comparisons), numbers)


def verdict(comparisons: Iterable[bool | None]) -> Verdict:
    """Returns the verdict of comparisons; None is one that cannot be made.

    >>> verdict([True, True]), verdict([True, False]), verdict([False, None]), verdict([])
    ('holds', 'fails', 'undecided', 'undecided')
    """
    made = list(comparisons)
    if not made or None in made:
        return "undecided"
    return "holds" if all(made) else "fails"


def compare(value: float, operator: Operator, border: float, tolerance: float = 0.0) -> bool | None:
    """Compares two numbers; None if either is undefined.

    Args:
      value: The left side.
      operator: `~` is "about": within the tolerance.
      border: The right side.
      tolerance: By how much the border may be missed.

    >>> compare(0.9, ">=", 0.95), compare(0.9, ">=", 0.95, 0.1), compare(float("nan"), "<", 1)
    (False, True, None)
    """
    if math.isnan(value) or math.isnan(border):
        return None
    if operator in (">=", ">"):
        least = border - tolerance
        return bool(value > least if operator == ">" else value >= least)
    if operator in ("<=", "<"):
        most = border + tolerance
        return bool(value < most if operator == "<" else value <= most)
    return bool(abs(value - border) <= tolerance)


def counts(claims: Iterable[Judged]) -> str:
    """Says how many claims hold.

    >>> counts([Judged("a", "holds", ""), Judged("b", "holds", ""), Judged("c", "fails", "")])
    '2 hold, 1 fails, 0 undecided'
    """
    verdicts = [one.verdict for one in claims]
    hold, fail, undecided = (verdicts.count(name) for name in VERDICTS)
    return (
        f"{hold} {'holds' if hold == 1 else 'hold'}, {fail} {'fails' if fail == 1 else 'fail'}, "
        f"{undecided} undecided"
    )


def claim_table(claims: Iterable[Judged], header: str = "measured") -> str:
    """Returns claims, verdicts and numbers in Markdown."""
    rows = [[one.text, f"**{one.verdict}**", one.numbers] for one in claims]
    return words_table(["claim", "verdict", header], rows)


def words_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""Returns a Markdown table whose columns are all left-aligned.

    >>> print(words_table(["a", "b"], [["x|y", "z"]]))
    | a | b |
    | --- | --- |
    | x\|y | z |
    """
    lines = [header, ["---"] * len(header), *rows]
    cells = ([cell.replace("|", r"\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
