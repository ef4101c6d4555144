"""Feeds hostile updates to every defense, and hostile files and replies to all that read them.

    pip install 'tffl[fuzz,flower]'
    python results/reliability/fuzz.py --cases 10000

writes fuzz.csv and environment.json beside itself; exit code 1 if anything went wrong. The cases
are those of `tests/fuzzing`, where they are described: `hypothesis` draws them, the same ones every
time, and `atheris` grows files by what they reach in the Python code of the readers. Each target
runs in a process that may die: a crash of native code, or a case of a minute, costs the target.
"""

from __future__ import annotations

import argparse
import csv
import faulthandler
import json
import os
import pickle
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

COLUMNS = (
    *("kind", "target", "cases", "accepted", "refused"),
    *("wrong", "non_finite", "crashes", "slowest_seconds", "note"),
)
PACKAGES = ("atheris", "flwr", "h5py", "hypothesis", "keras", "numpy", "safetensors", "tensorflow")

PATIENCE = 60
"""Seconds after which a case is a hang, and its process ended."""

WEIGHTS = {"updates": 4, "slow updates": 1, "files": 12, "replies": 12}
"""How the cases are divided: many to what is fast and has many ways to go wrong."""

GROWN = ("npz", "npz header", "keras config", "weights.h5", "safetensors", "safetensors header")
"""What atheris grows: whole files, or the part of a sound one that Python code reads."""


def plan(kind: str, cases: int) -> dict[str, int]:
    """Returns target → cases of a kind."""
    from fuzzing import files, rounds

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
    """Tells the parent process what is going on, so that nothing is lost if this one dies."""

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
    from fuzzing.drive import drive

    counts = plan(kind, cases)
    for target in targets:
        strategy, examine = _target(kind, target, work)
        diary = Diary(work, kind, target)
        diary.end(drive(strategy, examine, counts[target], draw, diary.begin))


def _target(kind: str, target: str, work: Path) -> tuple[Any, Callable[[Any], Any]]:
    if kind == "updates":
        from fuzzing import rounds

        # What is compiled, once per defense, is no part of any case.
        rounds.judge(target, rounds.HONEST)
        return rounds.cases, lambda case: rounds.judge(target, case)
    corpus = _corpus(work)
    if kind == "replies":
        from fuzzing import replies

        return replies.replies, lambda reply: replies.examine(reply, corpus)
    from fuzzing import files

    folder = work / "inbox"
    folder.mkdir(exist_ok=True)
    return files.cases(target), lambda case: files.examine(target, case, corpus, folder)


def _corpus(work: Path) -> Any:
    """Returns the sound files, made by the first process that needs them."""
    from fuzzing.files import Corpus

    stored = work / "corpus.pickle"
    if not stored.exists():
        folder = work / "corpus"
        folder.mkdir()
        stored.write_bytes(pickle.dumps(Corpus.make(folder)))
    return pickle.loads(stored.read_bytes())


def grow(target: str, runs: int, draw: int, work: Path) -> None:
    """Lets atheris change a sound file, and keep what reaches more of the readers' code."""
    import atheris

    with atheris.instrument_imports(
        include=["tffl.untrusted", "zipfile", "json", "numpy.lib.format", "numpy.lib._format_impl"]
    ):
        import zipfile  # noqa: F401

        import numpy.lib.format  # noqa: F401

        from tffl.untrusted import hdf5, keras_zip, npz, safetensors_file  # noqa: F401

    from fuzzing import files
    from fuzzing.drive import Tally

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


def _grown(target: str, corpus: Any) -> tuple[str, bytes, Callable[[bytes], bytes]]:
    """Returns the format, the sound bytes to start from, and what makes a file of such bytes."""
    from fuzzing import files

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
        told = ["--child", kind, "--targets", ",".join(left), "--cases", str(cases)]
        command = [sys.executable, __file__, *told, "--seed", str(draw), "--work", str(work)]
        with (work / "log").open("wb") as log:
            code = subprocess.call(command, stdout=log, stderr=log)
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


def main() -> int:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = ["updates", "files", "replies", "grown"]
    parser.add_argument("--cases", type=int, default=10_000, help="by hypothesis, in all")
    parser.add_argument("--grown", type=int, default=5_000, help="by atheris, per target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=kinds, action="append")
    parser.add_argument("--out", type=Path, default=HERE)
    for hidden in ("--child", "--targets", "--work"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        work = Path(given.work)
        child(given.child, given.targets.split(","), given.cases, given.seed, work)
        return 0
    chosen = given.only or kinds
    for package, kind in (("atheris", "grown"), ("flwr", "replies")):
        if kind in chosen and find_spec(package) is None:
            print(
                f"{package} is not installed: {kind} is left out (pip install 'tffl[fuzz,flower]')"
            )
            chosen = [other for other in chosen if other != kind]
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    bad = 0
    given.out.mkdir(parents=True, exist_ok=True)
    part = given.out / "fuzz.csv.part"
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in examine_all(chosen, given.cases, given.grown, given.seed):
            found = row.pop("bad")
            writer.writerow({**row, "note": "; ".join(found)[:500]})
            file.flush()
            print(*(row[name] for name in COLUMNS[:-1]), flush=True)
            for what, case in found.items():
                print(f"  {what}\n    {case[:2000]}", flush=True)
            # `none` averages whatever it gets, and says so.
            bad += bool(found) and row["target"] != "none"
    part.replace(given.out / "fuzz.csv")
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    about = json.dumps({"seed": given.seed, **versions}, indent=2)
    (given.out / "environment.json").write_text(about + "\n", encoding="utf-8")
    print("Nothing broke." if not bad else f"{bad} targets have failures.")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
