"""FLTrust: hand-computed rounds with a made-up root update, properties, and one real round."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import tffl
from tffl.config import build
from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.data.samples import ROOT_DATA, RootData
from tffl.defenses import Server, Verdict, defenses

LAYOUT = WeightLayout((Entry("bn/mean", (1,), False), Entry("logits/kernel", (2,), True)))
rows = arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.just(3)),
    elements=st.integers(-64, 64).map(lambda i: i / 8),
)


def make(matrix: object, round: int = 1) -> Updates:
    matrix = np.asarray(matrix, dtype=np.float32)
    n = len(matrix)
    counts = np.arange(1, n + 1) ** 3  # claimed, and not to matter
    return Updates(round, np.arange(n), counts, np.full(3, 7, np.float32), matrix, LAYOUT)


def judge(matrix: object, root: object) -> Verdict:
    def train(start: np.ndarray, round: int) -> np.ndarray:
        assert start.tolist() == [7, 7, 7]
        assert round == 1
        return np.asarray(root, dtype=np.float32)

    images, labels = np.zeros((1, 2, 2, 1), np.uint8), np.zeros(1, np.int32)
    server = Server(cast("object", None), LAYOUT, 9, 0, RootData(images, labels, train))
    verdict, state = defenses.create("fltrust", {}).judge(make(matrix), server, {})
    assert state == {}
    return verdict


def naive(matrix: np.ndarray, root: np.ndarray) -> tuple[list[float], np.ndarray]:
    """Trust and aggregate by the formulas, in plain Python."""
    trust, result = [], np.zeros(3)
    for row in matrix.astype(float):
        product = row[1] * root[1] + row[2] * root[2]
        length = np.hypot(row[1], row[2])
        cosine = product / (length * np.hypot(root[1], root[2])) if length else 0.0
        trust.append(max(cosine, 0.0))
        if product > 0:
            result[1:] += trust[-1] * np.hypot(root[1], root[2]) / length * row[1:]
            result[0] += trust[-1] * row[0]
    return trust, result / sum(trust) if any(trust) else result


def test_by_hand() -> None:
    # Cosines 1, 0.6, 0, −1; all trusted rows get the root's length 2; column 0 is not trained.
    verdict = judge([[8, 5, 0], [4, 3, 4], [9, 0, 1], [9, -2, 0]], [-3, 2, 0])
    np.testing.assert_allclose(verdict.scores, [-1, -0.6, 0, 1])
    np.testing.assert_allclose(verdict.weights, [1 / 1.6, 0.6 / 1.6, 0, 0])
    np.testing.assert_allclose(
        verdict.aggregate,
        [(8 + 0.6 * 4) / 1.6, (2 + 0.6 * 1.2) / 1.6, 0.6 * 1.6 / 1.6],
        rtol=1e-6,
    )
    assert verdict.aggregate.dtype == np.float32
    assert verdict.flagged.tolist() == [False, False, True, True]
    assert verdict.convicted.tolist() == verdict.flagged.tolist()
    assert verdict.accepted.tolist() == [True, True, False, False]
    assert verdict.reasons[0] == ""
    assert verdict.reasons[3] == "cosine to the server's own update is -1"
    assert (verdict.scores > verdict.threshold).tolist() == verdict.flagged.tolist()


@settings(deadline=None)
@given(matrix=rows, seed=st.integers(0, 9))
def test_agrees_with_the_formulas_in_any_order(matrix: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.integers(1, 9, 3).astype(float)
    trust, aggregate = naive(matrix, root)
    verdict = judge(matrix, root)
    np.testing.assert_allclose(np.maximum(-verdict.scores, 0), trust, atol=1e-12)
    np.testing.assert_allclose(verdict.aggregate, aggregate, rtol=1e-5, atol=1e-5)
    total = verdict.weights.sum()
    assert total == pytest.approx(1) if verdict.accepted.any() else total == 0
    order = rng.permutation(len(matrix))
    other = judge(matrix[order], root)
    np.testing.assert_allclose(other.scores, verdict.scores[order], atol=1e-12)
    np.testing.assert_array_equal(other.accepted, verdict.accepted[order])
    np.testing.assert_allclose(other.aggregate, verdict.aggregate, rtol=1e-5, atol=1e-5)


def test_a_client_s_length_and_claims_do_not_matter() -> None:
    matrix = np.array([[0, 1, 2], [0, 2, 1]])
    one = judge(matrix, [0, 1, 1])
    with np.errstate(all="raise", under="ignore"):
        other = judge(matrix * np.array([[1e30], [1e-6]]), [0, 1, 1])
    np.testing.assert_allclose(other.weights, one.weights)
    np.testing.assert_allclose(other.aggregate, one.aggregate, rtol=1e-6)
    np.testing.assert_allclose(one.weights, [0.5, 0.5])


def test_equal_rows_give_the_row_at_the_root_s_length() -> None:
    verdict = judge([[1, 3, 4]] * 5, [0, 0, 10])
    np.testing.assert_allclose(verdict.aggregate, [1, 6, 8], rtol=1e-6)
    np.testing.assert_allclose(verdict.weights, [0.2] * 5)


@pytest.mark.parametrize("matrix", [[[5, -1, 0], [5, -2, 1]], [[5, 0, 0]], [[5, 0, 1]]])
def test_without_trust_the_model_stays(matrix: list) -> None:
    verdict = judge(matrix, [1, 1, 0])
    assert verdict.flagged.all()
    assert not verdict.accepted.any()
    assert not verdict.weights.any()
    assert verdict.aggregate.tolist() == [0, 0, 0]


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_rejected(poison: float) -> None:
    clean = judge([[1, 1, 2], [1, 2, 1]], [0, 1, 3])
    for column in range(3):
        matrix = np.array([[1, 1, 2], [0, 0, 0], [1, 2, 1]], dtype=np.float32)
        matrix[1, column] = poison
        verdict = judge(matrix, [0, 1, 3])
        assert verdict.accepted.tolist() == [True, False, True]
        assert verdict.scores[1] == np.inf
        assert verdict.reasons[1] == "the update holds NaN or infinity"
        np.testing.assert_array_equal(verdict.aggregate, clean.aggregate)
    assert not judge([[np.nan] * 3] * 2, [0, 1, 3]).aggregate.any()


@pytest.mark.parametrize("root", [[5, 0, 0], [0, np.nan, 1], [0, np.inf, 1], [0, -np.inf, np.nan]])
def test_a_worthless_root_update_trusts_nobody(root: list) -> None:
    verdict = judge([[1, 1, 2], [np.nan, 2, 1]], root)
    assert verdict.flagged.all()
    assert verdict.scores.tolist() == [0, np.inf]
    assert verdict.aggregate.tolist() == [0, 0, 0]
    assert verdict.reasons[0].startswith("the server's own update is zero or not finite")


def test_needs_root_data() -> None:
    defense = defenses.create("fltrust", {})
    assert defense.declared_knowledge() == (ROOT_DATA,)
    server = Server(cast("object", None), LAYOUT, 9, 0)
    with pytest.raises(UsageError, match="samples of the server's own"):
        defense.judge(make([[1, 1, 1]]), server, {})


def test_a_real_server_has_samples_of_its_own(tmp_path: Path) -> None:
    config = {
        "data": {"dataset": "digits", "train_limit": 300, "test_limit": 50, "server_samples": 60},
        "federation": {"clients": 5, "malicious": 1, "rounds": 1},
        "model": {"name": "lenet5"},
        "attack": {"name": "sign-flip", "strength": 3.0},
        "defense": {"name": "fltrust"},
        "record": {"tensorboard": False, "export": False, "figures": False},
    }
    tffl.simulate(build(config), tmp_path / "run")
    clients = pd.read_csv(tmp_path / "run" / "clients.csv")
    assert clients["score"].between(-1, 1).all()
    attacker = clients["malicious"] == 1
    assert clients.loc[attacker, "score"].item() > 0
    assert clients.loc[attacker, "weight"].item() == 0
    assert (clients.loc[~attacker, "score"] < 0).any()
    assert clients["weight"].sum() == pytest.approx(1)
    config["data"]["server_samples"] = 0
    with pytest.raises(UsageError, match=r"fltrust needs samples of the server's own: set data"):
        tffl.simulate(build(config), tmp_path / "other")
