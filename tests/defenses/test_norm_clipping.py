"""Norm clipping: by hand, against the formula, and its noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.defenses import Server, Verdict, defenses
from tffl.defenses.norm_clipping import NormClipping

from .conftest import LAYOUT

TRAINABLE = LAYOUT.trainable
properties = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50
)
matrices = arrays(
    np.float32,
    st.tuples(st.integers(1, 7), st.just(LAYOUT.size)),
    elements=st.floats(-100, 100, width=16),
)


def create(**options: object) -> NormClipping:
    return defenses.create("norm-clipping", options)


def make(matrix: object, counts: object = None, round: int = 1) -> Updates:
    matrix = np.asarray(matrix, dtype=np.float32)
    n = len(matrix)
    counts = np.ones(n, np.int64) if counts is None else np.asarray(counts)
    return Updates(round, np.arange(n), counts, np.zeros(LAYOUT.size, np.float32), matrix, LAYOUT)


def judge(defense: NormClipping, updates: Updates, server: Server) -> Verdict:
    verdict, state = defense.judge(updates, server, defense.init(server))
    assert state == {}
    return verdict


def along_the_bias(*lengths: float) -> np.ndarray:
    """Rows that are zero but for one bias: their norms are the lengths."""
    matrix = np.zeros((len(lengths), LAYOUT.size))
    matrix[:, -1] = lengths
    return matrix


def naive(matrix: np.ndarray, counts: np.ndarray, limit: float) -> np.ndarray:
    total = np.zeros(LAYOUT.size)
    for row, count in zip(matrix.astype(float), counts, strict=True):
        norm = np.linalg.norm(row[TRAINABLE])
        total += count / sum(counts) * np.where(TRAINABLE, row / max(1.0, norm / limit), row)
    return total


def test_by_hand(server) -> None:
    verdict = judge(create(max_norm=2), make(along_the_bias(1, -2, 8), counts=[1, 1, 2]), server)
    assert verdict.aggregate[-1] == pytest.approx(0.25 * 1 - 0.25 * 2 + 0.5 * 2)
    assert not verdict.aggregate[:-1].any()
    np.testing.assert_allclose(verdict.scores, [0.5, 1, 4])
    np.testing.assert_allclose(verdict.weights, [0.25, 0.25, 0.5])
    assert verdict.accepted.all()


def test_told_no_norm_it_takes_the_median(server) -> None:
    verdict = judge(create(malicious=1), make(along_the_bias(1, 2, 4, 100)), server)
    assert verdict.aggregate[-1] == pytest.approx((1 + 2 + 3 + 3) / 4)  # the median is 3
    np.testing.assert_allclose(verdict.scores, [1 / 3, 2 / 3, 4 / 3, 100 / 3])
    assert verdict.flagged.tolist() == [False, False, False, True]


@pytest.mark.parametrize("limit", [0.5, 3.0, 1000.0])
def test_agrees_with_the_formula(server, limit: float) -> None:
    rng = np.random.default_rng(0)
    matrix = (rng.normal(size=(8, LAYOUT.size)) * np.arange(8)[:, None]).astype(np.float32)
    counts = rng.integers(0, 50, 8)
    verdict = judge(create(max_norm=limit), make(matrix, counts), server)
    np.testing.assert_allclose(
        verdict.aggregate, naive(matrix, counts, limit), rtol=1e-5, atol=1e-6
    )


def test_frozen_columns_are_plain_means_and_no_part_of_the_norm(server) -> None:
    matrix = along_the_bias(1, 1, 50)
    matrix[:, ~TRAINABLE] = [[2, -4], [2, -4], [2e6, -4]]
    verdict = judge(create(max_norm=1), make(matrix, counts=[1, 2, 1]), server)
    np.testing.assert_allclose(verdict.aggregate[~TRAINABLE], [(6 + 2e6) / 4, -4], rtol=1e-6)
    np.testing.assert_allclose(verdict.scores, [1, 1, 50])


def test_a_huge_row_counts_as_one_of_norm_m(server) -> None:
    matrix = along_the_bias(1, 1, 1, 1)
    matrix[2, TRAINABLE] = 1e30
    with np.errstate(all="raise", under="ignore"):
        verdict = judge(create(malicious=1), make(matrix), server)
    each = 1 / np.sqrt(TRAINABLE.sum())  # its direction, with norm 1
    np.testing.assert_allclose(verdict.aggregate[0], each / 4, rtol=1e-6)
    np.testing.assert_allclose(verdict.aggregate[-1], (3 + each) / 4, rtol=1e-6)
    assert np.isfinite(verdict.scores).all()
    assert verdict.flagged.tolist() == [False, False, True, False]


def test_a_median_norm_of_zero_lets_nothing_through(server) -> None:
    with np.errstate(all="raise"):
        verdict = judge(create(), make(along_the_bias(0, 0, 0, 5)), server)
    assert not verdict.aggregate.any()
    assert verdict.scores.tolist() == [0, 0, 0, np.inf]
    assert verdict.flagged.tolist() == [False, False, False, True]


def test_rows_that_are_not_finite_are_left_out(server) -> None:
    matrix = along_the_bias(1, 3, 5, 7)
    matrix[3, 4] = np.nan  # even where the norm does not look
    verdict = judge(create(), make(matrix), server)
    assert verdict.aggregate[-1] == pytest.approx((1 + 3 + 3) / 3)
    np.testing.assert_allclose(verdict.weights, [1 / 3, 1 / 3, 1 / 3, 0])


def test_clients_that_claim_no_samples_leave_the_model(server) -> None:
    verdict = judge(create(), make(along_the_bias(1, 2), counts=[0, 0]), server)
    assert not verdict.aggregate.any()
    assert not verdict.weights.any()


def test_noise_is_gaussian_and_only_on_what_is_trained() -> None:
    layout = WeightLayout(
        (Entry("a/kernel", (70_000,), True), Entry("a/moving_variance", (9,), False))
    )
    server = Server(model=None, layout=layout, clients=2, seed=5)  # type: ignore[arg-type]
    matrix = np.ones((2, layout.size), np.float32)
    start, ids = np.zeros(layout.size, np.float32), np.arange(2)
    updates = Updates(3, ids, ids + 1, start, matrix, layout)
    plain = judge(create(), updates, server).aggregate
    noise = judge(create(noise=0.5), updates, server).aggregate - plain
    assert not noise[-9:].any()
    noise = noise[:-9]
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.std() == pytest.approx(0.5, rel=0.02)
    assert np.quantile(noise, 0.841) == pytest.approx(0.5, rel=0.05)  # one sigma
    assert np.corrcoef(noise[:-1], noise[1:])[0, 1] == pytest.approx(0, abs=0.02)
    assert np.corrcoef(noise[: 1 << 15], noise[1 << 15 : 1 << 16])[0, 1] < 0.05


def test_noise_depends_on_seed_and_round_alone(server) -> None:
    defense = create(noise=1)
    matrix = along_the_bias(1, 2, 3)
    one = judge(defense, make(matrix, round=2), server).aggregate
    np.testing.assert_array_equal(judge(defense, make(matrix, round=2), server).aggregate, one)
    other_round = judge(defense, make(matrix, round=3), server).aggregate
    other_seed = judge(defense, make(matrix, round=2), replace(server, seed=1)).aggregate
    assert (other_round != one)[TRAINABLE].all()
    assert (other_seed != one)[TRAINABLE].all()


@properties
@given(matrix=matrices, limit=st.floats(0.01, 100), seed=st.integers(0, 9))
def test_order_does_not_matter_and_m_bounds_the_result(
    server, matrix, limit: float, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(matrix))
    counts = order + 1
    one = judge(create(max_norm=limit), make(matrix, counts), server)
    other = judge(create(max_norm=limit), make(matrix[order], counts[order]), server)
    np.testing.assert_allclose(other.aggregate, one.aggregate, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(other.scores, one.scores[order])
    assert np.linalg.norm(one.aggregate[TRAINABLE]) <= limit * (1 + 1e-5)
    assert one.weights.sum() == pytest.approx(1)


@properties
@given(matrix=matrices)
def test_a_norm_that_nobody_exceeds_is_fedavg(server, matrix) -> None:
    counts = np.arange(1, len(matrix) + 1)
    verdict = judge(create(max_norm=1e6), make(matrix, counts), server)
    expected, _ = defenses.create("none", {}).judge(make(matrix, counts), server, {})
    np.testing.assert_array_equal(verdict.aggregate, expected.aggregate)


@pytest.mark.parametrize(
    ("option", "value"), [("max_norm", 0), ("max_norm", "inf"), ("noise", -1), ("noise", "nan")]
)
def test_refuses_options_out_of_range(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^defense\.{option}\b.* is not allowed"):
        create(**{option: value})


def test_refuses_a_majority(layout) -> None:
    with pytest.raises(UsageError, match=r"norm-clipping needs n > 2f: .* f = 5 is too many"):
        create(malicious=0.5).check(10, layout)
    create(malicious=4).check(10, layout)
