"""Callbacks that show what is in a run directory: heat maps, curves, TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tffl.callbacks.base import Callback, Round
from tffl.record.run_directory import FIGURES, RunDirectory, picture_files
from tffl.record.tensorboard import EventLog


class HeatMapDrawing(Callback):
    """Draws the heat maps and coalitions that a defense saw, in the rounds in which that is due."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run

    def round(self, round: Round) -> None:
        """Draws the heat maps and coalitions of a round.

        Raises:
          TfflError: A picture cannot be written.
        """
        number = round.number
        if not self._run.draws_pictures(number):
            return
        client_ids, shown = self._run.shown(number)
        if not shown:
            return
        from tffl.drawing import coalitions, heat_maps
        from tffl.drawing.explanation import recorded

        rounds, clients = self._run.frames(number)
        config, folder = self._run.config, self._run.path / FIGURES
        for seen in recorded(config, number, rounds, clients, client_ids, shown):
            heat_maps.write(seen, folder)
        for seen_coalition in coalitions.recorded(config, number, clients, client_ids, shown):
            coalitions.write(seen_coalition, folder)


class TensorBoardLog(Callback):
    """Keeps `tensorboard/` up to the tables' last round, if the config wants it."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._events = EventLog(run.path / "tensorboard")

    def round(self, round: Round) -> None:
        """Adds a round, and those before it that are missing."""
        self.catch_up()

    def end(self, run: Any) -> None:
        """Adds the rounds that are missing, such as all of a run that had been played before."""
        self.catch_up()

    def catch_up(self) -> None:
        """Adds the rounds that are missing.

        Raises:
          TfflError: A file cannot be written.
        """
        if self._run.config.record.tensorboard:
            self._events.write(*self._run.frames(self._events.logged + 1), self._drawn)

    def _drawn(self, round: int) -> list[tuple[str, Path]]:
        """Returns names and files of the heat maps that were drawn of a round."""
        return (
            picture_files(self._run.path / FIGURES, round)
            if self._run.draws_pictures(round)
            else []
        )


class Curves(Callback):
    """Draws the curves of a run that is over, if the config wants pictures."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run

    def end(self, run: Any) -> None:
        """Draws them.

        Raises:
          TfflError: A picture cannot be written.
        """
        from tffl.drawing import figures

        if self._run.config.record.figures:
            figures.write_run(self._run.path / FIGURES, *self._run.frames())
