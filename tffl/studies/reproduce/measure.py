"""Runs what a paper's items need and nobody has measured yet, and records it as tables.

    RUNS/<paper>/<scale>/<experiment>/     unfinished work, one file for each finished run
    OUT/<scale>/<experiment>.csv           a row for each run
    OUT/<scale>/<experiment>_rounds.csv    a row for each round of each run
    OUT/<scale>/<experiment>_clients.csv   a row for each client of each run: its mean score
    OUT/<scale>/<experiment>.json          when, where and by which command

Recorded runs are taken from the tables where the work folder is gone, as in a fresh clone, if they
are of the same config as now.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tffl.core.atomic import write_text
from tffl.core.errors import TfflError
from tffl.core.jsonable import write_json
from tffl.record.identity import identity
from tffl.record.tables import read_rows, to_csv
from tffl.studies.benchmark import BY_ROUND, COLUMNS, Cell, recorded, run, store
from tffl.studies.benchmark_table import defined, mean
from tffl.studies.pages.builder import present_environment
from tffl.studies.reproduce.plan import SMOKE, Experiment, Item

KEY = ("setting", "attack", "defense", "seed")
OWN = ("detection_accuracy", "round_seconds", "fingerprint")
RUN_COLUMNS = (*COLUMNS[:-1], *OWN, "error")
ROUND_COLUMNS = (*KEY, "round", *BY_ROUND)
CLIENT_COLUMNS = (*KEY, "client", "malicious", "score")
ENVIRONMENT = ("command", "recorded", "versions", "machine", "devices")
TEXT = ("setting", "attack", "defense", "error", "fingerprint")

Row = Mapping[str, Any]
Key = tuple[str, str, str, int]


@dataclass(frozen=True)
class Record:
    """What is known of an experiment's runs at one scale.

    Attributes:
      runs: Rows of `RUN_COLUMNS`, undefined values None.
      rounds: Key of a run → rows of `ROUND_COLUMNS`, by round.
      clients: Key of a run → rows of `CLIENT_COLUMNS`.
      environment: What the JSON file says.
    """

    runs: list[dict[str, Any]]
    rounds: dict[Key, list[dict[str, Any]]]
    clients: dict[Key, list[dict[str, Any]]]
    environment: dict[str, Any]

    def curve(self, row: Row, column: str) -> list[float | None]:
        """Returns a run's column by round."""
        return [line[column] for line in self.rounds.get(key_of(row), [])]


def key_of(row: Row) -> Key:
    """Returns what distinguishes a run from the others of its experiment."""
    return str(row["setting"]), str(row["attack"]), str(row["defense"]), int(row["seed"])


