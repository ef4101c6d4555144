"""Fang's attacks: Krum really chooses the row, and the values lie where they should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tffl.attacks import attacks
from tffl.attacks.fang import beyond_extremes, largest_lambda, search
from tffl.attacks.statistics import Line
from tffl.core.geometry import squared_distances


def naive_krum(rows: np.ndarray, malicious: int) -> int:
    """Blanchard's rule, row by row: the position of its choice."""
    scores = []
    for i, row in enumerate(rows):
        distances = sorted(((row - other) ** 2).sum() for j, other in enumerate(rows) if j != i)
        scores.append(sum(distances[: len(rows) - malicious - 2]))
    return int(np.argmin(scores))


def prepared(this) -> tuple[np.ndarray, Line, np.ndarray]:
    """Returns s, the line −λ·s and the honest distances."""
    honest = this.updates.select(~this.malicious)
    sign = np.zeros(this.updates.layout.size, np.float32)
    sign[this.updates.layout.trainable] = np.sign(this.honest.mean(axis=0))
    return sign, Line.of(honest, np.zeros_like(sign), -sign), squared_distances(honest)


def with_crafted(this, step: float, crafted: int) -> np.ndarray:
    """Honest rows first, then the crafted ones."""
    row = -step * np.sign(this.honest.mean(axis=0))
    return np.vstack([this.honest, np.repeat(row[None], crafted, axis=0)])


@given(
    seed=st.integers(0, 10_000),
    honest=st.integers(4, 12),
    crafted=st.integers(1, 5),
    spread=st.sampled_from([0.05, 1.0, 3.0]),
)
@settings(deadline=None, max_examples=60)
def test_krum_decides_as_the_search_says(a_round, seed, honest, crafted, spread) -> None:
    generator = np.random.default_rng(seed)
    matrix = generator.normal(0, 1, 41) + spread * generator.normal(0, 1, (honest + crafted, 41))
    this = a_round(matrix, honest=honest, malicious=crafted, seed=seed)
    _, line, distances = prepared(this)
    step, chosen = search(line, distances, crafted)
    assert (naive_krum(with_crafted(this, step, crafted), crafted) >= honest) == chosen
    if chosen and step < largest_lambda(line, distances, crafted):
        assert naive_krum(with_crafted(this, 2 * step, crafted), crafted) < honest
    if not chosen:
        assert step < 1e-5


@given(seed=st.integers(0, 10_000), crafted=st.integers(1, 4), far=st.floats(1.001, 50))
@settings(deadline=None, max_examples=60)
def test_beyond_the_bound_krum_never_chooses_it(a_round, seed, crafted, far) -> None:
    honest = crafted + 3
    this = a_round(honest=honest, malicious=crafted, seed=seed)
    _, line, distances = prepared(this)
    step = far * largest_lambda(line, distances, crafted)
    assert naive_krum(with_crafted(this, step, crafted), crafted) < honest


def test_krum_falls_for_what_is_sent(a_round, layout) -> None:
    """With updates that differ more than they drift, a row near −0 is the most central one."""
    rng = np.random.default_rng(1)
    this = a_round(0.2 + rng.normal(0, 1, (15, 41)), honest=11, malicious=4)
    sent, _ = this.attacked(attacks.create("fang-krum", {}))
    rows = sent.matrix[:, layout.trainable].astype(np.float64)
    assert this.malicious[naive_krum(rows, 4)]
    row = rows[this.malicious][0]
    np.testing.assert_array_equal(np.sign(row), -np.sign(this.honest.mean(axis=0)))
    assert len(np.unique(np.abs(row))) == 1 and abs(row[0]) > 0.05


def test_supporters_lie_at_their_distance(a_round, layout) -> None:
    rng = np.random.default_rng(1)
    this = a_round(0.2 + rng.normal(0, 1, (15, 41)), honest=11, malicious=4)
    rows = this.sent(attacks.create("fang-krum", {"spread": 0.5})).astype(np.float64)
    distances = np.linalg.norm(rows - rows[0], axis=1)
    np.testing.assert_allclose(distances, [0, 0.5, 0.5, 0.5], rtol=1e-5)
    sent, _ = this.attacked(attacks.create("fang-krum", {"spread": 0.5}))
    assert this.malicious[naive_krum(sent.matrix[:, layout.trainable].astype(np.float64), 4)]


def test_the_bound_is_the_documented_one(a_round) -> None:
    this = a_round(honest=9, malicious=2)
    _, line, distances = prepared(this)
    rows, length = this.honest, np.sqrt((this.honest.mean(axis=0) != 0).sum())
    scores = [sorted(((x - y) ** 2).sum() for y in rows)[1 : 9 - 2 + 1] for x in rows]
    lowest, farthest = min(map(sum, scores)), max(np.linalg.norm(x) for x in rows)
    expected = np.sqrt(lowest / (9 - 2 - 1)) / length + farthest / length
    assert largest_lambda(line, distances, 2) == pytest.approx(expected)


