"""Bias anomaly: hand-computed rounds, properties, votes and refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.defenses import Server, Verdict, defenses
from tffl.defenses.bias_anomaly import BiasAnomaly

# Client 3 pulls class 2; the clients' mean is (0.05, 0.05, 1).
BIAS = [[0.0, 0.1, 0.0], [0.1, 0.0, 0.0], [0.0, 0.1, 0.0], [0.1, 0.0, 4.0]]
properties = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
rows = arrays(
    np.float32,
    st.tuples(st.integers(3, 6), st.just(3)),
    elements=st.integers(-64, 64).map(lambda i: i / 8),  # exact in float32, also when shifted
)


def create(**options: object) -> BiasAnomaly:
    return defenses.create("bias-anomaly", options)


def judge(defense: BiasAnomaly, updates: Updates, server: Server) -> Verdict:
    return defense.judge(updates, server, defense.init(server))[0]


def test_against_the_clients_mean_by_hand(updates, server) -> None:
    verdict = judge(create(), updates(BIAS, counts=[1, 1, 2, 5]), server)
    np.testing.assert_allclose(verdict.scores, [1, 1, 1, 3], rtol=1e-6)
    assert verdict.threshold == pytest.approx(1, rel=1e-5)
    assert verdict.flagged.tolist() == [False, False, False, True]
    assert verdict.accepted.tolist() == [True, True, True, False]
    np.testing.assert_allclose(verdict.weights, [0.25, 0.25, 0.5, 0])
    np.testing.assert_allclose(verdict.aggregate[-3:], [0.025, 0.075, 0], rtol=1e-6)
    assert verdict.reasons == (
        "",
        "",
        "",
        "final bias deviates from the clients' mean by 3, above 1",
    )


def test_against_the_joint_model_by_hand(updates, server) -> None:
    verdict = judge(create(reference_point="joint"), updates(BIAS), server)
    np.testing.assert_allclose(verdict.scores, [0.1, 0.1, 0.1, 4], rtol=1e-6)
    assert verdict.flagged.tolist() == [False, False, False, True]
    assert "from the joint model by 4" in verdict.reasons[3]


def test_mean_std_by_hand(updates, server) -> None:
    # Scores 1, 1, 1, 3: mean 1.5, std √0.75.
    verdict = judge(create(rule="mean-std", alpha=1.0), updates(BIAS), server)
    assert verdict.threshold == pytest.approx(1.5 + 0.75**0.5, rel=1e-5)
    assert verdict.flagged.tolist() == [False, False, False, True]
    hidden = judge(create(rule="mean-std", alpha=1.74), updates(BIAS), server)
    assert not hidden.flagged.any()


def test_other_columns_do_not_matter(updates, server) -> None:
    round = updates(BIAS)
    before = judge(create(), round, server)
    round.deltas[:, :12] = np.random.default_rng(0).normal(size=(4, 12))
    np.testing.assert_array_equal(judge(create(), round, server).scores, before.scores)


def test_equal_updates_are_all_accepted(updates, server) -> None:
    verdict = judge(create(k=0), updates([[0.1, 0.2, 0.3]] * 5), server)
    assert verdict.accepted.all()
    np.testing.assert_allclose(verdict.weights.sum(), 1)


@pytest.mark.parametrize("where", [0, -1])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_rejected_at_once(
    updates, server, where: int, poison: float
) -> None:
    round = updates([*BIAS, [0, 0, 0]])
    round.deltas[4, where] = poison
    verdict = judge(create(window=3, votes=3), round, server)
    assert verdict.scores[4] == np.inf
    assert np.isfinite(verdict.scores[:4]).all()
    assert (bool(verdict.flagged[4]), bool(verdict.accepted[4])) == (True, False)
    assert verdict.reasons[4].startswith("the update holds NaN or infinity")
    assert np.isfinite(verdict.aggregate).all()


def test_nobody_finite_leaves_the_model(updates, server) -> None:
    verdict = judge(create(), updates([[np.nan] * 3] * 4), server)
    assert np.isnan(verdict.threshold)
    assert verdict.flagged.all()
    assert not verdict.accepted.any()
    assert not verdict.weights.any()
    assert verdict.aggregate.tolist() == [0.0] * server.layout.size


def test_observing_accepts_and_averages_everybody(updates, server) -> None:
    round = updates(BIAS)
    verdict = judge(create(enforce=False), round, server)
    assert verdict.flagged.tolist() == [False, False, False, True]
    assert verdict.accepted.all()
    np.testing.assert_allclose(verdict.weights, [0.25] * 4)
    np.testing.assert_allclose(verdict.aggregate, round.deltas.mean(axis=0), rtol=1e-6)
    assert verdict.reasons[3]


def test_vote_follows_clients_through_partial_participation(updates, server) -> None:
    defense = create(window=3, votes=2)
    state = defense.init(server)
    honest = [0.0, 0.0, 0.0]
    attacker = [0.0, 0.0, 4.0]
    accepted = []
    # Client 5 attacks in rounds 1 and 3, is away in round 2, and behaves in round 4.
    for ids, last in (([0, 1, 2, 5], attacker), ([0, 1, 2, 3], honest)) * 2:
        round = updates([honest, honest, honest, last], ids=ids)
        verdict, state = defense.judge(round, server, state)
        accepted.append(bool(verdict.accepted[3]))
    assert accepted == [False, True, False, True]
    verdict, state = defense.judge(updates([honest] * 4, ids=[0, 1, 2, 5]), server, state)
    assert verdict.accepted.tolist() == [True, True, True, False]
    assert not verdict.flagged.any()
    assert verdict.reasons[3] == "flagged in 2 of its last 3 rounds"
    assert state["flags"][5].tolist() == [0, 1, 1]
    assert state["flags"][4].tolist() == [-1, -1, -1]


def test_votes_in_blocks_follow_the_papers_schedule(updates, server) -> None:
    """GradCAM-AE, equations 18 and 19, for ξ = 3 and ε = 2; client 3 is flagged at every x."""
    defense = create(window=3, votes=2, ballot="blocks")
    flags = ".x. x.x x.. ..x xx. xxx"
    gone = ".x. x.x x.. ... xxx xxx"  # every third round is the block's vote
    state, flagged, convicted = defense.init(server), "", ""
    for number, flag in enumerate(flags.replace(" ", ""), start=1):
        last = [0.0, 0.0, 4.0 if flag == "x" else 0.0]
        round = updates([[0.0, 0.0, 0.0]] * 3 + [last], round=number)
        verdict, state = defense.judge(round, server, state)
        flagged += "x" if verdict.flagged[3] else "."
        convicted += "x" if verdict.convicted[3] else "."
        assert verdict.accepted[3] == (not verdict.convicted[3])
        assert not verdict.convicted[:3].any()
    assert flagged == flags.replace(" ", "")
    assert convicted == gone.replace(" ", "")
    assert verdict.reasons[3].endswith("flagged in 3 of its last 3 rounds")


def test_blocks_count_a_clients_own_rounds(updates, server) -> None:
    """Client 5 was away in round 2, so that its last two rounds span two blocks."""
    defense = create(window=2, votes=2, ballot="blocks")
    state, said = defense.init(server), []
    for number, ids in enumerate(([0, 1, 2, 5], [0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 5]), start=1):
        rows = [[0.0] * 3] * 3 + [[0.0, 0.0, 4.0 if 5 in ids else 0.0]]
        verdict, state = defense.judge(updates(rows, ids=ids, round=number), server, state)
        said.append(bool(verdict.convicted[3]))
    assert said == [True, False, False, True]


def test_who_is_voted_out_while_only_observed_is_told_why(updates, server) -> None:
    defense = create(window=3, votes=1, enforce=False)
    _, state = defense.judge(updates(BIAS), server, defense.init(server))
    verdict, _ = defense.judge(updates([[0.0] * 3] * 4), server, state)
    assert not verdict.flagged.any() and verdict.convicted.tolist() == [False] * 3 + [True]
    assert verdict.accepted.all()
    assert verdict.reasons == ("", "", "", "flagged in 1 of its last 2 rounds")


def test_judging_changes_no_input(updates, server) -> None:
    defense = create(window=2)
    round, state = updates(BIAS), defense.init(server)
    deltas, flags = round.deltas.copy(), state["flags"].copy()
    defense.judge(round, server, state)
    np.testing.assert_array_equal(round.deltas, deltas)
    np.testing.assert_array_equal(state["flags"], flags)


@properties
@given(bias=rows, seed=st.integers(0, 9), rule=st.sampled_from(["median-mad", "mean-std"]))
def test_the_order_of_clients_does_not_matter(updates, server, bias, seed: int, rule: str) -> None:
    order = np.random.default_rng(seed).permutation(len(bias))
    defense = create(rule=rule, alpha=1.0)
    one = judge(defense, updates(bias), server)
    other = judge(defense, updates(bias[order], ids=order), server)
    np.testing.assert_allclose(other.scores, one.scores[order], rtol=1e-12)
    np.testing.assert_array_equal(other.flagged, one.flagged[order])
    np.testing.assert_array_equal(other.accepted, one.accepted[order])


@properties
@given(bias=rows, shift=st.integers(-8, 8))
def test_a_common_shift_changes_no_score(updates, server, bias, shift: int) -> None:
    one = judge(create(), updates(bias), server)
    other = judge(create(), updates(bias + np.float32(shift)), server)
    np.testing.assert_allclose(other.scores, one.scores, atol=1e-12)


@properties
@given(bias=rows, data=st.data())
def test_weights_are_shares_of_the_accepted(updates, server, bias, data: st.DataObject) -> None:
    counts = data.draw(arrays(np.int64, len(bias), elements=st.integers(0, 1000)))
    verdict = judge(create(k=0), updates(bias, counts=counts), server)
    assert (verdict.weights >= 0).all()
    assert not verdict.weights[~verdict.accepted].any()
    total = verdict.weights.sum()
    assert total == pytest.approx(1) if counts[verdict.accepted].any() else total == 0
    flagged = [bool(reason) for reason in verdict.reasons]
    assert flagged == verdict.flagged.tolist()


@pytest.mark.parametrize(
    ("options", "participants", "message"),
    [
        ({}, 2, "median-mad needs at least 3 participants a round, not 2"),
        ({"rule": "mean-std", "alpha": 3}, 10, "alpha = 3 can never flag anyone among 10"),
        ({"window": 2, "votes": 3}, 10, "votes = 3 is not allowed with defense.window = 2"),
    ],
)
def test_refuses_rules_that_cannot_work(
    layout, options: dict, participants: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        create(**options).check(participants, layout)


def test_allows_rules_that_can_work(layout) -> None:
    create().check(3, layout)
    create(rule="mean-std", alpha=2.99).check(10, layout)
    create(window=3, votes=3).check(10, layout)


def test_refuses_a_final_layer_without_bias() -> None:
    with pytest.raises(UsageError, match="final layer logits has no bias"):
        create().check(10, WeightLayout((Entry("logits/kernel", (2, 3), True),)))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("rule", "mean"),
        ("k", -1),
        ("alpha", "nan"),
        ("window", 0),
        ("enforce", "banana"),
        ("ballot", "both"),
    ],
)
def test_refuses_options_out_of_range(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^defense\.{option} = .* is not allowed") as error:
        create(**{option: value})
    assert "\n" not in str(error.value)


def test_does_not_care_who_the_server_is(updates, server) -> None:
    one = judge(create(), updates(BIAS), server)
    other = judge(create(), updates(BIAS), replace(server, seed=9, clients=50))
    np.testing.assert_array_equal(one.scores, other.scores)


def test_a_head_without_bias_says_what_to_choose() -> None:
    entries = [("conv/kernel", (3, 2)), ("conv/bias", (2,)), ("logits/kernel", (2, 3))]
    layout = WeightLayout(tuple(Entry(name, shape, True) for name, shape in entries))
    message = (
        r"layer logits has no bias .*: set defense.layer to one of conv, or let `tffl localize`"
    )
    with pytest.raises(UsageError, match=message):
        BiasAnomaly().check(4, layout)
    with pytest.raises(UsageError, match=r"^layer dense has no bias"):
        BiasAnomaly(layer="dense").check(4, layout)
    with pytest.raises(UsageError, match=r"let `tffl localize` rank the weights"):
        BiasAnomaly().check(4, WeightLayout((Entry("logits/kernel", (3, 2), True),)))
    rows = np.zeros((4, layout.size), np.float32)
    rows[:, layout["conv/bias"]] = [[0.1, 0], [0, 0.1], [0.1, 0.1], [7, 9]]
    verdict = BiasAnomaly(layer="conv").judge_rows(rows, layout=layout)
    assert verdict.accepted.tolist() == [True, True, True, False]
    assert verdict.reasons[3].startswith("bias of conv deviates from the clients' mean by ")
