"""Hostile input and broken runs, from what `tests/fuzzing` and `tests/faults` recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tffl.studies.benchmark_table import NONE, table
from tffl.studies.pages.builder import (
    ABOUT_CONSENSUS_TESTS,
    CONSENSUS_TESTS,
    Page,
    read_table,
    records,
)
from tffl.studies.pages.verdicts import Judged, claim_table, counts, judged, words_table

if TYPE_CHECKING:
    import pandas as pd

KINDS = {
    "updates": (
        "Updates, by defense",
        "One to three rounds in a row of up to eight clients, some of whose rows are spoiled: NaN, "
        "infinity, subnormals, ±1e38, constants, copies and opposites of others, negative "
        "BatchNorm variances; claims of samples from 0 to 2⁴⁰, and in some rounds negative, "
        "broken or larger ones. Accepted is a verdict on every round: finite, with weights that "
        "sum to 1 or 0, and weight 0 for a row that is not finite. Refused is an error of tffl's "
        "own: too few clients for the defense, or a number of samples that cannot be.",
    ),
    "files": (
        "Model files, by format",
        "Sound files with variables edited (missing, more, renamed, exchanged, of other shapes, "
        "types and byte orders, NaN, overflow, negative variances), in odd containers (names twice "
        "or leading outside, zip bombs, false sizes, links, external and virtual storage, cycles, "
        "Lambda layers, overlapping tensors), damaged (bits flipped, truncated, moved), or links "
        "and pipes in their place. Accepted means: read to the last bit as what was written, or "
        "where bytes are damaged, as the format's own library reads them.",
    ),
    "replies": (
        "Replies of Flower nodes",
        "The same edits and damage in a reply's arrays, records missing or twice, and any value as "
        "the claimed number of samples.",
    ),
    "grown": (
        "Files grown by atheris",
        "Starting from a sound file, or from the part of one that Python code reads, atheris keeps "
        "the changes that reach more of the readers' code.",
    ),
}
WRONG = ("wrong", "non_finite", "crashes")

FAULTS = {
    "killed run's end": "A run that is killed at random moments and resumed ends with the "
    "undisturbed run's tables",
    "cluster": "Two workers that train the clients give the same tables",
    "worker": "`kill -9` of one of the two at a random moment: the same tables",
    "full disk": "A disk too small for a run; with more room, it continues to the same tables",
    "file size": "Files limited in size; without the limit, it continues to the same tables",
    "read-only": "A read-only file system is one line of error",
    "stdout": "`/dev/full` instead of the terminal is one line of error",
}
MESSAGES = ("full disk", "file size", "read-only")


def collect(runs: Path) -> Mapping[str, pd.DataFrame]:
    """Returns what was recorded."""
    found = {name: read_table(runs / name) for name in ("fuzz.csv", "faults.csv")}
    return {name: rows for name, rows in found.items() if len(rows)}


def intro(folder: Path) -> str:
    """Says what was done."""
    return (
        "Thousands of hostile updates, model files and replies, and runs that are broken while "
        "they work. The cases, and what is expected of each, are in `tests/fuzzing` and "
        "`tests/faults`."
    )


def body(folder: Path) -> Iterator[str]:
    """Yields the paragraphs."""
    fuzz, broken = (read_table(folder / name) for name in ("fuzz.csv", "faults.csv"))
    found = [*input_claims(fuzz), *fault_claims(broken)]
    yield "## Claim by claim"
    yield f"{counts(found)}."
    yield claim_table(found)
    yield from hostile_input(fuzz)
    yield from broken_runs(broken)


def input_claims(rows: pd.DataFrame) -> Iterator[Judged]:
    """Yields, for each kind of input, whether every case ended as it should."""
    for kind, (title, _) in KINDS.items():
        mine = [row for row in records(rows) if row["kind"] == kind and row["target"] != NONE]
        cases = sum(row["cases"] for row in mine)
        wrong = {name: sum(row[name] for row in mine) for name in WRONG}
        words = (
            f"{wrong['wrong']} wrong, {wrong['non_finite']} not finite, {wrong['crashes']} crashes"
        )
        yield judged(
            f"{title}: every case is accepted and right, or refused in one line",
            f"{cases:,} cases: {words}",
            not any(wrong.values()) if cases else None,
        )


def fault_claims(rows: pd.DataFrame) -> Iterator[Judged]:
    """Yields, for each fault, whether runs survived it."""
    for fault, text in FAULTS.items():
        held = [bool(row["held"]) for row in records(rows) if row["fault"] == fault]
        yield judged(text, f"{sum(held)} of {len(held)}", *held)


def hostile_input(rows: pd.DataFrame) -> Iterator[str]:
    """Yields the paragraphs about hostile input."""
    if rows.empty:
        return
    drawn = int(rows[rows["kind"] != "grown"]["cases"].sum())
    yield "## Hostile input"
    yield (
        f"{drawn:,} cases drawn by hypothesis, and {int(rows['cases'].sum()) - drawn:,} grown by "
        f"atheris: {rows['crashes'].sum()} crashes. The slowest case took "
        f"{rows['slowest_seconds'].max():.1f} s. `{NONE}` is FedAvg, which judges nobody: NaN in "
        "an update is NaN in its aggregate, so that the claims leave it out."
    )
    header = ["", "cases", "accepted", "refused", "wrong", "not finite", "crashes", "slowest, s"]
    for kind, (title, about) in KINDS.items():
        mine = [row for row in records(rows) if row["kind"] == kind]
        if mine:
            yield f"### {title}"
            yield about
            yield table(header, list(map(_target, mine)))
        if CONSENSUS_TESTS in {row["target"] for row in mine}:
            yield ABOUT_CONSENSUS_TESTS


def _target(row: Mapping[str, Any]) -> list[str]:
    wrong = (str(row[name]) for name in WRONG)
    return [
        f"`{row['target']}`",
        *(f"{row[name]:,}" for name in ("cases", "accepted", "refused")),
        *(words if words == "0" else f"**{words}**" for words in wrong),
        f"{row['slowest_seconds']:.2f}",
    ]


def broken_runs(rows: pd.DataFrame) -> Iterator[str]:
    """Yields the paragraphs about broken runs."""
    if rows.empty:
        return
    yield "## Broken runs"
    kills = rows[rows["fault"] == "kill"]
    if len(kills):
        late = int((kills["rounds"] > 0).sum())
        ends = int((rows["fault"] == "killed run's end").sum())
        yield (
            f"Of {len(kills)} kills, {late} hit a run that had finished at least one round; {ends} "
            "runs reached their end."
        )
    said = rows[rows["line"].notna() & rows["fault"].isin(MESSAGES)]
    if len(said):
        lines = [
            [row["fault"], row["case"], f"{row['exit_code']:.0f}", f"`{row['line'][:140]}`"]
            for row in records(said)
        ]
        yield "What the program said:"
        yield words_table(["fault", "case", "exit code", "line"], lines)


PAGE = Page(
    "reliability",
    "Hostile input and broken runs",
    intro,
    body,
    collect,
    packages=("tffl", "hypothesis", "atheris", "flwr", "tensorflow", "keras", "numpy"),
)
