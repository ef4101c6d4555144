"""Names of classes, runs, attacks and files that mean something to a page or a table."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from report_data import scan_of
from test_report_formats import Page

from tffl.record.tables import read_rows, to_csv
from tffl.report import latex
from tffl.report.page import html_page
from tffl.report.plotly_charts import plotly_text
from tffl.report.sources import read_benchmark
from tffl.report.write import write
from tffl.studies import benchmark
from tffl.studies.benchmark_table import escape, markdown
from tffl.untrusted.refusal import escape_controls

NAMES = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "&lt;b&gt;",
    "{{7*7}} {% x %}",
    r"$\frac{$ \input{x}",
    "=HYPERLINK(\"http://x\")",
    "+cmd|' /C calc'!A0",
    "-x",
    "@SUM(A1)",
    "a\nb|c",
    "- item",
    "\u202egpj.exe",
    "\u2066\u200f\x1b[2J\x00",
    "שלום",
    "[a](javascript:alert(1))",
    "![i](http://x)",
    "_x_ *y* `z` ~~q~~",
    "%{customdata}",
)  # fmt: skip
MARKS = re.compile("[\u202a-\u202e\u2066-\u2069\u200e\u200f\x00\x1b]")


def a_run(make_run: Callable[..., Path], names: tuple[str, ...] = NAMES) -> Path:
    path = make_run()
    rows = [
        {"client": c, "class": name, "samples": 5, "trained": 5} for c in range(4) for name in names
    ]
    (path / "split.csv").write_text(to_csv(tuple(rows[0]), rows))
    (path / "environment.json").write_text(json.dumps({"command": list(names)}))
    return path


def a_benchmark(path: Path) -> Path:
    columns = dict.fromkeys(benchmark.COLUMNS)
    rows = [
        {**columns, "setting": name, "attack": name, "defense": name, "seed": 0, "error": error}
        | {"accuracy": 0.5}
        for name in NAMES
        for error in ("", name)
    ]
    path.mkdir()
    (path / "results.csv").write_text(to_csv(benchmark.COLUMNS, rows))
    return path


def check_page(html: str, names: tuple[str, ...]) -> None:
    found = Page(html)
    assert not found.open and "b" not in found.tags
    assert found.tags.count("script") == len(found.figures) + 2
    assert not any(key.startswith("on") for key, _ in found.attributes)
    assert not any("javascript" in str(value) for key, value in found.attributes if key == "href")
    words = "".join(found.words)
    assert [name for name in names if escape_controls(name, keep="\n") not in words] == []
    drawn = json.dumps(found.figures)
    assert "<img" not in drawn and "<script" not in drawn
    assert not MARKS.search(html.split("<script>", 1)[0])  # before plotly's own code


def test_pages_show_names_letter_by_letter(make_run: Callable[..., Path], tmp_path: Path) -> None:
    files = [a_run(make_run), a_benchmark(tmp_path / "bench")]
    check_page(write(files, tmp_path / "page.html")[0].read_text(), NAMES)


def test_a_page_of_a_scan_shows_names_letter_by_letter() -> None:
    names = tuple(name for name in NAMES if "\n" not in name)  # a file's line ends are seen, too
    report = scan_of(names[:8], dict.fromkeys(names[8:], "<b>no</b> zip"))
    check_page(html_page(report), names)


def test_tables_are_calculated_by_no_spreadsheet(tmp_path: Path) -> None:
    rows = [{"name": name, "number": -0.5} for name in NAMES]
    text = to_csv(("name", "number"), rows)
    cells = list(csv.reader(io.StringIO(text)))[1:]
    assert not any(name.startswith(tuple("=+-@\t\r")) for name, _ in cells)
    assert {number for _, number in cells} == {"-0.5"}
    (tmp_path / "a.csv").write_text(text)
    again = read_rows(tmp_path / "a.csv")
    assert [row["name"] for row in again] == list(NAMES)
    assert to_csv(("name", "number"), again) == text


@pytest.mark.parametrize("number", ["-1", "+1", "-1.5e-3", "-inf", "–"])
def test_numbers_and_dashes_are_no_formulas(number: str) -> None:
    assert to_csv(("a",), [{"a": number}]) == f"a\n{number}\n"


def test_markdown_has_as_many_cells_as_columns(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    bench = a_benchmark(tmp_path / "bench")
    report = write([a_run(make_run), bench], tmp_path / "md", format="md")
    for text in (report[0].read_text(), markdown(read_benchmark(bench, "b").rows)):
        assert not MARKS.search(text)
        assert not re.search(r"(?<!\\)<|(?<!\\)\$|^- item|(?<!\\)\]\((?!\d\d-)", text, re.M)
        tables = re.findall(r"(?:^\|.*\|\n)+", text, re.M)
        for table in tables:
            bars = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(bars) == 1, table
        assert len(tables) > 10
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in report[1:])


def test_latex_shows_names_letter_by_letter(tmp_path: Path) -> None:
    (file,) = write([a_benchmark(tmp_path / "bench")], tmp_path / "a.tex", format="tex")
    text = file.read_text()
    assert not MARKS.search(text)
    assert r"\input" not in text and r"\frac" not in text
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert lines and all(
        line.count("{") == line.count("}") for line in (re.sub(r"\\[{}]", "", one) for one in lines)
    )
    assert latex.escape("\\$_{x}") == r"\textbackslash{}\$\_\{x\}"


def test_words_for_plotly_hold_no_tags() -> None:
    for name in NAMES:
        shown = plotly_text(name)
        assert not re.search("<(?!br>)", shown) and not MARKS.search(shown)


def test_markdown_escapes_what_begins_a_line() -> None:
    assert escape("- a") == r"\- a" and escape("-1") == "-1"
    assert escape("==") == r"\=="
    assert escape("http://x") == r"http\://x"
