"""One round as the tables tell it: verdicts, and how they compare with the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tffl.callbacks.base import Group
from tffl.core.metrics import detection


def judged(groups: Sequence[Group]) -> dict[str, Any]:
    """Returns how many were accepted and how right that was: columns of `rounds.csv`.

    Of a round that was skipped, only the counts are defined.
    """
    if not groups:
        return dict.fromkeys(("participants", "accepted", "rejected"), 0)
    malicious = np.concatenate([group.malicious for group in groups])
    verdicts = [group.verdict for group in groups]
    accepted = sum(int(verdict.accepted.sum()) for verdict in verdicts)
    convicted = np.concatenate([verdict.convicted for verdict in verdicts])
    scores = np.concatenate([verdict.scores for verdict in verdicts])
    return {
        "participants": len(malicious),
        "accepted": accepted,
        "rejected": len(malicious) - accepted,
        "threshold": verdicts[0].threshold if len(verdicts) == 1 else math.nan,
        **detection(malicious, convicted, scores),
    }


def client_rows(round: int, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Returns the rows of `clients.csv`, by client."""
    rows = [row for group in groups for row in _rows(round, group, len(groups))]
    return sorted(rows, key=lambda row: row["client"])


def _rows(round: int, group: Group, groups: int) -> list[dict[str, Any]]:
    updates, verdict, norms = group.updates, group.verdict, group.updates.norms()
    return [
        {
            "round": round,
            "client": int(client),
            "samples": int(updates.sample_counts[row]),
            "malicious": int(group.malicious[row]),
            "score": float(verdict.scores[row]),
            "flagged": int(verdict.flagged[row]),
            "accepted": int(verdict.accepted[row]),
            "weight": float(verdict.weights[row]) / groups,
            "update_norm": float(norms[row]),
            "reason": verdict.reasons[row],
        }
        for row, client in enumerate(updates.client_ids)
    ]
