"""Processes that work on request, and their memory."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tffl.core.errors import TfflError

DIED = "a benchmark process has died; see its message above"


class Contender:
    """A process that works on request, so that contenders can take turns.

    Args:
      serve: The function that the process calls with the arguments and a pipe. It reads requests
        from the pipe forever and sends a result for each.
      *arguments: The arguments of `serve` before the pipe.
    """

    def __init__(self, serve: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, remote = context.Pipe()
        self._process = context.Process(target=serve, args=(*arguments, remote), daemon=True)
        self._process.start()
        remote.close()

    def request(self, what: str = "round") -> Any:
        """Sends a request and returns its result.

        Raises:
          TfflError: The process has died.
        """
        try:
            self._pipe.send(what)
            return self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise TfflError(DIED) from None

    def close(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._process.join()


def linux_bytes(name: str, key: str) -> int:
    """Returns a size in bytes from a file in Linux' `/proc`; 0 on other systems.

    Args:
      name: The file, such as `self/status`.
      key: The start of the line, such as `VmHWM`.
    """
    file = Path("/proc", name)
    if not file.exists():
        return 0
    line = next(line for line in file.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024
