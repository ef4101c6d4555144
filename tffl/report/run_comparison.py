"""A comparison of several runs: their key figures, their different config values, one chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tffl.core.errors import require
from tffl.drawing import guard as drawing
from tffl.report.document import Plot, Table
from tffl.report.key_figures import config_differences, key_figures
from tffl.report.overview import curve_chart, differences_table, overview_table
from tffl.report.sources import RecordedRun, read_runs


@dataclass(frozen=True)
class Comparison:
    """A comparison of at least two runs."""

    runs: list[RecordedRun]

    @property
    def figures(self) -> Table:
        """The table of key figures."""
        return overview_table(self.runs)

    @property
    def differences(self) -> Table:
        """The table of config keys whose values differ between runs; it may have no rows."""
        return differences_table(self.runs)

    @property
    def warnings(self) -> list[str]:
        """The warnings of unfinished runs and ruined models."""
        return [run.warning for run in self.runs if run.warning]

    def values(self) -> dict[str, Any]:
        """Returns the comparison for JSON: `runs`, and `differences` by config key."""
        runs = [
            {
                "run": run.path,
                "name": run.name,
                "attack": run.config.attack.name,
                "defense": run.config.defense.name,
                "rounds": len(run.rounds),
                "finished": run.finished,
                **key_figures(run),
            }
            for run in self.runs
        ]
        return {"runs": runs, "differences": config_differences(self.runs)}

    def draw(self, path: Path) -> bool:
        """Draws accuracy and, where it is defined, attack success by round.

        Returns:
          Whether the picture was written: some round is finished and drawing did not fail.

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


def compare_runs(paths: Sequence[Path]) -> Comparison:
    """Reads the runs to compare.

    Raises:
      UsageError: There are fewer than two folders, or one is not a run.
      TfflError: A file is damaged.
    """
    require(len(paths) > 1, "a comparison needs at least two runs: name another")
    return Comparison(read_runs([Path(path) for path in paths]))
