"""What is checked and chosen before a run, without TensorFlow, which takes seconds to load."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tffl.attacks import create_attack
from tffl.callbacks.metric import named_metrics
from tffl.config import Config
from tffl.core.atomic import make_free_folder
from tffl.core.errors import require
from tffl.data.build import check_prepared
from tffl.defenses import create_defense
from tffl.models.normalization import check_normalizable
from tffl.models.own import model_options
from tffl.record.identity import resolved
from tffl.record.writer import RunWriter, refuse_occupied
from tffl.simulation.weights_files import check_weights_file

RUNS = Path("runs")
"""Where run directories are made that the user does not name."""


class Job(NamedTuple):
    """An experiment to be run, and where.

    Attributes:
      config: The experiment.
      directory: The run directory.
      resume: Whether to continue what is there.
      made: Whether the directory was made for this job, because the user named none.
    """

    config: Config
    directory: Path
    resume: bool = False
    made: bool = False

    @classmethod
    def of(cls, config: Config, out: Path | None, resumed: Path | None = None) -> Job:
        """Returns the job of running a config, or of continuing a run.

        Args:
          config: The experiment.
          out: The run directory, if the user named one.
          resumed: The run directory to continue.

        Raises:
          UsageError: A name or an option does not exist, a dataset is not prepared, or the two
            directories differ.
        """
        check(config)
        same = out is None or resumed is None or out.resolve() == resumed.resolve()
        require(same, f"--out {out} and --resume {resumed} name two run directories: give one")
        label = f"{config.defense.name}-{config.attack.name}"
        named = resumed or out
        return cls(config, named or new_directory(label), resumed is not None, named is None)

    @property
    def begun(self) -> bool:
        """Whether there is a run in the directory, or one of several seeds."""
        return any(
            next(self.directory.glob(name), None) for name in ("config.toml", "seed-*/config.toml")
        )

    @property
    def resumes(self) -> bool:
        """Whether there is a run to continue: what was killed at once has left none."""
        return self.resume and self.begun

    def check_directory(self) -> None:
        """Refuses a directory that cannot hold a run, or that holds another one.

        Raises:
          UsageError: It does; the message says what to do.
        """
        config = resolved(self.config)
        if self.resumes:
            RunWriter.resume(self.directory, config)
        else:
            refuse_occupied(self.directory, config)

    def clean(self) -> None:
        """Removes the directory if it was made for this job and nothing was written into it."""
        if self.made:
            with suppress(OSError):  # there is a run in it
                self.directory.rmdir()


def check(config: Config) -> None:
    """Checks names, options and the dataset.

    Raises:
      UsageError: A name or an option does not exist, and the message lists the nearest and all; or
        the dataset is not prepared.
    """
    model_options(config.model)
    if config.model.weights:
        check_weights_file(Path(config.model.weights).expanduser())
    if config.data.normalization == "per-channel":
        check_normalizable(config.model.name)
    named_metrics(config.record.metrics)
    create_attack(config.attack.name, config.attack.options)
    create_defense(config.defense.name, config.defense.options)
    check_prepared(config.data)


def new_directory(label: str) -> Path:
    """Makes an empty run directory, named after the time and a label."""
    return make_free_folder(RUNS / f"{time.strftime('%Y%m%d-%H%M%S')}-{label}")
