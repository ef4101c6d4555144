"""The page in a real browser: no errors, charts, filter, colors, keys."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_data import scan_of

from tffl.drawing import guard as drawing
from tffl.report.document import Block, MatrixChart, Plot, Report, Section, Series, Table
from tffl.report.page import html_page
from tffl.report.write import write

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the browser test needs playwright: pip install '.[test]'"
)

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = os.environ.get("TFFL_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    with playwright.sync_playwright() as tools:
        path = path or tools.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("no Chromium: install one, as with apt-get install chromium")
        # Its sandbox does not start for root, as in containers; the page is our own.
        started = tools.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def file(compared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write([compared], tmp_path_factory.mktemp("page") / "report.html")[0]


@pytest.fixture(scope="module")
def page(browser: Any, file: Path) -> Iterator[Any]:
    opened = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
    opened.set_default_timeout(20_000)
    opened.problems = []
    opened.on("console", lambda message: opened.problems.append(message.text))
    opened.on("pageerror", lambda error: opened.problems.append(str(error)))
    opened.requests = []
    opened.on("request", lambda request: opened.requests.append(request.url))
    opened.goto(file.as_uri())
    opened.wait_for_selector("html[data-ready]")
    yield opened
    opened.close()


POINTS = """(id) => document.getElementById(id).data
  .filter((trace) => trace.customdata).reduce((sum, trace) => sum + trace.x.length, 0)"""


def until(page: Any, condition: str) -> None:
    """Waits without `wait_for_function`, which the page's own policy forbids."""
    end = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


def filter_of(page: Any) -> tuple[Any, str]:
    form = page.locator("form.filter")
    return form, form.get_attribute("data-chart")


def test_it_renders_without_an_error_and_without_the_network(page: Any, file: Path) -> None:
    charts = page.locator(".plot")
    assert charts.count() >= 7
    for index in range(charts.count()):
        box = charts.nth(index).locator(".main-svg").first.bounding_box()
        assert box["width"] > 300 and box["height"] > 200
    pictures = "[...document.images].every((image) => image.complete && image.naturalWidth > 0)"
    assert page.locator("img").count() > 6 and page.evaluate(pictures)
    outside = [url for url in page.requests if not url.startswith((file.as_uri(), "data:"))]
    assert outside == []
    assert page.problems == []


def test_all_three_runs_are_in_the_curves(page: Any) -> None:
    names = "document.querySelector('.plot').data.map((trace) => trace.name)"
    assert page.evaluate(names) == ["run_1", "run_1: attack-free", "run_1: undefended"]


def test_the_filter_narrows_chart_and_table(page: Any) -> None:
    form, chart = filter_of(page)
    rows = page.locator(f'[data-rows="{chart}"] tbody tr:not([hidden])')
    assert page.evaluate(POINTS, chart) == rows.count() == 12
    form.get_by_label("Client").select_option("3")
    assert page.evaluate(POINTS, chart) == rows.count() == 2
    assert form.locator("output").inner_text() == "2 of 12 updates"
    assert set(rows.locator("td:nth-child(2)").all_text_contents()) == {"3"}
    form.get_by_label("Client").select_option("")
    flagged = page.locator(f'[data-rows="{chart}"] tbody tr[data-verdict~="flagged"]').count()
    form.get_by_label("Verdict").select_option("flagged")
    assert page.evaluate(POINTS, chart) == rows.count() == flagged
    form.get_by_label("Verdict").select_option("")
    assert page.evaluate(POINTS, chart) == 12
    assert page.problems == []


def test_the_logarithmic_axis_is_labeled_with_the_values(page: Any) -> None:
    form, chart = filter_of(page)
    box = form.get_by_label("Logarithmic")
    box.set_checked(False)
    plain = page.evaluate("(id) => document.getElementById(id).data[0].y", chart)
    box.set_checked(True)
    drawn = page.evaluate("(id) => document.getElementById(id).data[0].y", chart)
    linear = page.evaluate("(id) => document.getElementById(id).layout.meta.linear", chart)
    assert drawn == pytest.approx([math.log10(1 + value / linear) for value in plain])
    labels = page.evaluate("(id) => document.getElementById(id).layout.yaxis.ticktext", chart)
    assert labels[0] == "0" and len(labels) > 1
    box.set_checked(False)


