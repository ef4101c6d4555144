"""Whether what a paper claims holds in what was measured: computed, never typed.

A claim holds if all its checks do, each comparing means over seeds. It is undecided at a scale that
the claim leaves out, in a smoke test, and where a run is missing, has failed, or does not define
the metric. The numbers of every check stand beside the verdict, and whether the 95 % interval over
seeds includes the border.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from typing import Any

from tffl.studies.benchmark_table import NONE, defined, interval, mean, ruined, where
from tffl.studies.pages.verdicts import Judged, compare, judged
from tffl.studies.reproduce.measure import Record, key_of
from tffl.studies.reproduce.plan import Against, Check, Claim, Experiment, Item, stand_in

SETTLED = 0.95
"""A curve has settled when it stays above this share of its best accuracy."""
LATE = 3
"""The late rounds are the last third."""

OF_MODEL = {
    *("accuracy", "best_accuracy", "accuracy_gap", "settled_round", "late_accuracy"),
    *("attack_success", "late_attack_success"),
}
"""Figures that a ruined model does not have."""

DERIVED = {
    "accuracy_gap": "largest difference of accuracy in any round",
    "settled_round": f"round from which accuracy stays above {100 * SETTLED:g} % of its best",
    "late_accuracy": "accuracy, mean over the last third of the rounds",
    "late_attack_success": "attack success, mean over the last third of the rounds",
    "score_ratio": "mean score of malicious clients over that of honest ones",
    "round_seconds": "seconds of a round",
    "defense_share": "seconds of the defense over the other seconds of a round",
    "detection_accuracy": "accuracy of the verdicts",
    "balanced_accuracy": "balanced accuracy of the verdicts (the papers' AUC)",
    "fpr": "false positive rate",
    "auc": "ROC-AUC of the score",
}
"""Metrics whose names do not explain themselves."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison: which runs, and which of their figures."""

    metric: str
    setting: str
    attack: str
    defense: str

    def others(self, against: Against, item: Item, scale: str) -> list[Side]:
        """Returns the sides that differ from this one."""
        settings = [stand_in(item, name, scale) for name in against.setting] or [self.setting]
        return [
            Side(*chosen)
            for chosen in product(
                against.metric or (self.metric,),
                settings,
                against.attack or (self.attack,),
                against.defense or (self.defense,),
            )
        ]


def judge(claim: Claim, item: Item, experiment: Experiment, record: Record, scale: str) -> Judged:
    """Compares what a claim compares."""
    if scale not in claim.scales:
        allowed = " or ".join(claim.scales)
        return judged(claim.text, f"only at scale {allowed}", None)
    found = [
        compared
        for check in claim.checks
        for side in _sides(check, item, experiment, scale)
        for compared in _compare(check, side, item, record, scale)
    ]
    lacking = list(dict.fromkeys(one.left for one in found if one.holds is None))
    if lacking:
        more = f"; and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        return judged(claim.text, lacking[0] + more, None)
    return judged(claim.text, _numbers(found), *(one.holds for one in found))


@dataclass(frozen=True)
class _Compared:
    """One comparison: whether it holds, None if a number is missing, and its two sides in words."""

    holds: bool | None
    left: str
    right: str = ""


def _numbers(found: Sequence[_Compared]) -> str:
    """Lists comparisons, the ones of one left side together; marks those that fail among others."""
    mixed = len({one.holds for one in found}) > 1
    parts = []
    for left, same in groupby(found, key=lambda one: one.left):
        rights = [f"{one.right} (fails)" if mixed and not one.holds else one.right for one in same]
        parts.append(f"{left}, wanted {', '.join(rights)}")
    return "; ".join(parts)


def figures(record: Record, side: Side, gap_to: Side | None = None) -> dict[int, float]:
    """Returns seed → a figure of the runs that went well and define it.

    None of them if a run ruined its model: the others' accuracy or success would flatter it.
    """
    found: dict[int, float] = {}
    rows = _rows(record, side)
    if side.metric in OF_MODEL and ruined(rows):
        return found
    for row in rows:
        value = _figure(record, row, side.metric, gap_to)
        if value is not None and not math.isnan(value):
            found[int(row["seed"])] = value
    return found


def summary(record: Record, side: Side) -> tuple[float, float]:
    """Returns a figure's mean over seeds, and half the width of its 95 % interval."""
    return interval(list(figures(record, side).values()))


def _rows(record: Record, side: Side) -> Sequence[Any]:
    chosen = where(
        record.runs, setting=side.setting, attack=side.attack, defense=side.defense, error=""
    )
    return list(chosen)


def _figure(record: Record, row: Any, metric: str, gap_to: Side | None) -> float | None:
    if metric == "accuracy_gap":
        return _gap(record, row, gap_to)
    if metric == "settled_round":
        return _settled(record.curve(row, "accuracy"))
    if metric.startswith("late_"):
        values = record.curve(row, metric.removeprefix("late_"))
        late = values[len(values) - math.ceil(len(values) / LATE) :]
        return mean(_defined(late)) if len(_defined(late)) == len(late) else None
    if metric == "defense_share":
        return _share(row["defense_seconds"], row["round_seconds"])
    if metric == "score_ratio":
        return _score_ratio(record.clients.get(key_of(row), []))
    return row.get(metric)


def _share(part: float | None, whole: float | None) -> float | None:
    """Returns a part of a round's seconds over the others; None if they are not recorded."""
    if part is None or whole is None or not whole > part:
        return None
    return part / (whole - part)


