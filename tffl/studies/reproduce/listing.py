"""What can be reproduced, at which scales, how long it takes here, and what is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tffl.record.tables import read_rows
from tffl.studies.benchmark import Cell
from tffl.studies.reproduce.catalogue import Entry
from tffl.studies.reproduce.cost import Rates, Workload, seconds
from tffl.studies.reproduce.measure import default_out, missing_cells, read_record
from tffl.studies.reproduce.plan import PAPER, SMOKE, Elsewhere, Experiment, Item

Announce = Callable[[str, int, int], None]


@dataclass(frozen=True)
class AtScale:
    """An item at one scale.

    Attributes:
      scale: Which.
      runs: How many it needs.
      recorded: How many of them are recorded.
      seconds: Of all its runs on this machine; None if it was not timed.
      seconds_left: Of those that are missing.
    """

    scale: str
    runs: int
    recorded: int
    seconds: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class Line:
    """A table or figure in the list.

    Attributes:
      paper: Of which paper.
      item: Its name.
      title: Its caption.
      configs: What makes it.
      scales: The scales at which it exists.
      command: How it is made.
      results: Where it is recorded.
      recorded: What is recorded, in words.
      note: Stand-ins, missing data, or why it cannot be reproduced.
    """

    paper: str
    item: str
    title: str
    configs: list[str]
    scales: list[AtScale]
    command: str
    results: str
    recorded: str
    note: str


def lines(
    entries: Sequence[Entry], out: Path | None, runs: Path, announce: Announce | None
) -> list[Line]:
    """Returns the list.

    Args:
      entries: What to list.
      out: Where a paper's tables are; by default where `tffl reproduce` puts them.
      runs: Where unfinished work is.
      announce: Called with what is being timed: name, number, total. Nothing is timed without it.
    """
    needed = {
        (entry.paper, entry.name, scale): _needed(entry, scale, out, runs)
        for entry in entries
        for scale in entry.scales
        if entry.elsewhere is None
    }
    rates = Rates()
    if announce is not None:
        cells = (cell for parts in needed.values() for part in parts for cell in part[1])
        workloads = rates.lacking(Workload.of(cell.config) for cell in cells)
        total = len(workloads)
        count = iter(range(1, total + 1))
        rates.measure(
            workloads, lambda w: announce(f"{w.model} at {w.side} x {w.side}", next(count), total)
        )
    return [_line(entry, needed, rates, out) for entry in entries]


def missing_data(entries: Iterable[Entry], scale: str) -> list[str]:
    """Returns the datasets that items need at a scale and that are not prepared."""
    from tffl.data.build import dataset_source

    needed: dict[str, Path | None] = {}
    for entry in entries:
        for experiment, item in entry.parts if scale in entry.scales else ():
            for cell in experiment.cells([item], scale):
                needed[cell.config.data.dataset] = cell.config.data.data_dir
    return [name for name, place in needed.items() if not dataset_source(name).prepared(place)]


Part = tuple[Experiment, list[Cell], list[Cell], Path]
"""Experiment, all runs that an item needs, those that are missing, and where its tables are."""


def _needed(entry: Entry, scale: str, out: Path | None, runs: Path) -> list[Part]:
    grouped: dict[Path, tuple[Experiment, list[Item]]] = {}
    for experiment, item in entry.parts:
        grouped.setdefault(experiment.path, (experiment, []))[1].append(item)
    folder = out or default_out(entry.paper, scale)
    return [
        (
            experiment,
            experiment.cells(items, scale),
            missing_cells(experiment, items, scale, folder, runs)[0],
            folder,
        )
        for experiment, items in grouped.values()
    ]


def _line(
    entry: Entry, needed: dict[tuple[str, str, str], list[Part]], rates: Rates, out: Path | None
) -> Line:
    if entry.elsewhere is not None:
        return _line_elsewhere(entry, entry.elsewhere)
    scales = [
        _at_scale(scale, needed[entry.paper, entry.name, scale], rates) for scale in entry.scales
    ]
    recorded = [
        f"{one.scale} {one.recorded} of {one.runs} runs"
        for one in scales
        if one.recorded and one.scale != SMOKE
    ]
    return Line(
        entry.paper,
        entry.name,
        entry.title,
        entry.configs,
        scales,
        f"tffl reproduce {entry.paper} {entry.name} --scale small",
        str(out or default_out(entry.paper, PAPER)),
        ", ".join(recorded),
        _note(entry),
    )


def _line_elsewhere(entry: Entry, other: Elsewhere) -> Line:
    return Line(
        entry.paper,
        entry.name,
        other.title,
        [other.config],
        [AtScale(scale, 0, 0) for scale in other.scales],
        " && ".join(other.commands),
        other.results,
        _evidence(other),
        other.about,
    )


def _at_scale(scale: str, parts: Sequence[Part], rates: Rates) -> AtScale:
    every = [cell for _, cells, _, _ in parts for cell in cells]
    left = [cell for _, _, cells, _ in parts for cell in cells]
    totals: list[float | None] = []
    lefts: list[float | None] = []
    for experiment, cells, lacking, folder in parts:
        recorded = read_record(folder / scale, experiment.name)
        totals.append(seconds(cells, rates, recorded))
        lefts.append(seconds(lacking, rates, recorded))
    return AtScale(scale, len(every), len(every) - len(left), _sum(totals), _sum(lefts))


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _note(entry: Entry) -> str:
    notes = [f"{other} stands in for {setting}" for setting, other in entry.stand_ins.items()]
    if lacking := missing_data([entry], PAPER):
        notes.append(f"scale paper needs: tffl data prepare {' '.join(lacking)}")
    return "; ".join(notes)


def _evidence(other: Elsewhere) -> str:
    """Says how much of what should be recorded is."""
    if other.recorded is None or not Path(other.recorded.file).exists():
        return ""
    found = {row.get(other.recorded.column) for row in read_rows(Path(other.recorded.file))}
    there = [value for value in other.recorded.values if value in found]
    return f"{len(there)} of {len(other.recorded.values)} parts" if there else ""
