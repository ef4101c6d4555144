"""Feeds hostile updates to every defense, and hostile files and replies to all that read them.

    pip install 'tffl[fuzz,flower]'
    PYTHONPATH=tests python -m fuzzing.record --cases 10000

Writes fuzz.csv and environment.json to runs/reliability, from which `tffl page reliability` makes
a page; exit code 1 if anything went wrong. The cases are those of this package: `hypothesis` draws
them, the same ones every time, and `atheris` grows files by what they reach in the Python code of
the readers. Each target runs in a process that may die: a crash of native code, or a case that
takes a minute, costs the target.
"""

from __future__ import annotations

import argparse
import csv
import faulthandler
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tffl.studies.pages.builder import present_environment

from . import files, rounds
from .drive import Tally, drive
from .files import Corpus

TESTS = Path(__file__).resolve().parents[1]
OUT = Path("runs/reliability")

COLUMNS = (
    *("kind", "target", "cases", "accepted", "refused"),
    *("wrong", "non_finite", "crashes", "slowest_seconds", "note"),
)
KINDS = ("updates", "files", "replies", "grown")
PACKAGES = (
    "tffl",
    "atheris",
    "flwr",
    "h5py",
    "hypothesis",
    "keras",
    "numpy",
    "safetensors",
    "tensorflow",
)

PATIENCE = 60
"""Seconds after which a case is a hang, and its process ended."""

WEIGHTS = {"updates": 4, "slow updates": 1, "files": 12, "replies": 12}
"""How the cases are divided: many to what is fast and has many ways to go wrong."""

GROWN = ("npz", "npz header", "keras config", "weights.h5", "safetensors", "safetensors header")
"""What atheris grows: whole files, or the part of a sound one that Python code reads."""


def plan(kind: str, cases: int) -> dict[str, int]:
    """Returns target → cases of a kind."""
    weights = {
        "updates": {
            name: WEIGHTS["slow updates" if name in rounds.SLOW else "updates"]
            for name in rounds.NAMES
        },
        "files": dict.fromkeys(files.SUFFIXES, WEIGHTS["files"]),
        "replies": {"Flower": WEIGHTS["replies"]},
    }
    total = sum(weight for group in weights.values() for weight in group.values())
    return {name: -(-cases * weight // total) for name, weight in weights[kind].items()}


# --- in a process of its own ---------------------------------------------------------------------


class Diary:
    """Notes for the parent process what is going on, so that nothing is lost if this one dies."""

    def __init__(self, work: Path, kind: str, target: str) -> None:
        self.now, self.done = work / "now.json", work / "done.jsonl"
        self.about = {"kind": kind, "target": target}

    def begin(self, case: Any, tally: Any) -> None:
        """Notes a case, and starts the clock."""
        faulthandler.cancel_dump_traceback_later()
        note = {**self.about, **_row(tally), "case": repr(case)}
        self.now.write_text(json.dumps(note), encoding="utf-8")
        faulthandler.dump_traceback_later(PATIENCE, exit=True)

    def end(self, tally: Any) -> None:
        """Notes how the target ended."""
        faulthandler.cancel_dump_traceback_later()
        with self.done.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**self.about, **_row(tally)}) + "\n")


def _row(tally: Any) -> dict[str, Any]:
    ends = tally.endings
    return {
        "cases": sum(ends.values()),
        **{name: ends[name] for name in ("accepted", "refused", "wrong")},
        "non_finite": ends["non-finite"],
        "crashes": ends["crash"],
        "slowest_seconds": round(tally.slowest, 3),
        "bad": tally.bad,
    }


def child(kind: str, targets: list[str], cases: int, draw: int, work: Path) -> None:
    """Examines the cases of some targets."""
    if kind == "grown":
        grow(targets[0], cases, draw, work)
        return
    from tffl.engine.runtime import configure

    configure(devices=1)
    counts = plan(kind, cases)
    for target in targets:
        strategy, examine = _target(kind, target, work)
        diary = Diary(work, kind, target)
        diary.end(drive(strategy, examine, counts[target], draw, diary.begin))


def _target(kind: str, target: str, work: Path) -> tuple[Any, Callable[[Any], Any]]:
    if kind == "updates":
        # What is compiled, once per defense, belongs to no case.
        rounds.judge(target, rounds.HONEST)
        return rounds.cases, lambda case: rounds.judge(target, case)
    corpus = _corpus(work)
    if kind == "replies":
        from . import replies

        return replies.replies, lambda reply: replies.examine(reply, corpus)
    folder = work / "inbox"
    folder.mkdir(exist_ok=True)
    return files.cases(target), lambda case: files.examine(target, case, corpus, folder)


def _corpus(work: Path) -> Corpus:
    """Returns the sound files, made by the first process that needs them."""
    stored = work / "corpus.pickle"
    if not stored.exists():
        folder = work / "corpus"
        folder.mkdir()
        stored.write_bytes(pickle.dumps(Corpus.make(folder)))
    corpus: Corpus = pickle.loads(stored.read_bytes())
    return corpus


