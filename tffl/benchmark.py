"""Attacks × defenses × settings × seeds, as one file says: full trajectories, one row for each.

    seeds = [0, 1, 2]
    attacks = ["sign-flip", { name = "lie", z = 1.0, label = "lie z = 1" }]
    defenses = ["multi-krum", { name = "multi-krum", malicious = 2, label = "multi-krum, told 2" }]

    [experiment.data]
    dataset = "fashion_mnist"

    [settings.iid]
    "federation.malicious" = 2

    [settings."dirichlet 0.5"]
    "data.partition" = "dirichlet"

Attack-free and undefended runs belong to every benchmark and need not be named. A finished run is a
file in `cells/`, and is never run again; a run that fails is recorded, and the others go on.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from tffl.config import Config, Named, Section, build, override, read
from tffl.errors import TfflError, require
from tffl.record.atomic import write_text
from tffl.record.run_directory import differences, write_json
from tffl.record.tables import to_csv

if TYPE_CHECKING:
    import pandas as pd

    from tffl.federated.workshop import Workshop

NONE = "none"
METRICS = ("recall", "precision", "fpr", "f1", "balanced_accuracy", "auc")
COLUMNS = (
    *("setting", "attack", "defense", "seed"),
    *("accuracy", "best_accuracy", "attack_success", *METRICS),
    *("malicious", "rejected", "defense_seconds", "seconds", "error"),
)
"""Columns of `results.csv`: final accuracy and attack success, means of metrics over rounds."""


def _one_setting() -> dict[str, dict[str, Any]]:
    return {"": {}}


class Plan(Section):
    """What a benchmark file says."""

    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    attacks: list[str | dict[str, Any]]
    defenses: list[str | dict[str, Any]]
    experiment: dict[str, Any] = Field(default_factory=dict)
    """Sections of a config, common to all runs."""
    settings: dict[str, dict[str, Any]] = Field(default_factory=_one_setting)
    """Label → dotted config keys and values that one setting changes."""


@dataclass(frozen=True)
class Cell:
    """One run of a benchmark."""

    setting: str
    attack: str
    defense: str
    seed: int
    config: Config

    @property
    def path(self) -> Path:
        """Where its result is kept, relative to `cells/`; its run, relative to `runs/`."""
        parts = (self.setting or "all", self.attack, self.defense, f"seed-{self.seed}")
        return Path(*map(slug, parts))

    @property
    def key(self) -> dict[str, Any]:
        """Returns its row's first columns."""
        named = ("setting", "attack", "defense", "seed")
        return {name: getattr(self, name) for name in named}


def slug(text: str) -> str:
    """Returns a label as a file name.

    >>> slug("Dirichlet 0.5, 2 of 20")
    'Dirichlet-0.5-2-of-20'
    """
    return re.sub(r"[^A-Za-z0-9.+_]+", "-", text).strip("-.") or "_"


def load(path: Path | str) -> list[Cell]:
    """Reads a benchmark file.

    Returns:
      Its runs: by setting, seed, attack and defense, attack-free and undefended ones first.

    Raises:
      UsageError: The file is invalid, or names what does not exist.
    """
    plan = build(read(Path(path)), Plan)
    cells = list(_cells(plan))
    paths = [cell.path for cell in cells]
    twice = [str(path) for path in paths if paths.count(path) > 1]
    require(not twice, f"{path} has two runs {twice[0] if twice else ''}: give them labels")
    return cells


def labeled(entries: list[str | dict[str, Any]]) -> dict[str, Named]:
    """Returns label → attack or defense, `none` first.

    >>> list(labeled(["krum", {"name": "lie", "z": 1.0, "label": "lie z = 1"}]))
    ['none', 'krum', 'lie z = 1']

    Raises:
      UsageError: An entry has no name, or two have the same label.
    """
    result = {NONE: Named()}
    for entry in entries:
        values = {"name": entry} if isinstance(entry, str) else dict(entry)
        require("name" in values, f"a benchmark's entry {entry} has no name")
        label = str(values.pop("label", values["name"]))
        if label == NONE:
            continue
        require(label not in result, f"two entries are called '{label}': give one a label")
        result[label] = Named.model_validate(values)
    return result


