"""SignGuard: hand-computed filters, the formulas again in plain NumPy, properties, memory."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tffl
from tffl.callbacks import Callback, Round
from tffl.config import build
from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.defenses import Server, Verdict, create_defense, defenses
from tffl.defenses.base import State
from tffl.defenses.signguard import bandwidth, draw, largest_cluster, sign_shares

LAYOUT = WeightLayout(
    (
        Entry("conv/kernel", (30, 2), True),
        Entry("bn/moving_mean", (4,), False),
        Entry("logits/kernel", (20, 2), True),
    )
)
TRAINABLE = LAYOUT.trainable
SERVER = Server(model=cast("object", None), layout=LAYOUT, clients=40, seed=3)


def make(matrix: object, round: int = 1, layout: WeightLayout = LAYOUT) -> Updates:
    matrix = np.asarray(matrix, dtype=np.float32)
    n = len(matrix)
    counts = np.arange(1, n + 1) ** 2  # claimed, and not to matter
    start = np.zeros(layout.size, np.float32)
    return Updates(round, np.arange(n), counts, start, matrix, layout)


def judge(matrix: object, round: int = 1, state: State | None = None, **options: object) -> Verdict:
    return play(matrix, round, state, **options)[0]


def play(
    matrix: object, round: int = 1, state: State | None = None, **options: object
) -> tuple[Verdict, State]:
    defense = defenses.create("signguard", {"share": 1.0, **options})
    memory = defense.init(SERVER) if state is None else state
    return defense.judge(make(matrix, round), SERVER, memory)


def rows(seed: int, n: int = 12, malicious: int = 3) -> np.ndarray:
    """Honest rows whose signs are mixed; malicious ones of the same length, mostly negative."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n, LAYOUT.size))
    matrix[:malicious] = -np.abs(matrix[:malicious])
    return matrix.astype(np.float32)


def clipped_mean(matrix: np.ndarray, accepted: np.ndarray) -> np.ndarray:
    """The mean by the formula: trainable columns clipped to the median length, the others not."""
    lengths = [np.sqrt((row[TRAINABLE].astype(float) ** 2).sum()) for row in matrix]
    median = np.median(lengths)
    total = np.zeros(LAYOUT.size)
    for row, length, chosen in zip(matrix.astype(float), lengths, accepted, strict=True):
        if chosen:
            total += np.where(TRAINABLE, row * min(1, median / length) if length else 0, row)
    return total / accepted.sum()


def test_sign_shares_by_hand() -> None:
    layout = WeightLayout((Entry("a/k", (3,), True), Entry("bn/m", (1,), False)))
    updates = make([[1, 0, -1, 9], [2, 3, 4, 9], [0, 0, -0.0, 9]], layout=layout)
    everything = sign_shares(updates, layout.trainable)
    np.testing.assert_allclose(everything, [[1 / 3] * 3, [1, 0, 0], [0, 1, 0]])
    last_two = sign_shares(updates, np.array([False, True, True, False]))
    np.testing.assert_allclose(last_two, [[0, 0.5, 0.5], [1, 0, 0], [0, 1, 0]])


def test_drawn_columns_are_trainable_and_as_many_as_asked() -> None:
    chosen = draw(LAYOUT, 0.1, np.random.default_rng(0))
    assert chosen.sum() == 10
    assert not chosen[~TRAINABLE].any()
    assert draw(LAYOUT, 1e-9, np.random.default_rng(0)).sum() == 1
    assert (draw(LAYOUT, 1.0, np.random.default_rng(0)) == TRAINABLE).all()


def test_every_round_counts_other_signs() -> None:
    matrix = rows(0)
    scores = [judge(matrix, round=r, share=0.1).scores for r in (1, 2, 1)]
    np.testing.assert_array_equal(scores[0], scores[2])
    assert (scores[0] != scores[1]).any()


@pytest.mark.parametrize("n", [2, 3, 4, 5, 11, 30])
def test_bandwidth_is_scikit_learn_s(n: int) -> None:
    from sklearn.cluster import estimate_bandwidth

    points = np.random.default_rng(n).normal(size=(n, 3))
    assert bandwidth(points) == pytest.approx(estimate_bandwidth(points, quantile=0.5), abs=1e-7)


def test_clusters_by_hand() -> None:
    points = np.array([[0.0], [0.1], [0.2], [0.3], [5.0]])
    # Nearest other at 0.1 four times, and at 4.7: bandwidth 1.02; centers 0.15 and 5.
    member, distance = largest_cluster(points)
    assert member.tolist() == [True] * 4 + [False]
    np.testing.assert_allclose(distance * 1.02, [0.15, 0.05, 0.05, 0.15, 4.85])


