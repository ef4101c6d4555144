"""Update consensus: by hand, against plain NumPy, properties, edge cases and a root reference."""

from __future__ import annotations

import warnings
from dataclasses import replace
from statistics import median

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tffl.core.errors import UsageError
from tffl.core.updates import Updates
from tffl.data.samples import ROOT_DATA, RootData
from tffl.defenses import Server, Verdict, defenses
from tffl.defenses.parts.duplicates import nearness
from tffl.defenses.update_consensus import UpdateConsensus, robust_z

from .byzantine import FROZEN, as_updates, cloud, judge

properties = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
matrices = arrays(
    np.float32,
    st.tuples(st.integers(3, 8), st.integers(1, 5)),
    elements=st.integers(-64, 64).map(lambda i: i / 8),
)


def create(**options: object) -> UpdateConsensus:
    return defenses.create("update-consensus", options)


def honest(n: int, d: int = 400, seed: int = 0) -> np.ndarray:
    """Returns updates with a common direction and independent noise, cosines near 0.7."""
    generator = np.random.default_rng(seed)
    common = np.random.default_rng(99).normal(size=d)
    return (common + generator.normal(size=(n, d))).astype(np.float32)


def naive(rows: np.ndarray, k: float, duplicate: float) -> list[float]:
    """Scores from the definition, in plain Python."""
    x = rows.astype(float).tolist()
    n = len(x)

    def length(v: list[float]) -> float:
        return sum(a * a for a in v) ** 0.5

    def z(values: list[float], floor: float) -> list[float]:
        center = median(values)
        mad = median(abs(v - center) for v in values)
        return [(v - center) / max(1.4826 * mad, floor * center) for v in values]

    m = [median(column) for column in zip(*x, strict=True)]
    far = [length([a - b for a, b in zip(row, m, strict=True)]) for row in x]
    turn = [
        1 - sum(a * b for a, b in zip(row, m, strict=True)) / (length(row) * length(m)) for row in x
    ]
    lengths = [length(row) for row in x]
    units = [[a / size for a in row] for row, size in zip(x, lengths, strict=True)]
    nearest = [
        min(
            length([a - b for a, b in zip(units[i], units[j], strict=True)])
            for j in range(n)
            if j != i
        )
        for i in range(n)
    ]
    usual = median(nearest)
    copies = [k * duplicate * usual / max(v, usual / 1000) for v in nearest]
    most = 2 * sum(v > 1 for v in turn) >= n
    against = [0 if most else k * v for v in turn]
    return [max(each) for each in zip(z(far, 0.3), z(turn, 0.2), against, copies, strict=True)]


def test_robust_z_by_hand() -> None:
    # Median 10, MAD 1: the spread is 1.4826.
    values = np.array([9.0, 10.0, 10.0, 11.0, 50.0])
    np.testing.assert_allclose(robust_z(values, 0.1, 1e-9) * 1.4826, [-1, 0, 0, 1, 40], rtol=1e-12)
    # MAD 0.01 is below the floor of a tenth of the median.
    values = np.array([9.99, 10.0, 10.01, 10.0, 14.0])
    np.testing.assert_allclose(robust_z(values, 0.1, 1e-9), [-0.01, 0, 0.01, 0, 4], atol=1e-12)
    # More than half are 0.
    np.testing.assert_allclose(robust_z(np.array([0.0, 0.0, 0.0, 3.0]), 0.1, 0.5), [0, 0, 0, 6])


def test_nearness_by_hand() -> None:
    # A row's length does not matter. Chords between directions 60° apart are 1, 90° √2.
    rows = np.array([[2, 0], [0.5, np.sqrt(0.75)], [-3, 0], [-5, 0], [0, -1]])
    nearest = np.array([1, 1, 0.001, 0.001, np.sqrt(2)])  # median 1, at least a thousandth of it
    np.testing.assert_allclose(nearness(rows @ rows.T), 1 / nearest, rtol=1e-9)
    assert nearness(np.ones((4, 4))).tolist() == [0] * 4
    assert nearness(np.ones((1, 1))).tolist() == [0]
    silent = np.zeros((3, 3))
    assert nearness(silent).tolist() == [1] * 3  # zero rows are nobody's double


