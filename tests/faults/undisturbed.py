"""The experiment that is broken, the undisturbed run of it, and lines of the table."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

COLUMNS = ("fault", "case", "seconds", "rounds", "exit_code", "held", "line")

EXPERIMENT = (
    *("--dataset", "digits", "--train-limit", "300", "--rounds", "40", "--clients", "6"),
    *("--malicious", "2", "--model", "lenet5", "--attack", "label-flip", "--seed", "5"),
    *("--defense", "bias-anomaly", "--set", "defense.window=3", "--set", "defense.votes=2"),
    *("--set", "record.store_updates='3'", "--quiet"),
)
"""A vote over rounds, so that what a defense remembers matters, and all that a run writes."""

SCRATCH = re.compile(re.escape(tempfile.gettempdir()) + r"/tffl-\w+/")
"""The folder of the runs, which no table needs to name."""


def program(*arguments: object) -> list[str]:
    """Returns the command line of tffl."""
    return [sys.executable, "-m", "tffl", *map(str, arguments)]


def simulate(out: Path) -> list[str]:
    """Returns the command that begins the run in a folder, or continues what is there."""
    if (out / "config.toml").exists():
        return program("simulate", "--resume", out, "--quiet")
    # A run that was killed before it wrote its first file begins again from its options.
    how = "--resume" if out.exists() else "--out"
    return program("simulate", how, out, *EXPERIMENT)


def tables(run: Path) -> list[str]:
    """Returns both tables without the columns of seconds."""
    frames = [
        pd.read_csv(run / name, dtype=str, keep_default_na=False)
        for name in ("rounds.csv", "clients.csv")
    ]
    return [f.loc[:, ~f.columns.str.endswith("_seconds")].to_csv(index=False) for f in frames]


def rounds(run: Path) -> int:
    """Returns how many rounds a run's table has."""
    try:
        return len((run / "rounds.csv").read_text(encoding="utf-8").splitlines()) - 1
    except OSError:
        return 0


def call(command: Sequence[str], **options: Any) -> tuple[int, str]:
    """Returns a command's exit code, and what it said on stderr."""
    process = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options
    )
    return process.returncode, process.stderr.strip()


def row(fault: str, case: object, held: bool | None, line: str = "", **more: Any) -> dict[str, Any]:
    """Returns a row of the table, and prints it; `held` is None if another row judges the fault."""
    text = SCRATCH.sub("", " ".join(line.split()))
    judged = None if held is None else int(held)
    result = {"fault": fault, "case": case, "held": judged, "line": text[:300], **more}
    print(*(f"{name}={result[name]}" for name in COLUMNS if name in result), flush=True)
    return result


def one_line(text: str) -> bool:
    """Says whether an error is one line."""
    return text.startswith("Error: ") and "\n" not in text


class Undisturbed:
    """The undisturbed run.

    Attributes:
      tables: What every other run has to end with.
      seconds: How long it took.
      bytes: How much it wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        run, begin = folder / "undisturbed", time.monotonic()
        code, said = call(simulate(run))
        if code:
            raise SystemExit(f"the undisturbed run failed: {said}")
        self.seconds = time.monotonic() - begin
        self.tables = tables(run)
        self.bytes = sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
        print(f"undisturbed: {self.seconds:.1f} s, {self.bytes / 1024:.0f} KiB", flush=True)

    def equals(self, run: Path) -> bool:
        """Says whether a run has ended with the same tables."""
        try:
            return (run / "summary.json").exists() and tables(run) == self.tables
        except OSError:
            return False
