"""Pictures of the audits in a recorded run of `gan-audit`."""

from __future__ import annotations

from pathlib import Path

from tffl.core.verdict import AuditImages
from tffl.drawing import audits
from tffl.record.run_directory import FIGURES, RunDirectory


def draw_audits(run: RunDirectory, from_round: int) -> list[Path]:
    """Draws the audit images and audit accuracies of a run into its `figures/`.

    Args:
      run: A finished run with `gan-audit`.
      from_round: The first audited round, the paper's d_iter.

    Returns:
      The paths of the pictures.

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
