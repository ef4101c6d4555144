"""What a defense makes of a round of replies: the next global model, and the rows of the table."""

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
class Judgment:
    """The outcome of a round.

    Attributes:
      weights: The next global model's, float32 `[d]`.
      state: What the defense remembers.
      verdict: None if the round was not judged, and then `problem` says why.
      clients: Whom the verdict is about, in its order.
      problem: For the table.
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
) -> Judgment:
    """Asks the defense; without a verdict the global model and the memory stay as they are.

    Args:
      defense: Which to ask.
      server: What it has to work with.
      state: What it remembers.
      updates: Of the n nodes that sent any.
      malformed: bool `[n]`, whose rows are NaN because the replies cannot be used.
      checked: The number of updates that the defense is known to work with.
    """
    start = updates.start.copy()
    if malformed.all():
        return Judgment(start, state, problem="nobody is left")
    try:
        if len(updates) != checked:
            defense.check(len(updates), updates.layout)
        verdict, memory = defense.judge(updates, server, state)
        if (verdict.accepted & malformed).any():  # it averages, or only observes, all there is
            updates = updates.select(~malformed)
            verdict, memory = defense.judge(updates, server, state)
    except UsageError as error:
        log.warning("tffl: the round is not judged, and the global model stays: %s", error)
        return Judgment(start, state, problem=printable(f"not judged: {error}", 300))
    with np.errstate(over="ignore"):
        step = (server.learning_rate * verdict.aggregate).astype(np.float32)
        weights = start + step
    if not np.isfinite(weights).all():
        problem = "not averaged: the global model would not be finite"
        return Judgment(start, state, problem=problem)
    return Judgment(weights, memory, verdict, tuple(updates.client_ids.tolist()))


def client_row(reply: Reply, judgment: Judgment, norm: float | None) -> dict[str, Any]:
    """Returns a node's row of `clients.csv`; what is not known is left out."""
    row = {
        "client": reply.client,
        "samples": reply.samples,
        "flagged": reply.malformed,
        "accepted": False,
        "weight": 0.0,
        "update_norm": norm,
        "reason": reply.reason or judgment.problem,
    }
    verdict = judgment.verdict
    if verdict is None or reply.client not in judgment.clients:
        return row
    position = judgment.clients.index(reply.client)
    return row | {
        "score": float(verdict.scores[position]),
        "flagged": bool(verdict.flagged[position]),
        "accepted": bool(verdict.accepted[position]),
        "weight": float(verdict.weights[position]),
        "reason": reply.reason or verdict.reasons[position],
    }


def uninvited_row(client: int | None) -> dict[str, Any]:
    """Returns the row of a node that sent a reply without being asked; it may have no number."""
    reply = Reply(client, "malformed reply: the node was not asked", malformed=True)
    return client_row(reply, Judgment(np.empty(0), {}), None)
