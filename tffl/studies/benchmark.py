"""Benchmarks: full runs of all attacks × defenses × settings × seeds that one file lists.

    seeds = [0, 1, 2]
    attacks = ["sign-flip", { name = "lie", z = 1.0, label = "lie z = 1" }]
    defenses = ["multi-krum", { name = "multi-krum", malicious = 2, label = "multi-krum, f = 2" }]

    [experiment.data]
    dataset = "fashion_mnist"

    [settings.iid]
    "federation.malicious" = 2

    [settings."dirichlet 0.5"]
    "data.partition" = "dirichlet"

Attack-free and undefended runs are part of every benchmark and need not be listed. The result of a
finished run is a file in `cells/`, and the run is not repeated. A run that fails is recorded, and
the others continue.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from tffl.config import ComponentConfig, Config, Section, build, build_from_file, override
from tffl.config import load as load_config
from tffl.core.atomic import write_text
from tffl.core.errors import FAILURES, TfflError, reason, require
from tffl.core.jsonable import plain
from tffl.record.identity import differences, identity, resolved
from tffl.record.lock import locked
from tffl.record.tables import to_csv
from tffl.record.writer import make_folder

if TYPE_CHECKING:
    import pandas as pd

    from tffl.simulation.shared_resources import SharedResources

NONE = "none"
METRICS = ("recall", "precision", "fpr", "f1", "balanced_accuracy", "auc")
COLUMNS = (
    *("setting", "attack", "defense", "seed"),
    *("accuracy", "best_accuracy", "attack_success", *METRICS),
    *("malicious", "rejected", "defense_seconds", "seconds", "error"),
)
"""Columns of `results.csv`: final accuracy and attack success, means of metrics over rounds."""

BY_ROUND = ("accuracy", "attack_success", "detection_accuracy", *METRICS, "rejected")
"""The columns of every round that a run's file in `cells/` keeps, in addition to the seconds."""
DIGITS = 6
"""Digits that the file keeps of each number."""


def _one_setting() -> dict[str, dict[str, Any]]:
    return {"": {}}


class Plan(Section):
    """The content of a benchmark file."""

    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    attacks: list[str | dict[str, Any]]
    defenses: list[str | dict[str, Any]]
    experiment: dict[str, Any] = Field(default_factory=dict)
    """Sections of a config that all runs share."""
    settings: dict[str, dict[str, Any]] = Field(default_factory=_one_setting)
    """Label → dotted config keys and the values that this setting gives them."""


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
        """The path of its result relative to `cells/`, and of its run relative to `runs/`."""
        parts = (self.setting or "all", self.attack, self.defense, f"seed-{self.seed}")
        return Path(*map(slug, parts))

    @property
    def title(self) -> str:
        """What progress calls it."""
        return " · ".join(filter(None, (*list(self.key.values())[:3], f"seed {self.seed}")))

    @property
    def key(self) -> dict[str, Any]:
        """The first columns of its row."""
        names = ("setting", "attack", "defense", "seed")
        return {name: getattr(self, name) for name in names}


def slug(text: str) -> str:
    """Returns a label as a file name.

    >>> slug("Dirichlet 0.5, 2 of 20")
    'Dirichlet-0.5-2-of-20'
    """
    return re.sub(r"[^A-Za-z0-9.+_]+", "-", text).strip("-.") or "_"


def load(path: Path | str) -> list[Cell]:
    """Reads a benchmark file.

    Returns:
      Its runs, ordered by setting, seed, attack and defense; attack-free and undefended runs first.

    Raises:
      UsageError: The file is invalid, or names something that does not exist.
    """
    return grid(build_from_file(Path(path), cls=Plan), str(path))


def grid(
    plan: Plan, name: str, wanted: Callable[[str, str, str], bool] = lambda *labels: True
) -> list[Cell]:
    """Returns the runs of a plan.

    Args:
      plan: The plan.
      name: The name of the plan in error messages.
      wanted: Returns whether to run a setting, attack and defense, given by their labels.

    Raises:
      UsageError: The plan names something that does not exist, or two runs would share a file.
    """
    cells = list(_cells(plan, wanted))
    seen: set[Path] = set()
    for cell in cells:
        require(cell.path not in seen, f"{name} has two runs called {cell.path}: give them labels")
        seen.add(cell.path)
    return cells


