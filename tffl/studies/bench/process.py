"""What benchmarks share: processes that work when told to, and how much memory they take."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tffl.core.errors import TfflError

DIED = "a benchmark process has died; see its message above"


class Contender:
    """A process that answers requests, so that contenders can take turns.

    Args:
      serve: Called there with the arguments and a pipe, from which it reads requests for ever.
      arguments: Of `serve`, before the pipe.
    """

    def __init__(self, serve: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(*arguments, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def request(self, what: str = "round") -> Any:
        """Sends a request and waits for its answer.

        Raises:
          TfflError: The process has died.
        """
        try:
            self._pipe.send(what)
            return self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise TfflError(DIED) from None

    def close(self) -> None:
        """Ends the process, whatever it waits for."""
        self._process.kill()
        self._process.join()


def linux_bytes(name: str, key: str) -> int:
    """Returns bytes from a file of Linux' `/proc`, such as `self/status`; 0 elsewhere."""
    file = Path("/proc", name)
    if not file.exists():
        return 0
    line = next(line for line in file.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024