def grow(target: str, runs: int, draw: int, work: Path) -> None:
    """Lets atheris change a sound file, and keep what reaches more of the readers' code."""
    import atheris

    with atheris.instrument_imports(
        include=["tffl.untrusted", "zipfile", "json", "numpy.lib.format", "numpy.lib._format_impl"]
    ):
        import zipfile  # noqa: F401

        import numpy.lib.format  # noqa: F401

        from tffl.untrusted import hdf5, keras_zip, npz, safetensors_file  # noqa: F401

    corpus, tally, diary = _corpus(work), Tally(), Diary(work, "grown", target)
    kind, seed, wrap = _grown(target, corpus)
    inbox, seeds = work / "inbox", work / "seeds"
    for folder in (inbox, seeds):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    (seeds / "sound").write_bytes(seed)

    def take(data: bytes) -> None:
        diary.begin(data, tally)
        tally.add(files.examine_bytes(kind, wrap(data), corpus, inbox), data)

    options = ["-timeout=0", "-rss_limit_mb=4096", "-print_final_stats=0", "-verbosity=0"]
    options += [f"-atheris_runs={runs}", f"-seed={draw}", f"-max_len={len(seed) + 64}"]
    atheris.Setup([sys.argv[0], *options, str(seeds)], take)
    try:
        atheris.Fuzz()  # ends the process
    finally:
        diary.end(tally)


def _grown(target: str, corpus: Corpus) -> tuple[str, bytes, Callable[[bytes], bytes]]:
    """Returns the format, the sound bytes to start from, and what makes a file of such bytes."""
    kind, _, part = target.partition(" ")
    whole = corpus.sound(kind)[""]
    if not part:
        return kind, whole, lambda data: data
    if kind == "safetensors":
        length = 8 + int.from_bytes(whole[:8], "little")
        data = whole[length:]
        return kind, whole[8:length], lambda head: len(head).to_bytes(8, "little") + head + data
    members = files.unzipped(whole)
    name = "config.json" if part == "config" else "conv/bias.npy"
    seed = dict(members)[name]
    return kind, seed, lambda data: files.zipped([*{**dict(members), name: data}.items()])


# --- all of it -----------------------------------------------------------------------------------


def examine_all(kinds: list[str], cases: int, grown: int, draw: int) -> Iterator[dict[str, Any]]:
    """Yields one row per target, whatever becomes of its process."""
    with tempfile.TemporaryDirectory(prefix="tffl-") as folder:
        work = Path(folder)
        for kind in kinds:
            if kind == "grown":
                for target in GROWN:
                    yield from _outlive(kind, [target], grown, draw, work)
            else:
                yield from _outlive(kind, list(plan(kind, cases)), cases, draw, work)


def _outlive(
    kind: str, targets: list[str], cases: int, draw: int, work: Path
) -> Iterator[dict[str, Any]]:
    left = targets
    while left:
        for name in ("done.jsonl", "now.json"):
            (work / name).unlink(missing_ok=True)
        options = ["--child", kind, "--targets", ",".join(left), "--cases", str(cases)]
        options += ["--seed", str(draw), "--work", str(work)]
        command = [sys.executable, "-m", "fuzzing.record", *options]
        environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        with (work / "log").open("wb") as log:
            code = subprocess.call(command, stdout=log, stderr=log, env=environment)
        done = work / "done.jsonl"
        rows = [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []
        yield from rows
        left = left[len(rows) :]
        if not left:
            return
        now = work / "now.json"
        if not now.exists():
            raise SystemExit(f"{kind} did not begin:\n{(work / 'log').read_text()[-2000:]}")
        row = json.loads(now.read_text())
        why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        log_text = (work / "log").read_text(errors="replace")
        why = f"a hang of {PATIENCE} s" if "Timeout (" in log_text else why
        bad = {**row["bad"], f"crash: {why}": row.pop("case")}
        yield {**row, "cases": row["cases"] + 1, "crashes": row["crashes"] + 1, "bad": bad}
        left = left[1:]


def parsed() -> argparse.Namespace:
    """Returns the options; hidden ones are of the processes that examine cases."""
    parser = argparse.ArgumentParser(prog="python -m fuzzing.record")
    parser.add_argument("--cases", type=int, default=10_000, help="by hypothesis, in all")
    parser.add_argument("--grown", type=int, default=5_000, help="by atheris, per target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=KINDS, action="append")
    parser.add_argument("--out", type=Path, default=OUT)
    for hidden in ("--child", "--targets", "--work"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    return parser.parse_args()


def available(kinds: Sequence[str]) -> list[str]:
    """Returns the kinds of input for which everything is installed; says what is left out."""
    chosen = list(kinds)
    for package, kind in (("atheris", "grown"), ("flwr", "replies")):
        if kind in chosen and find_spec(package) is None:
            hint = "pip install 'tffl[fuzz,flower]'"
            print(f"{package} is not installed: {kind} is left out ({hint})")
            chosen.remove(kind)
    return chosen


def main() -> int:
    """Records all targets; returns the exit code."""
    options = parsed()
    if options.child:
        targets, work = options.targets.split(","), Path(options.work)
        child(options.child, targets, options.cases, options.seed, work)
        return 0
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    failed = 0
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    part = out / "fuzz.csv.part"
    kinds = available(options.only or KINDS)
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in examine_all(kinds, options.cases, options.grown, options.seed):
            found = row.pop("bad")
            writer.writerow({**row, "note": "; ".join(found)[:500]})
            file.flush()
            print(*(row[name] for name in COLUMNS[:-1]), flush=True)
            for what, case in found.items():
                print(f"  {what}\n    {case[:2000]}", flush=True)
            # `none` averages whatever it gets, and says so.
            failed += bool(found) and row["target"] != "none"
    part.replace(out / "fuzz.csv")
    environment = {**present_environment(PACKAGES), "seed": options.seed}
    (out / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")
    print("Nothing broke." if not failed else f"{failed} targets have failures.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
