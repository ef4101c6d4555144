"""What a defense decided about the clients of a round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

NOT_FINITE = "the update holds NaN or infinity"
"""Why a row is refused that no rule can compute with."""


@dataclass(frozen=True)
class Verdict:
    """What a defense decided about the n clients of one round.

    Attributes:
      flagged: bool `[n]`, suspected by this round's evidence alone.
      convicted: bool `[n]`, malicious in the defense's judgment, after any vote. Detection metrics
        are computed from it.
      accepted: bool `[n]`, part of the average: not convicted, unless the defense only observes.
      weights: float64 `[n]`, each client's share of the average; zeros and sums to 1, or all zero
        when nobody was accepted.
      scores: float64 `[n]`, higher is more suspicious; NaN where the defense has none.
      threshold: Scores above it are flagged; NaN where there is none.
      aggregate: float32 `[d]`, the aggregated update; zeros when nobody was accepted, so that the
        global model stays as it is.
      reasons: One string per client, empty where it is accepted and neither flagged nor convicted.
      pictures: What a person may want to see of it, such as heat maps; the first axis is clients,
        and of `probes` and `audit_images` images.
    """

    flagged: np.ndarray
    convicted: np.ndarray
    accepted: np.ndarray
    weights: np.ndarray
    scores: np.ndarray
    threshold: float
    aggregate: np.ndarray
    reasons: tuple[str, ...]
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
