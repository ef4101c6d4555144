"""`tffl report`, on a run that was really made."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tffl_cli.main import cli


def call(*arguments: object) -> Any:
    return CliRunner().invoke(cli, ["report", *map(str, arguments)])


def test_a_page_with_heat_maps_and_baselines(compared: Path, tmp_path: Path) -> None:
    result = call(compared, "--out", tmp_path / "a.html")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'a.html'}\n")
    text = (tmp_path / "a.html").read_text()
    for words in (
        "run_1: undefended",
        "label-flip, but no malicious clients",
        "Heat maps of round 2",
    ):
        assert words in text
    assert text.count('class="panel flagged"') == sum(
        row["round"] == "2" and row["flagged"] == "1"
        for row in csv.DictReader((compared / "clients.csv").open())
    )
    assert text.count("reconstruction") >= 6


def test_split_is_what_the_clients_hold(compared: Path) -> None:
    rows = list(csv.DictReader((compared / "split.csv").open()))
    clients = list(csv.DictReader((compared / "clients.csv").open()))
    for row in clients:
        mine = [one for one in rows if one["client"] == row["client"]]
        assert sum(int(one["trained"]) for one in mine) == int(row["samples"])
        changed = any(one["trained"] != one["samples"] for one in mine)
        assert changed == (row["malicious"] == "1")
    assert sum(int(one["samples"]) for one in rows) == 300


def test_markdown_and_latex(compared: Path, tmp_path: Path) -> None:
    assert call(compared, "--format", "md", "--out", tmp_path / "md").exit_code == 0
    assert "heat-maps-of-round-2" in (tmp_path / "md" / "report.md").read_text()
    assert len(list((tmp_path / "md").glob("*.png"))) == 9
    assert call(compared, "--format", "tex", "--out", tmp_path / "a.tex").exit_code == 0
    assert r"\toprule" in (tmp_path / "a.tex").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["RUN", "--round", "9"], "has no heat maps of round 9: choose one of 1, 2"),
        (["EMPTY"], "is neither a run (no config.toml) nor a benchmark (no results.csv)"),
        ([], "Missing argument"),
    ],
)
def test_errors_are_one_line(
    compared: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    places = {"RUN": str(compared), "EMPTY": str(tmp_path)}
    result = call(*(places.get(word, word) for word in arguments))
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ") and message in result.stderr
    assert result.stderr.count("\n") == 1
