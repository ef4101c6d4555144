"""Weights & Biases: through its package, offline unless `WANDB_MODE` says otherwise."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tffl.callbacks.base import Start
from tffl.integrations.trackers.base import Tracker, files, parameters_of, title_of


class WandB(Tracker):
    """Logs a run to Weights & Biases.

    By default it writes to a folder and sends nothing; `wandb sync` uploads that folder. With
    `WANDB_MODE=online` it sends each round. It records neither the console nor the source code, the
    machine and its load, and reports no errors to W&B. A resumed run becomes another run of W&B,
    which has all rounds: offline runs cannot be continued.

    Args:
      project: W&B's project.
      folder: Where `wandb/` is made; by default `WANDB_DIR`, or else the current folder.

    Raises:
      UsageError: The package is not installed.
    """

    package: ClassVar[str] = "wandb"

    def __init__(self, project: str = "tffl", folder: str | Path | None = None) -> None:
        super().__init__()
        self.project, self.folder = project, folder
        self._run: Any = None

    def open(self, start: Start) -> bool:
        """Begins a run with the config."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read by the import
        import wandb

        quiet = wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
        )
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=self.project,
            name=title_of(start),
            config=parameters_of(start.config),
            dir=self.folder,
            mode=mode,
            reinit="create_new",
            settings=quiet,
        )
        return False

    def log(self, round: int, numbers: Mapping[str, float]) -> None:
        """Logs metrics, with the round as their step."""
        self._run.log(dict(numbers), step=round)

    def close(self, numbers: Mapping[str, float], directory: Path | None) -> None:
        """Keeps the summary, and copies of the tables among the run's files; ends W&B's run."""
        self._run.summary.update(dict(numbers))
        for path in files(directory):
            assert directory is not None
            copy = Path(self._run.dir) / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(directory / path, copy)
            self._run.save(str(copy), base_path=self._run.dir, policy="end")
        self._run.finish()
