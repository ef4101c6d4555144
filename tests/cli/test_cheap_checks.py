"""What cannot work is said at once: before TensorFlow, which takes seconds, is loaded."""

import subprocess
import sys

import pytest

from tffl.config import build
from tffl.record.identity import resolved

REFUSALS = {
    "simulate --dataset mnist --data-dir D": "dataset mnist is not prepared in D: run tffl data",
    "simulate --dataset /a/path": "there is no file or folder /a/path: give a path, or a name",
    "simulate --dataset ./full": "full holds no images in folders of classes: it should look like",
    "simulate --dataset table.csv": "table.csv: which column holds the classes? Set data.label",
    "simulate --dataset table.csv --set data.label=kin": "unknown column of table.csv (data.label)",
    "simulate --out full": "full is not empty and holds no run",
    "simulate --out full/file": "full/file is a file",
    "simulate --out full/file/run": "full/file/run lies in",
    "simulate --out run": "run holds another experiment: seed is 7 there, 0 here",
    "simulate --resume nowhere": "nowhere holds no config.toml",
    "simulate --resume run --clients 12": "run holds another experiment: federation.clients is 10",
    "simulate --resume future": "future/config.toml: unknown config key 'federation.loyalty'",
    "simulate --resume damaged": "damaged/rounds.csv is damaged: in round 1, accuracy is a lot",
    "simulate --resume damaged-header": "damaged-header/rounds.csv is not a table with columns",
    "simulate --resume damaged-behind": "damaged-behind/rounds.csv lacks round 1, but there is a",
    "report damaged-header": "damaged-header/rounds.csv is not a table with columns",
    "simulate --config future/config.toml": "future/config.toml: unknown config key",
    "simulate --compare": "a comparison needs an attack",
    "localize --dataset mnist --data-dir D --attack label-flip": "dataset mnist is not prepared",
    "localize damaged": "damaged/rounds.csv is damaged",
    "localize nowhere": "nowhere holds no run",
    "data show mnist --data-dir D": "dataset mnist is not prepared in D",
    "data prepare ./full": "./full is a path: your own data need no preparation",
    "data show /a/path": "there is no file or folder /a/path",
    "scan --global nowhere.keras --updates full": "there is no global model nowhere.keras",
    "scan --global full/file --updates full": "full/file is neither a .keras file",
    "scan --global g.keras --updates nowhere": "cannot read the folder nowhere",
    "scan --global g.keras --updates full --dataset mnist --data-dir D": "dataset mnist is not",
    "audit-gan --updates nowhere --global g.keras": "cannot read the folder nowhere",
    "audit-gan --updates full --global nowhere.keras": "there is no global model nowhere.keras",
    "audit-gan --run nowhere --round 1": "nowhere holds no run",
    "audit-gan --run run --round 7": "run stores no updates of round 7",
    "audit-gan --dataset mnist --data-dir D": "dataset mnist is not prepared in D",
    "explain nowhere": "nowhere holds no run",
    "explain damaged": "damaged/rounds.csv is damaged",
    "report nowhere": "there is no folder nowhere",
    "report future": "future/config.toml: unknown config key",
    "report damaged": "damaged/rounds.csv is damaged",
    "compare damaged run": "damaged/rounds.csv is damaged",
    "replay nowhere --attack lie --defense krum": "nowhere holds no run",
    "replay run --attack lie --defense krum": "run stores no updates",
    "replay run --grid future/config.toml": "future/config.toml: unknown config key 'federation'",
    "benchmark nowhere.toml": "cannot read config nowhere.toml",
    "benchmark future/config.toml": "future/config.toml: unknown config key 'federation'",
    "benchmark grid.toml": "dataset mnist is not prepared in D",
    "bench maps --model lenet": "unknown model 'lenet': did you mean 'lenet5'",
}

RUN_ALL = """
import os, sys
os.chdir(sys.argv[1])
from tffl_cli.main import cli
for line in sys.stdin.read().splitlines():
    print(f"\\n$ {line}", file=sys.stderr, flush=True)
    try:
        cli.main(line.split())
    except SystemExit as end:
        print(end.code, "tensorflow" in sys.modules, file=sys.stderr, flush=True)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Command → what it prints on stderr; its exit code, and whether TensorFlow was loaded, last.

    All in one process, as the cheap checks must not load TensorFlow one after the other either.
    """
    folder = tmp_path_factory.mktemp("cheap")
    text = resolved(build({"seed": 7})).to_toml()
    for name in ("full", "run", "future", "damaged"):
        (folder / name).mkdir()
    for name in ("header", "behind"):
        (folder / f"damaged-{name}/checkpoints").mkdir(parents=True)
        (folder / f"damaged-{name}/config.toml").write_text(text)
    (folder / "damaged-header/rounds.csv").write_text("hello\n")
    (folder / "damaged-behind/checkpoints/round-000001.safetensors").write_text("x")
    (folder / "full/file").write_text("x")
    (folder / "g.keras").write_text("x")
    (folder / "table.csv").write_text("size,kind\n1,a\n2,b\n")
    plan = 'attacks = ["lie"]\ndefenses = ["krum"]\n[experiment.data]\ndataset = "mnist"\n'
    (folder / "grid.toml").write_text(f'{plan}data_dir = "D"\n')
    (folder / "run/config.toml").write_text(text)
    (folder / "future/config.toml").write_text("[federation]\nloyalty = 3\n")
    (folder / "damaged/config.toml").write_text(text)
    from tffl.record.tables import ROUND_COLUMNS

    row = dict.fromkeys(ROUND_COLUMNS, "1") | {"accuracy": "a lot"}
    lines = [",".join(ROUND_COLUMNS), ",".join(row.values())]
    (folder / "damaged/rounds.csv").write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, str(folder)],
        input="\n".join(REFUSALS),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    parts = [part.partition("\n") for part in done.stderr.split("\n$ ")[1:]]
    return {command: text.strip().splitlines() for command, _, text in parts}


@pytest.mark.parametrize("command", REFUSALS)
def test_refusals_come_before_tensorflow(command, answers):
    *told, end = answers[command]
    assert len(told) == 1, told
    assert told[0].startswith(f"Error: {REFUSALS[command]}")
    code = 1 if "damaged" in command else 2
    assert end == f"{code} False"
