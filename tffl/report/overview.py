"""The overview section of a report: the key figures, configs and curves of all runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tffl.core.measured import measured
from tffl.drawing.guard import is_steep, usual_size
from tffl.record.tables import ROUND_COLUMNS
from tffl.report import document
from tffl.report.document import Block, Plot, Section, Series, Table
from tffl.report.key_figures import OVERVIEW, config_differences, key_figures
from tffl.report.sources import RecordedRun
from tffl.studies.comparison import percent

CURVES = {
    "accuracy": ("Accuracy", True),
    "attack_success": ("Attack success", True),
    "loss": ("Loss", False),
}
"""Column of `rounds.csv` → its title, and whether it is a rate."""

TRAIN_NOTE = (
    "Attack success is measured on the attackers' own training images, because the dataset has no "
    "others: it measures memorization, not generalization."
)


def overview(runs: Sequence[RecordedRun]) -> list[Section]:
    """Returns the section that shows all runs side by side."""
    blocks = [Block(overview_table(runs), note=_source_note(runs))]
    if len(runs) > 1 and (table := differences_table(runs)).rows:
        blocks.append(Block(table))
    charts = [curve_chart(runs, column) for column in (*CURVES, *added_columns(runs))]
    blocks += [_curve_block(chart) for chart in charts if chart.series]
    return [Section("Overview", blocks)]


def overview_table(runs: Sequence[RecordedRun]) -> Table:
    """Returns the table of runs and their key figures."""
    header = ["run", "attack", "defense", "rounds", *(label for label, _ in OVERVIEW.values())]
    rows = []
    for run in runs:
        values = key_figures(run)
        done, planned = len(run.rounds), run.config.federation.rounds
        names = [run.name, _attack(run), run.config.defense.name]
        count = str(done) if done >= planned else f"{done} of {planned}"
        count += ", stopped" if done < planned and run.finished else ""
        cells = (write(values[key]) for key, (_, write) in OVERVIEW.items())
        rows.append([*names, count, *cells])
    return Table("Runs", header, rows, words=(0, 1, 2), short=True)


def _attack(run: RecordedRun) -> str:
    name = run.config.attack.name
    attack_free = name != "none" and run.config.federation.malicious_count == 0
    return f"{name}, but no malicious clients" if attack_free else name


def differences_table(runs: Sequence[RecordedRun]) -> Table:
    """Returns the table of config keys whose values differ between runs."""
    rows = [[key, *map(format_value, row)] for key, row in config_differences(runs).items()]
    header = ["key", *(run.name for run in runs)]
    return Table("Config differences", header, rows, words=range(len(header)), short=True)


def format_value(value: Any) -> str:
    """Formats a value of a config or an environment; None is a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(format_value, value)) or "–"
    return str(value)


def _source_note(runs: Sequence[RecordedRun]) -> str:
    means = (
        "Recall, precision, FPR (the share of honest updates that were flagged) and AUC are means "
        "over the rounds that define them. Time is the sum over all rounds."
    )
    on_train = any(run.summary.get("attack_success_source") == "train" for run in runs)
    return f"{means} {TRAIN_NOTE}" if on_train else means


def added_columns(runs: Sequence[RecordedRun]) -> list[str]:
    """Returns the columns of `rounds.csv` that metrics and callbacks have added."""
    names = dict.fromkeys(name for run in runs for name in run.rounds.columns)
    return [name for name in names if name not in ROUND_COLUMNS]


def curve_chart(runs: Sequence[RecordedRun], column: str) -> Plot:
    """Returns the chart of a column of `rounds.csv`, without runs that do not define it."""
    title, rates = CURVES.get(column, (column.replace("_", " ").capitalize(), False))
    series = [
        Series(
            run.name,
            measured(run.rounds, column)["round"].tolist(),
            measured(run.rounds, column)[column].astype(float).tolist(),
            color=document.COLORS[index % len(document.COLORS)],
            symbol=document.SYMBOLS[index % len(document.SYMBOLS)],
            dash=document.DASHES[index % len(document.DASHES)],
        )
        for index, run in enumerate(runs)
        if column in run.rounds and run.rounds[column].notna().any()
    ]
    known = np.array([value for one in series for value in one.y])
    steep = not rates and is_steep(known)
    usual = usual_size(known) if steep else 0.0
    name = f"{title} by round"
    return Plot(name, "round", title.lower(), series, rates=rates, log=steep, linear=usual)


def _curve_block(chart: Plot) -> Block:
    rounds = sorted({round for series in chart.series for round in series.x})
    write = percent if chart.rates else format_number
    columns = [dict(zip(series.x, series.y, strict=True)) for series in chart.series]
    header = ["round", *(series.name for series in chart.series)]
    rows = [
        [str(round), *(write(values.get(round, math.nan)) for values in columns)]
        for round in rounds
    ]
    return Block(Table(chart.title, header, rows, words=()), chart)


def format_number(value: Any) -> str:
    """Formats a number with four digits; an undefined number is a dash."""
    value = float_or_nan(value)
    if math.isnan(value):
        return "–"
    return "infinite" if math.isinf(value) else f"{value:.4g}"


def float_or_nan(value: Any) -> float:
    """Returns a float; NaN stands for None."""
    return math.nan if value is None else float(value)
