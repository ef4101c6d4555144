"""Full disks, files that may not grow, and file systems and terminals that take nothing."""

from __future__ import annotations

import resource
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .undisturbed import EXPERIMENT, Undisturbed, call, one_line, program, rounds, row, simulate

ROOM = (0.02, 0.2, 0.6, 0.95)
"""Sizes of disks that are too small, as shares of what a whole run takes."""

FILE_SIZES = (1 << 10, 1 << 14, 1 << 18)
"""Bytes; the smallest is less than any table, the largest less than the exported model."""


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
    """Says whether file systems can be mounted here."""
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    try:
        return call(namespace(f"mount -t tmpfs tmpfs {disk}"))[0] == 0
    except FileNotFoundError:
        return False


def full_disks(undisturbed: Undisturbed) -> Iterator[dict[str, Any]]:
    """Begins runs on disks that are too small, and continues them when there is room."""
    disk = undisturbed.folder / "disk"
    out, folder = disk / "run", undisturbed.folder / "messages"
    for share in ROOM:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        first = shlex.join(program("simulate", "--out", out, *EXPERIMENT))
        going = shlex.join(program("simulate", "--resume", out, *EXPERIMENT))
        script = MOUNTED.format(
            room=max(int(share * undisturbed.bytes), 4096),
            more=8 * undisturbed.bytes,
            disk=disk,
            out=out,
            folder=folder,
            first=first,
            again=going,
        )
        codes = _said(namespace(script)).split()
        said, after = (folder / "first").read_text(), (folder / "again").read_text()
        helpful = one_line(said.strip()) and "full" in said and "--resume" in said
        ended = undisturbed.equals(folder / "end")
        about = {"rounds": rounds(folder), "exit_code": codes[0]}
        held = codes == ["1", "0"] and helpful and ended
        yield row("full disk", f"{share:.0%} of it", held, said + after, **about)


def _said(command: list[str]) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout


def file_sizes(undisturbed: Undisturbed) -> Iterator[dict[str, Any]]:
    """Begins runs that may not write large files, and continues them without the limit."""
    for size in FILE_SIZES:
        run = undisturbed.folder / f"limited_{size}"

        def limit(size: int = size) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        code, said = call(simulate(run), preexec_fn=limit)
        about = {"rounds": rounds(run), "exit_code": code}
        after, more = call(simulate(run))
        held = (code, after) == (1, 0) and one_line(said) and undisturbed.equals(run)
        yield row("file size", f"{size >> 10} KiB", held, f"{said} {more}", **about)
        shutil.rmtree(run)


def read_only(undisturbed: Undisturbed) -> Iterator[dict[str, Any]]:
    """Begins and resumes runs where nothing can be written."""
    disk, folder = undisturbed.folder / "disk", undisturbed.folder / "messages"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    part = undisturbed.folder / "part"
    shutil.copytree(undisturbed.folder / "undisturbed", part)
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


def full_stdout(undisturbed: Undisturbed) -> Iterator[dict[str, Any]]:
    """Lets the program write to a terminal that takes nothing."""
    for arguments in (("list", "defenses"), ("list", "attacks", "--json")):
        with open("/dev/full", "w") as full:
            process = subprocess.run(
                program(*arguments), stdout=full, stderr=subprocess.PIPE, text=True
            )
        said = process.stderr.strip()
        held = process.returncode == 1 and one_line(said)
        yield row("stdout", " ".join(arguments), held, said, exit_code=process.returncode)
