"""Multi-Krum: average the updates that lie closest to their neighbors.

    s_i = Σ ‖Δ_i − Δ_j‖²  over the n − f − 2 nearest j ≠ i
    Δ = Σ n_i Δ_i / Σ n_i  over the m lowest s_i                             n > 2f + 2

Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent
    Peva Blanchard, El Mahdi El Mhamdi, Rachid Guerraoui, Julien Stainer. NIPS 2017.

Implementations disagree on m, from a fifth of n to n − f, and on the weights. tffl takes m = n − f
unless `selected` says otherwise, and weights by sample counts as FedAvg does; the paper's mean is
plain. With a vote (`window`), a client is left out that was outside the m often enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.core.errors import require
from tffl.core.geometry import squared_distances
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.defenses.detector import Detector
from tffl.defenses.krum import krum_scores, most, tolerated
from tffl.defenses.parts.thresholds import AllButLowest, Threshold, highest_or_outlying
from tffl.defenses.parts.tolerance import Malicious, check_tolerance
from tffl.defenses.server import Server


@dataclass(frozen=True)
class MultiKrum(Detector):
    """Averages the updates with the lowest Krum scores.

    Scores that equal the m-th lowest are all kept.

    Attributes:
      malicious: f, the expected attackers of a round: a count, or a fraction of its clients.
        Without it, neighbors are counted for the largest f that the rule tolerates.
      selected: m, from 1 to n; n − f if None. With neither, all below the threshold.
      k: With neither `malicious` nor `selected`, flagged are scores above median + k·1.4826·MAD.

    >>> rows = np.array([[1.0], [1.1], [0.9], [1.2], [9.0]])
    >>> MultiKrum(malicious=1).judge_rows(rows).accepted.tolist()
    [True, True, True, True, False]
    """

    malicious: Malicious = None
    selected: Annotated[int, Field(ge=1)] | None = None
    k: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3.5

    reference: ClassVar[str] = (
        "Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent, "
        "NIPS 2017"
    )

    @property
    def attackers(self) -> int | float | None:
        """The option `malicious`."""
        return self.malicious

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` unless n > 2f + 2 and m <= n."""
        super().check(participants, layout)
        most_bearable = most(participants)
        check_tolerance("multi-krum", self.malicious, participants, most_bearable, "n > 2f + 2")
        require(
            self.selected is None or self.selected <= participants,
            f"defense.selected = {self.selected} is not allowed with {participants} participants a "
            f"round: choose from 1 to {participants}",
        )

    def score(self, updates: Updates, server: Server) -> np.ndarray:
        """Returns the Krum scores of finite rows."""
        finite = updates.finite()
        scores = np.full(len(updates), np.inf)
        if finite.any():
            kept = updates.select(finite)
            f = tolerated(self.malicious, len(kept), removed=len(updates) - len(kept))
            scores[finite] = krum_scores(squared_distances(kept), f)
        return scores

    @property
    def threshold(self) -> Threshold:
        """Above the m lowest scores; else below the f highest; else median + k·1.4826·MAD."""
        if self.selected is not None:
            return AllButLowest(self.selected)
        return highest_or_outlying(self.malicious, self.k)

    def reason(self, score: float, threshold: float) -> str:
        """Says how far the update lies from its neighbors."""
        return f"far from its nearest neighbors: Krum score {score:.4g} is above {threshold:.4g}"
