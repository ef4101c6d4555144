"""Any-of, all-of and shield: hand-made verdicts, real parts, state, options and refusals."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tffl.config import build, override, parse_setting, read
from tffl.core import states
from tffl.core.errors import UsageError
from tffl.core.updates import Updates
from tffl.core.verdict import AuditImages, HeatMaps
from tffl.data.samples import PROBE_DATA, ROOT_DATA, RootData
from tffl.defenses import Server, Verdict, create_defense, defenses
from tffl.defenses.base import Defense, State, sample_shares
from tffl.defenses.combination import AllOf, AnyOf, Combination, relative_scores
from tffl.defenses.detector import Detector
from tffl.record.identity import identity, resolved
from tffl.record.shown import to_arrays

from .byzantine import FROZEN, as_updates, cloud

BOTH = {"of": "multi-krum,update-consensus", "multi-krum": {"malicious": 2}}
KINDS = {"any-of": AnyOf, "all-of": AllOf}


def verdict_of(flagged: Any, scores: Any, threshold: float, **changes: Any) -> Verdict:
    flagged = np.asarray(flagged, dtype=bool)
    fields = {
        "flagged": flagged,
        "convicted": flagged,
        "accepted": ~flagged,
        "weights": np.zeros(len(flagged)),
        "scores": np.asarray(scores, dtype=float),
        "threshold": threshold,
        "aggregate": np.zeros(1, np.float32),
        "reasons": tuple("seen" if flag else "" for flag in flagged),
    }
    return Verdict(**{**fields, **changes})


@dataclass(frozen=True)
class Scripted(Defense):
    """Says what it is told to."""

    verdict: Any = None

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Answers, and counts its rounds."""
        return self.verdict, {"rounds": state.get("rounds", np.zeros(1)) + 1}


def scripted(kind: str, **verdicts: Verdict) -> Combination:
    """Returns a combination whose parts are replaced by scripted ones."""
    names = ("krum", "median", "bulyan")[: len(verdicts)]
    result = KINDS[kind](of=names)
    parts = {name: Scripted(verdict) for name, verdict in verdicts.items()}
    object.__setattr__(result, "parts", parts)
    return result


def judge(defense: Defense, updates: Updates, server: Server) -> tuple[Verdict, State]:
    server = replace(server, clients=100)
    return defense.judge(updates, server, defense.init(server))


def test_relative_scores_by_hand() -> None:
    # The median of 1, 2, 3, 8 is 2.5; the threshold lies 2 above it.
    verdict = verdict_of([0, 0, 0, 1], [1, 2, 3, 8], 4.5)
    np.testing.assert_allclose(relative_scores(verdict), [-0.75, -0.25, 0.25, 2.75])


@pytest.mark.parametrize(
    ("scores", "threshold"),
    [
        ([np.nan] * 3, np.nan),  # no scores
        ([1, 2, 3], np.nan),  # no threshold
        ([1, 2, 3], -np.inf),  # everybody is above
        ([2, 2, 3], 2),  # no distance to the median
        ([np.inf] * 3, 1),  # nothing finite
    ],
)
def test_without_a_usable_scale_flags_count(scores: list[float], threshold: float) -> None:
    assert relative_scores(verdict_of([0, 1, 1], scores, threshold)).tolist() == [0, 2, 2]


def test_scores_that_contradict_the_flags_give_way() -> None:
    scores = relative_scores(verdict_of([1, 0, 0, 0, 1], [1, 9, np.nan, 1, np.nan], 3))
    assert scores[0] > 1 and scores[1] == 1 and scores[2] == 0 and scores[3] == 0 and scores[4] == 2


@given(
    scores=arrays(np.float64, 6, elements=st.floats(allow_nan=True, allow_infinity=True)),
    threshold=st.floats(allow_nan=True, allow_infinity=True),
    flagged=arrays(bool, 6),
)
def test_above_one_means_flagged(scores, threshold: float, flagged) -> None:
    relative = relative_scores(verdict_of(flagged, scores, threshold))
    assert not np.isnan(relative).any()
    assert ((relative > 1) == flagged).all()