def test_light_and_dark(page: Any) -> None:
    back = "getComputedStyle(document.body).backgroundColor"
    words = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    light = page.evaluate(back), page.evaluate(words)
    page.get_by_role("button", name="Switch to dark colors").click()
    until(page, f"{words} !== '{light[1]}'")
    assert page.evaluate(back) != light[0]
    page.get_by_role("button", name="Switch to light colors").click()
    until(page, f"{words} === '{light[1]}'")
    page.emulate_media(color_scheme="dark")
    page.evaluate("delete document.documentElement.dataset.theme")
    assert page.evaluate(back) != light[0]
    page.emulate_media(color_scheme="light")


def test_everything_can_be_reached_and_worked_by_keys(page: Any) -> None:
    page.reload()
    page.wait_for_selector("html[data-ready]")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        about = "[document.activeElement.tagName, document.activeElement.className].join(' ')"
        reached.add(page.evaluate(about).split()[0])
    assert {"BUTTON", "A", "SELECT", "INPUT", "SUMMARY", "DIV"} <= reached
    chart = page.locator(".plot").first
    chart.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#spoken").inner_text().startswith("run_1, 1: ")
    assert chart.locator(".hoverlayer text").count() > 0
    summary = page.locator("summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None
    assert page.problems == []


def test_it_fits_a_laptop_and_a_narrow_window(page: Any) -> None:
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) <= 0
    page.set_viewport_size({"width": 640, "height": 800})
    until(page, f"{wide} <= 0")
    page.set_viewport_size({"width": 1280, "height": 800})


BROKEN = """[...document.querySelectorAll("th, td.word:not(.long)")].filter((cell) => {
  const words = cell.textContent.trim().split(/[\\s-]+/);
  const style = getComputedStyle(cell), range = document.createRange();
  range.selectNodeContents(cell);
  const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size;
  return lines > words.length;
}).map((cell) => cell.textContent)"""


