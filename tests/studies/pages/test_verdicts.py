"""Three verdicts on claims, and how they are counted and shown."""

from __future__ import annotations

import math

import pytest

from tffl.studies.pages.verdicts import (
    Judged,
    Operator,
    claim_table,
    compare,
    counts,
    judged,
    verdict,
)


@pytest.mark.parametrize(
    ("value", "operator", "border", "tolerance", "expected"),
    [
        (0.5, ">=", 0.5, 0.0, True),
        (0.5, ">", 0.5, 0.0, False),
        (0.5, "<=", 0.5, 0.0, True),
        (0.5, "<", 0.5, 0.0, False),
        (0.4, ">=", 0.5, 0.125, True),
        (0.6, "<", 0.5, 0.125, True),
        (0.6, "~", 0.5, 0.125, True),
        (0.7, "~", 0.5, 0.125, False),
        (math.inf, ">", 1.0, 0.0, True),
        (math.nan, ">", 1.0, 0.0, None),
        (1.0, "<=", math.nan, 0.0, None),
    ],
)
def test_comparisons(
    value: float, operator: Operator, border: float, tolerance: float, expected: bool | None
) -> None:
    assert compare(value, operator, border, tolerance) is expected


def test_a_missing_number_leaves_a_claim_undecided_whatever_the_others_say() -> None:
    assert verdict([True, True]) == "holds"
    assert verdict([True, False]) == "fails"
    assert verdict([False, None]) == verdict([True, None]) == verdict([]) == "undecided"
    assert judged("so", "0.5", True, False) == Judged("so", "fails", "0.5")


def test_counts_and_table() -> None:
    claims = [judged("a|b", "1", True), judged("c", "2", False), judged("d", "–", None)]
    assert counts(claims) == "1 holds, 1 fails, 1 undecided"
    assert counts([]) == "0 hold, 0 fail, 0 undecided"
    lines = claim_table(claims).splitlines()
    assert lines[0] == "| claim | verdict | measured |"
    assert lines[2:] == [
        r"| a\|b | **holds** | 1 |",
        "| c | **fails** | 2 |",
        "| d | **undecided** | – |",
    ]