@pytest.mark.parametrize(
    ("points", "members"),
    [
        ([[0], [0], [0], [0], [9]], [1, 1, 1, 1, 0]),
        ([[0], [0], [9], [9]], [1, 1, 1, 1]),  # two largest clusters
        ([[0], [0], [9], [9], [4]], [1, 1, 1, 1, 0]),
        ([[1], [2], [3]], [1, 1, 1]),  # three clusters of one
        ([[7]], [1]),
    ],
)
def test_clusters_of_equal_points(points: list, members: list) -> None:
    member, distance = largest_cluster(np.array(points, dtype=float))
    assert member.astype(int).tolist() == members
    assert not distance[member].any()
    assert (distance[~member] > 1).all()


def test_the_filters_by_hand() -> None:
    honest = np.tile(np.float32([1, -1]), LAYOUT.size // 2)
    matrix = np.stack([honest * f for f in (1, 1, 1, 1, 1.5, 3.1, 0.05)] + [np.abs(honest)])
    verdict = judge(matrix)
    assert verdict.accepted.tolist() == [True] * 5 + [False] * 3
    # Only the last has a distance to its nearest half: it is 8 bandwidths, their mean.
    expected = [1 / 3] * 4 + [0.5, 3.1 / 3, 2, 8]
    np.testing.assert_allclose(verdict.scores, expected, rtol=1e-6)
    np.testing.assert_allclose(verdict.weights, [0.2] * 5 + [0] * 3)
    # The fifth is clipped to the median length, 1, but not where nothing trains.
    expected = honest * np.where(TRAINABLE, 1, 1.1)
    np.testing.assert_allclose(verdict.aggregate, expected, rtol=1e-6)
    assert verdict.aggregate.dtype == np.float32
    assert verdict.reasons[4:] == (
        "",
        "its length is far from the median",
        "its length is far from the median",
        "its signs are not those of the largest cluster",
    )
    assert np.isnan(verdict.threshold)
    assert verdict.flagged.tolist() == verdict.convicted.tolist() == (~verdict.accepted).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_the_published_steps(seed: int) -> None:
    from sklearn.cluster import MeanShift, estimate_bandwidth

    matrix = rows(seed)
    matrix[5] *= 4
    matrix[6] *= 2
    part = matrix[:, TRAINABLE].astype(float)
    lengths = np.linalg.norm(part, axis=1)
    ratio = lengths / np.median(lengths)
    features = np.stack([(part > 0).mean(1), (part == 0).mean(1), (part < 0).mean(1)], axis=1)
    labels = MeanShift(bandwidth=estimate_bandwidth(features, quantile=0.5)).fit_predict(features)
    largest = labels == np.bincount(labels).argmax()
    expected = (ratio >= 0.1) & (ratio <= 3) & largest
    verdict = judge(matrix)
    assert verdict.accepted.tolist() == expected.tolist()
    assert not expected[:3].any()
    assert not expected[5]
    assert expected.any()
    np.testing.assert_allclose(verdict.aggregate, clipped_mean(matrix, expected), atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 99),
    n=st.integers(4, 12),
    similarity=st.sampled_from(["none", "cosine", "distance"]),
)
@example(seed=24, n=11, similarity="none")  # where a distance ties with the bandwidth
def test_the_order_of_clients_does_not_matter(seed: int, n: int, similarity: str) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.integers(-2, 3, (n, LAYOUT.size)).astype(np.float32)
    order = rng.permutation(n)
    last = {"aggregate": rng.integers(-2, 3, LAYOUT.size).astype(np.float32)}
    one = judge(matrix, state=last, similarity=similarity)
    other = judge(matrix[order], state=last, similarity=similarity)
    np.testing.assert_allclose(other.scores, one.scores[order], rtol=1e-6)
    np.testing.assert_array_equal(other.accepted, one.accepted[order])
    np.testing.assert_allclose(other.aggregate, one.aggregate, atol=1e-6)


@pytest.mark.parametrize("factor", [2.0**-30, 2.0**20])
def test_scale_changes_nothing_but_the_scale(factor: float) -> None:
    one, other = judge(rows(1)), judge(rows(1) * np.float32(factor))
    np.testing.assert_allclose(other.scores, one.scores)
    np.testing.assert_allclose(other.aggregate, one.aggregate * factor, rtol=1e-6)


@pytest.mark.parametrize("similarity", ["none", "cosine", "distance"])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 9])
def test_equal_updates_are_all_kept(n: int, similarity: str) -> None:
    row = rows(2)[5]
    state: State = {}
    for round in (1, 2):
        verdict, state = play([row] * n, round, state, similarity=similarity)
        assert verdict.accepted.all()
        np.testing.assert_allclose(verdict.scores, 1 / 3)
        np.testing.assert_allclose(verdict.aggregate, row, rtol=1e-6)


@pytest.mark.parametrize("zeros", [3, 6, 8])
def test_updates_of_length_zero(zeros: int) -> None:
    matrix = rows(3, n=8, malicious=0)
    matrix[:zeros] = 0
    with np.errstate(all="raise", under="ignore"):
        verdict = judge(matrix)
    idle = np.arange(8) < zeros
    assert verdict.accepted.tolist() == (idle if zeros > 4 else ~idle).tolist()
    assert (verdict.scores[~verdict.accepted] > 1).all()