@pytest.fixture(scope="module")
def scanned(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The page of a scan of 60 files, every second of which is a suspect."""
    file = tmp_path_factory.mktemp("scan") / "scan.html"
    file.write_text(
        html_page(scan_of([f"client-{n:02d}.keras" for n in range(60)])), encoding="utf-8"
    )
    opened = browser.new_page(viewport={"width": 800, "height": 800})
    opened.set_default_timeout(20_000)
    opened.goto(file.as_uri())
    opened.wait_for_selector("html[data-ready]")
    yield opened
    opened.close()


def test_no_table_breaks_a_word_into_letters(page: Any, scanned: Any) -> None:
    for opened in (page, scanned):
        for width in (880, 640, 390):
            opened.set_viewport_size({"width": width, "height": 800})
            assert opened.evaluate(BROKEN) == []
        opened.set_viewport_size({"width": 1280, "height": 800})


def test_paper_has_every_suspect_and_charts_that_fit(scanned: Any) -> None:
    scanned.emulate_media(media="print")
    scanned.set_viewport_size({"width": 718, "height": 1000})  # A4
    scanned.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    fits = """[...document.querySelectorAll("body *")].every((element) =>
      element.closest(".unseen, details:not([open]), dialog") ||
      element.getBoundingClientRect().right <= document.documentElement.clientWidth + 1)"""
    until(scanned, fits)
    box = scanned.locator(".scroll").first
    assert box.evaluate("(box) => box.scrollHeight <= box.clientHeight + 1")
    assert box.locator("tr.flagged").count() == 30
    scanned.evaluate("window.dispatchEvent(new Event('afterprint'))")
    scanned.emulate_media(media="screen")
    scanned.set_viewport_size({"width": 1280, "height": 800})
    drawn = "document.querySelector('.plot .main-svg').getBoundingClientRect().width"
    until(scanned, f"{drawn} !== 640")


def test_a_chart_s_numbers_are_those_of_every_table(scanned: Any) -> None:
    numbers = """(selector) => Object.fromEntries([...document.querySelectorAll(selector)].map(
      (row) => [row.cells[0].textContent, row.cells[1].textContent]))"""
    seen = scanned.evaluate(numbers, "main section:first-of-type tbody tr")
    assert list(seen) == [str(number) for number in range(1, 61)]
    assert seen == scanned.evaluate(numbers, "details tbody tr")
    suspects = "document.querySelector('.plot').data.find((trace) => trace.name === 'suspect')"
    assert scanned.evaluate(f"{suspects}.x") == list(range(1, 31))
    hover = scanned.evaluate(f"{suspects}.text")
    assert [text.split("<br>")[0] for text in hover] == [
        f"{n}. {seen[str(n)]}" for n in range(1, 31)
    ]


def test_heat_maps_enlarge_and_close_by_key(page: Any) -> None:
    cells = page.locator("button.cells").nth(2)
    small = cells.locator("img").first.bounding_box()["width"]
    cells.focus()
    page.keyboard.press("Enter")
    large = page.locator("dialog[open] img")
    assert large.count() == cells.locator("img").count()
    assert large.first.bounding_box()["width"] >= 3 * small
    assert page.locator("dialog figcaption").first.inner_text()
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.problems == []


def test_axis_titles_cover_no_label(browser: Any, tmp_path: Path) -> None:
    attacks = ["distance-constrained+scaling", "graph-autoencoder", "no attack"]
    grid = MatrixChart("t", "defense", "attack", ["median", "krum"], attacks, [[0.5, 0.5]] * 3)
    blocks = [Block(Table("t", ["a"], []), grid)]
    file = tmp_path / "page.html"
    file.write_text(html_page(Report("t", [Section("s", blocks)])), encoding="utf-8")
    opened = browser.new_page(viewport={"width": 640, "height": 800})
    opened.goto(file.as_uri())
    opened.wait_for_selector("html[data-ready]")
    boxes = """(selector) => [...document.querySelectorAll(selector)].map(
      (text) => { const { left, right } = text.getBoundingClientRect(); return [left, right]; })"""
    ((_, end),) = opened.evaluate(boxes, ".ytitle")
    assert end <= min(left for left, _ in opened.evaluate(boxes, ".ytick text"))
    opened.close()


@pytest.mark.parametrize("log", [False, True])
def test_numbers_of_any_size_are_drawn(browser: Any, tmp_path: Path, log: bool) -> None:
    inf = math.inf
    cases = [
        *([0.0, 1.0, -1e300, 1.7e308], [5e-324, 1e-300], [1e300] * 3, [0.0], [-inf, 1.0, inf]),
        *([-5.0, inf], [1.0, 1e20]),
    ]
    blocks = []
    for values in cases:
        array = np.array(values)
        heights = drawing.at_edges(array).tolist()
        points = Series("points", list(range(len(values))), heights, dash="", rows=[0])
        plot = Plot("t", "x", "y", [points], log=log, linear=drawing.usual_size(array))
        grid = MatrixChart("t", "x", "y", ["a"] * len(values), ["b"], [values])
        blocks += [Block(Table("t", ["a"], []), chart) for chart in (plot, grid)]
    file = tmp_path / "page.html"
    file.write_text(html_page(Report("t", [Section("s", blocks)])), encoding="utf-8")
    opened = browser.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda message: problems.append(message.text))
    opened.goto(file.as_uri())
    opened.wait_for_selector("html[data-ready]")
    drawn = """[...document.querySelectorAll(".plot")]
      .filter((plot) => plot.data[0].type === "scatter")
      .map((plot) => plot.querySelectorAll(".points path").length)"""
    assert opened.evaluate(drawn) == [len(values) for values in cases]
    ticks = """[...document.querySelectorAll(".plot")].map(
      (plot) => plot.querySelectorAll(".yaxislayer-above text, .ytick text").length)"""
    assert all(opened.evaluate(ticks))
    assert problems == []
    opened.close()
