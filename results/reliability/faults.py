"""Breaks real runs of `tffl simulate`, and looks at what is left of them.

    python results/reliability/faults.py --kills 50 --worker-kills 20

writes faults.csv beside itself; exit code 1 if anything was lost. An undisturbed run comes first;
every other one has to end with its `rounds.csv` and `clients.csv`, timing columns aside.

kill        `kill -9` at a random moment, and on with --resume, until the run ends, and then anew
worker      `kill -9` of one of two workers of a cluster, at a random moment of the run
full disk   a tmpfs that is too small; with more room, --resume
file size   no file may be larger than that (RLIMIT_FSIZE); without the limit, --resume
read-only   a file system that is, to begin a run in and to resume one in
stdout      /dev/full instead of the terminal

File systems are mounted in a user namespace (`unshare`), which needs no root where the kernel lets
users have one; elsewhere these faults are left out, and the program says so.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tffl.simulation.cluster.addresses import answers, free_port

HERE = Path(__file__).resolve().parent
COLUMNS = ("fault", "case", "seconds", "rounds", "exit_code", "held", "line")

EXPERIMENT = (
    *("--dataset", "digits", "--train-limit", "300", "--rounds", "40", "--clients", "6"),
    *("--malicious", "2", "--model", "lenet5", "--attack", "label-flip", "--seed", "5"),
    *("--defense", "bias-anomaly", "--set", "defense.window=3", "--set", "defense.votes=2"),
    *("--set", "record.store_updates='3'", "--quiet"),
)
"""A vote over rounds, so that what a defense remembers matters, and all that a run writes."""

ROOM = (0.02, 0.2, 0.6, 0.95)
"""Sizes of disks that are too small, as shares of what a whole run takes."""

FILE_SIZES = (1 << 10, 1 << 14, 1 << 18)
"""Bytes; the smallest is less than any table, the largest less than the exported model."""


SCRATCH = re.compile(re.escape(tempfile.gettempdir()) + r"/tffl-\w+/")
"""Where the runs are, which is nobody's business."""


def program(*arguments: object) -> list[str]:
    """Returns the command line of tffl."""
    return [sys.executable, "-m", "tffl", *map(str, arguments)]


def simulate(out: Path) -> list[str]:
    """Returns what begins the run in a folder, or goes on with what is there."""
    if (out / "config.toml").exists():
        return program("simulate", "--resume", out, "--quiet")
    # Killed before its first file was written, it begins again from its options.
    how = "--resume" if out.exists() else "--out"
    return program("simulate", how, out, *EXPERIMENT)


def tables(run: Path) -> list[str]:
    """Returns both tables without the columns of seconds."""
    frames = [
        pd.read_csv(run / name, dtype=str, keep_default_na=False)
        for name in ("rounds.csv", "clients.csv")
    ]
    return [f.loc[:, ~f.columns.str.endswith("_seconds")].to_csv(index=False) for f in frames]


def rounds(run: Path) -> int:
    """Returns how many rounds a run's table has."""
    try:
        return len((run / "rounds.csv").read_text(encoding="utf-8").splitlines()) - 1
    except OSError:
        return 0


def call(command: Sequence[str], **options: Any) -> tuple[int, str]:
    """Returns a command's exit code, and what it said on stderr."""
    process = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options
    )
    return process.returncode, process.stderr.strip()


def row(fault: str, case: object, held: bool, line: str = "", **more: Any) -> dict[str, Any]:
    """Returns a line of the table, and prints it."""
    text = SCRATCH.sub("", " ".join(line.split()))
    result = {"fault": fault, "case": case, "held": int(held), "line": text[:300], **more}
    print(*(f"{name}={result[name]}" for name in COLUMNS if name in result), flush=True)
    return result


def one_line(text: str) -> bool:
    """Whether an error is told in one line."""
    return text.startswith("Error: ") and "\n" not in text


