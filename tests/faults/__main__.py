"""Records all faults."""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .disks import file_sizes, full_disks, full_stdout, may_mount, read_only
from .kills import kills, worker_kills
from .undisturbed import COLUMNS, Undisturbed

OUT = Path("runs/reliability")
FAULTS = ("kill", "worker", "full-disk", "read-only", "file-size", "stdout")
MOUNTING = ("full-disk", "read-only")


Fault = Callable[[Undisturbed], Iterator[dict[str, Any]]]


def parsed() -> argparse.Namespace:
    """Returns the options."""
    parser = argparse.ArgumentParser(prog="python -m faults")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--worker-kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", choices=FAULTS)
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args()


def chosen(options: argparse.Namespace, mounts: bool) -> list[Fault]:
    """Returns the faults that are wanted and can be made here."""
    faults: dict[str, Fault] = {
        "kill": lambda whole: kills(whole, options.kills, options.seed),
        "worker": lambda whole: worker_kills(whole, options.worker_kills, options.seed),
        "full-disk": full_disks,
        "read-only": read_only,
        "file-size": file_sizes,
        "stdout": full_stdout,
    }
    names = options.only or FAULTS
    if not mounts and set(names) & set(MOUNTING):
        print(f"nothing can be mounted here: {' and '.join(MOUNTING)} are left out")
        names = [name for name in names if name not in MOUNTING]
    return [faults[name] for name in names]


def main() -> int:
    """Records all faults; returns the exit code."""
    options = parsed()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory(prefix="tffl-") as folder:
        faults = chosen(options, may_mount(Path(folder)))
        undisturbed = Undisturbed(Path(folder))
        rows = [row for fault in faults for row in fault(undisturbed)]
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    with (out / "faults.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    lost = sum(row["held"] == 0 for row in rows)
    print("Nothing was lost." if not lost else f"{lost} faults did harm.")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