def fingerprint(cell: Cell) -> str:
    """Returns a short hash of everything that decides a run's numbers."""
    text = json.dumps(identity(cell.config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def default_out(paper: str, scale: str) -> Path:
    """Returns where a paper's tables go: smoke tests are wiring, and no result."""
    return Path("runs/reproduce/smoke" if scale == SMOKE else "results") / paper


def work_folder(runs: Path, experiment: Experiment, scale: str) -> Path:
    """Returns where an experiment's unfinished work is."""
    return runs / experiment.paper / scale / experiment.name


def reproduce(
    experiment: Experiment,
    items: Sequence[Item],
    scale: str,
    out: Path,
    runs: Path,
    *,
    command: Sequence[str] = (),
    progress: Callable[[int, Cell | None, str], None] = lambda done, cell, error: None,
) -> int:
    """Runs what some items lack, and records everything that is known of the experiment.

    Args:
      experiment: The experiment.
      items: Those of its items whose runs are wanted.
      scale: At which size.
      out: Where tables go; what they hold already is kept, if its config has not changed.
      runs: Where unfinished work is.
      command: The command line, for the record.
      progress: As `tffl.studies.benchmark.run` calls it.

    Returns:
      How many runs failed.

    Raises:
      TfflError: Something cannot be written.
    """
    cells, work = experiment.cells(items, scale), work_folder(runs, experiment, scale)
    papers = {item.paper for item in items}
    same = [item for item in experiment.spec.items if item.paper in papers]
    every = experiment.cells(same, scale)
    known: dict[str, Any] = {}
    for folder in _folders(out, experiment, scale):
        restore(every, folder, experiment, work)
        known = known or read_record(folder, experiment.name).environment
    missing = [cell for cell in cells if not _is_finished(cell, work)]

    def keeps(cell: Cell) -> bool:
        return experiment.keeps_maps(cell, scale)

    try:
        if missing:
            run([_drawing(cell, keeps) for cell in cells], work, keep_runs=keeps, progress=progress)
        for cell in filter(keeps, cells):
            _copy_pictures(cell, work, out / scale, experiment)
    finally:
        record(every, out / scale, experiment, work, _environment(command) if missing else known)
    return sum(bool((recorded(cell, work) or {"error": "x"})["error"]) for cell in cells)


def missing_cells(
    experiment: Experiment, items: Sequence[Item], scale: str, out: Path, runs: Path
) -> tuple[list[Cell], int]:
    """Returns the runs that some items lack, and how many they have."""
    cells, work = experiment.cells(items, scale), work_folder(runs, experiment, scale)
    known: dict[Key, set[str]] = {}
    for folder in _folders(out, experiment, scale):
        for row in read_record(folder, experiment.name).runs:
            if not row["error"]:
                known.setdefault(key_of(row), set()).add(row["fingerprint"])

    def is_known(cell: Cell) -> bool:
        prints = known.get(key_of(cell.key))
        return bool(prints and fingerprint(cell) in prints) or _is_finished(cell, work)

    lacking = [cell for cell in cells if not is_known(cell)]
    return lacking, len(cells) - len(lacking)


def restore(cells: Sequence[Cell], folder: Path, experiment: Experiment, work: Path) -> None:
    """Puts runs that tables hold into the work folder, unless they are there."""
    known = read_record(folder, experiment.name)
    by_key = {key_of(row): row for row in known.runs if not row["error"]}
    for cell in cells:
        row = by_key.get(key_of(cell.key))
        if row is None or recorded(cell, work) or row["fingerprint"] != fingerprint(cell):
            continue
        kept = {name: row[name] for name in COLUMNS if name not in (*KEY, "error")}
        rounds = known.rounds.get(key_of(row), [])
        columns = [name for name in BY_ROUND if any(line[name] is not None for line in rounds)]
        of_rounds = {name: [line[name] for line in rounds] for name in columns}
        of_rounds["seconds"] = [row["round_seconds"]] * len(rounds)
        clients = known.clients.get(key_of(row), [])
        of_clients = {
            name: [line[name] for line in clients] for name in ("client", "malicious", "score")
        }
        store(cell, work, kept, rounds=of_rounds, clients=of_clients)


def record(
    cells: Sequence[Cell],
    folder: Path,
    experiment: Experiment,
    work: Path,
    environment: Mapping[str, Any],
) -> None:
    """Writes the tables of all runs in the work folder.

    Args:
      cells: The experiment's.
      folder: Where to.
      experiment: The experiment.
      work: Its work folder.
      environment: Where the latest of them were run; empty if nobody knows.

    Raises:
      TfflError: A file cannot be written.
    """
    runs: list[Row] = []
    rounds: list[Row] = []
    clients: list[Row] = []
    for cell in cells:
        stored = recorded(cell, work)
        if stored is None:
            continue
        of_rounds = stored.get("rounds") or {}
        lines = _lines(of_rounds, [name for name in BY_ROUND if name in of_rounds])
        rounds += [{**cell.key, "round": number, **line} for number, line in enumerate(lines, 1)]
        own = {
            "detection_accuracy": mean(_numbers(of_rounds.get("detection_accuracy"))),
            "round_seconds": round(mean(_numbers(of_rounds.get("seconds"))), 4),
            "fingerprint": fingerprint(cell),
        }
        row = {**dict.fromkeys(COLUMNS), **cell.key, **stored["row"], "error": stored["error"]}
        runs.append({**row, **own})
        lines = _lines(stored.get("clients") or {}, ("client", "malicious", "score"))
        clients += [{**cell.key, **line} for line in lines if line["score"] is not None]
    if not runs:
        return
    stem = experiment.name
    write_text(folder / f"{stem}.csv", to_csv(RUN_COLUMNS, runs))
    write_text(folder / f"{stem}_rounds.csv", to_csv(ROUND_COLUMNS, rounds))
    write_text(folder / f"{stem}_clients.csv", to_csv(CLIENT_COLUMNS, clients))
    if environment:
        write_json(folder / f"{stem}.json", environment)


def read_record(folder: Path, name: str) -> Record:
    """Reads the tables of an experiment; empty where there are none.

    Raises:
      TfflError: A table is damaged.
    """
    runs = _read(folder / f"{name}.csv", RUN_COLUMNS)
    rounds = _read(folder / f"{name}_rounds.csv", ROUND_COLUMNS)
    clients = _read(folder / f"{name}_clients.csv", CLIENT_COLUMNS)
    environment = _read_environment(folder / f"{name}.json")
    return Record(runs, _by_key(rounds), _by_key(clients), environment)


def _read_environment(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise TfflError(f"{path} is not valid JSON") from None
    lacking = [key for key in ENVIRONMENT if not isinstance(found, dict) or key not in found]
    if lacking:
        raise TfflError(f"{path} is damaged: it lacks {', '.join(lacking)}")
    return found


def _folders(out: Path, experiment: Experiment, scale: str) -> list[Path]:
    """Returns where runs of an experiment may be recorded: another paper may share it."""
    return list(dict.fromkeys([out / scale, out.parent / experiment.paper / scale]))


def _is_finished(cell: Cell, work: Path) -> bool:
    stored = recorded(cell, work)
    return stored is not None and not stored["error"]


def _drawing(cell: Cell, keeps: Callable[[Cell], bool]) -> Cell:
    """Lets a run draw the heat maps of its last round; that changes none of its numbers."""
    if not keeps(cell):
        return cell
    kept = {"pictures_every": cell.config.federation.rounds}
    of_record = cell.config.record.model_copy(update=kept)
    config = cell.config.model_copy(update={"record": of_record})
    return Cell(cell.setting, cell.attack, cell.defense, cell.seed, config)


def _copy_pictures(cell: Cell, work: Path, folder: Path, experiment: Experiment) -> None:
    """Copies the heat maps of a run's last round to where its tables are."""
    from tffl.record.run_directory import FIGURES, picture_files

    last = cell.config.federation.rounds
    for kind, file in picture_files(work / "runs" / cell.path / FIGURES, last):
        if kind.startswith("heat_maps"):
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / f"{experiment.name}_{kind}.png")


def _environment(command: Sequence[str]) -> dict[str, Any]:
    from tffl.core.process import silence

    silence()
    return {
        "command": " ".join(command),
        "recorded": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **present_environment(),
        "devices": _devices(),
    }


def _devices() -> list[str]:
    import tensorflow as tf

    return sorted({device.device_type for device in tf.config.list_physical_devices()})


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    rows: list[Any] = read_rows(path) if path.exists() else []
    if any(tuple(row) != tuple(columns) for row in rows[:1]):
        raise TfflError(f"{path} is not a table with columns {','.join(columns)}")
    try:
        return [{key: _value(key, text) for key, text in row.items()} for row in rows]
    except (TypeError, ValueError) as error:
        raise TfflError(f"{path} is damaged: {error}") from None


def _value(key: str, text: str) -> Any:
    if key in TEXT:
        return text
    if text == "":
        return None
    # Floats are written with a point or an exponent: what comes back is written the same again.
    return int(text) if text.lstrip("-").isdigit() else float(text)


def _by_key(rows: Sequence[dict[str, Any]]) -> dict[Key, list[dict[str, Any]]]:
    found: dict[Key, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(key_of(row), []).append(row)
    return found


def _lines(columns: Mapping[str, list[Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Turns columns into rows; none if a column is missing."""
    if not names or not set(names) <= set(columns):
        return []
    values = zip(*(columns[name] for name in names), strict=True)
    return [dict(zip(names, line, strict=True)) for line in values]


def _numbers(values: Sequence[float | None] | None) -> list[float]:
    return defined([{"": value} for value in values or ()], "")
