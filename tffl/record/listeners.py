"""What happens after a round is in the tables: its heat maps are drawn, and TensorBoard gets it."""

from __future__ import annotations

from pathlib import Path

from tffl.record.run_directory import FIGURES, RunDirectory, picture_files
from tffl.record.tensorboard import EventLog


class HeatMapDrawing:
    """Draws the heat maps that a defense has looked at, in the rounds in which that is due."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run

    def round_written(self, round: int) -> None:
        """Draws the heat maps of a round.

        Raises:
          TfflError: A picture cannot be written.
        """
        if not self._run.draws_pictures(round):
            return
        client_ids, shown = self._run.shown(round)
        if not shown:
            return
        from tffl.drawing import heat_maps
        from tffl.drawing.explanation import recorded

        frames = self._run.frames(round)
        for seen in recorded(self._run.config, round, *frames, client_ids, shown):
            heat_maps.write(seen, self._run.path / FIGURES)


class TensorBoardLog:
    """Keeps `tensorboard/` up to the tables' last round, if the config wants it."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._events = EventLog(run.path / "tensorboard")

    def round_written(self, round: int) -> None:
        """Adds a round, and those before it that are missing."""
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
