"""Reads the runs and benchmarks of a report from their folders."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tffl.config import Config
from tffl.core.errors import TfflError, UsageError, require
from tffl.core.measured import measured
from tffl.record.tables import read_rows

if TYPE_CHECKING:
    import pandas as pd

    from tffl.drawing.explanation import Explanation

SPLIT_COLUMNS = ("client", "class", "samples", "trained")


@dataclass(frozen=True)
class RecordedRun:
    """The content of a run directory, finished or not.

    Attributes:
      path: The folder.
      name: A name that is unique in the report.
      config: The experiment.
      rounds: `rounds.csv`; empty if no round is finished.
      clients: `clients.csv` of the same rounds.
      summary: `summary.json`; empty if the run is unfinished.
      environment: `environment.json`; empty if it is missing.
      split: `split.csv`; empty in runs that did not record it.
    """

    path: Path
    name: str
    config: Config
    rounds: pd.DataFrame
    clients: pd.DataFrame
    summary: dict[str, Any]
    environment: dict[str, Any]
    split: list[dict[str, Any]]

    @property
    def finished(self) -> bool:
        """Whether the summary and all rounds up to the planned or early end are written."""
        last = self.summary.get("stopped_after", self.config.federation.rounds)
        return bool(self.summary) and len(self.rounds) >= last

    @property
    def scored(self) -> bool:
        """Whether the defense scores clients."""
        return bool(self.clients["score"].notna().any())

    @property
    def warning(self) -> str:
        """One or two sentences about missing rounds and ruined models; empty if there are none."""
        return ". ".join(filter(None, (self._unfinished(), self._ruined())))

    def _ruined(self) -> str:
        evaluated = measured(self.rounds, "accuracy")
        ruined = evaluated.loc[evaluated["accuracy"].isna(), "round"].tolist()
        if not ruined:
            return ""
        return (
            f"{self.name}: in {len(ruined)} of {len(evaluated)} rounds, first in round "
            f"{ruined[0]}, the outputs of the global model are not finite, so it has no accuracy"
        )

    def _unfinished(self) -> str:
        if self.finished:
            return ""
        planned = self.config.federation.rounds
        done = f"{len(self.rounds)} of {planned} rounds" if len(self.rounds) else "no round yet"
        command = f"tffl simulate --resume {self.path}"
        return f"{self.name} is unfinished ({done}): {command} continues it"

    def explanations(self, rounds: Sequence[int] = ()) -> list[Explanation]:
        """Returns the recorded heat maps of rounds.

        Args:
          rounds: The rounds; by default the last one that has heat maps.

        Raises:
          UsageError: A round has no heat maps.
          TfflError: A file is damaged.
        """
        from tffl.core.process import silence
        from tffl.record.run_directory import PICTURES, RunDirectory, round_files
        from tffl.studies.explain_rounds import recorded_explanations

        known = set(self.rounds["round"].tolist())
        possible = [round for round in round_files(self.path / PICTURES) if round in known]
        choices = f"choose one of {', '.join(map(str, possible))}"
        hint = choices if possible else "leave out --round"
        for round in rounds:
            require(round in possible, f"{self.path} has no heat maps of round {round}: {hint}")
        chosen = list(rounds) or possible[-1:]
        if not chosen:
            return []
        silence()  # pictures of heat maps need TensorFlow
        directory = RunDirectory.open(self.path)
        return [each for round in chosen for each in recorded_explanations(directory, round)]


@dataclass(frozen=True)
class RecordedBenchmark:
    """The content of a benchmark's folder.

    Attributes:
      path: The folder.
      name: A name that is unique in the report.
      rows: The rows of `results.csv`; undefined numbers are None.
      warning: A sentence about missing or failed runs; empty if there are none.
    """

    path: Path
    name: str
    rows: list[dict[str, Any]]
    warning: str = ""

    @cached_property
    def settings(self) -> list[str]:
        """The settings in order of appearance."""
        return list(dict.fromkeys(str(row["setting"]) for row in self.rows))


def read_folders(paths: Sequence[Path]) -> list[RecordedRun | RecordedBenchmark]:
    """Reads folders that each hold a run or a benchmark.

    Raises:
      UsageError: A folder holds neither, or is named twice.
      TfflError: A file is damaged.
    """
    absolute = [path.resolve() for path in paths]
    twice = [path for path, same in zip(paths, absolute, strict=True) if absolute.count(same) > 1]
    require(not twice, f"{twice[0] if twice else ''} is named twice: name each folder once")
    names = distinct_names(absolute)
    return [_read(path, name) for path, name in zip(paths, names, strict=True)]


def read_runs(paths: Sequence[Path]) -> list[RecordedRun]:
    """Reads run directories.

    Raises:
      UsageError: A folder is not a run, or is named twice.
      TfflError: A file is damaged.
    """
    runs = []
    for found in read_folders(paths):
        if isinstance(found, RecordedBenchmark):
            raise UsageError(f"{found.path} is a benchmark, not a run: tffl report shows it")
        runs.append(found)
    return runs


def baselines(run: RecordedRun) -> list[RecordedRun]:
    """Returns the runs that `tffl simulate --compare` put into a run's folder."""
    from tffl.studies.comparison import VARIANTS

    folders = [run.path / variant for variant in VARIANTS]
    there = [folder for folder in folders if (folder / "config.toml").is_file()]
    return [replace(read_run(folder), name=f"{run.name}: {folder.name}") for folder in there]


