"""A defense over several rounds without an experiment: rows in, verdicts out, and a memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tffl.core.errors import UsageError, require
from tffl.core.layout import WeightLayout
from tffl.core.tensors import read_tensors, write_tensors
from tffl.core.updates import Updates
from tffl.core.verdict import Verdict
from tffl.defenses.base import Defense, State
from tffl.defenses.server import Server, make_server, of_model

WEIGHTS = "session/weights"
"""Where a file holds the global weights, beside the defense's memory."""


class Session:
    """Keeps what a defense remembers, round after round.

    Args:
      defense: Of any kind that keeps one global model.
      clients: Number of registered clients; ids are below it. If None, as the first round says.
      layout: What the columns are; the model's, or one trainable variable, if None.
      start: The global weights float32 `[d]` before the first round; the model's, or zeros, if
        None. They follow every aggregate, as a server's weights do.
      **server: What the server owns, as `tffl.defenses.server.make_server` takes it: `model`,
        `images`, `labels`, `root_update`, `seed`, `learning_rate`.

    >>> from tffl.defenses.multi_krum import MultiKrum
    >>> session = Session(MultiKrum(malicious=1, window=3, votes=2))
    >>> rows = np.array([[1.0], [1.1], [0.9], [1.0], [9.0]])
    >>> for _ in range(3):
    ...     verdict = session.judge(rows)
    >>> session.round, verdict.accepted.tolist()
    (3, [True, True, True, True, False])
    """

    def __init__(
        self,
        defense: Defense,
        *,
        clients: int | None = None,
        layout: WeightLayout | None = None,
        start: np.ndarray | None = None,
        **server: Any,
    ) -> None:
        what = defense.__name__ if isinstance(defense, type) else repr(defense)
        require(isinstance(defense, Defense), f"{what} is no defense: give one, as MultiKrum()")
        require(
            clients is None or (isinstance(clients, int | np.integer) and clients > 0),
            f"clients = {clients!r} is not allowed: give the number of registered clients",
        )
        self.defense = defense
        self.round = 0
        if model := server.get("model"):
            layout, start = of_model(model, layout, start)
        self._clients, self._layout, self._given = clients, layout, server
        self._weights = start
        self._server: Server | None = None
        self._state: State = {}

    @property
    def weights(self) -> np.ndarray | None:
        """The global weights float32 `[d]` after the last round; None before the first."""
        return self._weights

    def judge(
        self,
        rows: np.ndarray | Updates,
        *,
        counts: np.ndarray | None = None,
        ids: np.ndarray | None = None,
    ) -> Verdict:
        """Judges the next round.

        Args:
          rows: Client updates, float32 `[n, d]`; or `Updates`, which know counts, ids and start.
          counts: Sample counts int64 `[n]`; one each if None.
          ids: Client ids int64 `[n]`, ascending; 0 … n − 1 if None.

        Raises:
          UsageError: As `Defense.judge_rows`, or an id belongs to no registered client.
        """
        updates = self._next(rows, counts, ids)
        server = self._server or self._begin(updates)
        last = int(updates.client_ids[-1])
        require(
            last < server.clients,
            f"client {last} is not registered: {server.clients} are; give Session(clients=)",
        )
        self.defense.check(len(updates), server.layout)
        verdict, self._state = self.defense.judge(updates, server, self._state)
        self._weights = updates.start + np.float32(server.learning_rate) * verdict.aggregate
        self.round = updates.round
        return verdict

    def save(self, path: Path | str) -> None:
        """Writes round, weights and memory into a safetensors file.

        Raises:
          UsageError: No round has been judged yet.
          TfflError: It cannot be written.
        """
        require(self._server is not None, "nothing to save: no round has been judged")
        assert self._server is not None and self._weights is not None
        about = {"round": str(self.round), "clients": str(self._server.clients)}
        about |= {"defense": _described(self.defense)}
        write_tensors(Path(path), {WEIGHTS: self._weights, **self._state}, about)

    def load(self, path: Path | str) -> Session:
        """Continues where `save` was called; returns this session.

        Raises:
          UsageError: The file is of another defense, or of other options.
          TfflError: It is damaged or cannot be read.
        """
        tensors, about = read_tensors(Path(path))
        try:
            defense, round, clients = about["defense"], about["round"], about["clients"]
            weights = tensors.pop(WEIGHTS)
        except KeyError:
            raise UsageError(f"{path} holds no session") from None
        require(
            defense == _described(self.defense),
            f"{path} is of another defense: {defense}, and this is {_described(self.defense)}",
        )
        self.round, self._clients, self._weights = int(round), int(clients), weights
        self._server = self._make(self._layout or _plain(len(weights)), int(clients))
        self._state = tensors
        return self

    def _next(
        self, rows: np.ndarray | Updates, counts: np.ndarray | None, ids: np.ndarray | None
    ) -> Updates:
        known = self._server.layout if self._server else self._layout
        if isinstance(rows, Updates):
            require(counts is None and ids is None, "counts and ids are those of the Updates")
            size = (known or rows.layout).size
            require(
                rows.layout.size == size,
                f"layout has {size} columns, and rows have {rows.layout.size}",
            )
            return rows.read_only()
        return Updates.of_rows(
            rows,
            counts=counts,
            ids=ids,
            layout=known,
            start=self._weights,
            round=self.round + 1,
        )

    def _begin(self, updates: Updates) -> Server:
        clients = self._clients or int(updates.client_ids[-1]) + 1
        server = self._make(updates.layout, clients)
        self.defense.check_given(len(updates), server)
        self._server, self._state = server, self.defense.init(server)
        return server

    def _make(self, layout: WeightLayout, clients: int) -> Server:
        return make_server(layout, clients, **self._given)


def _plain(columns: int) -> WeightLayout:
    return Updates.of_rows(np.zeros((1, columns), np.float32)).layout


def _described(defense: Defense) -> str:
    """Returns a defense's class and options as one line of JSON."""
    options = json.dumps(defense.options(), sort_keys=True, default=str)
    return f"{type(defense).__name__} {options}"
