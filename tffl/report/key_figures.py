"""The figures by which runs are compared, and the keys in which their configs differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tffl.record.identity import identity
from tffl.report.sources import RecordedRun
from tffl.studies.comparison import percent


def seconds(value: float) -> str:
    """Writes a duration; an undefined one as a dash.

    >>> seconds(0.25), seconds(75.0), seconds(float("nan"))
    ('0.25 s', '1 min 15 s', '–')
    """
    if math.isnan(value):
        return "–"
    if value < 60:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _ratio(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


OVERVIEW: dict[str, tuple[str, Callable[[float], str]]] = {
    "accuracy": ("accuracy", percent),
    "best_accuracy": ("best accuracy", percent),
    "attack_success": ("attack success", percent),
    "recall": ("recall", percent),
    "precision": ("precision", percent),
    "fpr": ("FPR", percent),
    "auc": ("AUC", _ratio),
    "seconds": ("time", seconds),
}
"""Figure → its name, and how it is written."""


def figures_of(run: RecordedRun) -> dict[str, float]:
    """Returns the figures of `OVERVIEW`, NaN where undefined.

    Accuracy and attack success are those after the last round, detection figures means over rounds,
    the time is that of all rounds.
    """
    rounds = run.rounds.astype(float)
    if not len(rounds):
        return dict.fromkeys(OVERVIEW, math.nan)
    last, phases = rounds.iloc[-1], rounds.filter(like="_seconds")
    return {
        "accuracy": float(last["accuracy"]),
        "best_accuracy": float(rounds["accuracy"].max()),
        "attack_success": float(last["attack_success"]),
        **{key: float(rounds[key].mean()) for key in ("recall", "precision", "fpr", "auc")},
        "seconds": float(phases.sum().sum()),
    }


def differing(runs: Sequence[RecordedRun]) -> dict[str, list[Any]]:
    """Returns dotted config key → its value in each run, for keys that are not the same in all.

    Where attacks or defenses have different names, their options are not compared.
    """
    from tffl.record.identity import flat

    values = [flat(identity(run.config)) for run in runs]
    keys = dict.fromkeys(key for one in values for key in one)
    told = {key: [one.get(key) for one in values] for key in keys}
    different = {key: each for key, each in told.items() if any(one != each[0] for one in each)}
    parts = [part for part in ("attack", "defense") if f"{part}.name" in different]
    return {
        key: each
        for key, each in different.items()
        if key.endswith(".name") or key.partition(".")[0] not in parts
    }
