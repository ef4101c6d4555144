"""RLR: the authors' numbers, the votes by hand, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from tffl.core.errors import UsageError
from tffl.defenses import defenses
from tffl.defenses.rlr import Rlr, sign_votes

from .byzantine import FROZEN, as_updates, cloud, judge

ROWS = np.array(
    [
        [1.0, -3.0, 3.0, 0.5, 0.0],
        [2.0, 1.0, -3.0, 0.5, 0.0],
        [1.0, -1.0, 1.0, -4.0, 1.0],
        [3.0, 2.0, -1.0, 0.5, -2.0],
        [-9.0, 1.0, 2.0, 0.5, 0.0],
        [1.0, -1.0, 4.0, 0.0, 0.0],
    ]
)
COUNTS = [10, 20, 30, 10, 20, 10]

AUTHORS = {
    1: [-0.6, 0.1, 0.7, -0.9, -0.1],
    3: [-0.6, 0.1, -0.7, -0.9, -0.1],
    4: [-0.6, 0.1, -0.7, 0.9, -0.1],
    6: [0.6, 0.1, -0.7, 0.9, -0.1],
}
"""θ → steps of TinfoilHat0/Defending-Against-Backdoors-with-Robust-Learning-Rate.

From `src/aggregation.py` at 711ab52, `compute_robustLR` and `agg_avg`, for these rows and counts.
"""


@pytest.mark.parametrize("threshold", AUTHORS)
def test_steps_are_those_of_the_authors_code(threshold: int, server) -> None:
    verdict = judge(Rlr(threshold=threshold), as_updates(ROWS, COUNTS), server)
    np.testing.assert_allclose(verdict.aggregate[FROZEN:], AUTHORS[threshold], rtol=1e-6, atol=1e-7)
    mean = np.arange(6) @ np.array(COUNTS) / 100  # of statistics, which never go backward
    np.testing.assert_allclose(verdict.aggregate[:FROZEN], mean, rtol=1e-6)


def test_votes_by_hand() -> None:
    votes, opposed = sign_votes(as_updates(ROWS))
    assert votes[FROZEN:].tolist() == [4, 0, 2, 3, 0]
    np.testing.assert_allclose(opposed, [0, 0.2, 0.2, 0.2, 0.2, 0])
    assert sign_votes(as_updates(np.ones((200, 3))))[0].tolist() == [199, 199, 200, 200, 200]


def test_a_fraction_is_one_of_the_finite_rows(server) -> None:
    rows = np.vstack([ROWS, np.full((4, 5), np.nan)])
    fraction = judge(Rlr(threshold=0.5), as_updates(rows, [*COUNTS, 9, 9, 9, 9]), server)
    count = judge(Rlr(threshold=3), as_updates(ROWS, COUNTS), server)
    np.testing.assert_array_equal(fraction.aggregate, count.aggregate)
    assert Rlr()._votes(10) == 4 and Rlr(threshold=0.1)._votes(30) == 3
    assert Rlr(threshold=9)._votes(6) == 6


def test_a_backdoor_of_a_few_is_turned_around() -> None:
    rows = cloud(10, 200, seed=1)
    rows[:, :100] += 3  # what all learn
    rows[8:, 100:] = 5  # what two teach
    step = Rlr().judge_rows(rows).aggregate
    assert (step[:100] > 0).mean() > 0.95
    assert (step[100:] < 0).mean() > 0.6 > 0.1 > (rows.mean(axis=0)[100:] < 0).mean()


def test_refuses_votes_that_no_column_has(layout) -> None:
    defenses.create("rlr", {"threshold": 10}).check(10, layout)
    with pytest.raises(UsageError, match=r"threshold = 11 .* with 10 participants"):
        defenses.create("rlr", {"threshold": 11}).check(10, layout)
    with pytest.raises(UsageError, match=r"^defense\.threshold.* = 1.5 is not allowed"):
        defenses.create("rlr", {"threshold": 1.5})
    assert defenses.create("rlr", {"threshold": "40%"}).threshold == 0.4
