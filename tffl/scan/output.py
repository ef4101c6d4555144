"""What a scan leaves behind: a page, a table, JSON, and pictures of what detectors looked at.

    scan.html     self-contained: every file with its verdict, what each defense says, heat maps
    scan.csv      a row for each file and defense
    scan.json     what `tffl scan --json` prints
    heat_maps/    a PNG for each detector that looks at heat maps

Names of files are a stranger's: they are escaped wherever they are shown, and are never the name of
anything that is written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from tffl.core.atomic import TEMPORARY, remove, replacing, write_text
from tffl.core.errors import UsageError, require
from tffl.core.jsonable import write_json
from tffl.core.verdict import HeatMaps, Judgment
from tffl.defenses.create import score_name
from tffl.drawing import guard as drawing
from tffl.drawing import heat_maps as pictures
from tffl.drawing.explanation import Explanation, explanations
from tffl.drawing.guard import at_edges, attempt, is_steep, usual_size
from tffl.record.tables import to_csv
from tffl.report import document
from tffl.report.document import Block, Gallery, Plot, Report, Section, Series, Table
from tffl.report.overview import format_number
from tffl.report.page import html_page
from tffl.report.verdicts import AT_EDGES
from tffl.scan.scanner import Opinion, ScanResult
from tffl.untrusted.refusal import printable

COLUMNS = ("file", "verdict", "defense", "score", "threshold", "reason")
"""Of `scan.csv`."""

HEAT_MAPS = "heat_maps"
FILES = ("scan.html", "scan.csv", "scan.json", HEAT_MAPS)

REFUSED, SUSPECT, NOT_JUDGED, OK = "refused", "suspect", "not judged", "ok"
VERDICTS = (REFUSED, SUSPECT, NOT_JUDGED, OK)
"""What is said of a file, in the order in which the page tells it."""

LONGEST = 255
"""Characters of a name in tables, at most; a file system has no longer ones."""

LABEL = 48
"""Characters of a name above pictures."""


@dataclass(frozen=True)
class ScanOutput:
    """Where the results of scans go, and what they are results of.

    Attributes:
      out: The folder, made if there is none.
      updates: The folder that is scanned.
      model: The global model's file.
    """

    out: Path
    updates: Path
    model: Path

    def check(self) -> None:
        """Raises `UsageError` if writing there would lose, or scan, what it should not."""
        out, updates = self.out.resolve(), self.updates.resolve()
        require(
            updates not in (out, *out.parents) and out not in updates.parents,
            f"--out {self.out} and the scanned folder {self.updates} lie in each other: choose "
            "another folder for --out",
        )
        require(
            not out.exists() or out.is_dir(),
            f"{self.out} is a file: choose another folder for --out",
        )
        try:
            names = os.listdir(out) if out.exists() else []
        except OSError as error:
            raise UsageError(f"cannot read the folder {self.out}: {error.strerror}") from None
        foreign = [n for n in names if n not in FILES and not n.startswith(TEMPORARY)]
        require(
            not foreign or "scan.json" in names,
            f"{self.out} is not empty and holds no scan: choose another folder for --out",
        )

    def write(self, found: ScanResult, seed: int) -> list[Path]:
        """Writes all of it, each file atomically, the page last; returns the files, it first.

        Args:
          found: What a scanner found.
          seed: The scanner's.

        Raises:
          TfflError: A file cannot be written.
        """
        table, told, whole = (self.out / name for name in ("scan.csv", "scan.json", "scan.html"))
        write_text(table, to_csv(COLUMNS, rows(found)))
        write_json(told, {"seed": seed, **found.report()})
        seen = {
            name: attempt(f"What {name} saw", explained, found, name) or []
            for name in found.verdicts
        }
        drawn = self._draw([one for several in seen.values() for one in several])
        text = attempt(whole, lambda: html_page(build_report(found, self, seed, seen)))
        if text is None:
            remove(whole)
            return [table, told, *drawn]
        write_text(whole, text)
        return [whole, table, told, *drawn]

    def _draw(self, seen: list[Explanation]) -> list[Path]:
        """Draws heat maps, and forgets those of a scan before."""
        folder = self.out / HEAT_MAPS
        if not seen:
            remove(folder)
            return []
        names = [re.sub(r"[^\w+-]", "-", one.title.replace(", ", "_")) + ".png" for one in seen]
        with replacing(folder) as temporary:
            temporary.mkdir()
            drawn = [
                name
                for name, one in zip(names, seen, strict=True)
                if drawing.write(temporary / name, pictures.heat_maps, one)
            ]
        return [folder / name for name in drawn]


def verdict(opinions: list[Opinion]) -> str:
    """Returns what all that is said of a file comes to, one of `VERDICTS`."""
    if not opinions:
        return NOT_JUDGED
    if not any(opinion.suspect for opinion in opinions):
        return OK
    return SUSPECT if opinions[0].defense else REFUSED


def rows(found: ScanResult) -> list[dict[str, Any]]:
    """Returns the rows of `scan.csv`, by file and defense."""
    silent = Opinion("", False, float("nan"), float("nan"), "")
    return [
        {
            "file": printable(name, LONGEST),
            "verdict": verdict([opinion] if opinions else []),
            "defense": opinion.defense,
            "score": opinion.score,
            "threshold": opinion.threshold,
            "reason": opinion.reason,
        }
        for name, opinions in found.files.items()
        for opinion in opinions or [silent]
    ]


def explained(found: ScanResult, defense: str) -> list[Explanation]:
    """Returns the heat maps that a defense saw; nothing if it makes none."""
    judgment = found.verdicts[defense]
    count = len(found.folder.names)

    def described(maps: HeatMaps) -> Explanation:
        return Explanation(
            round=1,
            title=defense,
            score_name=score_name(defense, f"score of {defense}"),
            client_ids=np.arange(count),
            malicious=np.zeros(count, dtype=bool),
            flagged=judgment.convicted,
            scores=judgment.scores,
            threshold=judgment.threshold,
            heat_maps=maps,
            names=tuple(printable(name, LABEL) for name in found.folder.names),
        )

    return explanations(judgment.shown, described)


def build_report(
    found: ScanResult, place: ScanOutput, seed: int, seen: Mapping[str, list[Explanation]]
) -> Report:
    """Says what there is to say.

    Args:
      found: What was found.
      place: What it was found in.
      seed: The scanner's.
      seen: Defense → the heat maps that it looked at.
    """
    counts = dict.fromkeys(VERDICTS, 0)
    for opinions in found.files.values():
        counts[verdict(opinions)] += 1
    sections = [Section("Files", [_files(found)] if found.files else [], _sentence(counts))]
    for name, told in found.verdicts.items():
        blocks = [_scores(found, name, told)]
        blocks += [Block(_look_table(found, one), gallery=Gallery(one)) for one in seen[name]]
        sections.append(Section(f"Verdicts of {name}", blocks))
    now = datetime.now(timezone.utc).isoformat(sep=" ", timespec="seconds")
    defenses = ", ".join([*found.verdicts, *found.unjudged])
    return Report(
        title=f"Scan of {printable(place.updates.resolve().name)}",
        sections=sections,
        about=[
            f"{printable(str(place.updates), LONGEST)}, as updates of "
            f"{printable(str(place.model), LONGEST)}. Judged by {defenses}, seed {seed}; {now}."
        ],
        warnings=[
            *(f"{text[0].upper()}{text[1:]}." for text in found.warnings),
            *(f"Not judged by {name}: {why}." for name, why in found.unjudged.items()),
        ],
        headline=[("files", str(len(found.files))), *((k, str(n)) for k, n in counts.items() if n)],
    )


def _sentence(counts: Mapping[str, int]) -> str:
    wrong = counts[REFUSED] + counts[SUSPECT]
    told = f"{wrong} of {sum(counts.values())} files are suspect."
    if counts[REFUSED]:
        told += (
            " Refused files could not be read as updates of the global model: they are damaged, "
            "hostile or of another model. Nothing in them was executed, and they do not count in "
            "the verdicts on the others."
        )
    return told


def _files(found: ScanResult) -> Block:
    """Tells of every file, the worst first, what is said of it in all."""
    numbers = numbered(found)
    words = [verdict(found.files[name]) for name in numbers]
    table = Table(
        "What is said of each file, the worst first",
        ["no.", "file", "verdict", "reason"],
        [
            [str(number), printable(name, LONGEST), word, _reasons(found.files[name])]
            for (name, number), word in zip(numbers.items(), words, strict=True)
        ],
        words=(1, 2, 3),
        flagged=[row for row, word in enumerate(words) if word in (REFUSED, SUSPECT)],
    )
    return Block(table)


def numbered(found: ScanResult) -> dict[str, int]:
    """Returns file → its number from 1 on the page, in tables and charts alike: the worst first."""
    names = sorted(found.files, key=lambda name: VERDICTS.index(verdict(found.files[name])))
    return {name: number for number, name in enumerate(names, 1)}


def _reasons(opinions: list[Opinion]) -> str:
    several = len(opinions) > 1
    return "\n".join(
        f"{opinion.defense}: {opinion.reason}" if several else opinion.reason
        for opinion in opinions
        if opinion.suspect and (opinion.reason or several)
    )


def _scores(found: ScanResult, defense: str, told: Judgment) -> Block:
    """Draws what a defense thinks of each file, in the order of the page."""
    numbers, order = _in_order(found)
    guilty, scores = np.asarray(told.convicted)[order], np.asarray(told.scores, float)[order]
    label = score_name(defense, "score")
    table = Table(
        f"What {defense} says of each file",
        ["no.", "file", "verdict", label, "threshold", "reason"],
        [
            [
                str(numbers[place]),
                printable(found.folder.names[row], LONGEST),
                SUSPECT if guilty[place] else OK,
                format_number(scores[place]),
                format_number(told.threshold),
                told.reasons[row],
            ]
            for place, row in enumerate(order)
        ],
        words=(1, 2, 5),
        flagged=np.flatnonzero(guilty).tolist(),
    )
    if np.isnan(scores).all():
        return Block(table, note=f"{defense} gives files no scores.")
    series = [_dots(table, scores, guilty == bad, bad) for bad in (False, True)]
    if np.isfinite(told.threshold):
        ends = [min(numbers) - 0.5, max(numbers) + 0.5]
        level = [float(told.threshold)] * 2
        series.append(Series("threshold", ends, level, document.GRAY, symbol="", dash="dash"))
    plot = Plot(
        f"Scores of {defense}",
        "file no.",
        label,
        series,
        log=is_steep(scores),
        linear=usual_size(scores),
    )
    endless = AT_EDGES if np.isinf(scores).any() else ""
    return Block(table, plot, note=f"Files are numbered as in all tables. {endless}".strip())


def _in_order(found: ScanResult) -> tuple[list[int], list[int]]:
    """Returns the numbers on the page of the files that were judged, and their rows in verdicts."""
    rows = {name: row for row, name in enumerate(found.folder.names)}
    judged = [(number, rows[name]) for name, number in numbered(found).items() if name in rows]
    return [number for number, _ in judged], [row for _, row in judged]


def _dots(table: Table, scores: np.ndarray, chosen: np.ndarray, guilty: bool) -> Series:
    mine = np.flatnonzero(chosen & ~np.isnan(scores)).tolist()
    hover = [[f"{row[0]}. {row[1]}", *row[2:4], row[5]] for row in table.rows]
    return Series(
        SUSPECT if guilty else OK,
        [float(table.rows[row][0]) for row in mine],
        at_edges(scores)[mine].tolist(),
        document.RED if guilty else document.BLUE,
        symbol="x" if guilty else "circle",
        dash="",
        hover=["\n".join(filter(None, hover[row])) for row in mine],
        rows=mine,
    )


def _look_table(found: ScanResult, seen: Explanation) -> Table:
    header = [
        "no.",
        "file",
        "verdict",
        seen.score_name,
        "dead maps",
        "not finite",
        "distance to the median",
    ]
    numbers, order = _in_order(found)
    rows = seen.rows()
    told = [
        [
            str(place),
            seen.name(index),
            SUSPECT if rows[index]["flagged"] else OK,
            format_number(rows[index]["score"]),
            str(rows[index]["dead_maps"]),
            str(rows[index]["non_finite_maps"]),
            format_number(rows[index]["distance"]),
        ]
        for place, index in zip(numbers, order, strict=True)
    ]
    return Table(
        f"Heat maps of {seen.heading}",
        header,
        told,
        words=(1, 2),
        flagged=np.flatnonzero(seen.flagged[order]).tolist(),
    )
