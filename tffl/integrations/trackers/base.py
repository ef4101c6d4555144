"""What trackers have in common: what is logged, and what happens if that fails."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from tffl.callbacks.base import Callback, Round, Start
from tffl.config import Config
from tffl.core.errors import TfflWarning, first_line, require
from tffl.record.identity import flat

FILES = (
    *("config.toml", "environment.json", "summary.json"),
    *("rounds.csv", "clients.csv", "split.csv", "certificates.csv"),
)
"""Files of a run directory that are logged when the run is over, and the pictures beside them."""


class Tracker(Callback):
    """Hands a run to an experiment tracker.

    Subclasses implement `open`, `log` and `close`, and name their package in `package`.

    Raises:
      UsageError: The package is not installed.
    """

    package: ClassVar[str]

    def __init__(self) -> None:
        require(
            find_spec(self.package) is not None,
            f"tracking with {self.package} needs another package: "
            f"pip install 'tffl[{self.package}]'",
        )
        self._failed = False

    @abstractmethod
    def open(self, start: Start) -> bool:
        """Begins a run of the tracker, or continues it.

        Returns:
          Whether the tracker knows the rounds before `start.first`.
        """

    @abstractmethod
    def log(self, round: int, numbers: Mapping[str, float]) -> None:
        """Logs the numbers of a round."""

    @abstractmethod
    def close(self, numbers: Mapping[str, float], directory: Path | None) -> None:
        """Ends the tracker's run: logs the numbers of the summary, and `files(directory)`."""

    def start(self, start: Start) -> None:
        """Begins; what fails here ends the run before any round is played."""
        self._failed = False
        if not self.open(start):
            for row in start.rows:
                self.log(int(row["round"]), numbers_of(row))

    def round(self, round: Round) -> None:
        """Logs the row of `rounds.csv`."""
        self._attempt(self.log, round.number, numbers_of(round.row))

    def end(self, run: Any) -> None:
        """Logs the summary and the tables."""
        found = {f"summary/{name}": value for name, value in numbers_of(run.summary).items()}
        self._attempt(self.close, found, run.directory)

    def __str__(self) -> str:
        """Names it in messages."""
        return f"tracker {self.package}"

    def _attempt(self, function: Callable[..., None], *arguments: Any) -> None:
        """Calls a method unless one has failed: a run of hours must not end because of a log."""
        if self._failed:
            return
        try:
            function(*arguments)
        except Exception as error:  # of a package or a server that tffl does not know
            self._failed = True
            warnings.warn(
                f"the {self} failed: {first_line(error)}; the run goes on, and nothing more of it "
                "is tracked",
                TfflWarning,
                stacklevel=2,
            )


def numbers_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Returns the finite numbers of a row or a summary, without the number of the round.

    >>> numbers_of({"round": 1, "accuracy": 0.5, "auc": None, "loss": math.nan, "model": "cnn"})
    {'accuracy': 0.5}
    """
    return {
        name: float(value)
        for name, value in row.items()
        if name != "round" and isinstance(value, int | float) and math.isfinite(value)
    }


def parameters_of(config: Config) -> dict[str, Any]:
    """Returns the keys of a config that are set, joined by dots."""
    return flat(config.model_dump(mode="json"))


def title_of(start: Start) -> str:
    """Returns what a tracker calls a run: the end of its path, or what is tried.

    >>> title_of(Start(Config(), first=1, directory=Path("runs/five/seed-3")))
    'five/seed-3'
    """
    config = start.config
    if start.directory is None:
        return f"{config.defense.name}-{config.attack.name}"
    return "/".join(start.directory.parts[-2:]).lstrip("/")


def files(directory: Path | None) -> Iterator[Path]:
    """Yields the files of a run directory that are logged, relative to it."""
    if directory is None:
        return
    for path in (*(directory / name for name in FILES), *sorted(directory.glob("figures/*.png"))):
        if path.is_file():
            yield path.relative_to(directory)
