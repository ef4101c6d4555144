"""Jobs on threads, of which none can keep the program waiting once another one has failed."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

from tffl.core.errors import TfflError

Job = TypeVar("Job")
Result = TypeVar("Result")

PREFIX = "tffl-worker"

PATIENCE = 5.0
"""Seconds that running jobs have to end in once one of them has failed."""


def run_jobs(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[Result]:
    """Yields `function(job)` for each job, in order, as results become ready.

    The first error drops the jobs that have not started and is raised, whichever job it is of. A
    job that hangs then is left behind: a `tf.function` whose arguments cannot be bound never
    releases its lock, and whoever calls it from another thread waits for ever.

    Args:
      function: Called on `workers` threads.
      jobs: Its arguments.
      workers: At least 1.
    """
    waiting = deque(enumerate(jobs))
    done: SimpleQueue[tuple[int, Any, BaseException | None]] = SimpleQueue()

    def work() -> None:
        while waiting:
            try:
                number, job = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                done.put((number, function(job), None))
            except BaseException as error:
                done.put((number, None, error))
                return

    threads = [
        threading.Thread(target=work, name=f"{PREFIX}-{number}", daemon=True)
        for number in range(min(workers, len(jobs)))
    ]
    for thread in threads:
        thread.start()
    ready: dict[int, Any] = {}
    try:
        for wanted in range(len(jobs)):
            while wanted not in ready:
                number, value, error = done.get()
                if error is not None:
                    raise _raisable(error)
                ready[number] = value
            yield ready.pop(wanted)
    finally:
        waiting.clear()
        _join(threads)


def stuck() -> bool:
    """Says whether a job still runs, which the end of the process might wait for or crash in."""
    return any(thread.name.startswith(PREFIX) for thread in threading.enumerate())


def _raisable(error: BaseException) -> Exception:
    """Returns an error that ends the run as a failure: a thread's `SystemExit` would not."""
    if isinstance(error, Exception):
        return error
    failure = TfflError(f"a worker thread ended with {error!r}")
    failure.__cause__ = error
    return failure


def _join(threads: Sequence[threading.Thread]) -> None:
    deadline = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