def test_distance_by_hand(server) -> None:
    # The median is (0, 4), distances 1, 0, 2, 0, 10: median 1, MAD 1. Cosines 1, 1, 0.8944, 1, 1.
    rows = [[0, 5], [0, 4], [2, 4], [0, 4], [0, 14]]
    verdict = judge(create(duplicate=0), as_updates(rows), server)
    assert verdict.scores[4] == pytest.approx(9 / 1.4826)
    assert verdict.flagged[4] and not verdict.flagged[[0, 1, 3]].any()
    assert verdict.threshold == 4
    assert verdict.reasons[4] == "far from the median update: distance 10, median 1, z = 6.07"
    assert verdict.reasons[0] == ""
    # More than half point the same way exactly: whoever does not, stands out.
    assert verdict.reasons[2].startswith("points away from the median update: cosine 0.8944")
    np.testing.assert_allclose(verdict.aggregate[FROZEN:], [0, 13 / 3], rtol=1e-6)


def test_direction_is_named(server) -> None:
    rows = honest(12)
    rows[11] *= -0.05  # short, so that it is not far
    verdict = judge(create(), as_updates(rows), server)
    assert verdict.convicted.tolist() == [False] * 11 + [True]
    assert verdict.reasons[11].startswith("points away from the median update: cosine -0.7")
    assert "far from" not in verdict.reasons[11]


def test_near_duplicates_are_named_and_can_be_allowed(server) -> None:
    rows = honest(12)
    rows[11] = rows[10] + 0.01
    verdict = judge(create(), as_updates(rows), server)
    assert np.flatnonzero(verdict.convicted).tolist() == [10, 11]
    assert verdict.reasons[11].startswith("nearly the direction of another: ")
    rows[11] = rows[10]
    exact = judge(create(), as_updates(rows), server)
    assert np.isfinite(exact.scores).all()
    np.testing.assert_allclose(exact.scores[10:], 4 * 0.5 * 1000)
    assert not judge(create(duplicate=0), as_updates(rows), server).flagged.any()


def test_three_findings_are_all_said(server) -> None:
    rows = honest(12)
    rows[10:] = -8 * rows[0]
    verdict = judge(create(), as_updates(rows), server)
    for words in ("far from", "points away", "nearly the direction"):
        assert words in verdict.reasons[11]


@pytest.mark.parametrize("n", [3, 8, 9])
def test_agrees_with_plain_python(server, n: int) -> None:
    rows = cloud(n, 6, seed=n)
    verdict = judge(create(k=3, duplicate=0.5), as_updates(rows), server)
    np.testing.assert_allclose(verdict.scores, naive(rows, 3, 0.5), rtol=1e-9)


def test_many_columns_in_blocks_and_views_agree_with_plain_python(server) -> None:
    rows = honest(6, d=9000)  # more than two blocks
    padded = np.insert(rows, 2, 7.0, axis=0)
    view = as_updates(padded).select(np.array([0, 1, 3, 4, 5, 6]))
    scores = create().examine(view, server, {}).scores
    np.testing.assert_allclose(scores, naive(rows, 4, 0.5), rtol=1e-7)


@pytest.mark.parametrize("n", [10, 20, 100])
def test_honest_clients_are_rarely_blamed(server, n: int) -> None:
    rounds = range(20 if n < 100 else 5)
    flags = [judge(create(), as_updates(honest(n, seed=i)), server).flagged for i in rounds]
    assert np.mean(flags) <= 0.01


def test_colluders_who_agree_on_signs_only_are_found(server) -> None:
    """The directed deviation attack draws other sizes for every colluder, and is long."""
    generator = np.random.default_rng(3)
    rows = honest(20)
    signs = np.sign(generator.normal(size=400))
    rows[:5] = signs * generator.uniform(1, 2, (5, 400))
    verdict = judge(create(k=50), as_updates(rows), server)
    assert verdict.convicted.tolist() == [True] * 5 + [False] * 15