def read_run(path: Path, name: str = "") -> RecordedRun:
    """Reads a run directory.

    Args:
      path: The folder.
      name: The name in the report; by default that of the folder.

    Raises:
      UsageError: The folder holds no run.
      TfflError: A file is damaged.
    """
    from tffl.record.run_directory import RunDirectory

    run = RunDirectory.open(path)
    rounds, clients = run.frames()
    for file, frame in (("rounds.csv", rounds), ("clients.csv", clients)):
        _check_numbers(path / file, frame)
    return RecordedRun(
        path,
        name or path.resolve().name,
        run.config,
        rounds,
        clients[clients["round"].isin(rounds["round"])].reset_index(drop=True),
        _read_json(path / "summary.json"),
        _read_json(path / "environment.json"),
        _read_split(path / "split.csv"),
    )


def read_benchmark(path: Path, name: str = "") -> RecordedBenchmark:
    """Reads the folder of a benchmark; if it was interrupted, the results so far.

    Args:
      path: The folder.
      name: The name in the report; by default that of the folder.

    Raises:
      UsageError: There are no results yet.
      TfflError: A file is damaged.
    """
    name = name or path.resolve().name
    cells = sorted(path.glob("cells/**/seed-*.json"))
    rows = _read_results(path / "results.csv") if (path / "results.csv").is_file() else []
    require(bool(cells or rows), f"{path} is a benchmark without any recorded run")
    if len(cells) <= len(rows):
        return RecordedBenchmark(path, name, rows, _failures(name, rows))
    # The tables are written when the benchmark ends; until then only the single results exist.
    rows = [_read_cell(file, path / "cells") for file in cells]
    warning = f"{name} is unfinished: only {len(rows)} runs are recorded so far"
    return RecordedBenchmark(path, name, rows, warning)


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Returns the shortest ends of paths that are all different.

    >>> distinct_names([Path("a/x/run"), Path("a/y/run")])
    ['x/run', 'y/run']
    """
    longest = max((len(path.parts) for path in paths), default=1)
    for length in range(1, longest + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _read(path: Path, name: str) -> RecordedRun | RecordedBenchmark:
    require(path.exists(), f"there is no folder {path}: check the path")
    require(path.is_dir(), f"{path} is a file: name the folder of a run or a benchmark")
    if (path / "config.toml").is_file():
        return read_run(path, name)
    if (path / "results.csv").is_file() or (path / "cells").is_dir():
        return read_benchmark(path, name)
    inner = sorted({str(file.parent) for file in path.glob("*/config.toml")})[:3]
    hint = f"did you mean {' or '.join(inner)}?" if inner else "check the path"
    raise UsageError(
        f"{path} is neither a run (no config.toml) nor a benchmark (no results.csv): {hint}"
    )


def _check_numbers(path: Path, frame: pd.DataFrame) -> None:
    from pandas.api.types import is_numeric_dtype

    columns = [name for name in frame.columns if name != "reason"]
    wrong = [name for name in columns if len(frame) and not is_numeric_dtype(frame[name])]
    if wrong:
        raise TfflError(
            f"{path} is damaged: its column {wrong[0]} holds values that are not numbers"
        )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TfflError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise TfflError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise TfflError(f"{path} is damaged: it holds no JSON object")
    return values


def _read_split(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows = read_rows(path)
    try:
        return [{key: row[key] if key == "class" else int(row[key]) for key in row} for row in rows]
    except (TypeError, ValueError):
        columns = ",".join(SPLIT_COLUMNS)
        raise TfflError(f"{path} is not a table with the columns {columns}") from None


def _read_results(path: Path) -> list[dict[str, Any]]:
    from tffl.studies.benchmark import COLUMNS

    rows = read_rows(path)
    if any(set(row) != set(COLUMNS) for row in rows):
        raise TfflError(f"{path} is not a benchmark's table: it has other columns")
    try:
        return [{key: _parse(key, value) for key, value in row.items()} for row in rows]
    except (TypeError, ValueError) as error:
        raise TfflError(f"{path} is damaged: {error}") from None


def _parse(key: str, text: str) -> Any:
    if key in ("setting", "attack", "defense", "error"):
        return text
    number = float(text) if text else math.nan
    return None if math.isnan(number) else number


def _read_cell(path: Path, folder: Path) -> dict[str, Any]:
    from tffl.studies.benchmark import COLUMNS

    stored = _read_json(path)
    if not isinstance(stored.get("row"), dict):
        raise TfflError(f"{path} is damaged: it holds no result of a run")
    parts = path.relative_to(folder).parts
    if len(parts) != 4:
        raise TfflError(f"{path} is not at the path of a benchmark's result")
    setting, attack, defense, _ = parts
    seed = int(re.sub(r"\D", "", path.stem) or 0)
    key = {"setting": setting, "attack": attack, "defense": defense, "seed": seed}
    key |= stored.get("cell") or {}  # the labels, of which the path holds only a simplified form
    return {**dict.fromkeys(COLUMNS), **stored["row"], **key, "error": stored.get("error", "")}


def _failures(name: str, rows: Sequence[dict[str, Any]]) -> str:
    failed = sum(bool(row["error"]) for row in rows)
    return f"{failed} of {len(rows)} runs of {name} failed" if failed else ""
