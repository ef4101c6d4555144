"""`tffl bench on-disk`, with a folder in the place of the kernel's control group."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tffl.core.errors import UsageError
from tffl.studies.bench import on_disk


def test_where_memory_cannot_be_limited_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_disk, "GROUP", tmp_path / "no groups" / "tffl")
    with pytest.raises(UsageError, match=r"memory cannot be limited: .*no groups") as error:
        on_disk.on_disk()
    assert "\n" not in str(error.value)


def test_how_runs_end_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "tffl"
    commands = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        options["preexec_fn"]()
        assert int((group / "cgroup.procs").read_text()) > 0
        (group / "memory.max_usage_in_bytes").write_text("12\n")
        commands.append(command)
        return subprocess.CompletedProcess(command, 137 if "median" in command else 0)

    monkeypatch.setattr(on_disk, "GROUP", group)
    monkeypatch.setattr(on_disk.subprocess, "run", run)
    found = on_disk.on_disk()
    assert {name: run["exit_code"] for name, run in found["defenses"].items()} == {
        "median": 137,
        "multi-krum": 0,
    }
    assert (group / "memory.limit_in_bytes").read_text() == str(on_disk.LIMIT)
    assert found["updates"] > found["limit"] > 0
    assert all("--updates-on-disk" in command for command in commands)
