"""Runs jobs on threads; once a job has failed, a hanging job cannot delay the program's end."""

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

JOIN_SECONDS = 5.0
"""How long the running jobs may take to end once one of them has failed."""


def run_jobs(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[Result]:
    """Yields `function(job)` for each job, in order, as results become ready.

    The first error of any job is raised, and jobs that have not started are dropped. A job that
    hangs is abandoned: a `tf.function` whose arguments cannot be bound never releases its lock, so
    that another thread that calls it waits for ever.

    Args:
      function: Called on `workers` threads.
      jobs: Its arguments.
      workers: Number of threads, at least 1.
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
        for next_number in range(len(jobs)):
            while next_number not in ready:
                number, value, error = done.get()
                if error is not None:
                    raise _raisable(error)
                ready[number] = value
            yield ready.pop(next_number)
    finally:
        waiting.clear()
        _join(threads)


def stuck() -> bool:
    """Returns whether an abandoned job still runs; the process might hang or crash at its end."""
    return any(thread.name.startswith(PREFIX) for thread in threading.enumerate())


def _raisable(error: BaseException) -> Exception:
    """Returns an `Exception`: a `SystemExit` of a thread would end the run without an error."""
    if isinstance(error, Exception):
        return error
    failure = TfflError(f"a worker thread ended with {error!r}")
    failure.__cause__ = error
    return failure


def _join(threads: Sequence[threading.Thread]) -> None:
    deadline = time.monotonic() + JOIN_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
