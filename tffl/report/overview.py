"""What a report tells of several runs together: figures, configs, curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tffl.drawing.guard import is_steep, usual_size
from tffl.report import document
from tffl.report.document import Block, Plot, Section, Series, Table
from tffl.report.key_figures import OVERVIEW, differing, figures_of
from tffl.report.sources import RecordedRun
from tffl.studies.comparison import percent

CURVES = {
    "accuracy": ("Accuracy", True),
    "attack_success": ("Attack success", True),
    "loss": ("Loss", False),
}
"""Column of `rounds.csv` → its name, and whether it is a rate."""

TRAIN_NOTE = (
    "Attack success is measured on training images that the attackers hold, because the dataset "
    "has no others: it tells memory, not generalization."
)


def overview(runs: Sequence[RecordedRun]) -> list[Section]:
    """Returns the section in which runs stand side by side."""
    blocks = [Block(overview_table(runs), note=_source_note(runs))]
    if len(runs) > 1 and (table := differences_table(runs)).rows:
        blocks.append(Block(table))
    charts = [curve_chart(runs, column) for column in CURVES]
    blocks += [_curve(chart) for chart in charts if chart.series]
    return [Section("Overview", blocks)]


def overview_table(runs: Sequence[RecordedRun]) -> Table:
    """Returns the table of runs and their figures."""
    header = ["run", "attack", "defense", "rounds", *(label for label, _ in OVERVIEW.values())]
    rows = []
    for run in runs:
        values = figures_of(run)
        done, wanted = len(run.rounds), run.config.federation.rounds
        told = [run.name, _attack(run), run.config.defense.name]
        count = str(done) if done >= wanted else f"{done} of {wanted}"
        count += ", stopped" if done < wanted and run.finished else ""
        rows.append([*told, count, *(show(values[key]) for key, (_, show) in OVERVIEW.items())])
    return Table("Runs", header, rows, words=(0, 1, 2), short=True)


def _attack(run: RecordedRun) -> str:
    name = run.config.attack.name
    peaceful = name != "none" and run.config.federation.malicious_count == 0
    return f"{name}, nobody malicious" if peaceful else name


def differences_table(runs: Sequence[RecordedRun]) -> Table:
    """Returns the keys of the config in which runs differ."""
    rows = [[key, *map(plain_text, values)] for key, values in differing(runs).items()]
    header = ["key", *(run.name for run in runs)]
    return Table("What differs in the configs", header, rows, words=range(len(header)), short=True)


def plain_text(value: Any) -> str:
    """Writes a value of a config or an environment; None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain_text, value)) or "–"
    return str(value)


def _source_note(runs: Sequence[RecordedRun]) -> str:
    means = (
        "Recall, precision, FPR (honest updates blamed) and AUC are means over rounds, where they "
        "are defined. Time is that of the rounds."
    )
    memory = any(run.summary.get("attack_success_source") == "train" for run in runs)
    return f"{means} {TRAIN_NOTE}" if memory else means


def curve_chart(runs: Sequence[RecordedRun], column: str) -> Plot:
    """Draws a column of `CURVES` by round; runs in which it is undefined are left out."""
    title, rates = CURVES[column]
    series = [
        Series(
            run.name,
            run.rounds["round"].tolist(),
            run.rounds[column].astype(float).tolist(),
            color=document.COLORS[index % len(document.COLORS)],
            symbol=document.SYMBOLS[index % len(document.SYMBOLS)],
            dash=document.DASHES[index % len(document.DASHES)],
        )
        for index, run in enumerate(runs)
        if run.rounds[column].notna().any()
    ]
    known = np.array([value for one in series for value in one.y])
    steep = not rates and is_steep(known)
    usual = usual_size(known) if steep else 0.0
    name = f"{title} by round"
    return Plot(name, "round", title.lower(), series, rates=rates, log=steep, linear=usual)


def _curve(chart: Plot) -> Block:
    rounds = sorted({round for series in chart.series for round in series.x})
    show = percent if chart.rates else number
    columns = [dict(zip(series.x, series.y, strict=True)) for series in chart.series]
    header = ["round", *(series.name for series in chart.series)]
    rows = [
        [str(round), *(show(values.get(round, math.nan)) for values in columns)] for round in rounds
    ]
    return Block(Table(chart.title, header, rows, words=()), chart)


def number(value: Any) -> str:
    """Writes a number in four digits; infinity as such, an undefined one as a dash."""
    value = nan(value)
    if math.isnan(value):
        return "–"
    return "infinite" if math.isinf(value) else f"{value:.4g}"


def nan(value: Any) -> float:
    """Returns a number that None and NaN leave undefined alike."""
    return math.nan if value is None else float(value)