def test_rows_that_are_not_finite_are_rejected_and_do_not_count() -> None:
    matrix = rows(4)
    clean = judge(matrix)
    verdict = judge(np.insert(matrix, 4, np.nan, axis=0))
    np.testing.assert_array_equal(np.delete(verdict.scores, 4), clean.scores)
    assert (verdict.scores[4], bool(verdict.accepted[4])) == (np.inf, False)
    assert verdict.reasons[4] == "the update holds NaN or infinity"
    np.testing.assert_array_equal(verdict.aggregate, clean.aggregate)
    nobody = judge(matrix * np.nan)
    assert not nobody.accepted.any()
    assert not nobody.aggregate.any()


def test_an_enormous_row_is_found_quietly() -> None:
    matrix = rows(5, malicious=0)
    matrix[7] *= 1e30
    with np.errstate(all="raise", under="ignore"):
        verdict = judge(matrix)
    assert not verdict.accepted[7]
    assert np.abs(verdict.aggregate).max() < 10


def test_an_empty_intersection_leaves_the_model_and_the_memory() -> None:
    # Lengths 1 and 10, half and half, with a median of 5.5: below 0.5 and above 1.5 times that.
    honest = rows(6, n=1, malicious=0)[0]
    last = {"aggregate": honest}
    matrix = [honest] * 3 + [honest * 10] * 3
    verdict, state = play(matrix, state=last, similarity="cosine", lower=0.5, upper=1.5)
    assert not verdict.accepted.any()
    assert not verdict.weights.any()
    assert not verdict.aggregate.any()
    assert state is last


def test_similarity_tells_apart_what_signs_do_not() -> None:
    rng = np.random.default_rng(7)
    step = np.tile([1.0, -1.0], LAYOUT.size // 2)
    matrix = (step + 0.3 * rng.normal(size=(10, LAYOUT.size))).astype(np.float32)
    matrix[:2] = matrix[:2, ::-1]  # the same signs and lengths in another order: the opposite way
    assert judge(matrix).accepted[:2].any()
    for similarity in ("cosine", "distance"):
        first, state = play(matrix[2:], similarity=similarity)
        np.testing.assert_array_equal(state["aggregate"], first.aggregate)
        verdict, _ = play(matrix, 2, state, similarity=similarity)
        assert not verdict.accepted[:2].any()
        assert verdict.accepted[2:].any()
        assert verdict.scores[:2].min() > verdict.scores[2:].max()


def test_memory_is_kept_only_if_needed_and_never_changed() -> None:
    defense = create_defense("signguard", {})
    assert dict(defense.init(SERVER)) == {}
    assert dict(play(rows(8))[1]) == {}
    assert not defense.tracks_clients
    last = {"aggregate": np.ones(LAYOUT.size, np.float32)}
    after = play(rows(8), state=last, similarity="distance")[1]
    assert after["aggregate"] is not last["aggregate"]
    assert (last["aggregate"] == 1).all()


def test_one_far_row_cannot_blur_the_distances() -> None:
    matrix = rows(9, n=12, malicious=0)
    last = {"aggregate": matrix[5]}
    matrix[0] *= 1e20
    verdict = judge(matrix, state=last, similarity="distance")
    assert not verdict.accepted[0]
    assert np.isfinite(verdict.scores[1:]).all()
    assert (verdict.scores[1:] > 1e-3).any()


def test_refuses_too_few_participants() -> None:
    create_defense("signguard", {}).check(4, LAYOUT)
    with pytest.raises(UsageError, match="signguard needs at least 4 participants a round, not 3"):
        create_defense("signguard", {}).check(3, LAYOUT)


@pytest.mark.parametrize(
    ("option", "value"),
    [("lower", -1), ("lower", 2), ("upper", 0.5), ("upper", "inf"), ("share", 0), ("share", 2)],
)
def test_refuses_options_out_of_range(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^defense\.{option} = .* is not allowed"):
        create_defense("signguard", {option: value})


class Interruption(Callback):
    """Stops a run after its first round."""

    def round(self, round: Round) -> None:
        if round.number == 1:
            raise KeyboardInterrupt


def test_a_resumed_run_remembers_the_last_aggregate(tmp_path: Path) -> None:
    config = build(
        {
            "data": {"dataset": "digits", "train_limit": 300, "test_limit": 50},
            "federation": {"clients": 6, "rounds": 2},
            "model": {"name": "lenet5"},
            "defense": {"name": "signguard", "similarity": "cosine"},
            "record": {"tensorboard": False, "export": False, "figures": False},
        }
    )
    tffl.simulate(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        tffl.simulate(config, tmp_path / "cut", callbacks=[Interruption()])
    tffl.simulate(config, tmp_path / "cut", resume=True)
    whole, cut = (
        pd.read_csv(tmp_path / name / "clients.csv")[["round", "score", "accepted", "weight"]]
        for name in ("whole", "cut")
    )
    pd.testing.assert_frame_equal(cut, whole, check_exact=True)
