"""The clipped mean: by hand, beside norm clipping, and who sets the bound."""

from __future__ import annotations

import numpy as np
import pytest

from tffl.core.errors import UsageError
from tffl.core.updates import Updates
from tffl.defenses import create_defense, defenses
from tffl.defenses.clipped_mean import ClippedMean

from .byzantine import FROZEN, as_updates, judge

LINE = np.array([[1.0, 0.0], [0.0, -2.0], [3.0, 4.0], [0.0, 100.0]])
"""Norms 1, 2, 5 and 100."""


def test_sample_counts_are_kept_by_hand(server) -> None:
    verdict = judge(ClippedMean(max_norm=2), as_updates(LINE, counts=[1, 2, 5, 2]), server)
    expected = 0.1 * LINE[0] + 0.2 * LINE[1] + 0.5 * LINE[2] * 2 / 5 + 0.2 * LINE[3] / 50
    np.testing.assert_allclose(verdict.aggregate[FROZEN:], expected, rtol=1e-6)
    np.testing.assert_allclose(verdict.aggregate[:FROZEN], 0.2 * 1 + 0.5 * 2 + 0.2 * 3, rtol=1e-6)
    np.testing.assert_allclose(verdict.weights, [0.1, 0.2, 0.5, 0.2])
    np.testing.assert_allclose(verdict.scores, [0.5, 1, 2.5, 50])
    assert verdict.accepted.all()


def test_the_bound_is_a_quantile_of_the_norms(server) -> None:
    for quantile, bound in ((0.5, 3.5), (2 / 3, 5.0), (1.0, 100.0)):
        verdict = judge(ClippedMean(quantile=quantile), as_updates(LINE), server)
        np.testing.assert_allclose(verdict.scores, np.array([1, 2, 5, 100]) / bound, rtol=1e-6)


def test_without_options_it_is_norm_clipping() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(9, 30)) * np.arange(1, 10)[:, None]).astype(np.float32)
    counts = rng.integers(1, 50, 9)
    one = ClippedMean().judge_rows(rows, counts=counts)
    other = create_defense("norm-clipping", {}).judge_rows(rows, counts=counts)
    np.testing.assert_array_equal(one.aggregate, other.aggregate)
    np.testing.assert_array_equal(one.scores, other.scores)


@pytest.mark.parametrize("quantile", [0.5, 0.6, 0.75, 0.9])
@pytest.mark.parametrize("n", [5, 10, 21])
def test_as_many_attackers_as_it_tolerates_cannot_raise_the_bound(n: int, quantile: float) -> None:
    defense = ClippedMean(quantile=quantile)
    layout = Updates.of_rows(np.ones((1, 1))).layout
    honest = np.linspace(1, 2, n)[:, None]
    for f in range(n):
        rows = honest.copy()
        rows[n - f :] = 1e9
        bounded = defense.judge_rows(rows).aggregate[0] <= 2
        try:
            defense.__class__(quantile=quantile, malicious=f).check(n, layout)
        except UsageError:
            assert not bounded
        else:
            assert bounded


def test_refuses_what_it_cannot_bear(layout) -> None:
    create = defenses.create
    create("clipped-mean", {"malicious": 4}).check(10, layout)
    with pytest.raises(UsageError, match=r"clipped-mean needs f < n .* f = 2 is too many"):
        create("clipped-mean", {"malicious": 2, "quantile": 0.9}).check(10, layout)
    with pytest.raises(UsageError, match="two bounds: set one of them"):
        create("clipped-mean", {"max_norm": 1, "quantile": 0.9}).check(10, layout)
    with pytest.raises(UsageError, match=r"^defense\.quantile = 0.4 is not allowed"):
        create("clipped-mean", {"quantile": 0.4})
