"""A lock ends with its process, and two processes never write one run."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tffl
from tffl.callbacks import Callback, Round
from tffl.config import Config
from tffl.core.errors import TfflError, UsageError
from tffl.record import lock
from tffl.record.lock import locked
from tffl.record.run_directory import RunDirectory
from tffl.record.writer import RunWriter
from tffl.studies import benchmark

HOLD = """
import sys
from pathlib import Path
from tffl.record.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
CONFIG = Config()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    RunWriter.create(tmp_path, CONFIG, [], {})
    return tmp_path


@pytest.fixture
def holder(run: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has locked the run."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLD, str(run)]
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_two_processes_cannot_resume_one_run(run: Path, holder: subprocess.Popen[str]) -> None:
    files = {file: file.read_bytes() for file in run.iterdir()}
    told = f"another process \\(number {holder.pid}\\) is writing {run}: wait until it ends"
    with pytest.raises(UsageError, match=told) as error:
        tffl.simulate(CONFIG, run, resume=True)
    assert "\n" not in str(error.value)
    assert {file: file.read_bytes() for file in run.iterdir()} == files
    with pytest.raises(UsageError, match=told):
        benchmark.run([], run)
    RunDirectory.open(run)  # reading is free


def test_a_killed_process_leaves_no_lock(run: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    assert (run / ".lock").exists()
    with locked(run):
        assert (run / ".lock").read_text() == str(os.getpid())
    assert not (run / ".lock").exists()


def test_a_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), locked(tmp_path):
        with pytest.raises(UsageError, match="another process"), locked(tmp_path):
            pass
        raise KeyboardInterrupt
    with locked(tmp_path):
        pass
    assert not os.listdir(tmp_path)


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock, "_lock", refuse)
    warnings: list[str] = []
    with locked(tmp_path, warnings.append):
        assert len(warnings) == 1 and "knows no locks" in warnings[0]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TfflError, match=r"cannot write .*absent"), locked(tmp_path / "absent"):
        pass


class Meanwhile(Callback):
    """Begins a run in the folder of the one that it watches."""

    def __init__(self, path: Path) -> None:
        self.path, self.refused = path, ""

    def round(self, round: Round) -> None:
        try:
            tffl.simulate(TINY, self.path, resume=True)
        except UsageError as error:
            self.refused = str(error)


TINY = {
    "data": {"train_limit": 60, "test_limit": 20},
    "federation": {"clients": 2, "rounds": 1},
    "model": {"name": "lenet5"},
    "record": {"tensorboard": False, "export": False, "figures": False},
}


def test_a_run_is_locked_while_it_runs(tmp_path: Path) -> None:
    watch = Meanwhile(tmp_path / "run")
    tffl.simulate(TINY, tmp_path / "run", callbacks=[watch])
    assert "another process" in watch.refused
    assert not (tmp_path / "run" / ".lock").exists()
