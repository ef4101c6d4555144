"""MLflow: through the client of the package `mlflow-skinny`, which is a part of `mlflow` too."""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from tffl.callbacks.base import Start
from tffl.integrations.trackers.base import Tracker, files, parameters_of, title_of

MOST_PARAMETERS = 100
"""That MLflow takes at once."""

LONGEST = 6000
"""Characters of a parameter, at most."""


class MLflow(Tracker):
    """Logs a run to MLflow, and continues it if the run is resumed.

    Args:
      experiment: MLflow's experiment, which is made if there is none of this name.
      uri: Where to; by default `MLFLOW_TRACKING_URI`, or else MLflow's own, a database in the
        current folder. A `Path` is a folder, which MLflow takes only if `MLFLOW_ALLOW_FILE_STORE`
        is set to `true`.

    MLflow's reports of its own use are off, unless `MLFLOW_DISABLE_TELEMETRY` is set to `false`.

    Raises:
      UsageError: The package is not installed.
    """

    package: ClassVar[str] = "mlflow"

    def __init__(self, experiment: str = "tffl", uri: str | Path | None = None) -> None:
        super().__init__()
        self.experiment = experiment
        self.uri = uri.absolute().as_uri() if isinstance(uri, Path) else uri
        self._client: Any = None
        self._run = ""

    def open(self, start: Start) -> bool:
        """Begins a run with the config as parameters, or finds that of a resumed run directory."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read by the import
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = client = MlflowClient(tracking_uri=self.uri)
        atexit.register(self.abandon)
        found = client.get_experiment_by_name(self.experiment)
        experiment = found.experiment_id if found else client.create_experiment(self.experiment)
        place = sha256(str(start.directory and start.directory.resolve()).encode()).hexdigest()
        if start.first > 1 and (known := self._known(experiment, place)):
            self._run = known
            client.update_run(known, status="RUNNING")
            return True
        tags = {"tffl.run_directory": str(start.directory or ""), "tffl.place": place}
        self._run = client.create_run(experiment, run_name=title_of(start), tags=tags).info.run_id
        values = parameters_of(start.config).items()
        parameters = [Param(key, str(value)[:LONGEST]) for key, value in values]
        for begin in range(0, len(parameters), MOST_PARAMETERS):
            client.log_batch(self._run, params=parameters[begin : begin + MOST_PARAMETERS])
        return False

    def log(self, round: int, numbers: Mapping[str, float]) -> None:
        """Logs metrics, with the round as their step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(
            self._run, metrics=[Metric(key, value, now, round) for key, value in numbers.items()]
        )

    def close(self, numbers: Mapping[str, float], directory: Path | None) -> None:
        """Logs the summary as metrics and the tables as artifacts, and ends MLflow's run."""
        self.log(0, numbers)
        for path in files(directory):
            folder = path.parent.as_posix()
            assert directory is not None
            self._client.log_artifact(
                self._run, str(directory / path), None if folder == "." else folder
            )
        self._client.set_terminated(self._run, "FINISHED")
        atexit.unregister(self.abandon)

    def abandon(self) -> None:
        """Marks MLflow's run as killed, when the program ends before the run does."""
        with suppress(Exception):  # of the last moment, which nobody can do anything about
            self._client.set_terminated(self._run, "KILLED")

    def _known(self, experiment: str, place: str) -> str:
        """Returns the newest run of a run directory, or "" if there is none."""
        runs = self._client.search_runs(
            [experiment],
            f"tags.`tffl.place` = '{place}'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        return str(runs[0].info.run_id) if runs else ""
