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
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from tffl.core.atomic import TEMPORARY, remove, replacing, write_text
from tffl.core.errors import UsageError, require
from tffl.core.jsonable import write_json
from tffl.core.verdict import Verdict
from tffl.drawing import explanation as look
from tffl.drawing import figures
from tffl.drawing import heat_maps as pictures
from tffl.drawing.explanation import Look
from tffl.record.tables import to_csv
from tffl.report import document
from tffl.report.document import Block, Gallery, Plot, Report, Section, Series, Table
from tffl.report.overview import number
from tffl.report.page import page
from tffl.report.verdicts import STEEP, usual_size
from tffl.scan.scan import Opinion, Scan
from tffl.untrusted.refusal import shown

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

FORMULA = re.compile(r"[=+\-@]")
"""How a cell begins that a spreadsheet takes for a formula."""


@dataclass(frozen=True)
class Place:
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

    def write(self, found: Scan, seed: int) -> list[Path]:
        """Writes all of it, each file atomically, the page last; returns the files, it first.

        Args:
          found: What a scanner found.
          seed: The scanner's.

        Raises:
          TfflError: A file cannot be written.
        """
        seen = {name: looks(found, name) for name in found.verdicts}
        drawn = self._draw([one for several in seen.values() for one in several])
        write_text(self.out / "scan.csv", to_csv(COLUMNS, rows(found)))
        write_json(self.out / "scan.json", {"seed": seed, **found.report()})
        write_text(self.out / "scan.html", page(report(found, self, seed, seen)))
        return [*(self.out / name for name in FILES[:3]), *drawn]

    def _draw(self, seen: list[Look]) -> list[Path]:
        """Draws heat maps, and forgets those of a scan before."""
        folder = self.out / HEAT_MAPS
        if not seen:
            remove(folder)
            return []
        names = [re.sub(r"[^\w+-]", "-", one.title.replace(", ", "_")) + ".png" for one in seen]
        with replacing(folder) as temporary, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            temporary.mkdir()
            for name, one in zip(names, seen, strict=True):
                figures.save(pictures.heat_maps(one), temporary / name)
        return [folder / name for name in names]


def verdict(opinions: list[Opinion]) -> str:
    """Returns what all that is said of a file comes to, one of `VERDICTS`."""
    if not opinions:
        return NOT_JUDGED
    if not any(opinion.suspect for opinion in opinions):
        return OK
    return SUSPECT if opinions[0].defense else REFUSED


def rows(found: Scan) -> list[dict[str, Any]]:
    """Returns the rows of `scan.csv`, by file and defense.

    A cell that a stranger could have made a formula of gets an apostrophe, as in a spreadsheet.
    """
    silent = Opinion("", False, float("nan"), float("nan"), "")
    return [
        {
            "file": _cell(shown(name, LONGEST)),
            "verdict": verdict([opinion] if opinions else []),
            "defense": opinion.defense,
            "score": opinion.score,
            "threshold": opinion.threshold,
            "reason": _cell(opinion.reason),
        }
        for name, opinions in found.files.items()
        for opinion in opinions or [silent]
    ]


def _cell(text: str) -> str:
    return f"'{text}" if FORMULA.match(text) else text


def looks(found: Scan, defense: str) -> list[Look]:
    """Returns the heat maps that a defense looked at; nothing if it looks at none."""
    told = found.verdicts[defense]
    count = len(found.inbox.names)

    def base(maps: np.ndarray) -> Look:
        return Look(
            round=1,
            title=defense,
            score_name=look.SCORES.get(defense, f"score of {defense}"),
            client_ids=np.arange(count),
            malicious=np.zeros(count, dtype=bool),
            flagged=told.convicted,
            scores=told.scores,
            threshold=told.threshold,
            maps=maps,
            names=tuple(shown(name, LABEL) for name in found.inbox.names),
        )

    return look.looks(told.pictures, base)