class Whole:
    """The undisturbed run.

    Attributes:
      tables: What every other run has to end with.
      seconds: How long it took.
      bytes: How much it wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        run, begin = folder / "whole", time.monotonic()
        code, said = call(simulate(run))
        if code:
            raise SystemExit(f"the undisturbed run failed: {said}")
        self.seconds = time.monotonic() - begin
        self.tables = tables(run)
        self.bytes = sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
        print(f"undisturbed: {self.seconds:.1f} s, {self.bytes / 1024:.0f} KiB", flush=True)

    def equals(self, run: Path) -> bool:
        """Whether a run has come to the same end."""
        try:
            return (run / "summary.json").exists() and tables(run) == self.tables
        except OSError:
            return False


def kills(whole: Whole, count: int, draw: int) -> Iterator[dict[str, Any]]:
    """Kills runs at random moments."""
    dice, killed, number = random.Random(draw), 0, 1
    run = whole.folder / f"killed_{number}"
    while killed < count or run.exists():
        moment = dice.uniform(0, whole.seconds) if killed < count else None
        begin = time.monotonic()
        process = subprocess.Popen(
            simulate(run),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            _, said = process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            killed += 1
            seconds = round(time.monotonic() - begin, 2)
            yield row(
                *("kill", killed, True),
                **{"seconds": seconds, "rounds": rounds(run), "exit_code": process.returncode},
            )
            continue
        code, seconds = process.returncode, round(time.monotonic() - begin, 2)
        about = {"seconds": seconds, "rounds": rounds(run), "exit_code": code}
        held = code == 0 and whole.equals(run)
        yield row("killed run's end", number, held, said, **about)
        if code:
            return
        shutil.rmtree(run)
        number += 1
        run = whole.folder / f"killed_{number}"


def worker_kills(whole: Whole, count: int, draw: int) -> Iterator[dict[str, Any]]:
    """Kills workers of a cluster at random moments; the run goes on with the other one."""
    dice = random.Random(draw)
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    workers = {address: _worker(address) for address in addresses}
    named = [word for address in addresses for word in ("--worker", address)]
    patience = ("--set", "runtime.wait=10")

    def begin(run: Path) -> subprocess.Popen[str]:
        _wait_for(addresses)
        command = program("simulate", "--out", run, *EXPERIMENT, *named, *patience)
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    try:
        run, since = whole.folder / "cluster", time.monotonic()
        code, said = _ended(begin(run))
        seconds = time.monotonic() - since
        held = code == 0 and whole.equals(run)
        yield row("cluster", "undisturbed", held, said, rounds=rounds(run), exit_code=code)
        for number in range(1, count + 1):
            run, victim = whole.folder / f"cluster_{number}", dice.choice(addresses)
            process = begin(run)
            time.sleep(dice.uniform(0, seconds))
            workers[victim].kill()
            workers[victim].wait()
            finished = rounds(run)
            code, said = _ended(process)
            held = code == 0 and whole.equals(run)
            yield row("worker", number, held, said, rounds=finished, exit_code=code)
            workers[victim] = _worker(victim)
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()


def _worker(address: str) -> subprocess.Popen[bytes]:
    command = program("worker", "--port", address.rpartition(":")[2])
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wait_for(addresses: Sequence[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not all(map(answers, addresses)):
        if time.monotonic() > deadline:
            raise SystemExit(f"the workers do not answer within {seconds:g} s")
        time.sleep(0.1)


def _ended(process: subprocess.Popen[str], seconds: float = 300) -> tuple[int, str]:
    """Returns exit code and stderr; -1 for a process that hangs."""
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return -1, f"hangs for {seconds:g} s"
    return process.returncode, said.strip()


MOUNTED = """
set -u
mount -t tmpfs -o size={room} tmpfs {disk}
{first} 2> {folder}/first
code=$?
cp {out}/rounds.csv {folder}/rounds.csv 2> /dev/null
mount -o remount,size={more} {disk}
{again} 2> {folder}/again
after=$?
rm -rf {folder}/end
cp -r {out} {folder}/end
echo $code $after
"""

READ_ONLY = """
set -u
mount -t tmpfs tmpfs {disk}
{fill}
mount -o remount,ro {disk}
{first} 2> {folder}/first
echo $?
"""


def namespace(script: str) -> list[str]:
    """Returns a command that runs a script where it may mount."""
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]


def may_mount(folder: Path) -> bool:
    """Whether file systems can be mounted here."""
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    try:
        return call(namespace(f"mount -t tmpfs tmpfs {disk}"))[0] == 0
    except FileNotFoundError:
        return False


def full_disks(whole: Whole) -> Iterator[dict[str, Any]]:
    """Begins runs on disks that are too small, and goes on when there is room."""
    disk = whole.folder / "disk"
    out, folder = disk / "run", whole.folder / "told"
    for share in ROOM:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        first = shlex.join(program("simulate", "--out", out, *EXPERIMENT))
        going = shlex.join(program("simulate", "--resume", out, *EXPERIMENT))
        script = MOUNTED.format(
            room=max(int(share * whole.bytes), 4096),
            more=8 * whole.bytes,
            disk=disk,
            out=out,
            folder=folder,
            first=first,
            again=going,
        )
        codes = _said(namespace(script)).split()
        said, after = (folder / "first").read_text(), (folder / "again").read_text()
        told = one_line(said.strip()) and "full" in said and "--resume" in said
        ended = whole.equals(folder / "end")
        about = {"rounds": rounds(folder), "exit_code": codes[0]}
        held = codes == ["1", "0"] and told and ended
        yield row("full disk", f"{share:.0%} of it", held, said + after, **about)


def _said(command: list[str]) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout


def file_sizes(whole: Whole) -> Iterator[dict[str, Any]]:
    """Begins runs that may not write large files, and goes on without the limit."""
    for size in FILE_SIZES:
        run = whole.folder / f"limited_{size}"

        def limit(size: int = size) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        code, said = call(simulate(run), preexec_fn=limit)
        about = {"rounds": rounds(run), "exit_code": code}
        after, more = call(simulate(run))
        held = (code, after) == (1, 0) and one_line(said) and whole.equals(run)
        yield row("file size", f"{size >> 10} KiB", held, f"{said} {more}", **about)
        shutil.rmtree(run)


def read_only(whole: Whole) -> Iterator[dict[str, Any]]:
    """Begins and resumes runs where nothing can be written."""
    disk, folder = whole.folder / "disk", whole.folder / "told"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    part = whole.folder / "part"
    shutil.copytree(whole.folder / "whole", part)
    for name in ("summary.json", "split.csv"):
        (part / name).unlink(missing_ok=True)
    out = disk / "run"
    begin = program("simulate", "--out", out, *EXPERIMENT)
    cases = {
        # A folder that cannot be made is a wrong option (2), a file a failure (1).
        "new folder": ("true", begin, "2"),
        "empty folder": (f"mkdir {out}", begin, "1"),
        "resume": (f"cp -r {part} {out}", program("simulate", "--resume", out, "--quiet"), "1"),
    }
    for name, (fill, command, code) in cases.items():
        first = shlex.join(command)
        script = READ_ONLY.format(disk=disk, folder=folder, fill=fill, first=first)
        ended, said = _said(namespace(script)).strip(), (folder / "first").read_text().strip()
        held = ended == code and one_line(said) and "read-only" in said.lower()
        yield row("read-only", name, held, said, exit_code=ended)


def full_stdout(whole: Whole) -> Iterator[dict[str, Any]]:
    """Lets the program talk to a terminal that takes nothing."""
    for arguments in (("list", "defenses"), ("list", "attacks", "--json")):
        with open("/dev/full", "w") as full:
            process = subprocess.run(
                program(*arguments), stdout=full, stderr=subprocess.PIPE, text=True
            )
        said = process.stderr.strip()
        held = process.returncode == 1 and one_line(said)
        yield row("stdout", " ".join(arguments), held, said, exit_code=process.returncode)


def main() -> int:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--worker-kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", help="kill, full-disk, file-size, …")
    parser.add_argument("--out", type=Path, default=HERE)
    given = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="tffl-") as folder:
        mounts = may_mount(Path(folder))
        if not mounts:
            print("nothing can be mounted here: full disks and read-only ones are left out")
        faults: dict[str, Callable[[Whole], Iterator[dict[str, Any]]]] = {
            "kill": lambda whole: kills(whole, given.kills, given.seed),
            "worker": lambda whole: worker_kills(whole, given.worker_kills, given.seed),
            **({"full-disk": full_disks, "read-only": read_only} if mounts else {}),
            "file-size": file_sizes,
            "stdout": full_stdout,
        }
        if unknown := set(given.only or []) - set(faults):
            parser.error(f"there is no {', '.join(unknown)}: choose from {', '.join(faults)}")
        whole = Whole(Path(folder))
        for name in given.only or faults:
            rows.extend(faults[name](whole))
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "faults.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    lost = sum(not each["held"] for each in rows)
    print("Nothing was lost." if not lost else f"{lost} faults did harm.")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
