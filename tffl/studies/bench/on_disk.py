"""200 clients of `resnet18` with their updates on disk, where the kernel allows less memory.

A control group (version 1; version 2 is not supported) limits the run, page cache included, and
ends it if that is not enough. It takes Linux, root, and some minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tffl.core.errors import UsageError

LIMIT = 6 << 30
"""Bytes of memory that the kernel allows."""
GROUP = Path("/sys/fs/cgroup/memory/tffl")

CLIENTS = 200
DEFENSES = ("median", "multi-krum")
EXPERIMENT = (
    *("--dataset", "digits", "--train-limit", "800", "--model", "resnet18", "--batch-size", "4"),
    *("--clients", str(CLIENTS), "--malicious", "10", "--rounds", "1", "--devices", "1"),
    *("--set", "record.tensorboard=false", "--set", "record.figures=false"),
    *("--set", "record.export=false", "--updates-on-disk", "--quiet"),
)


def on_disk(defenses: Sequence[str] = DEFENSES) -> dict[str, Any]:
    """Returns how runs with some defenses ended, the limit, and the size of the updates in bytes.

    Raises:
      UsageError: Memory cannot be limited here.
    """
    if not GROUP.parent.is_dir() or not os.access(GROUP.parent, os.W_OK):
        raise UsageError(
            f"memory cannot be limited: {GROUP.parent}, the control groups of Linux in version 1, "
            "does not exist or is not writable for this user"
        )
    try:
        runs = {name: _run(name) for name in defenses}
    finally:
        with suppress(OSError):  # it is still in use, or was not made
            GROUP.rmdir()
    from tffl.models.resnet import resnet18

    size = CLIENTS * resnet18((28, 28, 1), 10).count_params() * 4
    return {"limit": LIMIT, "updates": size, "clients": CLIENTS, "defenses": runs}


def _run(defense: str) -> dict[str, int]:
    """Returns how a run with a defense ended."""
    GROUP.mkdir(exist_ok=True)
    (GROUP / "memory.limit_in_bytes").write_text(str(LIMIT))

    def confine() -> None:
        (GROUP / "cgroup.procs").write_text(str(os.getpid()))

    with tempfile.TemporaryDirectory(prefix="tffl-") as folder:
        out = Path(folder) / "run"
        options = ["simulate", *EXPERIMENT, "--defense", defense, "--out", str(out)]
        began = time.monotonic()
        code = subprocess.run(
            [sys.executable, "-m", "tffl", *options], preexec_fn=confine
        ).returncode
        seconds = round(time.monotonic() - began)
    peak = int((GROUP / "memory.max_usage_in_bytes").read_text())
    return {"exit_code": code, "seconds": seconds, "peak": peak}