@pytest.mark.parametrize(
    ("kind", "convicted", "scores"),
    [
        ("any-of", [False, True, True, True], [0, 3, 2, 3]),
        ("all-of", [False, False, False, True], [-3, 0, -5, 2]),
    ],
)
def test_verdicts_by_hand(server, kind: str, convicted: list, scores: list) -> None:
    one = verdict_of([0, 1, 0, 1], [1, 4, 0, 4], 3.0)  # median 2.5, so −3, 3, −5, 3
    other = verdict_of([0, 0, 1, 1], [np.nan] * 4, np.nan)  # 0, 0, 2, 2
    rows = [[1.0], [2.0], [4.0], [8.0]]
    verdict, _ = judge(
        scripted(kind, krum=one, median=other), as_updates(rows, counts=[1, 3, 1, 1]), server
    )
    assert verdict.convicted.tolist() == verdict.flagged.tolist() == convicted
    assert verdict.accepted.tolist() == [not value for value in convicted]
    np.testing.assert_allclose(verdict.scores, scores)
    assert ((verdict.scores > verdict.threshold) == convicted).all()
    kept = np.flatnonzero(verdict.accepted)
    shares = np.array([1, 3, 1, 1])[kept] / np.array([1, 3, 1, 1])[kept].sum()
    assert verdict.aggregate[FROZEN] == pytest.approx(np.asarray(rows)[kept, 0] @ shares)
    np.testing.assert_allclose(verdict.weights[kept], shares)


def test_reasons_name_the_parts_that_suspect(server) -> None:
    one = verdict_of([0, 1, 0, 1], [0, 9, 0, 9], 3.0, reasons=("not selected", "a", "", "b"))
    other = verdict_of([0, 0, 1, 1], [0, 0, 9, 9], 3.0, reasons=("", "", "c", "d"))
    either, _ = judge(scripted("any-of", krum=one, median=other), as_updates(cloud(4, 2)), server)
    assert either.reasons == ("", "krum: a", "median: c", "krum: b; median: d")
    both, _ = judge(scripted("all-of", krum=one, median=other), as_updates(cloud(4, 2)), server)
    assert both.reasons == ("", "", "", "krum: b; median: d")


def test_convictions_are_joined_apart_from_flags(server) -> None:
    """A vote may convict who was not flagged, and pardon who was."""
    yes, no = np.array([True, False]), np.array([False, False])
    one = verdict_of([0, 1], [0, 1], np.nan, convicted=yes, reasons=("voted out", "odd"))
    other = verdict_of([0, 1], [0, 1], np.nan, convicted=no)
    verdict, _ = judge(scripted("any-of", krum=one, median=other), as_updates(cloud(2, 2)), server)
    assert verdict.flagged.tolist() == [False, True]
    assert verdict.convicted.tolist() == [True, False]
    assert verdict.reasons == ("krum: voted out", "krum: odd; median: seen")


def test_all_parts_are_one_part(server) -> None:
    """Of a single part, either combination has the flags and the mean."""
    rows = as_updates(cloud(9, 5, attackers=2), counts=np.arange(1, 10))
    alone, _ = judge(create_defense("multi-krum", {"malicious": 2}), rows, server)
    for kind in KINDS:
        options = {"of": ["multi-krum"], "multi-krum": {"malicious": 2}}
        verdict, _ = judge(create_defense(kind, options), rows, server)
        np.testing.assert_array_equal(verdict.convicted, alone.convicted)
        np.testing.assert_array_equal(verdict.aggregate, alone.aggregate)


