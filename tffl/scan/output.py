"""The output of a scan: a page, a table, JSON, and pictures of heat maps.

    scan.html     a self-contained page: the verdict and the scores of every file, heat maps
    scan.csv      a row for each file
    scan.json     the output of `tffl scan --json`
    heat_maps/    a PNG for each detector that uses heat maps

Strangers choose the names of the scanned files, so the names are escaped wherever they are shown
and never used as names of written files.
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
from tffl.scan.result import OK, REFUSED, SUSPECT, VERDICTS, ScanResult
from tffl.untrusted.refusal import printable

COLUMNS = ("file", "verdict", "defense", "score", "threshold", "reason")
"""The columns of `scan.csv`; with several defenses, those of `columns`."""

HEAT_MAPS = "heat_maps"
FILES = ("scan.html", "scan.csv", "scan.json", HEAT_MAPS)

MAX_NAME = 255
"""The largest number of characters of a name in tables; file systems allow no more."""

MAX_LABEL = 48
"""The largest number of characters of a name above pictures."""


@dataclass(frozen=True)
class ScanOutput:
    """The folder for the results of scans.

    Attributes:
      out: The folder, created if necessary.
      updates: The folder that is scanned.
      model: The file of the global model.
    """

    out: Path
    updates: Path
    model: Path

    def check(self) -> None:
        """Checks that writing overwrites no other files and is not scanned itself.

        Raises:
          UsageError: The folder is unsuitable.
        """
        out, updates = self.out.resolve(), self.updates.resolve()
        require(
            updates not in (out, *out.parents) and out not in updates.parents,
            f"--out {self.out} and the scanned folder {self.updates} contain each other: choose "
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
        """Writes all files atomically, the page last.

        Args:
          found: The result of the scan.
          seed: The seed of the scanner.

        Returns:
          The written files, the page first; without the page if it could not be made.

        Raises:
          TfflError: A file cannot be written.
        """
        table, data, page = (self.out / name for name in ("scan.csv", "scan.json", "scan.html"))
        write_text(table, to_csv(columns(found), rows(found)))
        write_json(data, {"seed": seed, **found.as_dict()})
        explained = {
            name: attempt(f"The heat maps of {name}", explain_defense, found, name) or []
            for name in found.verdicts
        }
        drawn = self._draw([each for parts in explained.values() for each in parts])
        text = attempt(page, lambda: html_page(build_report(found, self, seed, explained)))
        if text is None:
            remove(page)
            return [table, data, *drawn]
        write_text(page, text)
        return [page, table, data, *drawn]

    def _draw(self, explained: list[Explanation]) -> list[Path]:
        """Draws heat maps, and removes those of an earlier scan."""
        folder = self.out / HEAT_MAPS
        if not explained:
            remove(folder)
            return []
        titles = [each.title.replace(", ", "_") for each in explained]
        names = [re.sub(r"[^\w+-]", "-", title) + ".png" for title in titles]
        with replacing(folder) as temporary:
            temporary.mkdir()
            drawn = [
                name
                for name, each in zip(names, explained, strict=True)
                if drawing.write(temporary / name, pictures.heat_maps, each)
            ]
        return [folder / name for name in drawn]


def columns(found: ScanResult) -> tuple[str, ...]:
    """Returns the columns of `scan.csv`; several defenses have a score and a threshold each."""
    if len(found.defenses) == 1:
        return COLUMNS
    numbers = [f"{name} {what}" for name in found.defenses for what in ("score", "threshold")]
    return ("file", "verdict", "defense", "reason", *numbers)


def rows(found: ScanResult) -> list[dict[str, Any]]:
    """Returns the rows of `scan.csv`, one for each file; undefined numbers are NaN."""
    unknown = dict.fromkeys(columns(found), float("nan"))
    return [{**unknown, **_row(found, name)} for name in found.files]


def _row(found: ScanResult, name: str) -> dict[str, Any]:
    opinions = found.files[name]
    several = len(found.defenses) > 1
    numbers = {
        f"{opinion.defense} {what}" if several else what: value
        for opinion in opinions
        if opinion.defense or not several  # a refused file has no scores
        for what, value in (("score", opinion.score), ("threshold", opinion.threshold))
    }
    chosen = [opinion for opinion in opinions if opinion.suspect or not several]
    return {
        "file": printable(name, MAX_NAME),
        "verdict": found.verdict(name),
        "defense": ", ".join(opinion.defense for opinion in chosen),
        "reason": "; ".join(found.reason(name).splitlines()) if several else found.reason(name),
        **numbers,
    }


def explain_defense(found: ScanResult, defense: str) -> list[Explanation]:
    """Returns the heat maps of a defense, one explanation per detector; none if it uses none."""
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
            names=tuple(printable(name, MAX_LABEL) for name in found.folder.names),
        )

    return explanations(judgment.shown, described)


def build_report(
    found: ScanResult, output: ScanOutput, seed: int, explained: Mapping[str, list[Explanation]]
) -> Report:
    """Builds the report of a scan.

    Args:
      found: The result of the scan.
      output: Its folders and model.
      seed: The seed of the scanner.
      explained: Defense → its heat maps.
    """
    counts = dict.fromkeys(VERDICTS, 0)
    for name in found.files:
        counts[found.verdict(name)] += 1
    sections = [Section("Files", [_files(found)] if found.files else [], _sentence(counts))]
    for name, judgment in found.verdicts.items():
        blocks = [_scores(found, name, judgment)]
        blocks += [
            Block(_heat_map_table(found, each), gallery=Gallery(each)) for each in explained[name]
        ]
        sections.append(Section(f"Verdicts of {name}", blocks))
    now = datetime.now(timezone.utc).isoformat(sep=" ", timespec="seconds")
    defenses = ", ".join(found.defenses)
    return Report(
        title=f"Scan of {printable(output.updates.resolve().name)}",
        sections=sections,
        about=[
            f"{printable(str(output.updates), MAX_NAME)}, read as updates of "
            f"{printable(str(output.model), MAX_NAME)}. Judged by {defenses}, seed {seed}; {now}."
        ],
        warnings=[
            *(f"{text[0].upper()}{text[1:]}." for text in found.warnings),
            *(f"Not judged by {name}: {why}." for name, why in found.unjudged.items()),
        ],
        headline=[("files", str(len(found.files))), *((k, str(n)) for k, n in counts.items() if n)],
    )


def _sentence(counts: Mapping[str, int]) -> str:
    suspects = counts[REFUSED] + counts[SUSPECT]
    sentence = f"{suspects} of {sum(counts.values())} files are suspect."
    if counts[REFUSED]:
        sentence += (
            " Refused files could not be read as updates of the global model: they are damaged, "
            "hostile or belong to another model. Nothing in them was executed, and they do not "
            "affect the verdicts on the other files."
        )
    return sentence


def _files(found: ScanResult) -> Block:
    """Returns the table of all files with their verdicts, the worst first."""
    numbers = numbered(found)
    words = [found.verdict(name) for name in numbers]
    table = Table(
        "Verdict on each file, the worst first",
        ["no.", "file", "verdict", "reason"],
        [
            [str(number), printable(name, MAX_NAME), word, found.reason(name)]
            for (name, number), word in zip(numbers.items(), words, strict=True)
        ],
        words=(1, 2, 3),
        flagged=[row for row, word in enumerate(words) if word in (REFUSED, SUSPECT)],
    )
    return Block(table)


def numbered(found: ScanResult) -> dict[str, int]:
    """Returns file → its number on the page, from 1 for the worst, in tables and charts alike."""
    names = sorted(found.files, key=lambda name: VERDICTS.index(found.verdict(name)))
    return {name: number for number, name in enumerate(names, 1)}


def _scores(found: ScanResult, defense: str, judgment: Judgment) -> Block:
    """Returns the scores and verdicts of a defense, in the order of the page."""
    numbers, order = _in_order(found)
    convicted, scores = (
        np.asarray(judgment.convicted)[order],
        np.asarray(judgment.scores, float)[order],
    )
    label = score_name(defense, "score")
    table = Table(
        f"Verdicts of {defense}",
        ["no.", "file", "verdict", label, "threshold", "reason"],
        [
            [
                str(numbers[place]),
                printable(found.folder.names[row], MAX_NAME),
                SUSPECT if convicted[place] else OK,
                format_number(scores[place]),
                format_number(judgment.threshold),
                judgment.reasons[row],
            ]
            for place, row in enumerate(order)
        ],
        words=(1, 2, 5),
        flagged=np.flatnonzero(convicted).tolist(),
    )
    if np.isnan(scores).all():
        return Block(table, note=f"{defense} does not score files.")
    series = [_dots(table, scores, convicted == bad, bad) for bad in (False, True)]
    if np.isfinite(judgment.threshold):
        ends = [min(numbers) - 0.5, max(numbers) + 0.5]
        level = [float(judgment.threshold)] * 2
        series.append(Series("threshold", ends, level, document.GRAY, symbol="", dash="dash"))
    plot = Plot(
        f"Scores of {defense}",
        "file no.",
        label,
        series,
        log=is_steep(scores),
        linear=usual_size(scores),
    )
    note = "The numbers of the files are those of the tables."
    if np.isinf(scores).any():
        note = f"{note} {AT_EDGES}"
    return Block(table, plot, note=note)


def _in_order(found: ScanResult) -> tuple[list[int], list[int]]:
    """Returns the numbers of the judged files on the page, and their rows in the verdicts."""
    rows = {name: row for row, name in enumerate(found.folder.names)}
    judged = [(number, rows[name]) for name, number in numbered(found).items() if name in rows]
    return [number for number, _ in judged], [row for _, row in judged]


def _dots(table: Table, scores: np.ndarray, chosen: np.ndarray, convicted: bool) -> Series:
    mine = np.flatnonzero(chosen & ~np.isnan(scores)).tolist()
    hover = [[f"{row[0]}. {row[1]}", *row[2:4], row[5]] for row in table.rows]
    return Series(
        SUSPECT if convicted else OK,
        [float(table.rows[row][0]) for row in mine],
        at_edges(scores)[mine].tolist(),
        document.RED if convicted else document.BLUE,
        symbol="x" if convicted else "circle",
        dash="",
        hover=["\n".join(filter(None, hover[row])) for row in mine],
        rows=mine,
    )


def _heat_map_table(found: ScanResult, explained: Explanation) -> Table:
    header = [
        "no.",
        "file",
        "verdict",
        explained.score_name,
        "dead maps",
        "not finite",
        "distance to the median",
    ]
    numbers, order = _in_order(found)
    rows = explained.rows()
    lines = [
        [
            str(place),
            explained.name(index),
            SUSPECT if rows[index]["flagged"] else OK,
            format_number(rows[index]["score"]),
            str(rows[index]["dead_maps"]),
            str(rows[index]["non_finite_maps"]),
            format_number(rows[index]["distance"]),
        ]
        for place, index in zip(numbers, order, strict=True)
    ]
    return Table(
        f"Heat maps of {explained.heading}",
        header,
        lines,
        words=(1, 2),
        flagged=np.flatnonzero(explained.flagged[order]).tolist(),
    )
