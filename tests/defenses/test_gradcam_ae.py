"""GradCAM-AE and LayerCAM-AE as published, on maps that are given."""

import numpy as np
import pytest

from tffl.core import seeds
from tffl.core.errors import UsageError
from tffl.defenses import create_defense
from tffl.defenses.gradcam_ae import enlarged
from tffl.defenses.parts.autoencoder import Autoencoder
from tffl.explain.maps import Findings

from .maps import judge_maps, see, similar_maps


def expected_errors(maps, power=1):
    """Equations 13 and 14, with the same first weights."""
    low, high = maps.min((2, 3), keepdims=True), maps.max((2, 3), keepdims=True)
    rows = ((maps - low) / (high - low + 1e-7)).reshape(len(maps), -1).astype(np.float32)
    recipe = Autoencoder(128, "sigmoid", 200)
    weights = recipe.fit(rows, np.ones(len(rows), bool), seeds.integer(0, "autoencoder", 1))
    model = recipe.load(weights)
    return (np.abs(model(rows).numpy() - rows) ** power).mean(axis=1)


@pytest.mark.parametrize(
    ("name", "method"), [("gradcam-ae", "grad-cam"), ("layercam-ae", "layer-cam")]
)
def test_scores_and_threshold_are_the_papers(name, method):
    maps = similar_maps(p=1)
    maps[3] = maps[3].max() - maps[3]
    defense = create_defense(name, {})
    verdict = judge_maps(defense, maps)
    errors = expected_errors(maps)
    np.testing.assert_allclose(verdict.scores, errors, rtol=1e-4)
    np.testing.assert_allclose(verdict.threshold, errors.mean() + errors.std(), rtol=1e-4)
    assert (verdict.flagged == (verdict.scores > verdict.threshold)).all()
    assert defense.method == method
    assert verdict.shown[0].rebuilt.shape == maps.shape


def test_the_released_variant_squares_errors_and_takes_the_samples_spread():
    maps = similar_maps(p=1)
    verdict = judge_maps(
        create_defense("gradcam-ae", {"variant": "released", "resolution": "map"}), maps
    )
    errors = expected_errors(maps, power=2)
    np.testing.assert_allclose(verdict.scores, errors, rtol=1e-4)
    np.testing.assert_allclose(verdict.threshold, errors.mean() + errors.std(ddof=1), rtol=1e-4)


def test_the_variant_decides_what_is_not_given():
    paper, released = (
        create_defense("gradcam-ae", {"variant": v}).options() for v in ("paper", "released")
    )
    keys = ("class_rule", "error", "spread", "not_a_number", "resolution")
    assert [paper[k] for k in keys] == ["true", "absolute", "population", "flag", "map"]
    assert [released[k] for k in keys] == ["predicted", "squared", "sample", "zero", "image"]
    given = create_defense("gradcam-ae", {"variant": "released", "error": "absolute"}).options()
    assert given["error"] == "absolute"
    assert create_defense("gradcam-ae", paper).options() == paper


def test_not_a_number_is_a_finding_in_the_paper_and_zero_in_the_released_code():
    maps = similar_maps(p=1)
    maps[2, 0, 1, 1] = np.nan
    paper = judge_maps(create_defense("gradcam-ae", {}), maps)
    assert paper.scores[2] == np.inf
    assert paper.flagged[2]
    assert (
        paper.reasons[2]
        == "1 of 1 heat maps hold NaN or infinity; flagged in 1 of its last 1 rounds"
    )
    assert np.isfinite(paper.scores[np.arange(10) != 2]).all()
    assert Findings.of(paper.shown[0].maps).non_finite.tolist() == [0, 0, 1] + [0] * 7
    released = judge_maps(create_defense("gradcam-ae", {"variant": "released"}), maps)
    assert np.isfinite(released.scores).all()


def test_nobody_is_left_if_no_map_is_finite():
    verdict = judge_maps(create_defense("gradcam-ae", {}), np.full((4, 1, 4, 4), np.nan))
    assert verdict.flagged.all()
    assert not verdict.accepted.any()


def test_enlarging_keeps_constants_and_corners():
    maps = np.ones((2, 1, 3, 3), np.float32)
    np.testing.assert_allclose(enlarged(maps, 12), 1, rtol=1e-6)
    line = np.zeros((1, 1, 2, 2), np.float32)
    line[..., 1] = 1
    np.testing.assert_allclose(enlarged(line, 4)[0, 0, 0], [0, 0.25, 0.75, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "maps", "message"),
    [
        ({"probes": 101}, similar_maps(p=1), "probes = 101 is not allowed: the server has 100"),
        ({"fixed_class": 10}, similar_maps(p=1), "fixed_class = 10 .* there are 10 classes"),
        ({"layer": "nowhere"}, similar_maps(p=1), "no layer nowhere"),
        ({}, similar_maps(p=1, side=1), "1 x 1 pixels"),
    ],
)
def test_what_cannot_work_is_refused_before_round_1(options, maps, message):
    with pytest.raises(UsageError, match=message):
        create_defense("gradcam-ae", options).check_server(see(maps))


def test_an_alpha_that_can_flag_nobody_is_refused(layout):
    with pytest.raises(UsageError, match="alpha = 3 can never flag"):
        create_defense("gradcam-ae", {"alpha": 3}).check(10, layout)
