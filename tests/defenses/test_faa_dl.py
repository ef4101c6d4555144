"""FAA-DL: the kernel trick against scikit-learn, and what a one-class SVM does with updates."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.defenses import Server, Verdict, defenses
from tffl.defenses.faa_dl import outlyingness, rbf_kernel, variance

from .conftest import LAYOUT

FROZEN = ~LAYOUT.trainable


@pytest.fixture
def server() -> Server:
    return Server(model=cast("object", None), layout=LAYOUT, clients=40, seed=0)


def make(matrix: object, layout: WeightLayout = LAYOUT) -> Updates:
    matrix = np.asarray(matrix, dtype=np.float32)
    n = len(matrix)
    start = np.zeros(layout.size, np.float32)
    return Updates(1, np.arange(n), np.ones(n, np.int64), start, matrix, layout)


def judge(updates: Updates, server: Server, **options: object) -> Verdict:
    defense = defenses.create("faa-dl", options)
    return defense.judge(updates, server, defense.init(server))[0]


def rows(seed: int, n: int = 20, malicious: int = 0, width: int = LAYOUT.size) -> np.ndarray:
    """Honest clients around a common direction, malicious ones around its opposite."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=width)
    sign = np.where(np.arange(n) < malicious, -1, 1)[:, None]
    return (sign * common + rng.normal(size=(n, width))).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("nu", [0.5, 0.7, 0.9])
def test_equals_the_svm_on_the_updates_themselves(server, seed: int, nu: float) -> None:
    from sklearn.svm import OneClassSVM

    matrix = rows(seed, malicious=3)
    verdict = judge(make(matrix), server, nu=nu)
    trained = matrix[:, ~FROZEN].astype(np.float64)
    machine = OneClassSVM(kernel="rbf", gamma="scale", nu=nu, tol=1e-9).fit(trained)
    np.testing.assert_allclose(verdict.scores, -machine.decision_function(trained), atol=1e-6)
    assert verdict.flagged.any()


def test_final_layer_alone_counts_if_told(server) -> None:
    from sklearn.svm import OneClassSVM

    matrix = rows(0, malicious=3)
    final = matrix[:, 6:].astype(np.float64)
    machine = OneClassSVM(gamma="scale", nu=0.5, tol=1e-9).fit(final)
    scores = judge(make(matrix), server, layers="final").scores
    np.testing.assert_allclose(scores, -machine.decision_function(final), atol=1e-6)
    matrix[:, :6] = 1e6
    np.testing.assert_array_equal(judge(make(matrix), server, layers="final").scores, scores)


def test_kernel_by_hand() -> None:
    layout = WeightLayout((Entry("a/kernel", (2,), True), Entry("bn/mean", (1,), False)))
    updates = make([[0, 0, 7], [2, 0, -7], [0, 4, 0]], layout)
    # Entries 0, 0, 2, 0, 0, 4: mean 1, variance (4 · 1 + 1 + 9) / 6 = 14 / 6; γ = 6 / 28.
    assert variance(updates) == (pytest.approx(14 / 6), 2)
    squares = np.array([[0, 4, 16], [4, 0, 20], [16, 20, 0]])
    np.testing.assert_allclose(rbf_kernel(updates), np.exp(-squares * 6 / 28))


def test_solution_satisfies_the_optimality_conditions() -> None:
    """Found again from the scores alone: clients outside hold weight 1, those inside none."""
    kernel, nu = rbf_kernel(make(rows(1, n=30, malicious=4))), 0.6
    scores = outlyingness(kernel, nu)
    inside, outside = scores < 0, scores > 0
    edge = np.flatnonzero(scores == 0)
    # On the boundary all have Σ a K = ρ: solve for their weights and ρ, given the others' weights.
    system = np.block(
        [[kernel[np.ix_(edge, edge)], -np.ones((len(edge), 1))], [np.ones(len(edge)), 0]]
    )
    known = kernel[np.ix_(edge, outside.nonzero()[0])].sum(axis=1)
    solution = np.linalg.solve(system, [*-known, nu * 30 - outside.sum()])
    weights = outside.astype(float)
    weights[edge] = solution[:-1]
    assert inside.any()
    assert outside.any()
    assert (weights[edge] > -1e-6).all()
    assert (weights[edge] < 1 + 1e-6).all()
    np.testing.assert_allclose(solution[-1] - kernel @ weights, scores, atol=1e-5)


