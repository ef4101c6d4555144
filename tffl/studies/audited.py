"""A run with `gan-audit`, looked at again."""

from __future__ import annotations

from pathlib import Path

from tffl.core.verdict import AuditImages
from tffl.drawing import audits
from tffl.record.run_directory import FIGURES, RunDirectory


def draw(run: RunDirectory, from_round: int) -> list[Path]:
    """Draws what a run's audits saw into its `figures/`, and returns the pictures' paths.

    Args:
      run: A finished run with `gan-audit`.
      from_round: d_iter.

    Raises:
      TfflError: A file is damaged, or a picture cannot be written.
    """
    rounds, clients = run.frames()
    audited = [int(number) for number in rounds["round"] if number >= from_round]
    shown = {
        number: seen
        for number in audited
        for seen in run.shown(number)[1]
        if isinstance(seen, AuditImages)
    }
    return audits.write(run.path / FIGURES, rounds, clients, shown, from_round)
