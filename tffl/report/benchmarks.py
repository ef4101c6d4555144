"""The sections of a report on a benchmark: attacks × defenses, and each defense's worst case."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tffl.report.document import Block, MatrixChart, Section, Table
from tffl.report.sources import RecordedBenchmark
from tffl.studies.benchmark_table import (
    NONE,
    RUIN_NOTE,
    Rows,
    defined,
    distinct,
    interval,
    mean,
    percent,
    ruined,
    where,
    with_interval,
)

WORST = "worst case"

MODEL_METRICS = ("accuracy", "attack_success")
"""Columns that are undefined for a ruined model."""


def benchmark_sections(benchmark: RecordedBenchmark) -> list[Section]:
    """Returns a section for each setting, and one of the failed runs if there are any."""
    sections = [Section(benchmark.name)]
    for setting in benchmark.settings:
        rows = where(benchmark.rows, setting=setting)
        sections.append(Section(setting or "All runs", _setting_blocks(rows), level=3))
    if failed := [row for row in benchmark.rows if row["error"]]:
        sections.append(Section("Failed runs", [Block(_failures_table(failed))], level=3))
    return sections


def _setting_blocks(rows: Rows) -> list[Block]:
    attacks, defenses = distinct(rows, "attack"), distinct(rows, "defense")
    judges = [defense for defense in defenses if defense != NONE]
    targeted = [a for a in attacks if defined(where(rows, attack=a), "attack_success")]
    hostile = [attack for attack in attacks if attack != NONE]
    note = (
        "Means over seeds; ± is half the width of the 95 % confidence interval (Student's t). The "
        "worst case is the worst mean of any attack, not the worst seed."
    ) + (RUIN_NOTE if ruined(rows) else "")
    matrices = (
        ("Accuracy, %", "accuracy", attacks, defenses, min),
        ("Attack success, %", "attack_success", targeted, defenses, max),
        ("Recall, %", "recall", hostile, judges, min),
        ("False positive rate, %", "fpr", attacks, judges, max),
    )
    blocks = [
        _matrix(rows, *matrix, note=note if matrix[1] == "accuracy" else "")
        for matrix in matrices
        if defined([row for row in rows if row["defense"] in matrix[3]], matrix[1])
    ]
    return [*blocks, Block(_cost_table(rows, defenses))]


def _matrix(
    rows: Rows,
    title: str,
    column: str,
    attacks: Sequence[str],
    defenses: Sequence[str],
    worst: Callable[..., Any],
    note: str = "",
) -> Block:
    """Charts a column for every attack and defense; the last row is the worst case."""
    cells = [[where(rows, attack=a, defense=d) for d in defenses] for a in attacks]
    intervals = [[interval(defined(runs, column)) for runs in line] for line in cells]
    values = [[center for center, _ in line] for line in intervals]
    ruins = [[ruined(runs) if column in MODEL_METRICS else 0 for runs in line] for line in cells]
    text = [
        [
            with_interval(*bounds, count, len(runs))
            for bounds, count, runs in zip(*line, strict=True)
        ]
        for line in zip(intervals, ruins, cells, strict=True)
    ]
    names = [_attack(attack) for attack in attacks]
    # Attack-free runs are left out of the worst case.
    hostile = [i for i, attack in enumerate(attacks) if attack != NONE]
    if hostile:
        extremes = [
            _worst_case([(values[i][j], names[i], ruins[i][j]) for i in hostile], worst)
            for j in range(len(defenses))
        ]
        values.append([value for value, _ in extremes])
        text.append(["ruined" if math.isnan(v) and by != "–" else percent(v) for v, by in extremes])
        names.append(WORST)
    lines = [[name, *cells] for name, cells in zip(names, text, strict=True)]
    if hostile:
        lines.append(["worst attack", *(name for _, name in extremes)])
    header = ["", *map(_defense, defenses)]
    chart = MatrixChart(
        title,
        "defense",
        "attack",
        [_defense(defense) for defense in defenses],
        names,
        values,
        [[cell.replace(" ± ", "\n± ").replace(", ", "\n") for cell in line] for line in text],
        "rate",
        high=1.0,
    )
    return Block(Table(title, header, lines, short=True), chart, note=note)


def _worst_case(
    attacks: list[tuple[float, str, int]], worst: Callable[..., Any]
) -> tuple[float, str]:
    """Returns the value and name of the worst attack; one that ruins models is the worst of all.

    Args:
      attacks: The mean value, name and number of ruined models of each attack.
      worst: `min` or `max`.
    """
    _, name, ruins = max(attacks, key=lambda attack: attack[2])
    if ruins:
        return math.nan, name
    known = [attack[:2] for attack in attacks if not math.isnan(attack[0])]
    return worst(known, key=lambda attack: attack[0]) if known else (math.nan, "–")


def _cost_table(rows: Rows, defenses: Sequence[str]) -> Table:
    lines = []
    for defense in defenses:
        mine = where(rows, defense=defense)
        free = where(mine, attack=NONE)
        seconds = mean(defined(mine, "defense_seconds"))
        lines.append(
            [
                _defense(defense),
                percent(mean(defined(free, "accuracy"))),
                "–" if defense == NONE else percent(mean(defined(free, "fpr"))),
                "–" if math.isnan(seconds) else f"{seconds:.3f}",
            ]
        )
    header = ["defense", "accuracy, no attack, %", "FPR, no attack, %", "seconds per round"]
    return Table("Cost of each defense", header, lines, short=True)


def _failures_table(rows: Rows) -> Table:
    header = ["setting", "attack", "defense", "seed", "error"]
    lines = [
        [
            str(row["setting"]),
            _attack(row["attack"]),
            _defense(row["defense"]),
            f"{row['seed']:g}",
            str(row["error"]),
        ]
        for row in rows
    ]
    return Table("Failed runs", header, lines, words=range(len(header)), short=True)


def _attack(name: str) -> str:
    return "no attack" if name == NONE else name


def _defense(name: str) -> str:
    return "undefended" if name == NONE else name
