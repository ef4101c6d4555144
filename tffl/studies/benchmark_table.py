"""The Markdown tables of a benchmark, and the statistics in them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tffl.untrusted.refusal import escape_controls

NONE = "none"
RUIN_NOTE = (
    " Ruined: the outputs of the final model are not finite, so it has no accuracy; such runs are "
    "left out of every mean."
)
Rows = Sequence[Mapping[str, Any]]
"""Rows of `results.csv`; undefined values are None."""


def markdown(rows: Rows) -> str:
    """Returns all tables of a benchmark as Markdown."""
    parts = [
        "Means over seeds; ± is half the width of the 95 % confidence interval (Student's t). "
        "Accuracy and attack success are measured after the last round; detection metrics are "
        "means over rounds." + (RUIN_NOTE if ruined(rows) else "")
    ]
    for setting in distinct(rows, "setting"):
        title = f"## {escape(setting)}\n\n" if setting else ""
        parts.append(title + _setting_tables(where(rows, setting=setting)))
    failed = [row for row in rows if row["error"]]
    if failed:
        parts.append("## Failed runs\n\n" + "\n".join(map(_failure, failed)))
    return "\n\n".join(parts) + "\n"


def _failure(row: Mapping[str, Any]) -> str:
    """Returns a line about a run that failed."""
    setting, error = escape(str(row["setting"])), escape(str(row["error"]))
    attack = "no attack" if row["attack"] == NONE else escape(row["attack"])
    defense = "no defense" if row["defense"] == NONE else escape(row["defense"])
    where = f"{setting}: " if setting else ""
    return f"- {where}{attack} against {defense}, seed {row['seed']}: {error}"


def escape(text: str) -> str:
    r"""Returns a user's text on one line, escaped so that Markdown shows it literally.

    >>> escape("a|b <i>")
    'a\\|b \\<i\\>'
    """
    line = escape_controls(text.replace("\n", " "))
    special = re.sub(r"([\\`*_\[\]<>|#~$&]|(?<=\w):(?=//))", r"\\\1", line)
    # At the start of a line, `- ` and `+ ` would begin a list, and `===` would make a heading.
    return re.sub(r"^(\s*)(?=[-+]\s|=+\s*$)", r"\1\\", special)


def where(rows: Rows, **values: Any) -> Rows:
    """Returns the rows whose columns have the given values."""
    return [row for row in rows if all(row[key] == value for key, value in values.items())]


def distinct(rows: Rows, column: str) -> list[Any]:
    """Returns the distinct values of a column in order of appearance."""
    return list(dict.fromkeys(row[column] for row in rows))


def defined(rows: Rows, column: str) -> list[float]:
    """Returns the defined values of a column."""
    values = (row[column] for row in rows)
    return [float(value) for value in values if value is not None and not math.isnan(value)]


def mean(values: Iterable[float]) -> float:
    """Returns the mean; NaN if there are no values."""
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and the half width of its 95 % confidence interval.

    Fewer than two values have no interval: its half width is NaN.

    >>> center, half = interval([1.0, 2.0, 3.0])
    >>> center, round(half, 3)
    (2.0, 2.484)
    """
    from scipy.stats import t

    n, center = len(values), mean(values)
    if n < 2:
        return center, math.nan
    variance = sum((value - center) ** 2 for value in values) / (n - 1)
    return center, float(t.ppf(0.975, n - 1)) * math.sqrt(variance / n)


def ruined(rows: Rows) -> int:
    """Returns how many runs ended with a ruined model: they succeeded, but have no accuracy."""
    return sum(not row["error"] and not defined([row], "accuracy") for row in rows)


def worst(rows: Rows) -> tuple[str, float] | None:
    """Returns the attack with the lowest mean final accuracy, and that accuracy.

    An attack that ruins a model is worse than any other; its accuracy is NaN.

    Args:
      rows: The rows of one setting and defense.

    Returns:
      The attack's label and the accuracy; None if no attack has an accuracy.
    """
    attacks = [attack for attack in distinct(rows, "attack") if attack != NONE]
    by_attack = {attack: where(rows, attack=attack) for attack in attacks}
    most = max(attacks, key=lambda attack: ruined(by_attack[attack]), default=NONE)
    if most != NONE and ruined(by_attack[most]):
        return most, math.nan
    means = {attack: mean(defined(by_attack[attack], "accuracy")) for attack in attacks}
    means = {attack: value for attack, value in means.items() if not math.isnan(value)}
    if not means:
        return None
    lowest = min(means, key=means.__getitem__)
    return lowest, means[lowest]


def _setting_tables(rows: Rows) -> str:
    attacks, defenses = distinct(rows, "attack"), distinct(rows, "defense")
    targeted = [a for a in attacks if defined(where(rows, attack=a), "attack_success")]
    judges = [defense for defense in defenses if defense != NONE]
    hostile = [attack for attack in attacks if attack != NONE]
    tables = [("Accuracy, %", _matrix(rows, attacks, defenses, _mean_cell("accuracy")))]
    if targeted:
        success = _matrix(rows, targeted, defenses, _mean_cell("attack_success"))
        tables.append(("Attack success, %", success))
    tables += [
        ("Recall / false positive rate, %", _matrix(rows, attacks, judges, _detection_cell)),
        ("ROC-AUC of the score · precision · F1", _matrix(rows, hostile, judges, _ranking_cell)),
        ("Worst case of each defense", _worst_cases(rows, defenses)),
    ]
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in tables)


