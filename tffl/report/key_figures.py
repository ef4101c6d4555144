"""The key figures of runs, and the config keys whose values differ between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tffl.record.identity import deciding_keys
from tffl.report.sources import RecordedRun
from tffl.studies.comparison import percent


def format_duration(value: float) -> str:
    """Formats seconds; an undefined duration is a dash.

    >>> format_duration(0.25), format_duration(75.0), format_duration(float("nan"))
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
    "seconds": ("time", format_duration),
}
"""Key figure → its name in tables, and its format."""


def key_figures(run: RecordedRun) -> dict[str, float]:
    """Returns the key figures of a run, NaN where undefined.

    Accuracy and attack success are those after the last round, detection metrics are means over
    rounds, and the time is the sum over all rounds.
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


def config_differences(runs: Sequence[RecordedRun]) -> dict[str, list[Any]]:
    """Returns dotted config key → its value in each run, for keys whose values differ.

    The options of attacks and defenses are compared only if the names are the same.
    """
    from tffl.record.identity import flat

    configs = [flat(deciding_keys(run.config)) for run in runs]
    keys = dict.fromkeys(key for config in configs for key in config)
    values = {key: [config.get(key) for config in configs] for key in keys}
    different = {key: row for key, row in values.items() if any(value != row[0] for value in row)}
    renamed = [part for part in ("attack", "defense") if f"{part}.name" in different]
    return {
        key: row
        for key, row in different.items()
        if key.endswith(".name") or key.partition(".")[0] not in renamed
    }
