"""The auditor's experiment, and the pictures of its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tffl.config import Config, read_experiment
from tffl.core.errors import require
from tffl.defenses import create_defense
from tffl.gan.preset import preset
from tffl.record.run_directory import RunDirectory
from tffl.studies.audit_pictures import draw_audits

DEFENSE = "gan-audit"
DATASET = "mnist"
"""Of the experiment, if the user names no other."""


def read_audit(
    config: Path | None,
    options: Mapping[str, Any],
    settings: Sequence[str],
    resumed: Path | None = None,
) -> Config:
    """Returns the experiment of Zhao et al., as the command line changes or replaces it.

    Args:
      config: A TOML file that replaces it.
      options: Values by option name, as `read_experiment` takes them.
      settings: The `--set` arguments, in order.
      resumed: The run directory to continue.

    Raises:
      UsageError: A key or value is not allowed, or the defense is another one.
    """
    base = preset(options.get("dataset") or DATASET)
    experiment = read_experiment(config, options, settings, resumed, base)
    name = experiment.defense.name
    require(name == DEFENSE, f"defense.name = {name} is not allowed here: audit-gan runs {DEFENSE}")
    return experiment


def draw(path: Path) -> list[Path]:
    """Draws the audits of a run into its `figures/`, and returns the pictures' paths.

    Args:
      path: The directory of a finished run with `gan-audit`.

    Raises:
      TfflError: A file is damaged, or a picture cannot be written.
    """
    run = RunDirectory.open(path)
    defense: Any = create_defense(DEFENSE, run.config.defense.options)
    return draw_audits(run, defense.from_round)