@pytest.mark.parametrize("knows", ["overheard", "colluders"])
def test_stand_ins_are_searched_with_growing_support(a_round, knows: str) -> None:
    """The fewest supporters with which Krum falls decide, however many there are."""
    rng = np.random.default_rng(4)
    this = a_round(0.2 + rng.normal(0, 1, (16, 41)), honest=9, malicious=7)
    attack = attacks.create("fang-krum", {"knows": knows, "overheard": 6})
    seen = attack.seen(this.updates, this.malicious, this.adversary)
    rows = seen.matrix[seen.rows][:, seen.layout.trainable].astype(np.float64)
    sign = np.sign(rows.mean(axis=0))
    distances = squared_distances(seen)
    against = np.zeros(seen.layout.size, np.float32)
    against[seen.layout.trainable] = -sign
    line = Line.of(seen, np.zeros_like(against), against)

    def falls(step: float, crafted: int) -> bool:
        everything = np.vstack([rows, np.repeat(-step * sign[None], crafted, axis=0)])
        return naive_krum(everything, crafted) >= len(rows)

    def halved(crafted: int) -> list[float]:
        first = largest_lambda(line, distances, crafted)
        return [first / 2**k for k in range(40) if first / 2**k >= 1e-5]

    found = [[step for step in halved(q) if falls(step, q)] for q in range(1, 8)]
    expected = next(steps[0] for steps in found if steps)
    assert found[-1] and found[-1][0] != pytest.approx(expected)
    assert -this.row(attack) @ sign / 41 == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("honest", "malicious"), [(0, 2), (1, 1), (1, 3), (2, 2), (3, 9)])
@pytest.mark.parametrize("fill", [None, 0.0, 2.0])
def test_few_or_equal_updates_are_no_obstacle(a_round, honest, malicious, fill, recwarn) -> None:
    matrix = None if fill is None else np.full((honest + malicious, 41), fill)
    this = a_round(matrix, honest=honest, malicious=malicious)
    row = this.row(attacks.create("fang-krum", {}))
    assert np.isfinite(row).all()
    if fill == 0:
        assert (row == 0).all()
    assert not recwarn.list


def test_an_honest_row_that_is_not_finite_ends_the_search(a_round, recwarn) -> None:
    this = a_round()
    this.updates.matrix[np.flatnonzero(~this.malicious)[0]] = np.inf
    assert (this.row(attacks.create("fang-krum", {})) == 0).all()


def test_intervals_beyond_the_extremes_by_hand() -> None:
    # Columns: rising with positive and negative minimum, falling with positive and negative
    # maximum, rising and falling across zero.
    part = np.array([[2.0, -1.0, 1.0, -6.0, -2.0, -9.0], [6.0, 9.0, -9.0, -2.0, 6.0, 4.0]])
    near, far = beyond_extremes(part, b=2.0)
    assert near.tolist() == [2, -1, 1, -2, -2, 4]
    assert far.tolist() == [1, -2, 2, -1, -4, 8]


@given(seed=st.integers(0, 10_000), b=st.floats(1.1, 10))
@settings(deadline=None, max_examples=40)
def test_full_knowledge_goes_beyond_every_honest_value(a_round, seed: int, b: float) -> None:
    this = a_round(seed=seed)
    rows = this.sent(attacks.create("fang-trimmed-mean", {"b": b}))
    low, high = this.honest.min(axis=0), this.honest.max(axis=0)
    for j, rising in enumerate(this.honest.mean(axis=0) > 0):
        if rising:
            ends = (low[j] / b, low[j]) if low[j] > 0 else (b * low[j], low[j])
        else:
            ends = (high[j], b * high[j]) if high[j] > 0 else (high[j], high[j] / b)
        room = 1e-6 * max(1, abs(ends[0]), abs(ends[1]))
        assert (rows[:, j] >= ends[0] - room).all() and (rows[:, j] <= ends[1] + room).all()
    assert len(np.unique(rows, axis=0)) == len(rows)


@pytest.mark.parametrize("knows", ["overheard", "colluders"])
def test_partial_knowledge_goes_three_to_four_deviations_out(a_round, knows: str) -> None:
    this = a_round(honest=8, malicious=6)
    attack = attacks.create("fang-trimmed-mean", {"knows": knows})
    seen = attack.seen(this.updates, this.malicious, this.adversary)
    known = seen.matrix[seen.rows][:, seen.layout.trainable].astype(np.float64)
    out = (this.sent(attack) - known.mean(axis=0)) / known.std(axis=0)
    out *= -np.sign(known.mean(axis=0))
    assert out.min() > 3 - 1e-4 and out.max() < 4 + 1e-4
    assert out.max() - out.min() > 0.8


def test_draws_anew_each_round(a_round) -> None:
    attack = attacks.create("fang-trimmed-mean", {})
    this = a_round()
    later = replace(this, updates=replace(this.updates, round=2))
    np.testing.assert_array_equal(this.sent(attack), this.sent(attack))
    assert (this.sent(attack) != later.sent(attack)).any()
