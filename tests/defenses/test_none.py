"""FedAvg: the sample-weighted mean of everybody."""

from __future__ import annotations

import numpy as np

from tffl.defenses import defenses


def test_is_the_weighted_mean(updates, server) -> None:
    round = updates([[1, 0, 0], [0, 2, 0]], counts=[1, 3])
    verdict, state = defenses.create("none", {}).judge(round, server, {})
    np.testing.assert_allclose(verdict.weights, [0.25, 0.75])
    np.testing.assert_allclose(verdict.aggregate[-3:], [0.25, 1.5, 0])
    assert verdict.aggregate.dtype == np.float32
    assert verdict.accepted.all()
    assert not verdict.flagged.any()
    assert np.isnan(verdict.scores).all()
    assert np.isnan(verdict.threshold)
    assert verdict.reasons == ("", "")
    assert state == {}


def test_averages_nan_as_well(updates, server) -> None:
    verdict, _ = defenses.create("none", {}).judge(updates([[np.nan, 0, 0], [0, 0, 0]]), server, {})
    assert np.isnan(verdict.aggregate[-3])
    assert verdict.accepted.all()


def test_clients_that_claim_no_samples_leave_the_model(updates, server) -> None:
    verdict, _ = defenses.create("none", {}).judge(updates([[1, 1, 1]], counts=[0]), server, {})
    assert verdict.weights.tolist() == [0]
    assert not verdict.aggregate.any()