def _gap(record: Record, row: Any, gap_to: Side | None) -> float | None:
    """Returns the largest difference from another run of the same seed, in any round."""
    assert gap_to is not None
    others = [other for other in _rows(record, gap_to) if other["seed"] == row["seed"]]
    if not others:
        return None
    curves = zip(record.curve(row, "accuracy"), record.curve(others[0], "accuracy"), strict=False)
    gaps = [abs(one - two) for one, two in curves if one is not None and two is not None]
    return max(gaps, default=None)


def _settled(curve: Sequence[float | None]) -> float | None:
    values = _defined(curve)
    if not values or len(values) < len(curve):
        return None
    enough = SETTLED * max(values)
    below = [number for number, value in enumerate(values, 1) if value < enough]
    return float(max(below, default=0) + 1)


def _score_ratio(clients: Sequence[Any]) -> float | None:
    bad, good = (mean(defined(where(clients, malicious=side), "score")) for side in (1, 0))
    return bad / good if good > 0 and not math.isnan(bad) else None


def _sides(check: Check, item: Item, experiment: Experiment, scale: str) -> Iterator[Side]:
    settings = check.setting or item.settings or tuple(experiment.spec.settings)
    attacks = check.attack or item.attacks or experiment.attacks
    for setting, attack, defense in product(settings, attacks, check.defense):
        yield Side(check.metric, stand_in(item, setting, scale), attack, defense)


def _compare(
    check: Check, side: Side, item: Item, record: Record, scale: str
) -> Iterator[_Compared]:
    """Yields the comparisons of one left side."""

    def measured(one: Side) -> dict[int, float]:
        if check.gap_to is None:
            return figures(record, one)
        return figures(record, one, one.others(check.gap_to, item, scale)[0])

    left = measured(side)
    if not left:
        yield _Compared(None, f"no {_named(side)} is recorded")
        return
    words = f"{_named(side)} {_spread(left.values())}"
    if check.value is not None:
        yield _Compared(*_against_number(check, left, words))
    for rival in side.others(check.against, item, scale) if check.against else ():
        right = measured(rival)
        if right:
            yield _Compared(*_against_runs(check, left, right, words, _named(rival, side)))
        else:
            yield _Compared(None, f"no {_named(rival)} is recorded")


def _against_number(
    check: Check, left: dict[int, float], words: str
) -> tuple[bool | None, str, str]:
    assert check.value is not None
    center, half = interval(list(left.values()))
    border = f"{_sign(check.operator)} {check.value:g}{_allowance(check)}"
    distance = abs(center - check.value)
    return _holds(check, center, check.value), words, border + _unclear(distance, half)


def _against_runs(
    check: Check, left: dict[int, float], right: dict[int, float], words: str, rival: str
) -> tuple[bool | None, str, str]:
    """Compares with other runs; of the seeds that both have, if there are any, in pairs."""
    shared = sorted(set(left) & set(right))
    if shared:
        left, right = ({seed: side[seed] for seed in shared} for side in (left, right))
    one, two = mean(left.values()), check.factor * mean(right.values())
    half = math.nan
    if len(shared) > 1:
        _, half = interval([left[seed] - check.factor * right[seed] for seed in shared])
    factor = f"{check.factor:g} × " if check.factor != 1 else ""
    by = f" {'+' if '>' in check.operator else '-'} {check.by:g}" if check.by else ""
    border = f"{_sign(check.operator)} {factor}{rival} {_spread(right.values())}{by}"
    unclear = _unclear(abs(one - two), half)
    return _holds(check, one, two), words, f"{border}{_allowance(check)}{unclear}"


def _holds(check: Check, left: float, right: float) -> bool | None:
    by = check.by if ">" in check.operator else -check.by if "<" in check.operator else 0.0
    return compare(left, check.operator, right + by, check.tolerance)


def _unclear(distance: float, half: float) -> str:
    return " (within the 95 % interval)" if half > 0 and distance <= half else ""


def _sign(operator: str) -> str:
    return {">=": "≥", "<=": "≤", "~": "about"}.get(operator, operator)


def _allowance(check: Check) -> str:
    return f" ± {check.tolerance:g}" if check.tolerance else ""


def _named(side: Side, known: Side | None = None) -> str:
    """Names a side, but for what is as on a known one."""
    metric = side.metric.replace("_", " ")
    if known is None:
        return f"{metric} of {', '.join(filter(None, _parts(side)))}"
    pairs = zip(_parts(side), _parts(known), strict=True)
    differing = [mine for mine, theirs in pairs if mine and mine != theirs]
    if side.metric != known.metric:
        differing.insert(0, metric)
    return ", ".join(differing)


def _parts(side: Side) -> tuple[str, str, str]:
    if side.attack == side.defense == NONE:
        return "no attack", "", side.setting
    return side.defense, side.attack, side.setting


def _spread(values: Iterable[float]) -> str:
    return number(*interval(list(values)))


def number(center: float, half: float = math.nan) -> str:
    """Writes a mean and its interval.

    >>> number(0.91234, 0.0456), number(35.71), number(float("nan"))
    ('0.912 ± 0.046', '35.7', '–')
    """
    if math.isnan(center):
        return "–"
    size = max(abs(center), 0 if math.isnan(half) else half)
    text = f"{center:.3g}" if size >= 10 else f"{center:.3f}"
    if math.isnan(half):
        return text
    return f"{text} ± {half:.3g}" if size >= 10 else f"{text} ± {half:.3f}"


def _defined(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and not math.isnan(value)]