def test_pointing_against_the_median_is_enough_unless_most_do(server) -> None:
    """At 8 of 20 flipped, honest cosines from 0.2 to 0.9 leave no z above 4."""
    cosines = np.concatenate([np.linspace(0.2, 0.9, 12), np.full(8, -0.2)])
    sides = np.sqrt(1 - cosines**2) * np.where(np.arange(20) % 2, 1, -1)
    rows = np.stack([cosines, sides], axis=1)
    verdict = judge(create(duplicate=0), as_updates(rows), server)
    assert verdict.convicted.tolist() == [False] * 12 + [True] * 8
    assert judge(create(duplicate=0, opposed=False), as_updates(rows), server).accepted.all()
    captured = np.concatenate([np.full(9, 5.0), np.full(9, -1.0), [-5.0, 5.0]])
    rows = np.stack([captured, np.full(20, 3.0)], axis=1)
    assert not judge(create(duplicate=0), as_updates(rows), server).flagged.all()


@pytest.mark.parametrize("factor", [-1.0, 3.0, 100.0])
def test_finds_a_quarter_of_flipped_or_scaled_updates(server, factor: float) -> None:
    rows = honest(20)
    rows[:5] *= factor
    verdict = judge(create(), as_updates(rows), server)
    assert verdict.convicted.tolist() == [True] * 5 + [False] * 15


def test_a_root_reference_holds_where_the_median_is_captured(server) -> None:
    """At 9 of 20 one vector sent by all of them is the median's, but not the server's."""
    truth = np.random.default_rng(99).normal(size=400)
    noise = np.random.default_rng(5).normal(size=(20, 400))
    rows = truth + np.where(np.arange(20) < 9, 0.01, 3)[:, None] * noise
    rows[:9] -= 2 * truth
    trusted = with_root(server, np.concatenate([[0, 0], truth / 50]))  # trained far less
    by_median = judge(create(duplicate=0), as_updates(rows), server)
    by_root = judge(create(duplicate=0, reference_point="root"), as_updates(rows), trusted)
    assert not by_median.convicted[:9].all()
    assert by_root.convicted.tolist() == [True] * 9 + [False] * 11
    assert "points away from the server's update: cosine -1" in by_root.reasons[0]


def test_whoever_points_against_the_root_is_found_whatever_the_spread(server) -> None:
    """At 8 of 20 flipped, honest cosines from 0.1 to 0.9 leave no z above 4."""
    cosines = np.concatenate([np.linspace(0.1, 0.9, 12), np.full(8, -0.6)])
    rows = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1)
    trusted = with_root(server, [0, 0, 3, 0])
    verdict = judge(create(duplicate=0, reference_point="root"), as_updates(rows), trusted)
    assert robust_z(1 - cosines, 0.2, 1e-9).max() < 4
    assert verdict.convicted.tolist() == [False] * 12 + [True] * 8
    np.testing.assert_allclose(verdict.scores[12:], 4 * 1.6, rtol=1e-6)
    assert "points away from the server's update: cosine -0.6" in verdict.reasons[19]


def test_root_by_hand(server) -> None:
    """The root update (0, 1) is stretched to the clients' median length, 4."""
    rows = [[-1, 4], [0, 4], [1, 4], [0, 4], [0, 13]]
    trusted = with_root(server, [7, 7, 0, 1])
    verdict = judge(create(duplicate=0, reference_point="root"), as_updates(rows), trusted)
    length = float(np.median(np.linalg.norm(rows, axis=1)))
    far = [np.hypot(x, y - length) for x, y in rows]
    center = median(far)
    spread = max(1.4826 * median(abs(v - center) for v in far), 0.3 * center)
    assert verdict.scores[4] == pytest.approx((far[4] - center) / spread, rel=1e-6)


@pytest.mark.parametrize("root", [0.0, np.nan, np.inf])
def test_without_a_usable_root_update_nobody_is_trusted(server, root: float) -> None:
    trusted = with_root(server, np.full(402, root))
    verdict = judge(create(reference_point="root"), as_updates(honest(5)), trusted)
    assert verdict.flagged.all() and not verdict.accepted.any()
    assert not verdict.aggregate.any()
    assert all("nothing to compare with" in reason for reason in verdict.reasons)


