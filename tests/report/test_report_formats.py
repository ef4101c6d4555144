"""The page, Markdown and LaTeX: what they contain, how large they are, what they escape."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import plotly.graph_objects as go
import pytest
from report_data import write_maps

from tffl.core.errors import TfflWarning
from tffl.report.write import write

VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Collects ids, links, tables and figures, and checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.figures: list[dict[str, object]] = []
        self.words: list[str] = []
        self.in_figure = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.attributes += attrs
        self.in_figure = "data-figure" in found
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if tag == "a":
            self.links.append(str(found["href"]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.in_figure:
            self.figures.append(json.loads(data))
            self.in_figure = False
        elif self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)


def test_the_page_is_whole_and_loads_nothing(make_run: Callable[..., Path]) -> None:
    path = make_run(defense={"name": "gradcam-ae"})
    write_maps(path, 4)
    (file,) = write([path])
    assert file == path / "report.html"
    text = file.read_text()
    page = Page(text)
    assert not page.open
    assert len(set(page.ids)) == len(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert all(link.startswith("#") for link in page.links)
    assert "default-src 'none'" in text
    sources = [value for key, value in page.attributes if key == "src"]
    assert sources and all(str(source).startswith("data:image/") for source in sources)
    assert len(page.figures) == 8
    assert page.tags.count("details") == len(page.figures) + 1  # and one for the heat maps
    for figure in page.figures:
        go.Figure(figure)


def test_words_of_users_stay_words(make_run: Callable[..., Path]) -> None:
    name = "<img src=x onerror=alert(1)> </script> & $a_b^%"
    path = make_run(name.replace("/", "∕"))
    split = (path / "split.csv").read_text().replace("cat", "<b>{{7*7}}")
    (path / "split.csv").write_text(split)
    environment = {"command": ["</script><script>alert(1)</script>"]}
    (path / "environment.json").write_text(json.dumps(environment))
    text = write([path])[0].read_text()
    page = Page(text)
    assert not page.open
    assert "img" not in page.tags and "b" not in page.tags
    assert page.tags.count("script") == len(page.figures) + 2
    assert "<b>{{7*7}}" in "".join(page.words)
    # Plotly reads tags in what it draws: they must not be there either.
    drawn = json.dumps(page.figures)
    assert "<img" not in drawn and "<b>" not in drawn and "&lt;b&gt;" in drawn


def test_a_long_run_stays_small(make_run: Callable[..., Path]) -> None:
    path = make_run(rounds=100, clients=20, defense={"name": "gradcam-ae"})
    write_maps(path, 20, size=32, channels=3)
    (file,) = write([path])
    assert file.stat().st_size < 6_000_000


def test_markdown_names_its_pictures(make_run: Callable[..., Path], bench: Path) -> None:
    path = make_run("a|b_c")
    files = write([path, bench], path / "out", format="md")
    text = files[0].read_text()
    assert files[0] == path / "out" / "report.md"
    named = re.findall(r"\]\(([^)]+\.png)\)", text)
    assert named == [file.name for file in files[1:]] and len(named) == 11
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files[1:])
    assert r"a\|b\_c" in text and "a|b" not in text
    assert r"| sign-flip | 10.5 ± 6.4 | 70.0 |" in text
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line[:1] == "|"]
    assert widths and min(widths) >= 3


def test_latex_tables_are_escaped_and_even(make_run: Callable[..., Path], bench: Path) -> None:
    path = make_run("50%_{x}&")
    (file,) = write([path, bench], path / "tables.tex", format="tex")
    text = file.read_text()
    assert r"50\%\_\{x\}\&" in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == text.count(r"\toprule")
    for columns, body in re.findall(r"\\begin{tabular}{(\w+)}(.*?)\\end{tabular}", text, re.DOTALL):
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert rows and {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}
    assert r"{10.5 $\pm$ 6.4}" in text


def test_a_chart_that_fails_leaves_the_report(
    make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("Too many bins")

    path = make_run()
    monkeypatch.setattr("tffl.report.page.plotly_figure", fail)
    with pytest.warns(TfflWarning, match="Accuracy by round is left out"):
        (file,) = write([path])
    page = Page(file.read_text())
    assert not page.figures and page.tags.count("table") > 8  # the numbers are there all the same
    monkeypatch.setattr("tffl.report.png.draw_chart", fail)
    with pytest.warns(TfflWarning, match=r"\.png is left out"):
        files = write([path], tmp_path / "md", format="md")
    assert len(files) == 1 and "](" not in files[0].read_text()
