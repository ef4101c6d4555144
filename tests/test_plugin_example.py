"""The example of a plug-in: installed into a folder, listed, run, and held to its own tests."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tffl.config import load

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"
NAMES = {
    "attacks": "recoil",
    "defenses": "median-distance",
    "models": "stripes-cnn",
    "datasets": "stripes",
    "metrics": "diagonal-confusion",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed a copy of the example, without a network."""
    pytest.importorskip("pip")
    source, site = (tmp_path_factory.mktemp("plugin") / name for name in ("source", "site"))
    shutil.copytree(EXAMPLE, source)
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "-q", *options, "--target", site, source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return site


def run(installed: Path, *command: str | Path) -> str:
    """Runs a Python module beside which the example is installed; returns what it prints."""
    paths = [str(installed), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", NAMES)
def test_it_is_listed(installed: Path, kind: str) -> None:
    entries = {
        entry["name"]: entry for entry in json.loads(run(installed, "tffl", "list", kind, "--json"))
    }
    found = entries[NAMES[kind]]
    assert found["summary"].endswith(".")
    assert kind == "metrics" or found["reference"] == "tffl's example of a plug-in"


def test_all_parts_run_together(installed: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = {kind: name for kind, name in NAMES.items() if kind != "metrics"}
    names = [f"--{kind.removesuffix('s')}={name}" for kind, name in options.items()]
    sizes = ["--clients=10", "--malicious=3", "--rounds=2", "--train-limit=400"]
    parts = (
        "attack.factor=8",
        'record.metrics=["diagonal-confusion"]',
        "record.export=false",
        "record.figures=false",
    )
    settings = [f"--set={setting}" for setting in (*parts, "record.tensorboard=false")]
    run(installed, "tffl", "simulate", *names, *sizes, *settings, "--quiet", "--out", out)
    config = load(out / "config.toml")
    assert config.attack.options["factor"] == 8 and config.defense.options["factor"] == 2
    with (out / "rounds.csv").open() as file:
        rounds = list(csv.DictReader(file))
    assert [row["round"] for row in rounds] == ["1", "2"]
    assert all(0 <= float(row["diagonal_confusion"]) <= 1 for row in rounds)
    with (out / "clients.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert all(row["accepted"] == "0" for row in rows if row["malicious"] == "1")


def test_its_own_tests_pass(installed: Path) -> None:
    ini = ["-c", "/dev/null", "-p", "no:cacheprovider", "-q"]
    run(installed, "pytest", *ini, EXAMPLE / "tests")