def test_krum_counts_by_whom_it_suspects(server) -> None:
    options = {"of": "krum,update-consensus", "krum": {"malicious": 2}}
    rows = cloud(11, 50, attackers=2)
    verdict, _ = judge(create_defense("any-of", options), as_updates(rows), server)
    assert np.flatnonzero(verdict.convicted).tolist() == [9, 10]
    np.testing.assert_allclose(verdict.aggregate[FROZEN:], rows[:9].mean(axis=0), rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_not_finite_are_rejected_always(server, kind: str) -> None:
    rows = cloud(9, 5)
    rows[4] = np.nan
    verdict, _ = judge(create_defense(kind, BOTH), as_updates(rows), server)
    assert verdict.convicted[4] and verdict.flagged[4] and verdict.scores[4] == np.inf
    assert verdict.reasons[4] == "the update holds NaN or infinity"
    assert np.isfinite(verdict.aggregate).all()
    blind = scripted(kind, krum=verdict_of([0] * 9, [0] * 9, 1.0))
    assert judge(blind, as_updates(rows), server)[0].convicted.tolist() == [
        i == 4 for i in range(9)
    ]
    nobody, _ = judge(create_defense(kind, BOTH), as_updates(rows * np.nan), server)
    assert nobody.convicted.all() and not nobody.aggregate.any() and math.isnan(nobody.threshold)


def test_observing_accepts_and_averages_everybody(server) -> None:
    rows = as_updates(cloud(9, 500, attackers=2))
    verdict, _ = judge(create_defense("any-of", {**BOTH, "enforce": False}), rows, server)
    assert verdict.convicted.sum() == 2 and verdict.accepted.all()
    np.testing.assert_allclose(verdict.aggregate, rows.matrix.mean(axis=0), rtol=1e-5)


def test_each_part_keeps_its_own_state(server) -> None:
    """Every part remembers exactly what it would alone, whoever the other convicts."""
    options = {
        "of": "bias-anomaly,fldetector,multi-krum",
        "bias-anomaly": {"window": 3, "votes": 2},
        "fldetector": {"window": 3},
    }
    server = replace(server, clients=8, layout=as_updates(cloud(8, 6)).layout)
    together = create_defense("any-of", options)
    alone = {n: create_defense(n, options.get(n, {})) for n in together.parts}
    state, own = together.init(server), {n: part.init(server) for n, part in alone.items()}
    for round in range(1, 5):
        updates = as_updates(cloud(8, 6, seed=round, attackers=round % 3), round=round)
        verdict, state = together.judge(updates, server, state)
        said = {}
        for name, part in alone.items():
            said[name], own[name] = part.judge(updates, server, own[name])
            mine = states.part(state, name)
            assert mine.keys() == own[name].keys()
            for key in mine:
                np.testing.assert_array_equal(mine[key], own[name][key])
        expected = np.logical_or.reduce([each.convicted for each in said.values()])
        np.testing.assert_array_equal(verdict.convicted, expected)
    assert set(state) > {"bias-anomaly/flags", "multi-krum/flags", "fldetector/expected"}


def test_what_parts_show_comes_through_with_their_names_where_they_clash(server) -> None:
    maps, images = HeatMaps(np.zeros((3, 1, 2, 2))), AuditImages(*(np.zeros(1) for _ in range(7)))
    one = verdict_of([0] * 3, [0] * 3, 1.0, shown=(maps, images))
    other = verdict_of([0] * 3, [0] * 3, 1.0, shown=(maps,))
    verdict, _ = judge(scripted("any-of", krum=one, median=other), as_updates(cloud(3, 2)), server)
    assert [seen.part for seen in verdict.shown] == ["krum/", "krum/", "median/"]
    assert {"krum/maps", "median/dead", "krum/audit_labels"} < set(to_arrays(verdict.shown))
    alone, _ = judge(scripted("any-of", krum=one), as_updates(cloud(3, 2)), server)
    assert alone.shown == (maps, images)


@pytest.mark.parametrize("name", [n for n in defenses if issubclass(defenses[n], Detector)])
def test_detectors_judge_as_they_suspect(name: str) -> None:
    """A detector that changed `judge` alone would say something else as a part."""
    assert defenses[name].judge is Detector.judge


def test_averages_once(server, monkeypatch) -> None:
    calls = []
    mean = Updates.mean
    monkeypatch.setattr(Updates, "mean", lambda self, w: calls.append(1) or mean(self, w))
    judge(create_defense("any-of", BOTH), as_updates(cloud(9, 5)), server)
    assert len(calls) == 1


def test_options_of_a_part_by_its_name() -> None:
    texts = ["defense.of=bias-anomaly,update-consensus", "defense.bias-anomaly.k=4"]
    config = build(override({"defense": {"name": "any-of"}}, dict(map(parse_setting, texts))))
    defense = create_defense(config.defense.name, config.defense.options)
    assert list(defense.parts) == ["bias-anomaly", "update-consensus"]
    assert defense.parts["bias-anomaly"].k == 4
    assert resolved(config).defense.options["bias-anomaly"]["alpha"] == 1.5


def test_toml_keeps_the_options_of_parts(tmp_path) -> None:
    text = """
    [defense]
    name = "any-of"
    of = ["nnm+krum", "multi-krum"]
    [defense.multi-krum]
    selected = 4
    [defense."nnm+krum"]
    malicious = 2
    """
    path = tmp_path / "config.toml"
    path.write_text(text)
    config = build(read(path))
    path.write_text(resolved(config).to_toml())
    again = build(read(path))
    assert identity(again) == identity(config)
    defense = create_defense("any-of", again.defense.options)
    assert defense == create_defense("any-of", config.defense.options)
    assert defense.parts["multi-krum"].selected == 4
    assert defense.parts["nnm+krum"].inner.malicious == 2
    assert defense != create_defense("any-of", {"of": ["nnm+krum", "multi-krum"]})


def test_resolved_options_build_the_same() -> None:
    nested = {"of": "all-of,median", "all-of": BOTH, "median": {"k": 2}}
    for name, options in (("any-of", BOTH), ("all-of", BOTH), ("any-of", nested), ("shield", {})):
        defense = create_defense(name, options)
        assert create_defense(name, defense.options()) == defense


def test_asks_its_parts_what_they_have() -> None:
    options = {"of": "fltrust,multi-krum,update-consensus", "multi-krum": {"malicious": 2}}
    defense = create_defense("any-of", options)
    assert defense.declared_knowledge() == (ROOT_DATA, "told malicious = 2")
    assert not defense.tracks_clients
    assert create_defense("any-of", {"of": "krum,foolsgold"}).tracks_clients


def test_works_behind_others(server) -> None:
    rows = as_updates(cloud(12, 30, attackers=2))
    behind = create_defense("nnm+any-of", {**BOTH, "malicious": 2})
    verdict, _ = judge(behind, rows, server)
    alone, _ = judge(create_defense("nnm+multi-krum", {"malicious": 2}), rows, server)
    assert (verdict.convicted >= alone.convicted).all() and alone.convicted.any()
    # Told a fraction, a part behind bucketing expects that many of the clients, not of the buckets.
    by_share = {"of": "krum", "krum": {"malicious": 0.15}, "bucket": 2}
    create_defense("bucketing+any-of", by_share).check(20, rows.layout)
    with pytest.raises(UsageError, match=r"f = 4 .*; set defense.krum.malicious to at most 3"):
        create_defense("bucketing+any-of", {**by_share, "krum": {"malicious": 0.2}}).check(
            20, rows.layout
        )
    grouped = create_defense("flcert+any-of", {**BOTH, "groups": 2})
    assert grouped.models == 2 and grouped.inner.of == ("multi-krum", "update-consensus")


def test_shield_is_any_of_four() -> None:
    shield = create_defense("shield", {"update-consensus": {"k": 7, "reference_point": "root"}})
    assert list(shield.parts) == ["coalition", "cam-consensus", "update-consensus", "probe-loss"]
    assert shield.parts["update-consensus"].k == 7
    assert not shield.parts["update-consensus"].opposed  # shield's, and stays where k is given
    assert create_defense("shield", {}).parts["probe-loss"].k == 12
    assert shield.declared_knowledge() == (PROBE_DATA, ROOT_DATA)
    assert "of" not in shield.options()
    with pytest.raises(UsageError, match="unknown option of defense shield 'of'"):
        create_defense("shield", {"of": "krum"})
    with pytest.raises(UsageError, match="krum is not among coalition, cam-consensus"):
        create_defense("shield", {"krum": {}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "defense.of is required"),
        ({"of": []}, r"defense.of = \[\] is not allowed"),
        ({"of": "krum,krumm"}, "unknown defense 'krumm': did you mean 'krum'"),
        ({"of": "krum,median,krum"}, "defense.of names krum more than once"),
        ({"of": "none,krum"}, "defense.of = none is not allowed: it names no suspects"),
        ({"of": "nnm,krum"}, "defense.of = nnm is not allowed: it names no suspects"),
        ({"of": "flcert+krum"}, "it keeps 3 global models"),
        ({"of": "krum", "median": {"k": 2}}, "median is not among krum"),
        ({"of": "krum", "krum": 2}, "defense.krum is a section: set defense.krum.KEY"),
        ({"of": "krum", "krumm": {"k": 2}}, "unknown option of defense any-of 'krumm'"),
        ({"of": "krum", "krum": {"kk": 2}}, "unknown option of defense krum 'kk'"),
        ({"of": "krum", "krum": {"k": -1}}, r"^defense\.krum\.k = -1 is not allowed"),
        ({"of": "all-of", "all-of": {}}, r"defense\.all-of\.of is required"),
    ],
)
def test_refusals_say_what_is_wrong(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        create_defense("any-of", options)
    assert "\n" not in str(error.value)


def test_checks_name_the_part(layout) -> None:
    defense = create_defense("any-of", {**BOTH, "multi-krum": {"malicious": 4}})
    defense.check(11, layout)
    with pytest.raises(UsageError, match=r"set defense\.multi-krum\.malicious to at most 3"):
        defense.check(10, layout)


def test_robust_means_name_suspects_too(server) -> None:
    rows = cloud(9, 400, attackers=2)
    options = {"of": "median,geometric-median", "median": {"malicious": 2}}
    verdict, _ = judge(create_defense("any-of", options), as_updates(rows), server)
    assert verdict.convicted[-2:].all()


def test_a_part_may_train_on_root_data(server) -> None:
    images, labels = np.zeros((1, 2, 2, 1), np.uint8), np.zeros(1, np.int32)
    rows = np.ones((5, 8), np.float32)
    rows[4] = -1
    root = RootData(images, labels, lambda start, round: np.ones(8 + FROZEN, np.float32))
    defense = create_defense("any-of", {"of": "fltrust"})
    verdict, _ = judge(defense, as_updates(rows), replace(server, root=root))
    assert verdict.convicted.tolist() == [False] * 4 + [True]
    np.testing.assert_allclose(verdict.aggregate[FROZEN:], 1)
    np.testing.assert_allclose(verdict.weights, sample_shares(as_updates(rows), verdict.accepted))
