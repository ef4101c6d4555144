"""FoolsGold: hand-computed weights, a naive reference, histories and refusals."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.core.tensors import read_tensors, write_tensors
from tffl.core.updates import Updates
from tffl.defenses import Server, create_defense
from tffl.defenses.foolsgold import FoolsGold, similarity, trust

from .conftest import LAYOUT

FINAL = slice(6, 15)
TRAINABLE = np.r_[0:4, 6:15]


def make(matrix: object, ids: object = None, round: int = 1) -> Updates:
    matrix = np.asarray(matrix, dtype=np.float32)
    ids = np.arange(len(matrix)) if ids is None else np.asarray(ids)
    counts = np.arange(1, len(matrix) + 1)
    start = np.zeros(LAYOUT.size, np.float32)
    return Updates(round, ids, counts, start, matrix, LAYOUT)


def rows(seed: int, n: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, LAYOUT.size)).astype(np.float32)


def naive(history: np.ndarray, confidence: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(s, α) by loops, as in the module's formula."""
    n = len(history)
    cosine = [
        [
            0.0 if i == j else float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))
            for j, b in enumerate(history)
        ]
        for i, a in enumerate(history)
    ]
    nearest = [max(row) for row in cosine]
    pardoned = [
        max(
            cosine[i][j] * (nearest[i] / nearest[j] if nearest[i] < nearest[j] else 1.0)
            for j in range(n)
        )
        for i in range(n)
    ]
    relative = [(1 - s) / max(1 - t for t in pardoned) for s in pardoned]
    alpha = []
    for a in relative:
        if a == 1:
            alpha.append(1.0)
            continue
        alpha.append(min(1.0, max(0.0, confidence * (math.log(a / (1 - a)) + 0.5))))
    return np.array(pardoned), np.array(alpha)


def test_pardoning_by_hand() -> None:
    # v = 0.9, 0.9, 0.6, 0; client 2 is pardoned by 0.6 / 0.9, client 3 is like nobody.
    cosine = np.array(
        [
            [1.0, 0.9, 0.6, -0.5],
            [0.9, 1.0, 0.3, -0.5],
            [0.6, 0.3, 1.0, -0.5],
            [-0.5, -0.5, -0.5, 1.0],
        ]
    )
    np.testing.assert_allclose(similarity(cosine), [0.9, 0.9, 0.4, 0.0], atol=1e-15)


def test_trust_by_hand() -> None:
    # Relative distinctness 0.1, 0.1, 0.6, 1: logit + 0.5 is −1.697, −1.697, 0.9055, ∞.
    scores = np.array([0.9, 0.9, 0.4, 0.0])
    np.testing.assert_allclose(trust(scores), [0, 0, 0.905465, 1], atol=1e-6)
    np.testing.assert_allclose(trust(scores, confidence=0.5), [0, 0, 0.4527325, 1], atol=1e-6)


@pytest.mark.parametrize("layers", ["final", "all"])
def test_against_loops_over_several_rounds(server: Server, layers: str) -> None:
    defense = FoolsGold(layers=layers, confidence=0.7)
    columns = np.arange(LAYOUT.size)[FINAL] if layers == "final" else TRAINABLE
    state, history = defense.init(server), np.zeros((6, len(columns)))
    for round, ids in enumerate(([0, 1, 2, 3, 4, 5], [1, 3, 4, 5], [0, 2, 3, 5]), start=1):
        matrix = rows(round, len(ids)) + 0.4  # a common part, so that some are alike
        history[ids] += matrix[:, columns]
        scores, alpha = naive(history[ids], confidence=0.7)
        verdict, state = defense.judge(make(matrix, ids, round), server, state)
        np.testing.assert_allclose(verdict.scores, scores, rtol=1e-9)
        np.testing.assert_allclose(verdict.weights, alpha / alpha.sum(), atol=1e-9)
        np.testing.assert_allclose(verdict.aggregate, verdict.weights @ matrix, atol=1e-6)
        np.testing.assert_array_equal(verdict.flagged, alpha == 0)
        np.testing.assert_array_equal(verdict.flagged, verdict.scores > verdict.threshold)
        stored = state["history"] if layers == "final" else state["history"][:, TRAINABLE]
        np.testing.assert_allclose(stored, history, rtol=1e-12)


def test_sybils_lose_their_weight_and_the_loners_keep_it(server: Server) -> None:
    matrix = rows(0)
    matrix[4:] = matrix[3] * np.array([[1.0], [0.5]])  # scaling does not hide a sybil
    defense = FoolsGold()
    verdict, _ = defense.judge(make(matrix), server, defense.init(server))
    assert verdict.flagged.tolist() == [False] * 3 + [True] * 3
    assert verdict.weights[3:].tolist() == [0, 0, 0]
    assert verdict.weights.sum() == pytest.approx(1)
    assert "resembles another client's by 1" in verdict.reasons[3]
    assert verdict.reasons[0] == ""


def test_a_row_that_takes_the_place_of_another_does_not_replace_the_history(server: Server) -> None:
    defense = FoolsGold()
    _, state = defense.judge(make(rows(0)), server, defense.init(server))
    matrix, away = rows(1), rows(1)
    away[2] = 0
    moved = make(away, round=2).with_rows(np.arange(6) == 2, matrix[2:3].astype(np.float32))
    found = [
        defense.judge(updates, server, state)[0].scores
        for updates in (make(matrix, round=2), moved)
    ]
    np.testing.assert_array_equal(*found)


