"""What `tffl reproduce` does: it checks what is wanted, and runs what is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tffl.core import shipped
from tffl.core.errors import UsageError, require, unknown
from tffl.studies.benchmark import Cell
from tffl.studies.reproduce.catalogue import Catalogue, Entry, load
from tffl.studies.reproduce.listing import missing_data
from tffl.studies.reproduce.measure import reproduce
from tffl.studies.reproduce.page import Report
from tffl.studies.reproduce.plan import SCALES, Experiment, Item

Progress = Callable[[int, Cell | None, str], None]


def read_plans(folder: Path | None) -> Catalogue:
    """Reads the plans of a folder; of `./configs` or else those that come with tffl, if None.

    Raises:
      UsageError: There are none, or one is invalid: the message names the file.
    """
    here = Path("configs")
    return load(folder or (here if here.is_dir() else shipped.folder()))


def check_scale(scale: str) -> None:
    """Raises `UsageError` if there is no such scale."""
    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)


def check_entries(entries: Sequence[Entry], scale: str) -> None:
    """Checks that there is something to run at a scale.

    Args:
      entries: All of a paper, or one of them.
      scale: At which size.

    Raises:
      UsageError: There is not; the message says what there is.
    """
    single = entries[0] if len(entries) == 1 else None
    if single is not None and single.elsewhere is not None:
        commands = " && ".join(single.elsewhere.commands)
        name = f"{single.paper} {single.name}"
        require(bool(commands), f"{name} cannot be reproduced: {single.elsewhere.about}")
        raise UsageError(f"{name} has commands of its own: {commands}")
    existing = dict.fromkeys(name for entry in entries for name in entry.scales)
    what = f"{entries[0].paper} {single.name if single else ''}".rstrip()
    require(
        scale in existing,
        f"{what} does not exist at scale {scale}: there is {', '.join(existing) or 'none'}",
    )


def run_entries(
    entries: Sequence[Entry],
    scale: str,
    out: Path,
    runs: Path,
    command: Sequence[str],
    show_progress: Callable[[int], AbstractContextManager[Progress]],
) -> int:
    """Runs what entries lack at a scale, experiment by experiment.

    Args:
      entries: What is wanted.
      scale: At which size.
      out: Where tables go.
      runs: Where unfinished work is.
      command: The command line, for the record.
      show_progress: Number of runs → a context with the function that hears of each.

    Returns:
      How many runs failed.

    Raises:
      UsageError: Datasets are not prepared.
      TfflError: Something cannot be written.
    """
    lacking = missing_data(entries, scale)
    names = ", ".join(lacking)
    require(not lacking, f"{names} is not prepared: tffl data prepare {' '.join(lacking)}")
    failed = 0
    for experiment, items in _by_experiment(entries, scale):
        with show_progress(len(experiment.cells(items, scale))) as progress:
            failed += reproduce(
                experiment, items, scale, out, runs, command=command, progress=progress
            )
    return failed


def values(report: Report) -> dict[str, Any]:
    """Returns what is known of an item at a scale, for JSON."""
    return {
        "paper": report.entry.paper,
        "item": report.entry.name,
        "title": report.item.title,
        "part": report.item.part,
        "scale": report.scale,
        "seeds": report.seeds,
        "missing": report.missing,
        "tables": {
            setting: {"header": header, "rows": rows}
            for setting, (header, rows) in report.tables.items()
        },
        "claims": [asdict(judged) for judged in report.judged],
        "failed": report.failed,
    }


def _by_experiment(entries: Sequence[Entry], scale: str) -> list[tuple[Experiment, list[Item]]]:
    """Returns the experiments of entries that exist at a scale, each with its items."""
    grouped: dict[Path, tuple[Experiment, list[Item]]] = {}
    for entry in entries:
        for experiment, item in entry.parts if scale in entry.scales else ():
            grouped.setdefault(experiment.path, (experiment, []))[1].append(item)
    return list(grouped.values())