def _matrix(
    rows: Rows, attacks: Sequence[str], defenses: Sequence[str], cell: Callable[[Rows], str]
) -> str:
    lines = [
        [
            "*no attack*" if attack == NONE else escape(attack),
            *(cell(where(rows, attack=attack, defense=defense)) for defense in defenses),
        ]
        for attack in attacks
    ]
    return table(["", *map(_defense, defenses)], lines)


@dataclass(frozen=True)
class DefenseSummary:
    """The summary of a defense in one setting; undefined values are NaN.

    Attributes:
      defense: The label of the defense.
      accuracy: The mean accuracy without an attack.
      worst_attack: The attack with the lowest mean accuracy; None if there is none.
      worst_accuracy: The mean accuracy under that attack; NaN if it ruined a model.
      recall: The mean recall over all attacks.
      fpr: The mean false positive rate without an attack.
      seconds: The mean seconds of judging a round.
    """

    defense: str
    accuracy: float
    worst_attack: str | None
    worst_accuracy: float
    recall: float
    fpr: float
    seconds: float

    @classmethod
    def of(cls, rows: Rows, defense: str) -> DefenseSummary:
        """Summarizes the results of a defense in the rows of one setting."""
        mine = where(rows, defense=defense)
        free = where(mine, attack=NONE)
        attack, accuracy = worst(mine) or (None, math.nan)
        judged = defense != NONE
        return cls(
            defense,
            mean(defined(free, "accuracy")),
            attack,
            accuracy,
            mean(defined(mine, "recall")) if judged else math.nan,
            mean(defined(free, "fpr")) if judged else math.nan,
            mean(defined(mine, "defense_seconds")),
        )

    @property
    def ruined(self) -> bool:
        """Whether the worst attack ruined a model."""
        return self.worst_attack is not None and math.isnan(self.worst_accuracy)


def summaries(rows: Rows) -> dict[str, list[DefenseSummary]]:
    """Returns setting → a summary of each defense, in the order in which they appear."""
    found = {}
    for setting in distinct(rows, "setting"):
        mine = where(rows, setting=setting)
        found[setting] = [DefenseSummary.of(mine, name) for name in distinct(mine, "defense")]
    return found


def _worst_cases(rows: Rows, defenses: Sequence[str]) -> str:
    lines = []
    for defense in defenses:
        one = DefenseSummary.of(rows, defense)
        lowest = "ruined" if one.ruined else percent(one.worst_accuracy)
        lines.append(
            [
                _defense(defense),
                percent(one.accuracy),
                "–" if one.worst_attack is None else f"{lowest} ({escape(one.worst_attack)})",
                percent(one.recall),
                percent(one.fpr),
                _seconds(one.seconds),
            ]
        )
    header = ["", "no attack", "worst accuracy", "mean recall", "FPR, no attack", "s per round"]
    return table(header, lines)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table with its first column aligned left and the others right.

    >>> print(table(["b", "a"], [["x", "1"]]))
    | b | a |
    |---|--:|
    | x | 1 |
    """
    rule = "|---|" + "--:|" * (len(header) - 1)
    lines = ["| " + " | ".join(row) + " |" for row in [header, *rows]]
    return "\n".join([lines[0], rule, *lines[1:]])


def _defense(name: str) -> str:
    return "undefended" if name == NONE else escape(name)


def _mean_cell(column: str) -> Callable[[Rows], str]:
    def cell(rows: Rows) -> str:
        return with_interval(*interval(defined(rows, column)), ruined(rows), len(rows))

    return cell


def with_interval(center: float, half: float, ruins: int, runs: int) -> str:
    """Formats a mean rate in percent with its interval and the number of ruined models.

    >>> with_interval(0.5, 0.012, 0, 3), with_interval(0.5, 0.2, 1, 3)
    ('50.0 ± 1.2', '50.0 ± 20.0, 1 of 3 ruined')
    >>> with_interval(math.nan, math.nan, 2, 2)
    'ruined'
    """
    if ruins and math.isnan(center):
        return "ruined"
    text = percent(center) + ("" if math.isnan(half) else f" ± {half * 100:.1f}")
    return f"{text}, {ruins} of {runs} ruined" if ruins else text


def _detection_cell(rows: Rows) -> str:
    return " / ".join(percent(mean(defined(rows, name)), 0) for name in ("recall", "fpr"))


def _ranking_cell(rows: Rows) -> str:
    means = (mean(defined(rows, name)) for name in ("auc", "precision", "f1"))
    return " · ".join("–" if math.isnan(value) else f"{value:.2f}" for value in means)


def _seconds(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def percent(value: float, digits: int = 1) -> str:
    """Formats a rate in percent without the sign; an undefined rate is a dash.

    >>> percent(0.1234), percent(0.5, 0), percent(float("nan"))
    ('12.3', '50', '–')
    """
    return "–" if math.isnan(value) else f"{value * 100:.{digits}f}"
