"""Runs 200 clients of `resnet18` with their updates on disk, where no more memory may be used.

    python results/speed/on_disk.py     # as root, on Linux; about four minutes

The kernel holds the run, page cache included, to LIMIT by a control group, and ends it if that is
not enough. Writes on_disk.json: whether it came through, and the size of the updates.
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
GROUPS = {
    Path("/sys/fs/cgroup/memory/tffl"): ("memory.limit_in_bytes", "memory.max_usage_in_bytes"),
    Path("/sys/fs/cgroup/tffl"): ("memory.max", "memory.peak"),
}
"""Control group → file of its limit, and of its peak: version 1, version 2."""

CLIENTS = 200
EXPERIMENT = (
    *("--dataset", "digits", "--train-limit", "800", "--model", "resnet18", "--batch-size", "4"),
    *("--clients", str(CLIENTS), "--malicious", "10", "--rounds", "1", "--devices", "1"),
    *("--set", "record.tensorboard=false", "--set", "record.figures=false"),
    *("--set", "record.export=false", "--updates-on-disk", "--quiet"),
)


def measure(defense: str) -> dict[str, object]:
    """Returns how a run with a defense ended, within the limit."""
    group = next((one for one in GROUPS if one.parent.joinpath(GROUPS[one][0]).exists()), None)
    if group is None:
        raise SystemExit("no control groups of memory here")
    group.mkdir(exist_ok=True)
    limit, peak = GROUPS[group]
    (group / limit).write_text(str(LIMIT))

    def confine() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))

    with tempfile.TemporaryDirectory(prefix="tffl-") as folder:
        out = Path(folder) / "run"
        command = ["-m", "tffl", "simulate", *EXPERIMENT, "--defense", defense, "--out", str(out)]
        began = time.monotonic()
        code = subprocess.run([sys.executable, *command], preexec_fn=confine).returncode
        seconds = round(time.monotonic() - began)
    return {"exit_code": code, "seconds": seconds, "peak": int((group / peak).read_text())}


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