def labeled(entries: list[str | dict[str, Any]]) -> dict[str, ComponentConfig]:
    """Returns label → attack or defense, `none` first.

    >>> list(labeled(["krum", {"name": "lie", "z": 1.0, "label": "lie z = 1"}]))
    ['none', 'krum', 'lie z = 1']

    Raises:
      UsageError: An entry has no name, or two have the same label.
    """
    result = {NONE: ComponentConfig()}
    for entry in entries:
        values = {"name": entry} if isinstance(entry, str) else dict(entry)
        require("name" in values, f"a benchmark's entry {entry} has no name")
        label = str(values.pop("label", values["name"]))
        if label == NONE:
            continue
        require(label not in result, f"two entries are called '{label}': give one a label")
        result[label] = ComponentConfig.model_validate(values)
    return result


def _cells(plan: Plan, wanted: Callable[[str, str, str], bool]) -> Iterator[Cell]:
    attacks, defenses = labeled(plan.attacks), labeled(plan.defenses)
    known: dict[tuple[str, str], dict[str, ComponentConfig]] = {}
    for setting, changes in plan.settings.items():
        base = override(plan.experiment, changes)
        for seed in plan.seeds:
            config = _common_config(base, seed)
            for attack, attack_config in attacks.items():
                for defense, defense_config in defenses.items():
                    if not wanted(setting, attack, defense):
                        continue
                    if (attack, defense) not in known:
                        pair = {"attack": attack_config, "defense": defense_config}
                        whole = resolved(config.model_copy(update=pair))
                        known[attack, defense] = {"attack": whole.attack, "defense": whole.defense}
                    complete = config.model_copy(update=known[attack, defense])
                    yield Cell(setting, attack, defense, seed, complete)


def _common_config(base: Mapping[str, Any], seed: int) -> Config:
    """Returns the config that all runs of a setting and seed share, without attack and defense."""
    record = {
        **base.get("record", {}),
        **dict.fromkeys(("tensorboard", "export", "figures"), False),
    }
    none = ComponentConfig().model_dump()
    values = {**base, "seed": seed, "attack": none, "defense": none, "record": record}
    config: Config = build(values)
    return config


def run(
    cells: list[Cell],
    out: Path,
    *,
    keep_runs: bool | Callable[[Cell], bool] = False,
    progress: Callable[[int, Cell | None, str], None] = lambda done, cell, error: None,
) -> pd.DataFrame:
    """Runs every cell that is not finished yet, and writes `results.csv` and `results.md`.

    Args:
      cells: The runs, as `load` returns them.
      out: The folder of the benchmark.
      keep_runs: Whether to keep the run directories as well as the results; a function decides
        for each run.
      progress: Called with the number of finished runs, the run that starts (None after the last),
        and the error of the run before it, or "".

    Returns:
      The content of `results.csv`, one row per run.

    Raises:
      UsageError: Another process is writing to the folder.
      TfflError: The folder cannot be written. A run that fails is recorded and raises nothing.
    """
    from tffl.core.process import silence

    silence()
    from tffl.simulation.shared_resources import SharedResources

    shared, error = SharedResources(), ""
    make_folder(out)
    with locked(out):
        for done, cell in enumerate(cells):
            progress(done, cell, error)
            error = ""
            if finished(cell, out) is None:
                keep = keep_runs(cell) if callable(keep_runs) else keep_runs
                error = _run_cell(cell, out, keep, shared)
        progress(len(cells), None, error)
        return collect(cells, out)


def finished(cell: Cell, out: Path) -> dict[str, Any] | None:
    """Returns the stored row of a run that succeeded with this very config, or None."""
    stored = recorded(cell, out)
    return None if stored is None or stored["error"] else dict(stored["row"])


def recorded(cell: Cell, out: Path) -> dict[str, Any] | None:
    """Returns the stored result of a run with this very config, even if the run failed.

    Returns:
      The content of its file in `cells/`, or None. Results without `rounds` and `clients` exist.
    """
    stored = _stored(cell, out)
    return stored if stored is not None and stored["identity"] == _identity(cell) else None


def store(cell: Cell, out: Path, row: Mapping[str, Any], **more: Any) -> None:
    """Stores the result of a run, as `finished` reads it.

    Args:
      cell: The run.
      out: Folder of the benchmark.
      row: Its row of `results.csv`, without the columns of its key.
      **more: `error`, or `rounds` and `clients`: column → list of values.

    Raises:
      TfflError: The file cannot be written.
    """
    target = out / "cells" / cell.path.with_suffix(".json")
    target.parent.mkdir(parents=True, exist_ok=True)
    stored = {"cell": cell.key, "identity": _identity(cell), "row": row, "error": "", **more}
    write_text(target, json.dumps(plain(stored), allow_nan=False) + "\n")