def _cells(plan: Plan) -> Iterator[Cell]:
    attacks, defenses = labeled(plan.attacks), labeled(plan.defenses)
    for setting, changes in plan.settings.items():
        base = override(plan.experiment, changes)
        for seed in plan.seeds:
            for attack, told in attacks.items():
                for defense, judge in defenses.items():
                    values = {
                        **base,
                        "seed": seed,
                        "attack": told.model_dump(),
                        "defense": judge.model_dump(),
                    }
                    values["record"] = {
                        **values.get("record", {}),
                        **dict.fromkeys(("tensorboard", "export", "figures"), False),
                    }
                    yield Cell(setting, attack, defense, seed, build(values).resolved())


def run(
    cells: list[Cell],
    out: Path,
    *,
    keep_runs: bool = False,
    progress: Callable[[int, Cell | None, str], None] = lambda done, cell, error: None,
) -> pd.DataFrame:
    """Runs what is not finished yet, and writes `results.csv` and `results.md`.

    Args:
      cells: What `load` returned.
      out: Folder of the benchmark.
      keep_runs: Keep the run directory of each run; otherwise only its result stays.
      progress: Called with how many runs are done, the one that begins (None after the last), and
        the error of the one before it, or "".

    Returns:
      What `results.csv` says: one row per run.

    Raises:
      TfflError: The folder cannot be written. A run that fails is recorded, and raises nothing.
    """
    from tffl.federated.runtime import silence

    silence()
    from tffl.federated.workshop import Workshop

    workshop, error = Workshop(), ""
    for done, cell in enumerate(cells):
        progress(done, cell, error)
        error = ""
        if finished(cell, out) is None:
            error = _run_cell(cell, out, keep_runs, workshop)
    progress(len(cells), None, error)
    return collect(cells, out)


def finished(cell: Cell, out: Path) -> dict[str, Any] | None:
    """Returns the recorded row of a run that went well, with the same config as now."""
    stored = _stored(cell, out)
    if stored is None or stored["error"] or stored["identity"] != _identity(cell):
        return None
    return dict(stored["row"])


def collect(cells: list[Cell], out: Path) -> pd.DataFrame:
    """Writes the tables of all runs that are recorded, and returns them."""
    import pandas as pd

    from tffl.benchmark_table import markdown

    rows = [_row(cell, stored) for cell in cells if (stored := _stored(cell, out))]
    write_text(out / "results.csv", to_csv(COLUMNS, rows))
    write_text(out / "results.md", markdown(rows))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(cell: Cell, stored: Mapping[str, Any]) -> dict[str, Any]:
    return {**dict.fromkeys(COLUMNS), **cell.key, **stored["row"], "error": stored["error"]}


def _stored(cell: Cell, out: Path) -> dict[str, Any] | None:
    file = out / "cells" / cell.path.with_suffix(".json")
    if not file.exists():
        return None
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored if {"identity", "row", "error"} <= set(stored) else None


def _identity(cell: Cell) -> Any:
    return json.loads(json.dumps(cell.config.identity()))


def _run_cell(cell: Cell, out: Path, keep_runs: bool, workshop: Workshop) -> str:
    """Runs and records one cell; returns its error, or ""."""
    directory, began = out / "runs" / cell.path, time.perf_counter()
    row, error = {}, ""
    try:
        row = _outcome(cell, directory, workshop)
    except TfflError as failure:
        error = str(failure)
    except (ArithmeticError, ValueError, RuntimeError, MemoryError) as failure:
        error = f"{type(failure).__name__}: {failure}".splitlines()[0]
    row["seconds"] = round(time.perf_counter() - began, 2)
    target = out / "cells" / cell.path.with_suffix(".json")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(target, {"identity": _identity(cell), "row": row, "error": error})
    if not keep_runs and not error:
        shutil.rmtree(directory, ignore_errors=True)
    return error


def _outcome(cell: Cell, directory: Path, workshop: Workshop) -> dict[str, Any]:
    from tffl.federated.simulation import simulate

    resume = (directory / "config.toml").exists()
    if resume and differences(build(read(directory / "config.toml")), cell.config):
        shutil.rmtree(directory)  # left by an older version of the benchmark file
        resume = False
    result = simulate(cell.config, directory, resume=resume, workshop=workshop)
    rounds = result.rounds
    return {
        "accuracy": result.summary["accuracy"],
        "best_accuracy": float(rounds["accuracy"].max()),
        "attack_success": result.summary["attack_success"],
        **{metric: result.summary[f"mean_{metric}"] for metric in METRICS},
        "malicious": len(result.summary["malicious_clients"]),
        "rejected": result.summary["rejected"],
        "defense_seconds": round(float(rounds["defense_seconds"].mean()), 5),
    }