def with_root(server: Server, update: object) -> Server:
    images, labels = np.zeros((1, 2, 2, 1), np.uint8), np.zeros(1, np.int32)
    return replace(
        server, root=RootData(images, labels, lambda start, round: np.asarray(update, np.float32))
    )


def test_only_who_uses_root_data_asks_for_it(layout) -> None:
    assert create().declared_knowledge() == ()
    assert create(reference_point="root").declared_knowledge() == (ROOT_DATA,)
    with pytest.raises(UsageError, match="at least 3 participants a round, not 2"):
        create().check(2, layout)
    create().check(3, layout)


@pytest.mark.parametrize(
    ("option", "value"), [("k", 0), ("k", "inf"), ("duplicate", 1), ("reference_point", "mean")]
)
def test_refuses_options_out_of_range(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^defense\.{option} = .* is not allowed"):
        create(**{option: value})


def test_a_huge_row_blinds_nobody(server) -> None:
    rows = honest(12)
    rows[11] = -rows[0]
    rows[10] = 1e30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdict = judge(create(), as_updates(rows), server)
    assert verdict.convicted.tolist() == [False] * 10 + [True] * 2
    assert np.isfinite(verdict.scores).all()


def test_rows_that_are_not_finite_are_left_out_of_all_statistics(server) -> None:
    rows = honest(11)
    dirty = np.insert(rows, 3, np.nan, axis=0)
    alone = judge(create(), as_updates(rows), server)
    verdict = judge(create(), as_updates(dirty), server)
    assert verdict.scores[3] == np.inf and verdict.convicted[3]
    assert verdict.reasons[3] == "the update holds NaN or infinity"
    np.testing.assert_allclose(np.delete(verdict.scores, 3), alone.scores, rtol=1e-12)
    nobody = judge(create(), as_updates(rows * np.nan), server)
    assert nobody.flagged.all() and not nobody.aggregate.any()


@pytest.mark.parametrize("value", [0.0, 0.3, 1e30])
def test_equal_updates_are_all_accepted(server, value: float) -> None:
    verdict = judge(create(), as_updates(np.full((6, 30), value)), server)
    assert verdict.accepted.all() and not verdict.reasons[0]
    odd = np.full((6, 30), value, dtype=np.float32)
    odd[5] = value / 2 + 1
    assert judge(create(), as_updates(odd), server).flagged.tolist() == [False] * 5 + [True]


@pytest.mark.parametrize("n", [1, 2])
def test_too_few_rows_are_not_judged(server, n: int) -> None:
    assert not judge(create(), as_updates(honest(n)), server).flagged.any()


def test_frozen_columns_do_not_matter(server) -> None:
    round = as_updates(honest(6))
    before = judge(create(), round, server)
    round.matrix[:, :FROZEN] = np.random.default_rng(0).normal(size=(6, FROZEN)) * 1e6
    np.testing.assert_array_equal(judge(create(), round, server).scores, before.scores)


def permuted(updates: Updates, order: np.ndarray) -> Updates:
    return replace(updates, matrix=updates.matrix[order])


@properties
@given(rows=matrices, seed=st.integers(0, 9))
def test_the_order_of_clients_does_not_matter(server, rows: np.ndarray, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(rows))
    one: Verdict = judge(create(), as_updates(rows), server)
    other = judge(create(), permuted(as_updates(rows), order), server)
    np.testing.assert_allclose(other.scores, one.scores[order], rtol=1e-6, atol=1e-6)


@properties
@given(rows=matrices, power=st.integers(-20, 20))
def test_the_scale_of_updates_does_not_matter(server, rows: np.ndarray, power: int) -> None:
    one = judge(create(), as_updates(rows), server)
    other = judge(create(), as_updates(rows * np.float32(2.0**power)), server)
    np.testing.assert_allclose(other.scores, one.scores, rtol=1e-9, atol=1e-9)
