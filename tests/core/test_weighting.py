"""What clients claim, and what it counts for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tffl
from tffl.config import build, override
from tffl.core.weighting import weighted_counts
from tffl.record.identity import identity

SETTING = {
    "data": {"train_limit": 200, "test_limit": 100},
    "federation": {"clients": 5, "malicious": 1, "rounds": 2},
    "model": {"name": "lenet5"},
    "attack": {"name": "sign-flip", "claims": 1000.0},
}

counts = st.lists(st.integers(1, 10**6), min_size=1, max_size=9).map(np.array)


def test_by_hand() -> None:
    claims = np.array([10, 20, 30, 10_000])
    assert weighted_counts(claims, "claimed").tolist() == [10, 20, 30, 10_000]
    assert weighted_counts(claims, "uniform").tolist() == [1, 1, 1, 1]
    assert weighted_counts(claims, "capped").tolist() == [10, 20, 30, 75]
    assert weighted_counts(claims[:0], "capped").tolist() == []


@given(counts)
def test_capping_only_lowers_and_keeps_order(claims: np.ndarray) -> None:
    capped = weighted_counts(claims, "capped")
    assert (capped <= claims).all() and capped.dtype == np.int64
    order = np.argsort(claims, kind="stable")
    assert (np.diff(capped[order]) >= 0).all()
    assert capped.max() <= np.ceil(3 * np.median(claims))


def share_of_the_liar(weighting: str) -> float:
    run = tffl.simulate(override(SETTING, {"federation.weighting": weighting}))
    lies = run.clients["malicious"].astype(bool)
    liar = run.clients[lies]
    assert (liar["samples"] == 40_000).all()  # what it says stays on record
    assert (run.clients[~lies]["samples"] == 40).all()
    return float(liar["weight"].iloc[0])


@pytest.mark.parametrize(
    ("weighting", "share"), [("claimed", 1000 / 1004), ("uniform", 1 / 5), ("capped", 3 / 7)]
)
def test_a_liar_buys_the_average_where_claims_are_believed(weighting: str, share: float) -> None:
    assert share_of_the_liar(weighting) == pytest.approx(share, rel=1e-6)


def test_weighting_and_claims_are_part_of_the_experiment() -> None:
    plain = identity(build({"attack": {"name": "lie"}}))
    said = {"federation": {"weighting": "claimed"}, "attack": {"name": "lie", "claims": 1.0}}
    assert identity(build(said)) == plain
    capped, twice = {"weighting": "capped"}, {"name": "lie", "claims": 2.0}
    assert identity(build({**said, "federation": capped})) != plain
    assert identity(build({**said, "attack": twice})) != plain
