"""RoundOutcome of a round of replies: the next global model and the rows of the table."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from tffl.core.errors import UsageError
from tffl.core.updates import Updates
from tffl.defenses import Defense, Server, Verdict
from tffl.defenses.base import State
from tffl.integrations.flower.replies import Reply
from tffl.untrusted.refusal import printable

log = logging.getLogger("flwr")


@dataclass(frozen=True)
class RoundOutcome:
    """The outcome of a round.

    Attributes:
      weights: The weights of the next global model, float32 `[d]`.
      state: The state of the defense.
      verdict: The verdict; None if the round was not judged.
      clients: The client of each row of the verdict.
      problem: The reason why the round was not judged, for the table.
    """

    weights: np.ndarray
    state: State
    verdict: Verdict | None = None
    clients: tuple[int, ...] = ()
    problem: str = ""


def judge(
    defense: Defense,
    server: Server,
    state: State,
    updates: Updates,
    malformed: np.ndarray,
    *,
    checked: int,
) -> RoundOutcome:
    """Judges a round. Without a verdict the global model and the state do not change.

    Args:
      defense: The defense.
      server: Its server.
      state: Its state after earlier rounds.
      updates: The updates of the n nodes that replied.
      malformed: Which replies are malformed, bool `[n]`; their rows are NaN.
      checked: The number of updates for which the defense has been checked.
    """
    start = updates.start.copy()
    if malformed.all():
        return RoundOutcome(start, state, problem="nobody is left")
    try:
        if len(updates) != checked:
            defense.check(len(updates), updates.layout)
        verdict, memory = defense.judge(updates, server, state)
        if (verdict.accepted & malformed).any():  # this defense accepts even rows of NaN
            updates = updates.select(~malformed)
            verdict, memory = defense.judge(updates, server, state)
    except UsageError as error:
        log.warning("tffl: the round is not judged, and the global model stays: %s", error)
        return RoundOutcome(start, state, problem=printable(f"not judged: {error}", 300))
    with np.errstate(over="ignore"):
        step = (server.learning_rate * verdict.aggregate).astype(np.float32)
        weights = start + step
    if not np.isfinite(weights).all():
        problem = "not averaged: the global model would not be finite"
        return RoundOutcome(start, state, problem=problem)
    return RoundOutcome(weights, memory, verdict, tuple(updates.client_ids.tolist()))


def client_row(reply: Reply, outcome: RoundOutcome, norm: float | None) -> dict[str, Any]:
    """Returns a node's row of `clients.csv`, without columns that have no value."""
    row = {
        "client": reply.client,
        "samples": reply.samples,
        "flagged": reply.malformed,
        "accepted": False,
        "weight": 0.0,
        "update_norm": norm,
        "reason": reply.reason or outcome.problem,
    }
    verdict = outcome.verdict
    if verdict is None or reply.client not in outcome.clients:
        return row
    position = outcome.clients.index(reply.client)
    return row | {
        "score": float(verdict.scores[position]),
        "flagged": bool(verdict.flagged[position]),
        "accepted": bool(verdict.accepted[position]),
        "weight": float(verdict.weights[position]),
        "reason": reply.reason or verdict.reasons[position],
    }


def unrequested_row(client: int | None) -> dict[str, Any]:
    """Returns the row of a node that replied without a request.

    Args:
      client: The node's client number; None if it has none.
    """
    reply = Reply(client, "malformed reply: the node was not asked", malformed=True)
    return client_row(reply, RoundOutcome(np.empty(0), {}), None)
