"""Reads fuzz.csv, faults.csv and environment.json, and writes README.md.

    bash results/reliability/run.sh

Every number in README.md is computed here, none is typed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd

from tffl.studies.benchmark_table import table

HERE = Path(__file__).parent

KINDS = {
    "updates": (
        "Updates, by defense",
        "One to three rounds in a row of up to eight clients, some of whose rows are spoiled: NaN, "
        "infinity, subnormals, ±1e38, constants, copies and opposites of others, negative "
        "BatchNorm variances; claims of samples from 0 to 2⁴⁰, and in some rounds negative, "
        "broken or larger ones. Accepted is a verdict on every round: finite, with weights that "
        "sum to 1 or 0, and none for a row that is not finite. Refused is tffl's own error: too "
        "few clients for the defense, or a claim that is none.",
    ),
    "files": (
        "Model files, by format",
        "Sound files with variables edited (missing, more, renamed, exchanged, of other shapes, "
        "types and byte orders, NaN, overflow, negative variances), in odd containers (names twice "
        "or leading outside, zip bombs, lies about sizes, links, external and virtual storage, "
        "cycles, Lambda layers, overlapping tensors), damaged (bits flipped, truncated, moved), or "
        "links and pipes in their place. Accepted means: read to the last bit as what was "
        "written, or where bytes are damaged as the format's own library reads them.",
    ),
    "replies": (
        "Replies of Flower nodes",
        "The same edits and damage in a reply's arrays, records missing or twice, and any value "
        "as the claimed number of samples.",
    ),
    "grown": (
        "Files grown by atheris",
        "Starting from a sound file, or the part of one that Python code reads, atheris keeps "
        "the changes that reach more of the readers' code.",
    ),
}

FAULTS = {
    "kill": "`kill -9` at a random moment",
    "killed run's end": "a killed run has the undisturbed run's tables in the end",
    "cluster": "two workers train the clients: the same tables",
    "worker": "`kill -9` of one of the two at a random moment: the same tables",
    "full disk": "a disk too small for a run; with room, it goes on to the same tables",
    "file size": "files limited in size; without the limit, the same",
    "read-only": "a read-only file system",
    "stdout": "`/dev/full` instead of the terminal",
}


def read(name: str) -> pd.DataFrame:
    """Returns a table, empty if it has not been recorded."""
    file = HERE / name
    return pd.read_csv(file, keep_default_na=False) if file.exists() else pd.DataFrame()


def fuzzing(rows: pd.DataFrame) -> list[str]:
    """Returns the lines about hostile input."""
    if rows.empty:
        return []
    failed = rows[(rows[["wrong", "non_finite", "crashes"]].sum(axis=1) > 0)]
    told = failed[failed["target"] != "none"]
    drawn = rows[rows["kind"] != "grown"]
    lines = [
        "## Hostile input",
        "",
        f"{drawn['cases'].sum():,} cases drawn by hypothesis, and "
        f"{rows['cases'].sum() - drawn['cases'].sum():,} grown by atheris: "
        f"{rows['crashes'].sum()} crashes; the slowest took {rows['slowest_seconds'].max():.1f} s.",
        "",
        "Outside of `none`, nothing broke."
        if told.empty
        else f"**{len(told)} targets broke: {', '.join(told['target'])}.**",
        "`none` is FedAvg, which judges nobody: NaN in an update is NaN in its aggregate.",
        "",
    ]
    header = ["", "cases", "accepted", "refused", "wrong", "not finite", "crashes", "slowest, s"]
    for kind, (title, text) in KINDS.items():
        mine = rows[rows["kind"] == kind]
        if mine.empty:
            continue
        body = [
            [
                f"`{row.target}`",
                *(f"{value:,}" for value in (row.cases, row.accepted, row.refused)),
                *(str(value) if value == 0 else f"**{value}**" for value in _failures(row)),
                f"{row.slowest_seconds:.2f}",
            ]
            for row in mine.itertuples()
        ]
        lines += [f"### {title}", "", text, "", table(header, body), ""]
    return lines


def _failures(row: object) -> tuple[int, ...]:
    return tuple(getattr(row, name) for name in ("wrong", "non_finite", "crashes"))


def faults(rows: pd.DataFrame) -> list[str]:
    """Returns the lines about broken runs."""
    if rows.empty:
        return []
    body = []
    for fault in dict.fromkeys(rows["fault"]):
        mine = rows[rows["fault"] == fault]
        held = f"{mine['held'].sum()} of {len(mine)}"
        body.append([FAULTS.get(fault, fault), held])
    lines = ["## Broken runs", "", table(["", "held"], body), ""]
    kills = rows[rows["fault"] == "kill"]
    if len(kills):
        reached = pd.to_numeric(kills["rounds"])
        lines += [
            f"{len(kills)} kills, of which {(reached > 0).sum()} hit a run that had finished a "
            f"round; {(rows['fault'] == 'killed run' + chr(39) + 's end').sum()} runs got through.",
            "",
        ]
    said = rows[(rows["line"] != "") & rows["fault"].isin(["full disk", "file size", "read-only"])]
    if len(said):
        shown = [
            [row.fault, row.case, str(row.exit_code), f"`{row.line[:140]}`"]
            for row in said.itertuples()
        ]
        lines += ["What was said:", "", table(["", "", "exit code", ""], shown), ""]
    return lines


def main() -> int:
    """Writes README.md."""
    about = HERE / "environment.json"
    versions = json.loads(about.read_text(encoding="utf-8")) if about.exists() else {}
    text = [
        "# Hostile input and broken runs",
        "",
        "Written by make.py from fuzz.csv and faults.csv, which `bash results/reliability/run.sh` "
        "records anew; the cases and what is demanded of them are in `tests/fuzzing`.",
        "",
        *fuzzing(read("fuzz.csv")),
        *faults(read("faults.csv")),
    ]
    if versions:
        told = ", ".join(f"{name} {value}" for name, value in versions.items())
        text += [f"Recorded with {told}.", ""]
    (HERE / "README.md").write_text("\n".join(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
