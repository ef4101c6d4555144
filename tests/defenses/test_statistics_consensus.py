"""Statistics consensus: by hand, on honest clients with uneven data, on ruined statistics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.core.verdict import Verdict
from tffl.defenses import create_defense
from tffl.defenses.server import Server
from tffl.defenses.statistics_consensus import EPSILON, statistic_distances

LAYOUT = WeightLayout(
    (
        Entry("conv/kernel", (3,), True),
        Entry("bn/gamma", (2,), True),
        Entry("bn/moving_mean", (2,), False),
        Entry("bn/moving_variance", (2,), False),
        Entry("frozen/kernel", (2,), False),
        Entry("dense/bias", (2,), True),
    )
)
START = np.array([1, 1, 1, 1, 1, 0, 0, 4, 9, 3, -3, 0, 0], np.float32)
MEAN, VARIANCE = LAYOUT["bn/moving_mean"], LAYOUT["bn/moving_variance"]


def updates(n: int, spread: float = 0.0, seed: int = 0) -> Updates:
    """Clients whose variances differ by factors of about exp(spread), and whose means go along."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((n, LAYOUT.size), np.float32)
    rows[:, LAYOUT.trainable] = rng.normal(size=(n, LAYOUT.trainable.sum()))
    rows[:, VARIANCE] = START[VARIANCE] * (np.exp(spread * rng.normal(size=(n, 2))) - 1)
    rows[:, MEAN] = spread * np.sqrt(START[VARIANCE]) * rng.normal(size=(n, 2))
    counts = np.full(n, 10, np.int64)
    return Updates(1, np.arange(n), counts, START, rows, LAYOUT)


def judge(given: Updates, **options: float) -> Verdict:
    defense = create_defense("statistics-consensus", options)
    server = Server(None, given.layout, len(given), 0)
    return defense.judge(given, server, defense.init(server))[0]


def test_scores_by_hand():
    given = updates(7)
    given.matrix[0, VARIANCE] = 3 * START[VARIANCE]
    given.matrix[1, MEAN] = [6, 9]
    given.matrix[2, LAYOUT["frozen/kernel"]] = [1.5, 0]
    factor = np.log((4 * np.array([4, 9]) + EPSILON) / (np.array([4, 9]) + EPSILON))
    apart = np.array([6, 9]) / np.sqrt(np.array([4, 9]) + EPSILON)
    expected = np.zeros((7, 3))
    expected[0, 1] = np.sqrt((factor**2).mean())
    expected[1, 0] = np.sqrt((apart**2).mean())
    expected[2, 2] = np.sqrt(1.5**2 / 2) / 3
    np.testing.assert_allclose(statistic_distances(given), expected, rtol=1e-6, atol=1e-9)
    verdict = judge(given)
    np.testing.assert_allclose(verdict.scores, expected.max(axis=1), atol=1e-9)
    assert verdict.convicted.tolist() == [True] * 2 + [False] * 5
    assert "bn/moving_variance is off by a factor of 4" in verdict.reasons[0]
    assert "bn/moving_mean is off by 3 standard deviations" in verdict.reasons[1]
    assert not any(verdict.reasons[2:])


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_honest_clients_with_uneven_data_pass_and_ruined_variances_do_not(spread, seed):
    given = updates(20, spread, seed)
    assert not judge(given).convicted.any()
    for row in range(3):
        given.matrix[row, VARIANCE] = 100 * (START + given.matrix[row])[VARIANCE] - START[VARIANCE]
    assert judge(given).convicted.tolist() == [True] * 3 + [False] * 17


def test_where_all_stray_nobody_does():
    scores = judge(updates(20, spread=2.0)).scores
    assert np.median(scores) > 1
    assert judge(updates(20, spread=2.0)).convicted.sum() <= 1


def test_what_is_not_finite_moves_no_median():
    given = updates(6, 0.1)
    alone = judge(given).scores
    with_two = replace(
        given,
        client_ids=np.arange(8),
        sample_counts=np.full(8, 10, np.int64),
        matrix=np.concatenate([given.matrix, np.full((2, LAYOUT.size), np.nan, np.float32)]),
    )
    verdict = judge(with_two)
    np.testing.assert_array_equal(verdict.scores, [*alone, np.inf, np.inf])
    assert verdict.convicted[6:].all() and not verdict.convicted[:6].any()


def test_huge_and_negative_statistics_are_far():
    given = updates(9)
    given.matrix[0, VARIANCE] = 3e38
    given.matrix[1, MEAN] = -3e38
    given.matrix[2, VARIANCE] = -2 * START[VARIANCE]
    assert judge(given).convicted.tolist() == [True] * 3 + [False] * 6


def test_models_without_statistics_have_no_suspects():
    layout = WeightLayout((Entry("dense/kernel", (4,), True),))
    rows = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    given = Updates(1, np.arange(5), np.ones(5, np.int64), np.zeros(4, np.float32), rows, layout)
    verdict = judge(given)
    assert not verdict.convicted.any() and (verdict.scores == 0).all()
    np.testing.assert_allclose(verdict.aggregate, rows.mean(axis=0), atol=1e-6)


def test_two_participants_are_too_few():
    with pytest.raises(UsageError, match="at least 3 participants a round, not 2"):
        create_defense("statistics-consensus", {}).check(2, LAYOUT)


def test_which_defenses_see_statistics():
    options = {"any-of": {"of": "krum,statistics-consensus"}, "all-of": {"of": "krum,dnc"}}
    for name, expected in {
        "statistics-consensus": True,
        "shield": True,
        "probe-loss": True,
        "any-of": True,
        "nnm+statistics-consensus": True,
        "all-of": False,
        "nnm+krum": False,
        "update-consensus": False,
    }.items():
        assert create_defense(name, options.get(name, {})).judges_statistics == expected, name
