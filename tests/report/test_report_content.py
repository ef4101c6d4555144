"""What a report says, from runs and benchmarks whose numbers are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import plotly.graph_objects as go
import pytest
from report_data import write_maps

from tffl.core.errors import UsageError
from tffl.report.content import build_report
from tffl.report.document import Block, MatrixChart, Plot, Report
from tffl.report.plotly_charts import plotly_figure
from tffl.report.run_comparison import compare_runs


def blocks(report: Report) -> dict[str, Block]:
    found = [block for section in report.sections for block in section.blocks]
    return {(block.chart or block.table).title: block for block in found}


def test_plotly_accepts_every_chart(make_run: Callable[..., Path], bench: Path) -> None:
    report = build_report([make_run(), make_run("other", clients=5), bench])
    charts = [block.chart for s in report.sections for block in s.blocks if block.chart]
    assert len(charts) > 15
    for chart in charts:
        go.Figure(plotly_figure(chart))  # raises on a property that plotly does not know


def test_columns_of_metrics_and_callbacks_are_charts(make_run: Callable[..., Path]) -> None:
    run, other = make_run(), make_run("other")
    header, *rows = (run / "rounds.csv").read_text().splitlines()
    added = [f"{header},mean_confidence", *(f"{row},0.{i}" for i, row in enumerate(rows, 1))]
    (run / "rounds.csv").write_text("\n".join(added) + "\n")
    block = blocks(build_report([run, other]))["Mean confidence by round"]
    assert isinstance(block.chart, Plot) and len(block.chart.series) == 1
    assert block.chart.series[0].y == [0.1, 0.2, 0.3]


def test_scores_verdicts_and_threshold(make_run: Callable[..., Path]) -> None:
    block = blocks(build_report([make_run()]))["Scores of the clients by round"]
    assert isinstance(block.chart, Plot)
    series = {line.name: line for line in block.chart.series}
    assert set(series) == {"honest", "malicious", "malicious, flagged", "threshold"}
    assert series["malicious"].y == [2.0]
    assert series["malicious, flagged"].y == [3.0, 3.0]
    assert series["malicious, flagged"].hover[0] == (
        "client 0, malicious\nround 2: flagged, left out\nscore 3, 10 samples\nfar, <b>or</b> not"
    )
    assert series["threshold"].y[:2] == [2.5, 2.5]
    rows = [block.table.rows[row] for row in series["malicious, flagged"].rows]
    assert [row[:3] for row in rows] == [["2", "0", "malicious"], ["3", "0", "malicious"]]
    assert block.table.keys[0] == (0, "passed accepted missed")
    assert block.table.keys[4] == (0, "flagged rejected")


def test_points_stay_within_their_round(make_run: Callable[..., Path]) -> None:
    chart = blocks(build_report([make_run()]))["Scores of the clients by round"].chart
    assert isinstance(chart, Plot)
    honest = next(line for line in chart.series if line.name == "honest")
    assert len(set(honest.x)) == 9
    assert [round(x) for x in honest.x] == [1] * 3 + [2] * 3 + [3] * 3


def test_infinite_scores_are_drawn_at_the_edge(make_run: Callable[..., Path]) -> None:
    path = make_run()
    text = (path / "clients.csv").read_text()
    (path / "clients.csv").write_text(text.replace(",3.0,", ",inf,"))
    block = blocks(build_report([path]))["Scores of the clients by round"]
    assert isinstance(block.chart, Plot)
    flagged = next(line for line in block.chart.series if line.name == "malicious, flagged")
    assert flagged.y == [pytest.approx(2.0 + 0.05 * (2.0 - 1.25))] * 2  # others: 1.25 to 2
    assert "score infinite" in flagged.hover[0]
    assert "Infinite scores are drawn at the upper edge" in block.note


def test_a_defense_without_scores_shows_update_norms(make_run: Callable[..., Path]) -> None:
    path = make_run()
    lines = (path / "clients.csv").read_text().splitlines()
    cells = [line.split(",") for line in lines]
    at = cells[0].index("score")
    for row in cells[1:]:
        row[at] = ""
    (path / "clients.csv").write_text("\n".join(",".join(row) for row in cells) + "\n")
    report = build_report([path])
    block = blocks(report)["Norms of the updates by round"]
    assert "does not score clients" in block.note
    section = next(s for s in report.sections if s.title == "Quality of the scores")
    assert not section.blocks and "does not score" in section.text


def test_roc_states_its_area_and_marks_the_verdict(make_run: Callable[..., Path]) -> None:
    block = blocks(build_report([make_run()]))["ROC"]
    assert isinstance(block.chart, Plot)
    # Malicious 2, 3, 3; honest 1.25, 1.5, 1.75 in each round.
    assert "an AUC of 1.000 and an average precision of 1.000" in block.note
    verdict = block.chart.series[1]
    assert (verdict.x, verdict.y) == ([0.0], [pytest.approx(2 / 3)])


def test_the_split_shows_changes_by_an_attack(make_run: Callable[..., Path]) -> None:
    block = blocks(build_report([make_run()]))["Samples by client and class"]
    assert isinstance(block.chart, MatrixChart)
    assert block.chart.values[:2] == [[5, 5], [6, 6]]
    assert block.table.rows[0] == ["0", "5 → 4", "5 → 4", "10"]
    assert "before and after the attack" in block.note


def test_times_config_and_environment(make_run: Callable[..., Path]) -> None:
    report = blocks(build_report([make_run()]))
    table = report["Time of each phase"].table
    assert table.rows[0] == ["mean", "0.25", "0.25", "0.25", "0.25"]
    assert ["attack.name", "sign-flip"] in [list(row) for row in report["Config"].table.rows]
    assert ["command", "tffl a_b"] in [list(row) for row in report["Environment"].table.rows]


def test_an_unfinished_run_is_reported_with_a_warning(make_run: Callable[..., Path]) -> None:
    path = make_run(planned=9)
    report = build_report([path])
    assert report.warnings and "unfinished" in report.warnings[0]
    assert "ROC" in blocks(report)
    for name in ("rounds.csv", "clients.csv", "split.csv", "environment.json"):
        (path / name).unlink()
    bare = build_report([path])
    assert set(blocks(bare)) == {"Runs", "Config", "Environment"}
    assert any("did not record how the data was split" in section.text for section in bare.sections)


def test_heat_maps_of_the_last_or_another_round(make_run: Callable[..., Path]) -> None:
    path = make_run(defense={"name": "gradcam-ae"})
    write_maps(path, 4)
    block = next(b for s in build_report([path]).sections for b in s.blocks if b.gallery)
    assert block.gallery is not None and block.gallery.explanation.round == 3
    assert block.gallery.explanation.flagged.tolist() == [True, False, False, False]
    assert block.table.rows[0][:2] == ["0", "malicious"]
    with pytest.raises(UsageError, match="has no heat maps of round 1: choose one of 3"):
        build_report([path], rounds=[1])


def test_a_benchmark_matrix_ends_with_the_worst_case(bench: Path) -> None:
    report = blocks(build_report([bench]))
    block = report["Accuracy, %"]
    assert [list(row) for row in block.table.rows] == [
        ["no attack", "90.5 ± 6.4", "80.5 ± 6.4"],
        ["lie", "40.5 ± 6.4", "50.5 ± 6.4"],
        ["sign-flip", "10.5 ± 6.4", "70.0"],
        ["worst case", "10.5", "50.5"],
        ["worst attack", "sign-flip", "lie"],
    ]
    assert report["Attack success, %"].table.rows[-1] == ["worst attack", "lie", "lie"]
    assert list(report["Failed runs"].table.rows[0])[1:] == ["sign-flip", "median", "1", "it_broke"]
    assert report["Cost of each defense"].table.rows[1] == ["median", "80.5", "12.5", "0.500"]


def test_runs_are_compared_by_key_figures_and_configs(make_run: Callable[..., Path]) -> None:
    first, second = make_run("first"), make_run("second", rounds=2, seed=7, attack={"name": "lie"})
    report = compare_runs([first, second])
    values = report.values()
    assert values["runs"][0]["accuracy"] == 0.9
    assert values["runs"][0]["recall"] == pytest.approx(2 / 3)
    assert values["runs"][1]["seconds"] == pytest.approx(2.0)
    # The options of different attacks are not compared.
    assert values["differences"] == {
        "seed": [0, 7],
        "federation.rounds": [3, 2],
        "attack.name": ["sign-flip", "lie"],
    }
    with pytest.raises(UsageError, match="at least two runs"):
        compare_runs([first])
