"""Several runs side by side: their figures, what differs in their configs, one chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tffl.core.errors import require
from tffl.drawing import guard as drawing
from tffl.report.document import Plot, Table
from tffl.report.key_figures import differing, figures_of
from tffl.report.overview import curve_chart, differences_table, overview_table
from tffl.report.sources import RecordedRun, read_runs


@dataclass(frozen=True)
class Comparison:
    """At least two runs."""

    runs: list[RecordedRun]

    @property
    def figures(self) -> Table:
        """The table of figures."""
        return overview_table(self.runs)

    @property
    def differences(self) -> Table:
        """The table of config keys that are not the same in all runs; it may have no rows."""
        return differences_table(self.runs)

    @property
    def warnings(self) -> list[str]:
        """What is unfinished."""
        return [run.warning for run in self.runs if run.warning]

    def values(self) -> dict[str, Any]:
        """Returns everything as numbers: `runs`, and `differences` by config key."""
        runs = [
            {
                "run": run.path,
                "name": run.name,
                "attack": run.config.attack.name,
                "defense": run.config.defense.name,
                "rounds": len(run.rounds),
                "finished": run.finished,
                **figures_of(run),
            }
            for run in self.runs
        ]
        return {"runs": runs, "differences": differing(self.runs)}

    def draw(self, path: Path) -> bool:
        """Draws accuracy and, where one is defined, attack success by round.

        Returns:
          Whether there is a picture: a finished round was there, and could be drawn.

        Raises:
          TfflError: The picture cannot be written.
        """
        from tffl.report.png import side_by_side

        columns = ("accuracy", "attack_success")
        charts: list[Plot] = [curve_chart(self.runs, column) for column in columns]
        charts = [chart for chart in charts if chart.series]
        if not charts:
            return False
        return drawing.write(path, side_by_side, charts)


def compare(paths: Sequence[Path]) -> Comparison:
    """Reads the runs to compare.

    Raises:
      UsageError: There are fewer than two, or a folder is no run.
      TfflError: A file is damaged.
    """
    require(len(paths) > 1, "a comparison needs at least two runs: name another")
    return Comparison(read_runs([Path(path) for path in paths]))