def report(found: Scan, place: Place, seed: int, seen: Mapping[str, list[Look]]) -> Report:
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
        blocks += [Block(_look_table(one), gallery=Gallery(one)) for one in seen[name]]
        sections.append(Section(f"Verdicts of {name}", blocks))
    now = datetime.now(timezone.utc).isoformat(sep=" ", timespec="seconds")
    defenses = ", ".join([*found.verdicts, *found.unjudged])
    return Report(
        title=f"Scan of {shown(place.updates.resolve().name)}",
        sections=sections,
        about=[
            f"{shown(str(place.updates), LONGEST)}, as updates of "
            f"{shown(str(place.model), LONGEST)}. Judged by {defenses}, seed {seed}; {now}."
        ],
        warnings=[f"Not judged by {name}: {why}." for name, why in found.unjudged.items()],
        figures=[("files", str(len(found.files))), *((k, str(n)) for k, n in counts.items() if n)],
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


def _files(found: Scan) -> Block:
    """Tells of every file, the worst first, what is said of it in all."""
    told = [(verdict(opinions), name, opinions) for name, opinions in found.files.items()]
    told.sort(key=lambda one: VERDICTS.index(one[0]))
    table = Table(
        "What is said of each file, the worst first",
        ["file", "verdict", "reason"],
        [[shown(name, LONGEST), what, _reasons(opinions)] for what, name, opinions in told],
        words=(0, 1, 2),
        flagged=[row for row, one in enumerate(told) if one[0] in (REFUSED, SUSPECT)],
    )
    return Block(table)


def _reasons(opinions: list[Opinion]) -> str:
    several = len(opinions) > 1
    return "\n".join(
        f"{opinion.defense}: {opinion.reason}" if several else opinion.reason
        for opinion in opinions
        if opinion.suspect and (opinion.reason or several)
    )


def _scores(found: Scan, defense: str, told: Verdict) -> Block:
    """Draws what a defense thinks of each file, in the order of their names."""
    names = [shown(name, LONGEST) for name in found.inbox.names]
    label = look.SCORES.get(defense, "score")
    words = [SUSPECT if guilty else OK for guilty in told.convicted]
    table = Table(
        f"What {defense} says of each file",
        ["file", "verdict", label, "threshold", "reason"],
        [
            [name, word, number(score), number(told.threshold), reason]
            for name, word, score, reason in zip(
                names, words, told.scores, told.reasons, strict=True
            )
        ],
        words=(0, 1, 4),
        flagged=np.flatnonzero(told.convicted).tolist(),
    )
    if np.isnan(told.scores).all():
        return Block(table, note=f"{defense} gives files no scores.")
    series = [_dots(table, told, guilty) for guilty in (False, True)]
    if np.isfinite(told.threshold):
        ends = [0.5, len(names) + 0.5]
        level = [float(told.threshold)] * 2
        series.append(Series("threshold", ends, level, document.GRAY, symbol="", dash="dash"))
    usual = usual_size(told.scores)
    steep = bool((np.abs(told.scores[np.isfinite(told.scores)]) > STEEP * usual).any())
    plot = Plot(f"Scores of {defense}", "file", label, series, log=steep, linear=usual)
    endless = bool(np.isinf(told.scores).any())
    note = "Infinite scores are drawn at the upper edge." if endless else ""
    return Block(table, plot, note=f"Files are numbered in the order of the table. {note}".strip())


def _dots(table: Table, told: Verdict, guilty: bool) -> Series:
    mine = np.flatnonzero((told.convicted == guilty) & ~np.isnan(told.scores)).tolist()
    known = [value for value in [*told.scores, told.threshold] if np.isfinite(value)]
    edge = 1.05 * float(max(known, default=1.0))
    return Series(
        SUSPECT if guilty else OK,
        [row + 1.0 for row in mine],
        np.where(np.isposinf(told.scores[mine]), edge, told.scores[mine]).tolist(),
        document.RED if guilty else document.BLUE,
        symbol="x" if guilty else "circle",
        dash="",
        hover=["\n".join(filter(None, [*table.rows[row][:3], table.rows[row][4]])) for row in mine],
        rows=mine,
    )


def _look_table(seen: Look) -> Table:
    header = [
        "file",
        "verdict",
        seen.score_name,
        "dead maps",
        "not finite",
        "distance to the median",
    ]
    told = [
        [
            seen.name(index),
            SUSPECT if row["flagged"] else OK,
            number(row["score"]),
            str(row["dead_maps"]),
            str(row["non_finite_maps"]),
            number(row["distance"]),
        ]
        for index, row in enumerate(seen.rows())
    ]
    return Table(
        f"Heat maps of {seen.heading}",
        header,
        told,
        words=(0, 1),
        flagged=np.flatnonzero(seen.flagged).tolist(),
    )
