"""Runs and workers that are killed at random moments."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tffl.simulation.cluster.addresses import answers, free_port

from .undisturbed import EXPERIMENT, Undisturbed, program, rounds, row, simulate


def kills(undisturbed: Undisturbed, count: int, draw: int) -> Iterator[dict[str, Any]]:
    """Kills runs at random moments."""
    dice, killed, number = random.Random(draw), 0, 1
    run = undisturbed.folder / f"killed_{number}"
    while killed < count or run.exists():
        moment = dice.uniform(0, undisturbed.seconds) if killed < count else None
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
            # Whether anything was lost shows at the run's end.
            yield row("kill", killed, None, **_about(run, begin, process.returncode))
            continue
        code = process.returncode
        about = _about(run, begin, code)
        held = code == 0 and undisturbed.equals(run)
        yield row("killed run's end", number, held, said, **about)
        if code:
            return
        shutil.rmtree(run)
        number += 1
        run = undisturbed.folder / f"killed_{number}"


def _about(run: Path, begin: float, code: int) -> dict[str, Any]:
    seconds = round(time.monotonic() - begin, 2)
    return {"seconds": seconds, "rounds": rounds(run), "exit_code": code}


def worker_kills(undisturbed: Undisturbed, count: int, draw: int) -> Iterator[dict[str, Any]]:
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
        run, since = undisturbed.folder / "cluster", time.monotonic()
        code, said = _ended(begin(run))
        seconds = time.monotonic() - since
        held = code == 0 and undisturbed.equals(run)
        yield row("cluster", "undisturbed", held, said, rounds=rounds(run), exit_code=code)
        for number in range(1, count + 1):
            run, victim = undisturbed.folder / f"cluster_{number}", dice.choice(addresses)
            process = begin(run)
            time.sleep(dice.uniform(0, seconds))
            workers[victim].kill()
            workers[victim].wait()
            finished = rounds(run)
            code, said = _ended(process)
            held = code == 0 and undisturbed.equals(run)
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
