"""`tffl compare`, on runs that were really made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tffl.record.run_directory import RunDirectory
from tffl_cli.main import cli


def call(*arguments: object) -> Any:
    return CliRunner().invoke(cli, ["compare", *map(str, arguments)])


def test_a_table_and_a_chart(compared: Path, tmp_path: Path) -> None:
    result = call(compared, compared / "undefended", "--out", tmp_path / "c.png")
    assert result.exit_code == 0, result.exception
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["run", "run_1", "undefended"] in lines
    assert ["defense", "gradcam-ae", "none"] in lines
    assert any(line[:1] == ["AUC"] and len(line) == 3 for line in lines)
    assert "Config differences" in result.stdout
    assert "defense.name" in result.stdout and "gradcam-ae" in result.stdout
    assert result.stdout.splitlines()[-1] == str(tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_json_has_the_figures(compared: Path, tmp_path: Path) -> None:
    result = call(compared, compared / "attack-free", "--json", "--out", tmp_path / "c.png")
    told = json.loads(result.stdout)
    assert told["differences"] == {"federation.malicious": [2, 0]}
    assert told["chart"] == str(tmp_path / "c.png")
    rounds = RunDirectory.open(compared).frames()[0]
    first, second = told["runs"]
    assert first["name"] == "run_1" and first["finished"]
    assert first["accuracy"] == pytest.approx(rounds["accuracy"].iloc[-1])
    assert first["best_accuracy"] == pytest.approx(rounds["accuracy"].max())
    assert first["recall"] == pytest.approx(rounds["recall"].mean())
    assert second["recall"] is None


def test_one_run_is_no_comparison(compared: Path) -> None:
    result = call(compared)
    assert result.exit_code == 2
    assert result.stderr == "Error: a comparison needs at least two runs: name another\n"
