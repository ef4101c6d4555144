"""A few of the hostile inputs that `fuzzing.record` takes by the thousand, the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tffl.core.errors import TfflError, UsageError

from . import files, record, rounds
from .drive import Tally, drive
from .files import Case, Corpus, Damage, Edit, Twist
from .outcome import Broken, NotFinite, attempt, demand

QUICK = [name for name in rounds.NAMES if name not in rounds.SLOW]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus.make(tmp_path_factory.mktemp("corpus"))


def sound(tally: Tally) -> None:
    assert not tally.bad
    assert tally.endings["accepted"] and tally.endings["refused"]


@pytest.mark.parametrize("name", QUICK)
def test_defenses_keep_their_word(name: str) -> None:
    tally = drive(rounds.cases, lambda case: rounds.judge(name, case), 10, draw=2)
    if name == "none":  # averages whatever it gets, and says so
        assert set(tally.endings) <= {"accepted", "refused", "wrong", "non-finite"}
        return
    assert not tally.bad


@pytest.mark.parametrize("name", ["gan-audit", "gradcam-krum", "layercam-ae"])
def test_defenses_that_look_at_images_keep_their_word(name: str) -> None:
    assert not drive(rounds.cases, lambda case: rounds.judge(name, case), 4, draw=2).bad


@pytest.mark.parametrize("kind", files.SUFFIXES)
def test_files_are_read_exactly_or_refused(kind: str, corpus: Corpus, tmp_path: Path) -> None:
    sound(drive(files.cases(kind), lambda c: files.examine(kind, c, corpus, tmp_path), 60, draw=2))


def test_replies_are_read_exactly_or_refused(corpus: Corpus) -> None:
    pytest.importorskip("tffl.integrations.flower", exc_type=ImportError)
    from . import replies

    sound(drive(replies.replies, lambda reply: replies.examine(reply, corpus), 60, draw=2))


# --- what the fuzzing is worth -------------------------------------------------------------------


def test_every_ending_is_recognized() -> None:
    def end(error: Exception | None = None) -> str:
        def act() -> None:
            if error is not None:
                raise error

        return attempt(act).ending

    assert end() == "accepted"
    assert end(TfflError("no")) == end(UsageError("no")) == "refused"
    assert end(TfflError("two\nlines")) == end(TfflError("")) == "wrong"
    assert end(Broken("word")) == "wrong" and end(NotFinite("inf")) == "non-finite"
    assert end(KeyError("x")) == end(RecursionError()) == "crash"
    assert not attempt(lambda: demand(False, "x")).good


@pytest.mark.parametrize("kind", files.SUFFIXES)
def test_a_wrong_reader_is_noticed(
    kind: str, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def examine(case: Case) -> str:
        outcome = files.examine(kind, case, corpus, tmp_path)
        assert outcome is not None
        return outcome.ending

    plain, odd = Case(), Case(edits=(Edit("flat", 0, 0, 0.0, "<f4"),))
    bytes_ = Case(damage=Damage())
    assert [examine(case) for case in (plain, odd, bytes_)] == ["accepted", "refused", "accepted"]
    real = files.read_model

    def moved(path: Path, expected: object) -> np.ndarray:
        return real(path, expected) + np.float32(1)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "read_model", moved)
    assert [examine(case) for case in (plain, odd, bytes_)] == ["wrong", "refused", "wrong"]
    weights = np.full(corpus.expected.layout.size, np.nan, np.float32)
    monkeypatch.setattr(files, "read_model", lambda path, expected: weights)
    assert [examine(case) for case in (plain, odd)] == ["non-finite", "wrong"]


@pytest.mark.parametrize("kind", files.SUFFIXES)
def test_every_edit_is_judged_right(kind: str, corpus: Corpus, tmp_path: Path) -> None:
    changes = [Edit(name, 1, 5, float("nan"), "<i4") for name in files.EDITS]
    changes += [Edit("value", 5, 0, value, "") for value in files.VALUES]
    changes += [Edit("dtype", 0, 0, 0.0, dtype) for dtype in files.DTYPES]
    outcomes = [files.examine(kind, Case(edits=(edit,)), corpus, tmp_path) for edit in changes]
    for edit, outcome in zip(changes, outcomes, strict=True):
        assert outcome is None or outcome.good, (edit, outcome)
    made = [outcome.ending for outcome in outcomes if outcome is not None]
    assert len(made) > 20 and made.count("accepted") > 8 and made.count("refused") > 8


@pytest.mark.parametrize("kind", files.SUFFIXES)
def test_every_twist_can_be_made(kind: str, corpus: Corpus, tmp_path: Path) -> None:
    for name in files.TWISTS[kind]:
        twisted = Case(twist=Twist(name, 0, 7, "more.npy"))
        outcome = files.examine(kind, twisted, corpus, tmp_path)
        assert outcome is not None and outcome.good, (name, outcome)
    for place in files.PLACES:
        outcome = files.examine(kind, Case(place=place), corpus, tmp_path)
        assert outcome is not None and outcome.ending == "refused", (place, outcome)


def test_a_process_that_dies_costs_one_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorded run goes on after a crash of native code, and names the case."""

    def call(command: list[str], **_: object) -> int:
        left = command[command.index("--targets") + 1].split(",")
        for target in left:
            diary = record.Diary(tmp_path, "updates", target)
            diary.begin("the case", Tally())
            if target == "b":
                return -11
            diary.end(Tally())
        return 0

    monkeypatch.setattr(record.subprocess, "call", call)
    rows = list(record._outlive("updates", ["a", "b", "c"], 3, 1, tmp_path))
    record.faulthandler.cancel_dump_traceback_later()
    assert [(row["target"], row["crashes"]) for row in rows] == [("a", 0), ("b", 1), ("c", 0)]
    assert rows[1]["bad"] == {"crash: killed by SIGSEGV": "'the case'"}
