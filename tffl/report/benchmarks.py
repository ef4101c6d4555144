"""What a report tells of a benchmark: attacks × defenses, and the worst case of each defense."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tffl.report.document import Block, Grid, Section, Table
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

OF_MODEL = ("accuracy", "attack_success")
"""Columns that a ruined model leaves undefined."""


def benchmark_sections(benchmark: RecordedBenchmark) -> list[Section]:
    """Returns a section for each setting, and one of the runs that failed."""
    sections = [Section(benchmark.name)]
    for setting in benchmark.settings:
        rows = where(benchmark.rows, setting=setting)
        sections.append(Section(setting or "All runs", _setting(rows), level=3))
    if failed := [row for row in benchmark.rows if row["error"]]:
        sections.append(Section("Failed runs", [Block(_failed(failed))], level=3))
    return sections


def _setting(rows: Rows) -> list[Block]:
    attacks, defenses = distinct(rows, "attack"), distinct(rows, "defense")
    judges = [defense for defense in defenses if defense != NONE]
    targeted = [a for a in attacks if defined(where(rows, attack=a), "attack_success")]
    hostile = [attack for attack in attacks if attack != NONE]
    note = (
        "Means over seeds; ± is half the width of the 95 % interval (Student's t). The worst case "
        "is over attacks, not over seeds."
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
    return [*blocks, Block(_costs(rows, defenses))]


def _matrix(
    rows: Rows,
    title: str,
    column: str,
    attacks: Sequence[str],
    defenses: Sequence[str],
    worst: Callable[..., Any],
    note: str = "",
) -> Block:
    """Draws a figure of every attack against every defense; the last row is the worst case."""
    cells = [[where(rows, attack=a, defense=d) for d in defenses] for a in attacks]
    found = [[interval(defined(runs, column)) for runs in line] for line in cells]
    values = [[center for center, _ in line] for line in found]
    lost = [[ruined(runs) if column in OF_MODEL else 0 for runs in line] for line in cells]
    text = [
        [
            with_interval(*figure, count, len(runs))
            for figure, count, runs in zip(*line, strict=True)
        ]
        for line in zip(found, lost, cells, strict=True)
    ]
    names = [_attack(attack) for attack in attacks]
    # Attack-free runs are no attack: what is worst there is no worst case.
    hostile = [i for i, attack in enumerate(attacks) if attack != NONE]
    if hostile:
        extremes = [
            _extreme([(values[i][j], names[i], lost[i][j]) for i in hostile], worst)
            for j in range(len(defenses))
        ]
        values.append([value for value, _ in extremes])
        text.append(["ruined" if math.isnan(v) and by != "–" else percent(v) for v, by in extremes])
        names.append(WORST)
    told = [[name, *cells] for name, cells in zip(names, text, strict=True)]
    if hostile:
        told.append(["by", *(name for _, name in extremes)])
    header = ["", *map(_defense, defenses)]
    chart = Grid(
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
    return Block(Table(title, header, told, short=True), chart, note=note)


def _extreme(
    candidates: list[tuple[float, str, int]], worst: Callable[..., Any]
) -> tuple[float, str]:
    """Returns value and name of the worst candidate; first of all the one that ruins most runs."""
    most = max(candidates, key=lambda one: one[2])
    if most[2]:
        return math.nan, most[1]
    known = [candidate[:2] for candidate in candidates if not math.isnan(candidate[0])]
    return worst(known, key=lambda one: one[0]) if known else (math.nan, "–")


def _costs(rows: Rows, defenses: Sequence[str]) -> Table:
    lines = []
    for defense in defenses:
        mine = where(rows, defense=defense)
        free = where(mine, attack=NONE)
        took = mean(defined(mine, "defense_seconds"))
        lines.append(
            [
                _defense(defense),
                percent(mean(defined(free, "accuracy"))),
                "–" if defense == NONE else percent(mean(defined(free, "fpr"))),
                "–" if math.isnan(took) else f"{took:.3f}",
            ]
        )
    header = ["defense", "accuracy, no attack, %", "FPR, no attack, %", "seconds per round"]
    return Table("What each defense costs", header, lines, short=True)


def _failed(rows: Rows) -> Table:
    header = ["setting", "attack", "defense", "seed", "error"]
    lines = [[_cell(row[key]) for key in header] for row in rows]
    return Table("Failed runs", header, lines, words=range(len(header)), short=True)


def _cell(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _attack(name: str) -> str:
    return "no attack" if name == NONE else name


def _defense(name: str) -> str:
    return "undefended" if name == NONE else name
