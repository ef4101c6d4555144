"""One round as the tables tell it: verdicts, and how they compare with the truth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tffl.core.deviations import deviations
from tffl.core.metrics import detection
from tffl.core.updates import Updates
from tffl.defenses import Verdict


class RoundRecord:
    """What happened to the clients of a round, in one group or, with several models, in many."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._ids: list[np.ndarray] = []
        self._deviations: list[np.ndarray] = []
        self._convicted: list[np.ndarray] = []
        self._thresholds: list[float] = []

    def add(self, updates: Updates, verdict: Verdict, malicious: np.ndarray) -> None:
        """Adds the clients that train one global model.

        Args:
          updates: As the server received them.
          verdict: What the defense made of them.
          malicious: bool `[n]`, the truth.
        """
        norms = updates.norms()
        self._rows += [
            {
                "client": int(client),
                "samples": int(updates.sample_counts[row]),
                "malicious": int(malicious[row]),
                "score": float(verdict.scores[row]),
                "flagged": int(verdict.flagged[row]),
                "accepted": int(verdict.accepted[row]),
                "weight": float(verdict.weights[row]),
                "update_norm": float(norms[row]),
                "reason": verdict.reasons[row],
            }
            for row, client in enumerate(updates.client_ids)
        ]
        self._ids.append(updates.client_ids)
        self._deviations.append(deviations(updates))
        self._convicted.append(verdict.convicted)
        self._thresholds.append(verdict.threshold)

    def judged(self) -> dict[str, Any]:
        """Returns how many were accepted and how right that was: columns of `rounds.csv`."""
        malicious = np.array([row["malicious"] for row in self._rows], dtype=bool)
        scores = np.array([row["score"] for row in self._rows])
        accepted = sum(row["accepted"] for row in self._rows)
        return {
            "participants": len(self._rows),
            "accepted": accepted,
            "rejected": len(self._rows) - accepted,
            "threshold": self._thresholds[0] if len(self._thresholds) == 1 else math.nan,
            **detection(malicious, np.concatenate(self._convicted), scores),
        }

    def client_rows(self, round: int) -> list[dict[str, Any]]:
        """Returns the rows of `clients.csv`, by client."""
        groups = len(self._thresholds)
        rows = sorted(self._rows, key=lambda row: row["client"])
        return [{"round": round, **row, "weight": row["weight"] / groups} for row in rows]

    def deviations(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns client ids `[n]`, and what `tffl.core.deviations.deviations` says of them."""
        return np.concatenate(self._ids), np.concatenate(self._deviations)
