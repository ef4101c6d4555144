"""Pictures of whatever numbers and names there may be: drawn, or a warning, and never an end."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from tffl.core.errors import TfflError, TfflWarning
from tffl.core.verdict import HeatMaps
from tffl.drawing import audits as audit
from tffl.drawing import figures, heat_maps
from tffl.drawing import guard as drawing
from tffl.drawing.explanation import Explanation
from tffl.drawing.split import split_picture
from tffl.record import hparams, tensorboard
from tffl.report import plotly_charts, png
from tffl.report.document import Bars, MatrixChart, Plot, Series

INF, NAN = float("inf"), float("nan")
EXTREMES = [0.0, 1.0, -1.0, 5e-324, -5e-324, 1e-300, 1e300, 1.7e308, -1.7e308, 1e38, INF, -INF, NAN]
numbers = st.lists(st.sampled_from(EXTREMES) | st.floats(width=64), min_size=1, max_size=6)
names = st.text(min_size=1, max_size=300) | st.sampled_from(
    [r"$\frac{$", "$5 and $6", "a$", r"\$", "_x", "<b>&amp;", "{}%", "line\nbreak", "\u202eabc",
     "שלום", "中文", "\x00\x1b[2J", "\udc80", "=1+1", " ", "é" * 300]
)  # fmt: skip
quick = settings(max_examples=10, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def coarse() -> Any:
    """Few pixels: what fails, fails at any size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "DPI", 20)
        yield


def drawn(draw: Callable[..., Figure], *arguments: Any) -> Figure:
    """Draws strictly, and as a run would; returns the figure."""
    kept: list[Figure] = []

    def keep() -> Figure:
        kept.append(draw(*arguments))
        return kept[0]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Glyph|Matplotlib currently|constrained_layout")
        content = drawing.render(".png", keep)
    assert Image.open(io.BytesIO(content)).size[0] > 50
    return kept[0]


def texts(figure: Figure) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text)]  # type: ignore[attr-defined]


