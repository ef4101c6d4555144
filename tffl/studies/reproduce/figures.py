"""Figures of what was measured, as the papers draw it. Colors and strokes differ together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tffl.drawing import guard as drawing
from tffl.drawing.figures import BLUE, RED, canvas, finish, legend, save
from tffl.studies.benchmark_table import NONE, Rows, defined, mean, where
from tffl.studies.reproduce.claims import Side, figures
from tffl.studies.reproduce.measure import Record, key_of
from tffl.studies.reproduce.plan import Experiment, Item

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRAY = "#BBBBBB"
COLORS = (BLUE, RED, "#228833", "#CCBB44", "#AA3377", "#66CCEE", "#000000", "#EE8866", "#777777")
STROKES = ("-", "--", "-.", ":")


def draw(
    experiment: Experiment, items: Sequence[Item], record: Record, scale: str, folder: Path
) -> None:
    """Draws the items that are drawn, as far as they are recorded.

    Raises:
      TfflError: A picture cannot be written.
    """
    for item in items:
        path = folder / name(experiment, item)
        figure = drawing.attempt(path, _figure, experiment, item, record, scale)
        if figure is not None:
            save(figure, path)


def name(experiment: Experiment, item: Item) -> str:
    """Returns the file name of an item's picture."""
    number = [same for same in experiment.spec.items if same.name == item.name].index(item)
    part = f"_{number + 1}" if number else ""
    return f"{experiment.name}_{item.name}{part}.png"


def maps_name(experiment: Experiment) -> str:
    """Returns the pattern of the pictures of heat maps."""
    return f"{experiment.name}_heat_maps*.png"


def _figure(experiment: Experiment, item: Item, record: Record, scale: str) -> Figure | None:
    if item.shows in ("accuracy", "poisoning"):
        return _curves(experiment, item, record, scale)
    if item.shows == "runtime":
        return _bars(experiment, item, record, scale)
    if item.shows == "scores":
        return _scores(experiment, item, record, scale)
    return None


def _curves(experiment: Experiment, item: Item, record: Record, scale: str) -> Figure | None:
    """Draws accuracy by round, a panel per setting; and attack success below, if it is shown."""
    shown = [row for row in shown_rows(experiment, item, record, scale) if not row["error"]]
    settings = [s for s in experiment.settings_of(item, scale) if where(shown, setting=s)]
    if not settings:
        return None
    pairs = list(dict.fromkeys((row["attack"], row["defense"]) for row in shown))
    columns = ["accuracy", "attack_success"] if item.shows == "poisoning" else ["accuracy"]
    figure, first = canvas(max(6.0, 4.4 * len(settings)), 3.6 * len(columns) + 1)
    first.remove()
    panels = figure.subplots(len(columns), len(settings), sharex="col", sharey="row", squeeze=False)
    for line, column in zip(panels, columns, strict=True):
        for axes, setting in zip(line, settings, strict=True):
            _lines(axes, where(shown, setting=setting), record, column, pairs)
            axes.set_title(drawing.label(setting), fontsize=9)
            axes.set_xlabel("round")
        line[0].set_ylim(bottom=-0.02)
        line[0].set_ylabel(column.replace("_", " "))
    legend(figure, 4, fontsize=8)
    return figure


def _lines(
    axes: Axes, rows: Rows, record: Record, column: str, pairs: Sequence[tuple[str, str]]
) -> None:
    """Draws a panel's curves; attack and defense have the same stroke in all panels of `pairs`."""
    attacks = {attack for attack, _ in pairs if attack != NONE}
    for number, (attack, defense) in enumerate(pairs):
        curves = [record.curve(row, column) for row in where(rows, attack=attack, defense=defense)]
        rounds = list(zip(*curves, strict=False))  # none, if this panel lacks the runs
        means = [mean(defined([{"": v} for v in values], "")) for values in rounds]
        if all(map(math.isnan, means)):
            continue
        axes.plot(
            range(1, len(means) + 1),
            means,
            color=COLORS[number % len(COLORS)],
            linestyle=STROKES[number % len(STROKES)],
            linewidth=1.4,
            label=drawing.label(_label(attack, defense, len(attacks) > 1)),
        )


def _label(attack: str, defense: str, several: bool) -> str:
    if attack == NONE:
        return "no attack"
    name = "undefended" if defense == NONE else defense
    return f"{name}, {attack}" if several else name


def _bars(experiment: Experiment, item: Item, record: Record, scale: str) -> Figure | None:
    """Draws the seconds of a round, and how many of them are the defense's; means over seeds."""
    found = {}
    for row in shown_rows(experiment, item, record, scale):
        key = row["setting"], row["attack"], row["defense"]
        whole, own = (
            mean(figures(record, Side(metric, *key)).values())
            for metric in ("round_seconds", "defense_seconds")
        )
        if not math.isnan(whole + own):
            found[row["defense"]] = whole - own, own
    if not found:
        return None
    figure, axes = canvas(7, 0.4 * len(found) + 1.6)
    rest, defense = zip(*found.values(), strict=True)
    places = range(len(found))
    axes.barh(places, rest, color=GRAY, label="training, attack, evaluation")
    axes.barh(places, defense, left=rest, color=BLUE, label="defense")
    axes.set_yticks(places, list(map(drawing.label, found)))
    axes.invert_yaxis()
    axes.set_xlabel("seconds of a round, mean")
    legend(figure, 2, fontsize=8)
    return figure


def _scores(experiment: Experiment, item: Item, record: Record, scale: str) -> Figure | None:
    """Draws the mean score of every client, of the first seed."""
    rows = [row for row in shown_rows(experiment, item, record, scale) if not row["error"]]
    lines = record.clients.get(key_of(rows[0]), []) if rows else []
    if not lines:
        return None
    figure, axes = canvas(7, 3.6)
    drawing.set_scale(axes, np.array([line["score"] for line in lines], float))
    for malicious, color, label in ((0, BLUE, "benign"), (1, RED, "malicious")):
        mine = where(lines, malicious=malicious)
        if mine:
            heights = drawing.drawable([line["score"] for line in mine])
            axes.bar([line["client"] for line in mine], heights, color=color, label=label)
    axes.set_xlabel("client")
    axes.set_ylabel("score, mean over rounds")
    finish(figure, axes)
    return figure


def shown_rows(experiment: Experiment, item: Item, record: Record, scale: str) -> list[dict]:
    """Returns the rows of the runs that an item shows."""
    return [
        row
        for row in record.runs
        if experiment.wants(item, scale, row["setting"], row["attack"], row["defense"])
    ]
