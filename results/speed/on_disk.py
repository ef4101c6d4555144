"""Runs 200 clients of `resnet18` with their updates on disk, where no more memory may be used.

    python results/speed/on_disk.py     # as root, on Linux; some minutes

The kernel holds the run, page cache included, to LIMIT by a control group (of version 1: others
are not tried here), and ends it if that is not enough. Writes on_disk.json: whether it came
through, and the size of the updates.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
LIMIT = 6 << 30
GROUP = Path("/sys/fs/cgroup/memory/tffl")

CLIENTS = 200
EXPERIMENT = (
    *("--dataset", "digits", "--train-limit", "800", "--model", "resnet18", "--batch-size", "4"),
    *("--clients", str(CLIENTS), "--malicious", "10", "--rounds", "1", "--devices", "1"),
    *("--set", "record.tensorboard=false", "--set", "record.figures=false"),
    *("--set", "record.export=false", "--updates-on-disk", "--quiet"),
)


def measure(defense: str) -> dict[str, object]:
    """Returns how a run with a defense ended, within the limit."""
    if not GROUP.parent.is_dir():
        raise SystemExit(f"no control groups of memory at {GROUP.parent}")
    GROUP.mkdir(exist_ok=True)
    (GROUP / "memory.limit_in_bytes").write_text(str(LIMIT))

    def confine() -> None:
        (GROUP / "cgroup.procs").write_text(str(os.getpid()))

    with tempfile.TemporaryDirectory(prefix="tffl-") as folder:
        out = Path(folder) / "run"
        command = ["-m", "tffl", "simulate", *EXPERIMENT, "--defense", defense, "--out", str(out)]
        began = time.monotonic()
        code = subprocess.run([sys.executable, *command], preexec_fn=confine).returncode
        seconds = round(time.monotonic() - began)
    peak = int((GROUP / "memory.max_usage_in_bytes").read_text())
    return {"exit_code": code, "seconds": seconds, "peak": peak}


def main() -> None:
    """Writes on_disk.json."""
    from tffl.models.resnet import resnet18

    found = {
        "limit": LIMIT,
        "updates": CLIENTS * resnet18((28, 28, 1), 10).count_params() * 4,
        "clients": CLIENTS,
        "defenses": {name: measure(name) for name in ("median", "multi-krum")},
    }
    (HERE / "on_disk.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
