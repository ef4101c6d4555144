"""Verdicts on claims: by hand, from rows that are made up."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tffl.studies.benchmark import COLUMNS
from tffl.studies.reproduce.claims import Side, figures, judge, summary
from tffl.studies.reproduce.measure import Record
from tffl.studies.reproduce.plan import Claim, Experiment, Item, Reproduction

SAID = Reproduction.model_validate(
    {
        "title": "made up",
        "attacks": ["label-flip"],
        "defenses": ["median", "krum"],
        "settings": {"a": {}, "b": {}},
        "scales": {"smoke": {}, "small": {}, "paper": {}},
        "items": [{"name": "table-1", "title": "t", "shows": "detection", "stand_ins": {"c": "b"}}],
    }
)
EXPERIMENT = Experiment(Path("configs/x/y.toml"), SAID)
ITEM: Item = SAID.items[0]


def row(setting: str, defense: str, seed: int = 0, **values: Any) -> dict[str, Any]:
    key = {"setting": setting, "attack": "label-flip", "defense": defense, "seed": seed}
    return {**dict.fromkeys(COLUMNS), **key, "accuracy": 0.5, "error": "", **values}


def record(*rows: dict[str, Any], curves: dict[tuple, list[Any]] | None = None) -> Record:
    rounds = {
        (setting, "label-flip", defense, seed): [{"accuracy": value} for value in values]
        for (setting, defense, seed), values in (curves or {}).items()
    }
    return Record(list(rows), rounds, {}, {})


def verdict(known: Record, scale: str = "small", scales: Any = None, **check: Any) -> Any:
    more = {} if scales is None else {"scales": scales}
    values = {"metric": "recall", "defense": "median", "setting": "a", **check}
    claim = Claim.model_validate({"text": "so", "checks": [values], **more})
    return judge(claim, ITEM, EXPERIMENT, known, scale)


TWO = record(row("a", "median", 0, recall=0.9), row("a", "median", 1, recall=1.0))


@pytest.mark.parametrize(
    ("check", "told"),
    [
        ({"operator": ">=", "value": 0.95}, "holds"),
        ({"operator": ">", "value": 0.95}, "fails"),
        ({"operator": ">", "value": 0.95, "tolerance": 0.01}, "holds"),
        ({"operator": "<=", "value": 0.95}, "holds"),
        ({"operator": "<", "value": 0.9, "tolerance": 0.1}, "holds"),
        ({"operator": ">=", "value": 1.0}, "fails"),
        ({"operator": "~", "value": 1.0, "tolerance": 0.1}, "holds"),
        ({"operator": "~", "value": 1.0, "tolerance": 0.01}, "fails"),
    ],
)
def test_against_a_number(check: dict[str, Any], told: str) -> None:
    judged = verdict(TWO, **check)
    assert judged.verdict == told
    # Student's t of two seeds: 12.7 times the standard error of 0.05.
    assert "recall of median, label-flip, a 0.950 ± 0.635, wanted" in judged.numbers


def test_what_seeds_cannot_tell_is_said() -> None:
    assert "within the 95 % interval" in verdict(TWO, operator=">=", value=1.0).numbers
    same = record(row("a", "median", 0, recall=0.9), row("a", "median", 1, recall=0.9))
    assert "interval" not in verdict(same, operator=">=", value=1.0).numbers
    assert "interval" not in verdict(record(TWO.runs[0]), operator=">=", value=1.0).numbers


def test_against_other_runs_in_pairs_of_seeds() -> None:
    rows = [row("a", "median", s, recall=0.5 + 0.1 * s) for s in (0, 1)]
    rows += [row("a", "krum", s, recall=0.4 + 0.1 * s) for s in (0, 1, 2)]
    against = {"against": {"defense": "krum"}}
    judged = verdict(record(*rows), operator=">=", by=0.09, **against)
    assert judged.verdict == "holds"
    assert "wanted ≥ krum 0.450" in judged.numbers and "+ 0.09" in judged.numbers  # no third seed
    assert "interval" not in judged.numbers  # the difference is 0.1 in both
    assert verdict(record(*rows), operator=">=", by=0.11, **against).verdict == "fails"
    assert verdict(record(*rows), operator="<=", factor=1.5, **against).verdict == "holds"
    assert verdict(record(*rows), operator="<=", factor=1.1, **against).verdict == "fails"


def test_each_of_several_must_hold() -> None:
    rows = [row("a", "median", recall=0.9), row("a", "krum", recall=0.1)]
    both = {"defense": ["median", "krum"], "operator": ">="}
    assert verdict(record(*rows), value=0.1, **both).verdict == "holds"
    assert verdict(record(*rows), value=0.5, **both).verdict == "fails"
    rivals = {"operator": ">=", "against": {"defense": ["krum", "median"]}}
    assert verdict(record(*rows), **rivals).verdict == "holds"
    assert verdict(record(*rows), defense="krum", **{k: rivals[k] for k in rivals}).verdict == (
        "fails"
    )


def test_numbers_of_one_left_side_stand_together_and_what_fails_is_marked() -> None:
    recalls = {"median": 0.5, "krum": 0.1, "auror": 0.9}
    known = record(*(row("a", name, recall=value) for name, value in recalls.items()))
    against = {"defense": ["krum", "auror"]}
    assert verdict(known, operator=">", factor=0.5, against=against).numbers == (
        "recall of median, label-flip, a 0.500, wanted > 0.5 × krum 0.100, > 0.5 × auror 0.900"
    )
    assert verdict(known, operator=">", against=against).numbers == (
        "recall of median, label-flip, a 0.500, wanted > krum 0.100, > auror 0.900 (fails)"
    )
    several = {"defense": ["median", "krum"], "operator": ">=", "value": 0.3}
    assert verdict(known, **several).numbers == (
        "recall of median, label-flip, a 0.500, wanted ≥ 0.3; "
        "recall of krum, label-flip, a 0.100, wanted ≥ 0.3 (fails)"
    )
    low = {"metric": "recall", "defense": "krum", "operator": ">"}
    assert "(fails)" not in verdict(known, **low, against={"defense": ["median"]}).numbers


def test_not_testable() -> None:
    check = {"operator": ">=", "value": 0.5}
    assert verdict(TWO, "smoke", **check).verdict == "undecided"
    assert verdict(TWO, "small", scales=["paper"], **check).numbers == "only at scale paper"
    for known in (
        record(),
        record(row("a", "median", recall=None)),
        record(row("a", "median", recall=0.9, error="broken")),
    ):
        judged = verdict(known, **check)
        assert judged.verdict == "undecided"
        assert judged.numbers == "no recall of median, label-flip, a is recorded"
    other = verdict(TWO, operator=">=", against={"defense": "krum"})
    assert (other.verdict, other.numbers) == (
        "undecided",
        "no recall of krum, label-flip, a is recorded",
    )


def test_stand_ins_below_the_papers_scale() -> None:
    known = record(row("b", "median", recall=0.9), row("c", "median", recall=0.1))
    check = {"operator": ">=", "value": 0.5, "setting": "c"}
    assert verdict(known, "small", **check).verdict == "holds"
    assert verdict(known, "paper", **check).verdict == "fails"


def test_figures_of_curves() -> None:
    curves = {
        ("a", "median", 0): [0.1, 0.5, 0.8, 0.7, 0.79, 0.8],
        ("b", "median", 0): [0.1, 0.4, 0.5, 0.7, 0.7, 0.9],
    }
    known = record(row("a", "median"), row("b", "median"), curves=curves)
    side = Side("accuracy_gap", "a", "label-flip", "median")
    other = Side("accuracy_gap", "b", "label-flip", "median")
    assert figures(known, side, other) == {0: pytest.approx(0.3)}
    # Below 0.76 in round 4 for the last time.
    assert summary(known, Side("settled_round", "a", "label-flip", "median"))[0] == 5
    late, _ = summary(known, Side("late_accuracy", "b", "label-flip", "median"))
    assert late == pytest.approx(0.8)
    assert math.isnan(summary(known, Side("late_attack_success", "a", "x", "median"))[0])
    check = {"metric": "accuracy_gap", "gap_to": {"setting": "b"}, "operator": "<=", "value": 0.3}
    judged = verdict(known, tolerance=0.001, **check)
    assert judged.verdict == "holds"


def test_against_no_attack() -> None:
    honest = {**row("a", "none", recall=0.2), "attack": "none"}
    known = record(row("a", "median", recall=0.5), honest)
    against = {"attack": "none", "defense": "none"}
    assert verdict(known, operator=">=", factor=2.0, against=against).numbers == (
        "recall of median, label-flip, a 0.500, wanted ≥ 2 × no attack 0.200"
    )


def test_share_of_a_round_that_the_defense_takes() -> None:
    known = record(row("a", "median", round_seconds=5.0, defense_seconds=1.0))
    assert summary(known, Side("defense_share", "a", "label-flip", "median"))[0] == 0.25
    unknown = record(row("a", "median", round_seconds=None, defense_seconds=1.0))
    assert math.isnan(summary(unknown, Side("defense_share", "a", "label-flip", "median"))[0])


def test_score_ratio() -> None:
    key = ("a", "label-flip", "median", 0)
    lines = [
        {"malicious": 1, "score": 3.0},
        {"malicious": 0, "score": 1.0},
        {"malicious": 0, "score": 2.0},
    ]
    known = Record([row("a", "median")], {}, {key: lines}, {})
    assert summary(known, Side("score_ratio", "a", "label-flip", "median"))[0] == 2.0


@pytest.mark.parametrize(
    "check",
    [
        {"operator": ">="},
        {"operator": ">=", "value": 1.0, "against": {"defense": "krum"}},
        {"operator": ">=", "value": 1.0, "gap_to": {"setting": "b"}},
        {"operator": ">=", "value": 1.0, "metric": "accuracy_gap"},
        {"operator": "=>", "value": 1.0},
    ],
)
def test_checks_that_make_no_sense(check: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        verdict(TWO, **check)


def test_a_ruined_run_leaves_no_claim_on_accuracy_testable() -> None:
    known = record(
        row("a", "median", 0, accuracy=0.9, recall=1.0),
        row("a", "median", 1, accuracy=None, recall=1.0),
    )
    assert verdict(known, metric="accuracy", operator=">=", value=0.8).verdict == "undecided"
    assert verdict(known, metric="recall", operator=">=", value=0.8).verdict == "holds"