@pytest.mark.parametrize("nu", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("width", [2, 10, 2000])
def test_flags_at_most_a_share_of_nu(server, nu: float, width: int) -> None:
    layout = WeightLayout((Entry("logits/kernel", (width,), True),))
    verdict = judge(make(np.random.default_rng(0).normal(size=(20, width)), layout), server, nu=nu)
    assert verdict.flagged.mean() <= nu
    if width == 2000 and nu < 0.9:  # all on the boundary
        assert not verdict.scores.any()
    if width == 2:
        assert verdict.flagged.mean() >= nu - 0.2


@pytest.mark.parametrize(("malicious", "found"), [(1, True), (4, True), (6, False), (8, False)])
def test_needs_nu_to_be_twice_the_share_of_attackers_alike(
    server, malicious: int, found: bool
) -> None:
    layout = WeightLayout((Entry("logits/kernel", (3000,), True),))
    verdict = judge(make(rows(0, malicious=malicious, width=3000), layout), server, nu=0.5)
    assert verdict.flagged.tolist() == [found and row < malicious for row in range(20)]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_clients_does_not_matter(server, seed: int) -> None:
    matrix = rows(seed, malicious=4)
    order = np.random.default_rng(seed).permutation(len(matrix))
    one, other = judge(make(matrix), server), judge(make(matrix[order]), server)
    np.testing.assert_allclose(other.scores, one.scores[order], atol=1e-6)
    np.testing.assert_array_equal(other.flagged, one.flagged[order])


@pytest.mark.parametrize("change", [lambda m: m * np.float32(2**-12), lambda m: m + np.float32(8)])
def test_scale_and_a_common_shift_change_nothing(server, change) -> None:
    matrix = np.round(rows(2, malicious=4) * 64) / 64
    one, other = judge(make(matrix), server), judge(make(change(matrix)), server)
    np.testing.assert_allclose(other.scores, one.scores, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_equal_updates_accuse_nobody(server, n: int) -> None:
    verdict = judge(make([np.linspace(-1, 1, LAYOUT.size)] * n), server)
    assert not verdict.scores.any()
    assert verdict.accepted.all()


def test_rows_that_are_not_finite_are_rejected_and_do_not_count(server) -> None:
    matrix = rows(3, malicious=4)
    clean = judge(make(matrix), server)
    verdict = judge(make(np.insert(matrix, 2, np.inf, axis=0)), server)
    np.testing.assert_array_equal(np.delete(verdict.scores, 2), clean.scores)
    assert not verdict.accepted[2]
    nobody = judge(make(matrix * np.nan), server)
    assert not nobody.accepted.any()
    assert np.isnan(nobody.threshold)


def test_an_enormous_row_is_found_quietly(server) -> None:
    matrix = rows(4)
    matrix[7] = 1e30
    with np.errstate(all="raise", under="ignore"):
        verdict = judge(make(matrix), server)
    assert verdict.flagged.nonzero()[0].tolist() == [7]
    assert verdict.reasons[7].startswith("outside the boundary of the one-class SVM by ")
    assert np.abs(verdict.aggregate).max() < 10


def test_refuses_a_nu_that_can_flag_nobody(layout) -> None:
    defenses.create("faa-dl", {"nu": 0.2}).check(10, layout)
    with pytest.raises(UsageError, match=r"nu = 0.2 can never flag anyone among 9 participants"):
        defenses.create("faa-dl", {"nu": 0.2}).check(9, layout)


@pytest.mark.parametrize(("option", "value"), [("nu", 0), ("nu", 1), ("layers", "first")])
def test_refuses_options_out_of_range(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^defense\.{option} = .* is not allowed"):
        defenses.create("faa-dl", {option: value})
