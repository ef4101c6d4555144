"""Configs that are installed with tffl."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tffl.config import load
from tffl.core import shipped
from tffl.core.errors import UsageError
from tffl_cli.main import cli


def test_every_config_ships() -> None:
    home = Path(__file__).parents[2] / "configs"
    assert len(shipped.names()) == len(list(home.rglob("*.toml"))) > 20
    assert "quickstart" in shipped.names() and "gradcam-ae/resnet18" in shipped.names()


def test_a_name_stands_for_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load("quickstart").attack.name == "patch-backdoor"
    with pytest.raises(UsageError, match=r"no file quickest, and no config .* quickstart"):
        load("quickest")
    with pytest.raises(UsageError, match=r"cannot read config quick\.toml"):
        load("quick.toml")
    Path("quickstart").write_text("seed = 7\n")
    assert load("quickstart").seed == 7


def test_reproduce_lists_in_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["reproduce", "--list", "--no-times"])
    assert result.exit_code == 0, result.output
    assert "gradcam-ae" in result.output