def a_run(scores: list[float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    rounds = pd.DataFrame({"round": [1, 2], "accuracy": [0.5, NAN], "attack_success": [NAN, 1.0]})
    rounds["threshold"] = [scores[0], NAN]
    clients = pd.DataFrame({"client": range(len(scores)), "round": 1, "score": scores})
    clients["malicious"] = clients["client"] % 2
    return rounds, clients


def a_round(scores: list[float], value: float = 1.0, n: int = 0, **changes: Any) -> Explanation:
    n = n or len(scores)
    maps = np.full((n, 1, 2, 2), value, np.float32) * np.arange(4).reshape(2, 2)
    known: dict[str, Any] = {
        **{"round": 1, "title": "lie against krum", "score_name": "score", "threshold": scores[0]},
        **{"client_ids": np.arange(n), "scores": np.resize(scores, n), "heat_maps": HeatMaps(maps)},
        **{"malicious": np.arange(n) % 2 == 1, "flagged": np.arange(n) % 3 == 0},
    }
    return Explanation(**known | changes)


@quick
@given(numbers)
@example([1e300, 1e300])
@example([1.7e308, -1.7e308, 0.0])
@example([5e-324])
@example([NAN])
def test_scores_of_any_size_are_drawn(scores: list[float]) -> None:
    rounds, clients = a_run(scores)
    for draw, arguments in (
        (figures.curves, [rounds]),
        (figures.scores, [rounds, clients]),
        (audit.by_client, [rounds, clients]),
        (heat_maps.errors, [a_round(scores)]),
    ):
        drawn(draw, *arguments)


@quick
@given(numbers)
def test_charts_of_reports_hold_any_numbers(values: list[float]) -> None:
    array = np.array(values)
    steep, usual = drawing.is_steep(array), drawing.usual_size(array)
    series = [Series("a", list(range(len(values))), values)]
    edged = [Series("b", [0.0] * len(values), drawing.at_edges(array).tolist(), dash="")]
    for chart in (
        Plot("t", "x", "y", series),
        Plot("t", "x", "y", series + edged, log=steep, linear=usual),
        Plot("t", "x", "y", series, rates=True, square=True),
        Bars("t", "x", "y", list(range(len(values))), {"a": values}),
        MatrixChart("t", "x", "y", ["a"] * len(values), ["b"], [values], unit="u"),
    ):
        drawn(png.draw_chart, chart)
        shown = plotly_charts.plotly_figure(chart)
        for trace in shown["data"]:
            for number in [*trace["y" if trace["type"] != "heatmap" else "x"]]:
                assert not isinstance(number, float) or abs(number) <= drawing.LIMIT
        if isinstance(chart, MatrixChart):
            assert shown["data"][0]["zmin"] < shown["data"][0]["zmax"] <= drawing.LIMIT


@quick
@given(numbers, st.sampled_from(EXTREMES))
def test_heat_maps_hold_any_numbers(scores: list[float], value: float) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        seen = a_round(scores, value)
    drawn(heat_maps.heat_maps, seen)
    drawn(heat_maps.consensus, seen)
    table = np.resize(scores, (3, 2))
    drawn(figures.heat_map, table, ["a", "b", "c"], [1, 2], "title", "AUC")


@quick
@given(numbers)
def test_histograms_count_any_finite_numbers(values: list[float]) -> None:
    finite = np.array([value for value in values if np.isfinite(value)])
    if not len(finite):
        return
    buckets = tensorboard.buckets(finite)
    assert np.isfinite(buckets).all() and buckets[:, 2].sum() == len(finite)
    assert (buckets[0, 0], buckets[-1, 1]) == (finite.min(), finite.max()) or len({*finite}) == 1
    assert (buckets[:, 0] <= buckets[:, 1]).all()


@quick
@given(st.lists(names, min_size=1, max_size=4))
@example([r"$\frac{$"])
@example(["_x", "$1", "$2"])
def test_names_are_never_formulas(words: list[str]) -> None:
    labels = [drawing.label(word) for word in words]
    counts = np.ones((2, len(words)), int)
    figure = drawn(split_picture, counts, ["client 0", "client 1"], words, "title")
    assert {*labels} <= {*texts(figure)}
    series = [Series(word, [1, 2], [0.0, 1.0]) for word in words]
    figure = drawn(png.draw_chart, Plot("t", "round", "accuracy", series))
    assert {*labels} <= {*texts(figure)}  # in the legend, although it begins with an underscore
    values = [[0.5] * len(words)] * len(words)
    grid = MatrixChart(
        "t", "x", "y", words, words, values, [["50.0\n± 1.0"] * len(words)] * len(words)
    )
    figure = drawn(png.draw_chart, grid)
    assert {*labels} <= {*texts(figure)}
    drawn(figures.heat_map, np.array(values), words, range(len(words)), "title", "AUC")
    seen = a_round([1.0] * len(words), names=tuple(words))
    drawn(heat_maps.heat_maps, seen)


def test_thousands_of_flagged_clients_have_a_picture() -> None:
    everyone = a_round([1.0], n=3000, flagged=np.ones(3000, bool))
    assert len(heat_maps.chosen(everyone)) == heat_maps.MOST
    words = heat_maps.panels(everyone)[1]
    assert "240 of 3000 clients; there is no room for the others." in words
    assert max(heat_maps.heat_maps(everyone).get_size_inches()) * 150 < 2**16


def test_a_picture_has_no_more_pixels_than_can_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "LARGEST_SIDE", 300)
    many = [str(number) for number in range(120)]  # 21.8 inches
    rendered = drawing.render(".png", figures.heat_map, np.zeros((120, 1)), many, [1], "t", "AUC")
    assert Image.open(io.BytesIO(rendered)).size[1] == 300


def test_half_of_the_values_may_be_huge() -> None:
    assert drawing.is_steep(np.array([1.0, 1e12])) and not drawing.is_steep(np.array([1.0, 2.0]))
    assert drawing.usual_size(np.array([0.0, -1.0, 1e12, np.inf])) == 1.0


def test_one_score_of_a_thousand_digits_squeezes_nobody() -> None:
    rounds, clients = a_run([1.0, 2.0, 1e30])
    figure = drawn(figures.scores, rounds, clients)
    assert figure.axes[0].get_yscale() == "log"
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert "1e+30" in ticks or "1e+27" in ticks or "1e+24" in ticks, ticks


def fail(*_: Any) -> Any:
    raise ValueError("Too many bins\nfor data range")


def test_a_picture_that_fails_is_one_line_and_leaves_no_old_one(tmp_path: Path) -> None:
    path = tmp_path / "scores.png"
    assert drawing.write(path, figures.curves, a_run([1.0])[0])
    with pytest.warns(TfflWarning) as caught:
        assert not drawing.write(path, fail)
    (warning,) = caught
    assert str(warning.message) == (
        f"{path} is left out, as it cannot be drawn: ValueError: Too many bins"
    )
    assert not path.exists()


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "figures").touch()
    with pytest.raises(TfflError, match="cannot write"):
        drawing.write(tmp_path / "figures" / "a.png", figures.curves, a_run([1.0])[0])


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_every_format(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    assert drawing.write(path, split_picture, np.eye(2, dtype=int), ["a", "b"], ["$", "$x"], "$y$")
    assert path.stat().st_size > 500


def test_a_damaged_picture_ends_no_event_log(tmp_path: Path) -> None:
    (tmp_path / "heat_maps_round_0001.png").write_bytes(b"no picture")
    rounds, clients = a_run([1e300, -1e300, 1.7e308, 5e-324])
    log = tensorboard.EventLog(tmp_path / "log")
    with pytest.warns(TfflWarning, match=r"heat_maps_round_0001\.png is left out") as caught:
        log.write(rounds[:1], clients, lambda _: [("maps", tmp_path / "heat_maps_round_0001.png")])
    assert len(caught) == 1, caught[-1].message
    assert sum(file.stat().st_size for file in (tmp_path / "log").iterdir()) > 100


def test_one_heat_map_picture_that_fails_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heat_maps, "consensus", fail)
    with pytest.warns(TfflWarning, match=r"consensus_round_0001\.png is left out"):
        paths = heat_maps.write(a_round([1.0, 2.0]), tmp_path)
    assert [path.name for path in paths] == [
        "heat_maps_round_0001.png",
        "errors_round_0001.png",
    ]


def test_a_session_that_tensorboard_cannot_hold_leaves_the_others(tmp_path: Path) -> None:
    metrics = {"accuracy": 1e300, "auc": None, "loss": INF}
    sessions = {"bad": ({"attack": object()}, metrics, True), "good": ({"a": "x"}, metrics, True)}
    with pytest.warns(TfflWarning, match="TensorBoard's session bad is left out"):
        hparams.write(tmp_path, sessions)
    assert [path.name for path in tmp_path.iterdir()] == ["good"]
