"""Jobs on threads: results in order, and errors that no hanging job delays."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tffl.core.errors import TfflError
from tffl.engine import threads
from tffl.engine.threads import run_jobs, stuck


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(threads, "JOIN_SECONDS", 0.2)
    yield
    deadline = time.monotonic() + 10
    while stuck() and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize("workers", [1, 3, 20])
def test_results_are_in_order(workers: int) -> None:
    def slower_first(job: int) -> int:
        time.sleep(0.002 * (8 - job))
        return job * job

    assert list(run_jobs(slower_first, range(8), workers)) == [n * n for n in range(8)]
    assert list(run_jobs(slower_first, [], workers)) == []
    assert not stuck()


def test_a_hanging_job_does_not_hide_the_error_of_a_later_job() -> None:
    release = threading.Event()

    def work(job: int) -> None:
        if job == 0:
            release.wait(60)
            return
        raise ValueError(f"job {job}")

    began = time.monotonic()
    with pytest.raises(ValueError, match="job 1"):
        list(run_jobs(work, range(4), 2))
    assert time.monotonic() - began < 30
    assert stuck()
    release.set()


def test_jobs_that_have_not_started_are_dropped() -> None:
    started = []

    def work(job: int) -> None:
        started.append(job)
        raise ValueError

    with pytest.raises(ValueError):
        list(run_jobs(work, range(100), 1))
    assert started == [0]


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt()])
def test_every_exception_of_a_thread_is_raised_as_an_error(error: BaseException) -> None:
    def work(job: int) -> None:
        raise error

    with pytest.raises(TfflError, match=type(error).__name__):
        list(run_jobs(work, range(3), 2))


BINDING = """
import tensorflow as tf
from tffl.engine import threads
from tffl.engine.placement import LocalDevices
from tffl.engine.runtime import configure

threads.JOIN_SECONDS = 0.2
placement = LocalDevices(configure(devices=4).devices)
images = tf.TensorSpec([None, 2], tf.uint8)
function = tf.function(lambda x: tf.cast(x, tf.float32), input_signature=[images])
list(placement.map(lambda job: function(tf.zeros([3, 2], tf.float32)), range(12)))
"""


def test_arguments_that_cannot_be_bound_end_the_run() -> None:
    """TensorFlow then keeps the function's lock, so that all other threads wait for ever."""
    ended = subprocess.run(
        [sys.executable, "-c", BINDING], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert "TypeError: Binding inputs" in ended.stderr
