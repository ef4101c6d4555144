"""LASA: the authors' numbers, and what is not finite."""

from __future__ import annotations

import numpy as np
import pytest

from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.defenses.lasa import Lasa

ROWS = np.array(
    [
        [10, -8, 4, 1, 1, 1, -6, 1, -1, 15, 3, 1, 1, -1, -2, 1, 4, 1, 6, 1, 2, 8, 4, 1],
        [1, 4, 10, 1, 1, 6, -2, 1, 6, 4, 2, 5, -9, 6, -2, -5, 3, 5, 1, -2, 2, 2, 8, 5],
        [3, 6, 1, -2, 4, 4, 1, -1, 3, -8, 5, 4, -5, 2, -2, 5, -6, -2, 5, 7, -7, 1, 3, 1],
        [8, -3, 3, -2, 8, 2, 1, -5, 9, 5, 5, 7, 3, -1, -1, -1, 7, -4, 1, 1, 3, 4, -3, -5],
        [2, 7, 5, 3, 1, 3, 1, 5, -1, 3, 2, 4, 3, 12, 8, 8, -6, 1, 1, 4, -7, 7, 6, -3],
        [
            -20,
            16,
            -8,
            1,
            1,
            -2,
            12,
            -2,
            2,
            -30,
            -6,
            -2,
            -2,
            2,
            4,
            1,
            -8,
            -2,
            -12,
            -2,
            -4,
            -16,
            -8,
            1,
        ],
        [1, 9, 9, 12, 15, 6, 9, 6, 9, 12, 1, 6, -1, 1, -1, 1, 5, 1, 1, 5, 5, 9, -6, 5],
    ],
    dtype=float,
)
LAYOUT = WeightLayout(
    (Entry("a/kernel", (3, 4), True), Entry("a/bias", (4,), True), Entry("b/kernel", (4, 2), True))
)
AUTHORS = {
    (0.3, 1.0, 1.0): [
        4.5,
        0.613942,
        5.113942,
        2.151922,
        4.689903,
        2.575961,
        0.113942,
        -0.174039,
        5.363942,
        8.151922,
        2.0,
        4.075961,
        -1.572436,
        0.572436,
        -1.572436,
        2.239102,
        0.5,
        -2.0,
        2.5,
        3.5,
        -3.5,
        2.0,
        1.5,
        -2.5,
    ],
    (0.0, 1.5, 1.5): [
        4.543461,
        1.091153,
        4.891153,
        1.321538,
        4.951922,
        3.460769,
        0.091153,
        0.060769,
        4.691153,
        4.921538,
        3.143461,
        4.260769,
        -0.543962,
        0.343962,
        -0.742461,
        1.243712,
        2.317307,
        0.143461,
        2.743461,
        2.117307,
        0.717307,
        4.291153,
        1.539231,
        1.117307,
    ],
}
"""(s, λ_n, λ_s) → step of `algorithms/defense/lasa.py` of JiiahaoXU/LASA at 7499ead.

Followed line by line in NumPy.
"""


@pytest.mark.parametrize(("case", "step"), AUTHORS.items())
def test_steps_are_those_of_the_authors_code(case: tuple[float, float, float], step) -> None:
    verdict = Lasa(*_options(case)).judge_rows(ROWS, layout=LAYOUT)
    np.testing.assert_allclose(verdict.aggregate, step, atol=1e-5)


def test_a_part_that_is_all_zero_switches_no_filter_off() -> None:
    """Sparsity empties client 6's last kernel, where the authors' code averages everybody."""
    authors = [2.239102, -0.694357, 0.714286, 0.712142, 1.0, -1.97675, 0.973892, 1.980072, 0.714286]
    verdict = Lasa(*_options((0.6, 1.2, 0.8))).judge_rows(ROWS, layout=LAYOUT)
    np.testing.assert_allclose(verdict.aggregate[15], authors[0], atol=1e-5)
    assert np.abs(verdict.aggregate[16:] - authors[1:]).max() > 0.1


def _options(case: tuple[float, float, float]) -> tuple:
    return (None, 3.5, *case)


def test_rows_that_are_not_finite_are_no_part_of_it() -> None:
    spoiled = np.vstack([ROWS, np.full(24, np.nan)])
    verdict = Lasa().judge_rows(spoiled, layout=LAYOUT)
    expected = Lasa().judge_rows(ROWS, layout=LAYOUT)
    np.testing.assert_array_equal(verdict.aggregate, expected.aggregate)
    assert not verdict.accepted[-1]


def test_refuses_two_clients() -> None:
    with pytest.raises(UsageError, match="lasa needs at least 3 participants a round, not 2"):
        Lasa().check(2, LAYOUT)
