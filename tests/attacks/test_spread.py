"""Colluders who agree on one row and send different ones: what they send, and its mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tffl.attacks import attacks, create_attack
from tffl.attacks.base import OWN_DATA
from tffl.attacks.model_attack import COLLUDERS, CommonRowAttack
from tffl.config import build
from tffl.core.errors import UsageError
from tffl.record.identity import identity

OPTIONS: dict[str, dict[str, Any]] = {
    "lie": {"z": 1.5},
    "ipm": {},
    "min-max": {},
    "mimic": {},
    "fang-krum": {},
    "fang-trimmed-mean": {},
    "sign-flip": {"flips": "mean"},
}
KNOWS = ("all-benign", "overheard", "colluders")
VARIATIONS = ("own", "noise")


@dataclass(frozen=True)
class Constant(CommonRowAttack):
    """Crafts twos, and reads nothing."""

    def craft(self, updates, malicious, adversary, state):
        return np.full((1, updates.layout.size), 2, np.float32), state


def common_row_attacks() -> list[str]:
    return [name for name in attacks if issubclass(attacks[name], CommonRowAttack)]


def test_every_attack_that_crafts_one_row_can_vary_it() -> None:
    assert {*OPTIONS, "min-sum", "mpaf", "distance-constrained", "graph-autoencoder"} <= {
        *common_row_attacks()
    }
    for name in common_row_attacks():
        as_published = ("own",) if name == "adaptive-coalition" else ("none", 0)  # tffl's own
        assert attacks.create(name, {}).spread in as_published


@given(
    seed=st.integers(0, 10_000),
    malicious=st.integers(1, 6),
    name=st.sampled_from(sorted(OPTIONS)),
    knows=st.sampled_from(KNOWS),
)
@settings(deadline=None, max_examples=60)
def test_own_adds_one_shift_to_what_each_colluder_trained(
    a_round, seed: int, malicious: int, name: str, knows: str
) -> None:
    this = a_round(honest=9, malicious=malicious, seed=seed)
    options = {**OPTIONS[name], "knows": knows}
    published = this.sent(attacks.create(name, options)).astype(np.float64)
    attack = attacks.create(name, {**options, "spread": "own"})
    seen = attack.seen(this.updates, this.malicious, this.adversary)
    center = seen.deltas[:, this.updates.layout.trainable].mean(axis=0, dtype=np.float64)
    sent = this.sent(attack)
    np.testing.assert_allclose(sent - this.own, published - center, atol=1e-4)
    shift = published.mean(axis=0) - center
    np.testing.assert_allclose(sent.mean(axis=0), this.own.mean(axis=0) + shift, atol=1e-4)
    if malicious > 1:
        assert len(np.unique(sent, axis=0)) == malicious


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_without_spread_rows_are_as_published(a_round, name: str) -> None:
    this = a_round()
    default, none = (
        this.sent(attacks.create(name, {**OPTIONS[name], **options}))
        for options in ({}, {"spread": "none", "spread_share": 3})
    )
    np.testing.assert_array_equal(default, none)
    if name != "fang-trimmed-mean":
        assert len(np.unique(none, axis=0)) == 1


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_the_noise_has_the_chosen_share_of_the_honest_deviation(layout, share: float) -> None:
    rng = np.random.default_rng(0)
    scales = rng.uniform(0.1, 5, 20_000)
    rows = rng.normal(0, 1, (12, 20_000)) * scales
    malicious = np.arange(12) < 4
    attack = attacks.create("ipm", {"spread": "noise", "spread_share": share})
    noise = attack.poison_rows(rows, malicious=malicious)[:4] + 0.5 * rows[4:].mean(axis=0)
    unit = noise / (share * rows[4:].std(axis=0))
    # The standard error of a deviation of 20,000 draws is 0.5 %, of a correlation 0.7 %.
    np.testing.assert_allclose(unit.std(axis=1), 1, atol=0.03)
    np.testing.assert_allclose(unit.mean(axis=1), 0, atol=0.04)
    np.testing.assert_allclose(np.corrcoef(unit), np.eye(4), atol=0.04)


def test_noise_is_drawn_by_seed_round_and_client(a_round) -> None:
    attack, this = attacks.create("lie", {"z": 1, "spread": "noise"}), a_round()
    later = replace(this, updates=replace(this.updates, round=2))
    other = replace(this, adversary=a_round(experiment=6).adversary)
    np.testing.assert_array_equal(this.sent(attack), this.sent(attack))
    assert (this.sent(attack) != later.sent(attack)).all()
    assert (this.sent(attack) != other.sent(attack)).all()
    fewer = this.malicious.copy()
    fewer[np.flatnonzero(fewer)[0]] = False
    alone = Constant(spread="noise")  # the noise of colluders has their own deviation: scale it
    ids = np.flatnonzero(this.malicious)[1:]
    one = this.attacked(alone)[0].matrix[ids] - 2
    two = replace(this, malicious=fewer).attacked(alone)[0].matrix[ids] - 2
    free = this.updates.layout.trainable
    assert (np.sign(one[:, free]) == np.sign(two[:, free])).all()


@pytest.mark.parametrize("spread", VARIATIONS)
@pytest.mark.parametrize("ratio", [0.3, 1.0])
def test_columns_that_may_not_change_stay_as_trained(a_round, layout, spread, ratio) -> None:
    this = a_round()
    attack = attacks.create("ipm", {"spread": spread, "poisoning_ratio": ratio})
    fixed = ~attack.modifiable(layout, this.adversary.seed)
    assert fixed.sum() >= (~layout.trainable).sum() > 0
    sent = this.attacked(attack)[0].matrix
    np.testing.assert_array_equal(sent[:, fixed], this.updates.matrix[:, fixed])
    np.testing.assert_array_equal(sent[~this.malicious], this.updates.matrix[~this.malicious])
    assert (sent[this.malicious][:, ~fixed] != this.updates.matrix[this.malicious][:, ~fixed]).all()


def test_attackers_who_hear_nobody_take_their_own_mean(a_round) -> None:
    """So their rows add up to exactly what they agreed on."""
    sent = a_round(malicious=5).sent(Constant(spread="own"))
    np.testing.assert_allclose(sent.mean(axis=0), 2, atol=1e-5)
    alone = a_round(malicious=1)
    for spread in VARIATIONS:
        np.testing.assert_allclose(alone.sent(Constant(spread=spread)), 2, atol=1e-6)


def test_declares_the_updates_with_which_rows_are_varied() -> None:
    assert attacks.create("mpaf", {}).declared_knowledge() == (OWN_DATA,)
    for spread in VARIATIONS:
        words = attacks.create("mpaf", {"spread": spread}).declared_knowledge()
        assert words == (OWN_DATA, COLLUDERS)
        lie = [attacks.create("lie", options) for options in ({"spread": spread}, {})]
        assert lie[0].declared_knowledge() == lie[1].declared_knowledge()


def test_fang_krum_still_takes_a_distance(a_round) -> None:
    assert attacks.create("fang-krum", {"spread": "0.5"}).spread == 0.5
    this = a_round()
    one, other = (this.sent(attacks.create("fang-krum", {"spread": s})) for s in (0, "none"))
    np.testing.assert_array_equal(one, other)
    for wrong in ("far", -1, "nan", "inf", None):
        with pytest.raises(UsageError, match=r"^attack\.spread = .* distance of at least 0"):
            attacks.create("fang-krum", {"spread": wrong})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spread": "far"}, r"attack\.spread = 'far' .* 'none', 'own' or 'noise'"),
        ({"spread_share": 0}, r"attack\.spread_share = 0 .* greater than 0"),
        ({"flips": "own", "spread": "own"}, r"needs attack\.flips = 'mean'"),
    ],
)
def test_refuses_impossible_options(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        attacks.create("sign-flip", {"flips": "mean", **options})


def test_joined_attacks_spread_too() -> None:
    joined = create_attack("label-flip+lie", {"spread": "own"})
    assert joined.options()["spread"] == "own"


def test_results_without_these_options_are_still_known() -> None:
    later = {"on_rounds", "off_rounds", "spread", "spread_share"}
    for name in ("none", "lie", "label-flip+scaling"):
        assert not later & {*identity(build({"attack": {"name": name}}))["attack"]}
    krum = identity(build({"attack": {"name": "fang-krum"}}))["attack"]
    assert later & {*krum} == {"spread"} and krum["spread"] == 0
    changed = build({"attack": {"name": "lie", "spread": "own", "off_rounds": 2}})
    assert later & {*identity(changed)["attack"]} == {"spread", "off_rounds"}