def collect(cells: list[Cell], out: Path) -> pd.DataFrame:
    """Writes the tables of all stored results, those for TensorBoard included.

    Args:
      cells: The runs of the benchmark.
      out: The folder of the benchmark.

    Returns:
      The content of `results.csv`.

    Raises:
      TfflError: A file cannot be written.
    """
    import pandas as pd

    from tffl.record import hparams
    from tffl.studies.benchmark_table import markdown

    rows = [_row(cell, stored) for cell in cells if (stored := _stored(cell, out))]
    write_text(out / "results.csv", to_csv(COLUMNS, rows))
    write_text(out / "results.md", markdown(rows))
    hparams.write(out / "tensorboard", dict(map(_tensorboard_session, rows)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _tensorboard_session(
    row: Mapping[str, Any],
) -> tuple[str, tuple[dict[str, Any], dict[str, Any], bool]]:
    """Returns a run's folder in `tensorboard/`, with its hyperparameters, metrics and success."""
    varied = {name: row[name] for name in ("setting", "attack", "defense", "seed")}
    metrics = {name: row[name] for name in COLUMNS if name not in (*varied, "error")}
    folder = "/".join(slug(str(value) or "all") for value in varied.values())
    return folder, (varied, metrics, not row["error"])


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
    return json.loads(json.dumps(identity(cell.config)))


def _run_cell(cell: Cell, out: Path, keep_runs: bool, shared: SharedResources) -> str:
    """Runs one cell, stores its result, and returns its error or ""."""
    directory, began = out / "runs" / cell.path, time.perf_counter()
    row: dict[str, Any] = {}
    more: dict[str, Any] = {}
    error = ""
    try:
        row, more = _simulate(cell, directory, shared)
    except (TfflError, *FAILURES) as failure:
        error = reason(failure)
    row["seconds"] = round(time.perf_counter() - began, 2)
    store(cell, out, row, **more, error=error)
    if not keep_runs and not error:
        shutil.rmtree(directory, ignore_errors=True)
    return error


def _simulate(
    cell: Cell, directory: Path, shared: SharedResources
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runs one cell; returns its row, and its values by round and by client."""
    from tffl.simulation.simulation import simulate

    resume = (directory / "config.toml").exists()
    if resume and differences(load_config(directory / "config.toml"), cell.config):
        shutil.rmtree(directory)  # the benchmark file has changed since this run was interrupted
        resume = False
    result = simulate(cell.config, directory, resume=resume, shared=shared)
    rounds = result.rounds
    row = {
        "accuracy": result.summary["accuracy"],
        "best_accuracy": float(rounds["accuracy"].max()),
        "attack_success": result.summary["attack_success"],
        **{metric: result.summary[f"mean_{metric}"] for metric in METRICS},
        "malicious": len(result.summary["malicious_clients"]),
        "rejected": result.summary["rejected"],
        "defense_seconds": round(float(rounds["defense_seconds"].mean()), 5),
    }
    return row, {"rounds": _by_round(rounds), "clients": _by_client(result.clients)}


def _by_round(rounds: pd.DataFrame) -> dict[str, list[Any]]:
    """Returns the columns `BY_ROUND` that hold any value, and the seconds of each round."""
    seconds = [name for name in rounds.columns if name.endswith("_seconds")]
    chosen = rounds[[*BY_ROUND]].astype(float).round(DIGITS)
    kept = {name: chosen[name].tolist() for name in BY_ROUND if chosen[name].notna().any()}
    return {**kept, "seconds": rounds[seconds].sum(axis=1).round(4).tolist()}


def _by_client(clients: pd.DataFrame) -> dict[str, list[Any]]:
    """Returns whether each client is malicious, and the mean of its finite scores over rounds."""
    finite = clients.assign(score=clients["score"].replace([math.inf, -math.inf], math.nan))
    means = finite.groupby("client").agg(malicious=("malicious", "max"), score=("score", "mean"))
    return {
        "client": [int(client) for client in means.index],
        "malicious": means["malicious"].astype(int).tolist(),
        "score": [float(f"{score:.{DIGITS}g}") for score in means["score"]],
    }
