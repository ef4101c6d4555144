"""Pictures of curves: the same stroke for the same defense in every panel, as the legend says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tffl.studies.benchmark import COLUMNS
from tffl.studies.reproduce import figures
from tffl.studies.reproduce.measure import Record
from tffl.studies.reproduce.plan import Experiment, Reproduction

SAID = Reproduction.model_validate(
    {
        "title": "made up",
        "attacks": ["label-flip"],
        "defenses": ["median", "krum"],
        "settings": {"a": {}, "b": {}},
        "scales": {"small": {}},
        "items": [{"name": "figure-1", "title": "t", "shows": "accuracy"}],
    }
)


def recorded(*runs: tuple[str, str, list[float]]) -> Record:
    rows: list[dict[str, Any]] = []
    curves = {}
    for setting, defense, curve in runs:
        key = {"setting": setting, "attack": "label-flip", "defense": defense, "seed": 0}
        rows.append({**dict.fromkeys(COLUMNS), **key, "error": ""})
        curves[setting, "label-flip", defense, 0] = [{"accuracy": value} for value in curve]
    return Record(rows, curves, {}, {})


def test_panels_that_lack_runs_do_not_shift_the_strokes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.setdefault("figure", figure))
    known = recorded(
        ("a", "median", [0.1, 0.2]), ("a", "krum", [0.3, 0.4]), ("b", "krum", [0.5, 0.6])
    )
    experiment = Experiment(Path("configs/x/y.toml"), SAID)
    figures.draw(experiment, SAID.items, known, "small", tmp_path)
    first, second = drawn["figure"].axes
    styles = [
        {line.get_label(): (line.get_color(), line.get_linestyle()) for line in axes.get_lines()}
        for axes in (first, second)
    ]
    assert set(styles[0]) == {"median", "krum"} and set(styles[1]) == {"krum"}
    assert styles[0]["krum"] == styles[1]["krum"] != styles[0]["median"]
    assert list(second.get_lines()[0].get_ydata()) == [0.5, 0.6]
    legend = {text.get_text() for text in drawn["figure"].legends[0].get_texts()}
    assert legend == {"median", "krum"}
    assert first.get_ylim() == second.get_ylim()


def test_bars_part_the_defense_from_the_rest_of_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append(figure))
    known = recorded(("a", "median", [0.1]), ("a", "krum", [0.1]))
    for row, seconds in zip(known.runs, (1.0, 3.0), strict=True):
        row |= {"round_seconds": 10.0, "defense_seconds": seconds}
    item = SAID.items[0].model_copy(update={"shows": "runtime"})
    experiment = Experiment(Path("configs/x/y.toml"), SAID.model_copy(update={"items": (item,)}))
    figures.draw(experiment, [item], known, "small", tmp_path)
    rest, defense = drawn[0].axes[0].containers
    assert [bar.get_width() for bar in rest] == [9.0, 7.0]
    assert [(bar.get_x(), bar.get_width()) for bar in defense] == [(9.0, 1.0), (7.0, 3.0)]
