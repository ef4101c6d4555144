"""The cheap parts of `python -m faults`: what counts as held, and the fault that needs no run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from . import kills, undisturbed
from .disks import full_stdout
from .undisturbed import SCRATCH, Undisturbed, one_line, row


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Undisturbed:
    """An undisturbed run that took no time."""

    def write(command: list[str]) -> tuple[int, str]:
        write_run(Path(command[command.index("--out") + 1]))
        return 0, ""

    monkeypatch.setattr(undisturbed, "call", write)
    return Undisturbed(tmp_path)


def write_run(run: Path, seconds: float = 1.0, accuracy: float = 0.5) -> Path:
    run.mkdir()
    (run / "rounds.csv").write_text(f"round,accuracy,train_seconds\n1,{accuracy},{seconds}\n")
    (run / "clients.csv").write_text("round,client\n1,0\n")
    (run / "summary.json").write_text("{}")
    return run


def test_a_run_is_equal_whatever_its_seconds_and_only_when_it_ended(
    whole: Undisturbed, tmp_path: Path
) -> None:
    assert whole.equals(write_run(tmp_path / "slower", seconds=2.0))
    assert not whole.equals(write_run(tmp_path / "other", accuracy=0.4))
    (tmp_path / "slower" / "summary.json").unlink()
    assert not whole.equals(tmp_path / "slower")
    assert not whole.equals(tmp_path / "nowhere")
    assert undisturbed.rounds(tmp_path / "slower") == 1
    assert undisturbed.rounds(tmp_path / "nowhere") == 0


def test_a_message_of_one_line() -> None:
    assert one_line("Error: no") and not one_line("Traceback") and not one_line("Error: a\nb")


def test_rows_do_not_name_the_scratch_folder(tmp_path: Path) -> None:
    import tempfile

    place = Path(tempfile.gettempdir()) / "tffl-abc" / "run"
    assert row("full disk", "2%", True, f"Error: {place}")["line"] == "Error: run"
    assert SCRATCH.search(str(place))


def test_a_terminal_that_takes_nothing(whole: Undisturbed) -> None:
    rows = list(full_stdout(whole))
    assert [line["held"] for line in rows] == [1, 1], rows


def test_a_kill_is_judged_by_its_run_alone(
    whole: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed once and then ends with other tables: only its end does not hold."""

    class Process:
        pid, returncode = 0, -9

        def communicate(self, timeout: float | None = None) -> tuple[str, str]:
            if timeout is not None:
                raise subprocess.TimeoutExpired("tffl", timeout)
            return "", ""

    def begin(command: list[str], **_: object) -> Process:
        process = Process()
        if "--resume" in command:
            process.returncode = 0
        else:
            write_run(Path(command[command.index("--out") + 1]), accuracy=0.4)
        return process

    monkeypatch.setattr(subprocess, "Popen", begin)
    monkeypatch.setattr(kills.os, "killpg", lambda *_: None)
    rows = list(kills.kills(whole, 1, draw=1))
    assert [(row["fault"], row["held"]) for row in rows] == [
        ("kill", None),
        ("killed run's end", 0),
    ]
