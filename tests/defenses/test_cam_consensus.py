"""The consensus detector: features against their formula, and what it flags."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tffl.core.errors import UsageError
from tffl.defenses import cam_consensus, create_defense
from tffl.explain.maps import Findings

from .maps import judge_maps, see, similar_maps

FAST = {"probes": 32, "epochs": 60}


def consensus_features(maps):
    return np.asarray(cam_consensus.consensus_features(maps))


def pooled(maps):
    return np.asarray(cam_consensus.pooled(maps))


def naive_features(maps):
    """Written loop by loop from the module's formulas."""
    n, p, h, w = maps.shape
    norms = [np.median([np.sqrt((maps[i, q] ** 2).sum()) for i in range(n)]) for q in range(p)]
    shape, scale = np.zeros((n, p, 4, 4)), np.zeros((n, p, 4, 4))
    for i in range(n):
        for q in range(p):
            one = maps[i, q].astype(np.float64)
            s = (one - one.min()) / (one.max() - one.min() + 1e-7)
            r = np.arcsinh(8 * one / norms[q]) / 8
            for a in range(4):
                for b in range(4):
                    cell = np.s_[a * h // 4 : (a + 1) * h // 4, b * w // 4 : (b + 1) * w // 4]
                    shape[i, q, a, b], scale[i, q, a, b] = s[cell].mean(), r[cell].mean()
    blocks = []
    for block in (shape.reshape(n, -1), scale.reshape(n, -1)):
        centered = block - np.median(block, axis=0)
        blocks.append((centered / (1.4826 * np.median(np.abs(centered)))).clip(-10, 10))
    return np.hstack(blocks)


@pytest.mark.parametrize("side", [4, 8])
def test_features_follow_the_formula(side):
    maps = similar_maps(n=7, p=3, side=side).astype(np.float32)
    np.testing.assert_allclose(consensus_features(maps), naive_features(maps), rtol=1e-3, atol=1e-3)


def test_pooling_averages_and_leaves_small_maps_alone():
    maps = np.arange(2 * 1 * 6 * 6, dtype=np.float32).reshape(2, 1, 6, 6)
    assert pooled(maps).shape == (2, 16)
    np.testing.assert_allclose(pooled(maps).mean(axis=1), maps.mean(axis=(1, 2, 3)), rtol=1e-6)
    assert pooled(maps[..., :2, :3]).shape == (2, 6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99))
def test_features_do_not_depend_on_the_order_of_clients(seed):
    maps = similar_maps(n=7, p=2, seed=seed).astype(np.float32)
    order = np.random.default_rng(seed).permutation(7)
    np.testing.assert_allclose(
        consensus_features(maps)[order], consensus_features(maps[order]), atol=1e-5
    )


@pytest.mark.parametrize("attackers", [1, 4, 7])
def test_maps_that_leave_the_consensus_are_flagged_up_to_a_third_of_all(attackers):
    maps = similar_maps(n=20, p=32)
    poison = similar_maps(n=1, p=32, seed=7)[0]
    maps[:attackers] = 0.5 * (maps[:attackers] + poison)
    verdict = judge_maps(create_defense("cam-consensus", FAST), maps)
    assert verdict.flagged[:attackers].all()
    assert verdict.flagged[attackers:].sum() <= 1
    assert "times as odd as the median" in verdict.reasons[0]


def test_a_client_whose_maps_are_merely_brighter_is_seen_too():
    maps = similar_maps(n=12, p=32)
    maps[5] *= 4
    assert judge_maps(create_defense("cam-consensus", FAST), maps).flagged[5]


def test_dead_maps_are_a_finding_where_others_are_alive():
    maps = similar_maps(n=12, p=32)
    maps[3, :12] = 0
    verdict = judge_maps(create_defense("cam-consensus", FAST), maps)
    assert verdict.flagged[3]
    assert verdict.reasons[3] == "12 of 32 heat maps are dead"
    assert Findings.of(verdict.shown[0].maps).dead.tolist() == [0, 0, 0, 12] + [0] * 8


def test_dead_maps_are_no_finding_where_everyone_has_them():
    maps = similar_maps(n=12, p=32)
    maps[:, :20] = 0
    verdict = judge_maps(create_defense("cam-consensus", FAST), maps)
    assert verdict.flagged.sum() <= 2


def test_equal_maps_flag_nobody():
    maps = np.repeat(similar_maps(n=1, p=16), 8, axis=0)
    assert not judge_maps(create_defense("cam-consensus", {"probes": 16}), maps).flagged.any()


def test_nobody_is_judged_by_an_autoencoder_that_was_fitted_to_him():
    """Maps with nothing in common but noise: only those that were fitted can be rebuilt."""
    maps = np.random.default_rng(1).random((10, 16, 4, 4))

    def spread(folds):
        options = {"probes": 16, "folds": folds}
        scores = judge_maps(create_defense("cam-consensus", options), maps).scores
        return scores.max() / scores.min()

    assert spread(folds=1) > 1.5
    assert spread(folds=4) < 1.3


def test_colluders_with_the_same_maps_have_one_vote():
    """Five of twenty would pull the medians, and teach the autoencoders what to expect."""
    maps = similar_maps(n=20, p=32)
    poison = similar_maps(n=1, p=32, seed=7)[0]
    maps[:5] = 0.5 * (maps[0] + poison)
    assert cam_consensus.same_maps(maps).tolist() == [0] * 5 + list(range(5, 20))
    verdict = judge_maps(create_defense("cam-consensus", FAST), maps)
    assert verdict.flagged.tolist() == [True] * 5 + [False] * 15


def test_without_autoencoders_the_score_is_the_mean_feature():
    maps = similar_maps(n=9, p=16).astype(np.float32)
    verdict = judge_maps(create_defense("cam-consensus", {"probes": 16, "hidden": 0}), maps)
    errors = np.abs(consensus_features(maps)).mean(axis=1)
    np.testing.assert_allclose(verdict.scores, errors / np.median(errors), rtol=1e-5)


def test_it_remembers_its_autoencoders_for_the_export():
    maps = similar_maps(n=9, p=32).astype(np.float32)
    defense, server = create_defense("cam-consensus", FAST), see(maps)
    from .byzantine import as_updates

    _, state = defense.judge(as_updates(np.eye(9)), server, defense.init(server))
    assert {key.split("/")[0] for key in state} == {"flags", "group0", "group1", "threshold"}


def test_groups_of_probes_are_of_one_size(layout):
    with pytest.raises(UsageError, match="probes = 40 is not allowed: it is not a multiple of"):
        create_defense("cam-consensus", {"probes": 40}).check(9, layout)
    create_defense("cam-consensus", {"probes": 10}).check(9, layout)


def test_a_consensus_needs_clients(layout):
    with pytest.raises(UsageError, match="at least 5 participants"):
        create_defense("cam-consensus", {}).check(4, layout)
