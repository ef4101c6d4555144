"""The methods of a callback, what they receive, and when they are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tffl.config import Config
from tffl.core.errors import require
from tffl.core.updates import Updates
from tffl.core.verdict import Verdict
from tffl.engine.observer import Observer


@dataclass(frozen=True)
class Start:
    """What is known before the first round that is going to be played.

    Attributes:
      config: The experiment.
      first: The next round, 1-based; after 1 if the run is resumed.
      rows: The rows of `rounds.csv` of the rounds before `first`; undefined cells are NaN.
      directory: The run directory, if there is one.
      accuracy: Before round 1, on the test set, of weights that the experiment was given; None if
        they are random.

    Example:
      >>> start = Start(Config(), first=3, rows=[{"accuracy": 0.5}, {"accuracy": 0.7}])
      >>> max(row["accuracy"] for row in start.rows)
      0.7
    """

    config: Config
    first: int
    rows: Sequence[Mapping[str, Any]] = ()
    directory: Path | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class Group:
    """The clients that trained one global model in a round; with one model, all of them.

    Attributes:
      model: Number of the global model, from 0 on.
      updates: As the server received them.
      verdict: What the defense made of them.
      malicious: bool `[n]`, who really attacks: an experimenter may know, a defense never does.

    Example:
      >>> from tffl.defenses import Median
      >>> rows = np.eye(3, dtype=np.float32)
      >>> group = Group(0, Updates.of_rows(rows), Median().judge_rows(rows), np.array([True] * 3))
      >>> int((group.verdict.accepted & group.malicious).sum())
      3
    """

    model: int
    updates: Updates
    verdict: Verdict
    malicious: np.ndarray


@dataclass(frozen=True)
class Round:
    """A round that has been played.

    Attributes:
      number: 1-based.
      groups: What clients sent and how it was judged, for each global model that was trained;
        empty if the round is skipped because too few clients answered.
      weights: Global weights after the round, float32 `[models, d]`; read-only.
      row: The round's row of `rounds.csv`, with as many digits as there; undefined values are None
        or NaN. In `Callback.round` it has the columns of all callbacks.
      client_rows: The rows of `clients.csv`, by ascending client.
      labels: Of the test samples that the round is evaluated on, int32 `[N]`.
      predict: Returns what the global model says of these samples, as `logits`.
      evaluated: Whether the global model is evaluated in this round; otherwise the cells of
        accuracy, loss, attack success and metrics are empty.

    Example:
      >>> from tffl.defenses import Median
      >>> rows = np.eye(3, dtype=np.float32)
      >>> group = Group(0, Updates.of_rows(rows), Median().judge_rows(rows), np.array([True] * 3))
      >>> weights, labels = np.zeros((1, 3), np.float32), np.array([1, 0], np.int32)
      >>> round = Round(1, [group], weights, {"round": 1}, [], labels, lambda: np.eye(2))
      >>> round.updates.norms().tolist(), float((round.logits.argmax(axis=1) == labels).mean())
      ([1.0, 1.0, 1.0], 0.0)
    """

    number: int
    groups: Sequence[Group]
    weights: np.ndarray
    row: Mapping[str, Any]
    client_rows: Sequence[Mapping[str, Any]]
    labels: np.ndarray
    predict: Callable[[], np.ndarray]
    evaluated: bool = True

    @property
    def logits(self) -> np.ndarray:
        """The global model's outputs for the samples of `labels`, float32 `[N, classes]`.

        They are computed when they are first asked for, also in rounds without evaluation. Of
        several global models, it is how many of them vote for each class.
        """
        return self.predict()

    @property
    def updates(self) -> Updates:
        """What clients sent, where there is one global model."""
        return self._only.updates

    @property
    def verdict(self) -> Verdict:
        """What the defense made of it, where there is one global model."""
        return self._only.verdict

    @property
    def malicious(self) -> np.ndarray:
        """Who really attacks, bool `[n]`, where there is one global model."""
        return self._only.malicious

    @property
    def _only(self) -> Group:
        require(
            len(self.groups) > 0,
            f"round {self.number} is skipped and has no updates: look at round.groups first",
        )
        require(
            len(self.weights) == 1,
            f"a round of {len(self.weights)} global models has groups of clients: use round.groups",
        )
        return self.groups[0]


class Callback(Observer):
    """Follows a run. Override the methods that you need; by default they do nothing.

    Several callbacks are asked in their order. In each round, all are asked for columns; then the
    round is written into the tables; then all receive it; then there is a checkpoint. An exception
    ends the run with one line that names the callback, after the round is written and the others
    have received it, so that `resume` continues after it.

    `phase` and `warning` of `tffl.engine.observer.Observer` are called at any time.

    Example:
      >>> class Rejected(Callback):
      ...     def round(self, round):
      ...         print(round.number, int((~round.verdict.accepted).sum()))
      >>> Rejected().start(Start(Config(), first=1))
    """

    def start(self, start: Start) -> str | None:
        """Is called before the first round that is going to be played.

        Returns:
          None; or why no further round should be played, such as in a resumed run.
        """
        return None

    def round_columns(self, round: Round) -> Mapping[str, Any]:
        """Returns further columns of `rounds.csv`: names and numbers; None is an empty cell."""
        return {}

    def client_columns(self, round: Round) -> Mapping[str, Any]:
        """Returns further columns of `clients.csv`: names and a number for each client.

        The order is that of `round.client_rows`: by ascending client.
        """
        return {}

    def round(self, round: Round) -> str | None:
        """Is called after a round has been written into the tables.

        Returns:
          None; or why the run should end after this round, in a few words.
        """
        return None

    def end(self, run: Any) -> None:
        """Is called with the `tffl.Run` at the end of a run, after its summary has been written."""

    def __str__(self) -> str:
        """Names it in messages."""
        return f"callback {type(self).__name__}"
