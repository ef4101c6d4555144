"""GradCAM-Krum against Krum's definition on rows of maps."""

import numpy as np
import pytest

from tffl.core.errors import UsageError
from tffl.defenses import create_defense

from .maps import judge_maps, similar_maps


def naive_scores(maps, f):
    low, high = maps.min((2, 3), keepdims=True), maps.max((2, 3), keepdims=True)
    rows = ((maps - low) / (high - low + 1e-7)).reshape(len(maps), -1)
    scores = []
    for i, row in enumerate(rows):
        others = sorted(((row - other) ** 2).sum() for j, other in enumerate(rows) if j != i)
        scores.append(sum(others[: len(rows) - f - 2]))
    return np.array(scores)


@pytest.mark.parametrize("f", [1, 2])
def test_scores_are_krums_and_the_best_one_is_taken(f):
    maps = similar_maps(p=1)
    maps[4] = maps[4].max() - maps[4]
    verdict = judge_maps(create_defense("gradcam-krum", {"malicious": f}), maps)
    scores = naive_scores(maps, f)
    np.testing.assert_allclose(verdict.scores, scores, rtol=1e-3)
    assert verdict.weights.tolist() == (np.arange(10) == scores.argmin()).astype(float).tolist()
    assert verdict.flagged.sum() == f
    assert verdict.flagged[4]
    assert (verdict.aggregate[2:] == scores.argmin()).all()
    assert verdict.reasons[scores.argmin()] == ""


def test_told_nothing_it_suspects_outliers_only():
    maps = similar_maps(p=1, n=12)
    maps[4] = maps[4].max() - maps[4]
    verdict = judge_maps(create_defense("gradcam-krum", {}), maps)
    assert verdict.flagged[4]
    assert verdict.flagged.sum() <= 3


def test_maps_that_are_not_finite_never_win():
    maps = similar_maps(p=1)
    maps[0] = np.nan
    verdict = judge_maps(create_defense("gradcam-krum", {"malicious": 1}), maps)
    assert verdict.weights[0] == 0
    assert verdict.flagged.tolist() == [True] + [False] * 9


def test_too_many_attackers_are_refused(layout):
    with pytest.raises(UsageError, match="gradcam-krum"):
        create_defense("gradcam-krum", {"malicious": 4}).check(10, layout)
