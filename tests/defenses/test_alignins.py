"""AlignIns: the authors' numbers, ties, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tffl.core.errors import UsageError
from tffl.core.geometry import cosines_with
from tffl.defenses.alignins import AlignIns, sign_agreement

from .byzantine import FROZEN, as_updates, judge

ROWS = np.array(
    [
        [11, 3, 8, 5, 6, 13, 1, 4, 7, 10, 12, 9],
        [11, 10, -6, 5, 3, 8, -7, 2, 4, 12, -9, 1],
        [7, 6, 5, -10, 8, 3, -4, 12, 11, 13, -9, 2],
        [6, -9, 10, -13, 2, 3, 5, -8, 1, -12, 4, 7],
        [12, 1, -10, -11, 13, -5, -8, -3, 7, 4, 2, 9],
        [-11, 1, 7, 9, 8, 2, 6, 5, 12, -13, 3, 10],
        [-12, 13, 6, 8, -2, 9, -4, 1, -7, 11, 3, -5],
        [-5, 7, -9, -2, -6, -8, -4, -3, 1, -13, -10, -12],
        [26, 12, 22, -4, 16, 8, 2, 20, 18, 24, 14, -10],
    ],
    dtype=float,
)
COUNTS = [10, 20, 30, 10, 20, 10, 20, 30, 50]
MODEL = np.array([2, -2, -3, 3, -3, 3, 4, -2, 3, 0, 5, 5])
AUTHORS = {
    (0.3, 1.0): (
        [1.0, 1.0, 1.0, 0.666667, 1.0, 0.333333, 0.666667, 0.0, 1.0],
        [
            0.473762,
            -0.035366,
            -0.315261,
            0.197946,
            0.048335,
            0.251372,
            -0.20176,
            -0.430022,
            -0.05069,
        ],
        [1, 3, 4, 6, 8],
        [
            7.353189,
            5.598429,
            3.554439,
            -1.458606,
            5.550078,
            3.85504,
            -2.301783,
            3.279845,
            4.234382,
            8.182944,
            2.400703,
            -0.608764,
        ],
    ),
    (0.5, 1.5): (
        [1.0, 0.833333, 0.833333, 0.5, 0.833333, 0.5, 0.5, 0.166667, 1.0],
        [
            0.473762,
            -0.035366,
            -0.315261,
            0.197946,
            0.048335,
            0.251372,
            -0.20176,
            -0.430022,
            -0.05069,
        ],
        [1, 2, 3, 4, 5, 6, 8],
        [
            6.349447,
            5.443371,
            4.103964,
            -2.455993,
            6.294273,
            3.590258,
            -2.118731,
            5.082397,
            6.086222,
            7.894435,
            0.434879,
            0.51032,
        ],
    ),
}
"""(s, λ) → MPSA, TDA, who is kept, and the step, by `agg_alignins` of `src/aggregation.py`.

Read in the fork YuqingLi-hub/AlignIns at 032f6a7, as the authors' own repository was out of reach,
and followed line by line in NumPy.
"""


@pytest.mark.parametrize(("case", "expected"), AUTHORS.items())
def test_numbers_are_those_of_the_authors_code(case, expected, server) -> None:
    (sparsity, radius), (agreement, cosine, kept, step) = case, expected
    updates = as_updates(ROWS, COUNTS)
    updates = replace(updates, start=np.r_[np.zeros(FROZEN), MODEL].astype(np.float32))
    np.testing.assert_allclose(sign_agreement(updates, sparsity), agreement, atol=1e-6)
    np.testing.assert_allclose(cosines_with(updates, updates.start)[0], cosine, atol=1e-6)
    defense = AlignIns(sparsity=sparsity, sign_radius=radius, cosine_radius=radius)
    verdict = judge(defense, updates, server)
    assert np.flatnonzero(verdict.accepted).tolist() == kept
    np.testing.assert_allclose(verdict.aggregate[FROZEN:], step, atol=1e-5)
    assert verdict.weights.sum() == pytest.approx(1)


def test_equal_rows_and_rows_that_are_not_finite(server) -> None:
    rows = np.tile(ROWS[0], (5, 1))
    rows[2, 3] = np.nan
    verdict = judge(AlignIns(), as_updates(rows), server)
    assert verdict.accepted.tolist() == [True, True, False, True, True]
    np.testing.assert_allclose(verdict.aggregate[FROZEN:], ROWS[0], rtol=1e-6)
    nobody = judge(AlignIns(), as_updates(np.full((3, 4), np.nan)), server)
    assert not nobody.aggregate.any() and not nobody.accepted.any()


def test_refuses_two_clients(layout) -> None:
    with pytest.raises(UsageError, match="alignins needs at least 3 participants a round, not 2"):
        AlignIns().check(2, layout)