def test_history_remembers_what_one_round_does_not_show(server: Server) -> None:
    """Two sybils add opposite noise to each update; over two rounds it cancels."""
    defense, base = FoolsGold(), rows(0)
    noise = 4 * rows(1, 1)[0]
    state = defense.init(server)
    flags = []
    for round, sign in ((1, 1), (2, -1)):
        matrix = rows(10 + round)
        matrix[4], matrix[5] = base[4] + sign * noise, base[4] - sign * noise
        verdict, state = defense.judge(make(matrix, round=round), server, state)
        flags.append(verdict.flagged[4:].tolist())
    assert flags == [[False, False], [True, True]]


@pytest.mark.parametrize("n", [2, 5])
def test_equal_updates_leave_the_model(server: Server, n: int) -> None:
    defense = FoolsGold()
    verdict, _ = defense.judge(make(np.repeat(rows(3, 1), n, 0)), server, defense.init(server))
    assert verdict.flagged.all() and not verdict.accepted.any()
    assert not verdict.weights.any() and not verdict.aggregate.any()


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_rows_that_are_not_finite_stay_out_of_the_history(server: Server, poison: float) -> None:
    defense, matrix = FoolsGold(), rows(5)
    without, _ = defense.judge(make(matrix[:5]), server, defense.init(server))
    matrix[5, 0] = poison  # not even in the features
    verdict, state = defense.judge(make(matrix), server, defense.init(server))
    assert verdict.scores[5] == np.inf and verdict.flagged[5] and not verdict.accepted[5]
    assert verdict.reasons[5] == "the update holds NaN or infinity"
    np.testing.assert_array_equal(verdict.weights[:5], without.weights)
    np.testing.assert_array_equal(verdict.aggregate, without.aggregate)
    assert not state["history"][5].any()


def test_nobody_finite(server: Server) -> None:
    defense = FoolsGold()
    verdict, _ = defense.judge(
        make(np.full((3, LAYOUT.size), np.nan)), server, defense.init(server)
    )
    assert np.isnan(verdict.threshold) and verdict.flagged.all()
    assert not verdict.aggregate.any()


def test_numbers_near_the_end_of_float32(server: Server) -> None:
    defense, state = FoolsGold(), FoolsGold().init(server)
    with np.errstate(all="raise", under="ignore"):
        for round in range(1, 4):
            matrix = rows(round)
            matrix[0] = 3e38
            verdict, state = defense.judge(make(matrix, round=round), server, state)
    assert np.isfinite(verdict.scores).all() and np.isfinite(state["history"]).all()


def test_silent_and_single_clients(server: Server) -> None:
    defense, matrix = FoolsGold(), rows(2, 3)
    matrix[0] = 0
    verdict, _ = defense.judge(make(matrix), server, defense.init(server))
    assert verdict.scores[0] == 0 and verdict.accepted[0]
    verdict, _ = defense.judge(make(matrix[1:2]), server, defense.init(server))
    assert verdict.weights.tolist() == [1.0]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
@given(
    matrix=arrays(np.float32, (6, LAYOUT.size), elements=st.integers(-64, 64).map(lambda i: i / 8)),
    seed=st.integers(0, 9),
)
def test_the_order_of_clients_does_not_matter(server: Server, matrix, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(6)
    defense = FoolsGold()
    one, _ = defense.judge(make(matrix), server, defense.init(server))
    other, _ = defense.judge(make(matrix[order], order), server, defense.init(server))
    np.testing.assert_allclose(other.scores, one.scores[order], atol=1e-9)
    assert one.weights.sum() == pytest.approx(1) or not one.weights.any()
    # Near the cut a last bit may decide about a weight of nearly 0, never about more.
    np.testing.assert_allclose(other.weights, one.weights[order], atol=1e-6)


def test_resumes_to_the_last_bit_and_changes_no_input(server: Server, tmp_path: Path) -> None:
    defense = FoolsGold(layers="all")
    _, state = defense.judge(make(rows(1)), server, defense.init(server))
    before = {key: value.copy() for key, value in state.items()}
    one, after = defense.judge(make(rows(2)), server, state)
    np.testing.assert_array_equal(state["history"], before["history"])
    write_tensors(tmp_path / "state", state, {})
    restored, _ = read_tensors(tmp_path / "state")
    other, again = defense.judge(make(rows(2)), server, restored)
    np.testing.assert_array_equal(other.aggregate, one.aggregate)
    np.testing.assert_array_equal(again["history"], after["history"])


def test_refusals(layout: WeightLayout, server: Server) -> None:
    with pytest.raises(UsageError, match="at least 2 a round, not 1"):
        FoolsGold().check(1, layout)
    large = WeightLayout((Entry("a/kernel", (2**22,), True), Entry("logits/bias", (3,), True)))
    FoolsGold().check(100, large)
    with pytest.raises(UsageError, match=r"remember 3\.1 GiB of 100 clients' updates"):
        FoolsGold(layers="all").check(100, large)
    with pytest.raises(UsageError, match="more than 1 GiB"):
        FoolsGold(layers="all").init(replace(server, layout=large, clients=1000))
    with pytest.raises(UsageError, match=r"defense\.confidence"):
        create_defense("foolsgold", {"confidence": 0})
    assert create_defense("foolsgold", {}).tracks_clients
