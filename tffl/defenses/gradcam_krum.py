"""GradCAM-Krum: Krum, on Grad-CAM maps instead of updates.

    d_ij = ‖L_i − L_j‖², L_i the Grad-CAM map of client i's model, scaled to 0 … 1
    score_i = sum of the n − f − 2 smallest d_ij

The update of the client with the lowest score becomes the round's only one; the f with the highest
scores are its suspects.

GradCAM-AE: A New Shield Defense against Poisoning Attacks on Federated Learning
    Jingjing Zheng, Kai Li, Xin Yuan, Wei Ni, Eduardo Tovar. Section 6.1, as a comparison.

The paper says no more than that Krum finds the malicious maps and that one update is selected; its
equal recall and precision show that as many clients are suspected as there are attackers, so the
authors gave the rule f.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.defenses.base import State
from tffl.defenses.cam_detector import CamDetector, MapScores
from tffl.defenses.detector import Evidence
from tffl.defenses.krum import krum_scores, most, tolerated, winner
from tffl.defenses.parts.thresholds import Threshold, highest_or_outlying
from tffl.defenses.parts.tolerance import Malicious, check_tolerance
from tffl.defenses.server import Server
from tffl.explain.maps import Method, scaled


@dataclass(frozen=True)
class GradCamKrum(CamDetector):
    """Takes the one client whose Grad-CAM map is closest to its nearest neighbors'.

    Attributes:
      malicious: f, the expected attackers of a round: a count, or a fraction of its clients.
        The suspects are the clients with the f highest scores.
      k: Without `malicious`, they are those above median + k·1.4826·MAD, and neighbors are counted
        for the largest f that Krum tolerates.

    >>> GradCamKrum().judge_rows([[1.0], [2.0], [3.0]])
    Traceback (most recent call last):
        ...
    tffl.core.errors.UsageError: GradCamKrum looks at clients' models: give model=
    """

    malicious: Malicious = None
    k: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3.5

    method: ClassVar[Method] = "grad-cam"
    score_name: ClassVar[str] = "Krum score"
    reference: ClassVar[str] = (
        "Zheng et al., GradCAM-AE: A New Shield Defense against Poisoning Attacks on Federated "
        "Learning, section 6.1"
    )

    @property
    def attackers(self) -> int | float | None:
        """The option `malicious`."""
        return self.malicious

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` unless n > 2f + 2."""
        super().check(participants, layout)
        check_tolerance(
            "gradcam-krum", self.malicious, participants, most(participants), "n > 2f + 2"
        )

    def prepare(self, maps: np.ndarray, size: int) -> np.ndarray:
        """Scales maps to 0 … 1."""
        return np.asarray(scaled(maps))

    def judge_maps(self, maps: np.ndarray, server: Server, round: int) -> MapScores:
        """Computes Krum's scores of maps."""
        distances = _squared_distances(maps)
        f = tolerated(self.malicious, len(maps))
        best = np.arange(len(maps)) == winner(distances, f)
        return MapScores(krum_scores(distances, f), inputs=maps, best=best)

    @property
    def threshold(self) -> Threshold:
        """Below the f highest scores; else median + k·1.4826·MAD."""
        return highest_or_outlying(self.malicious, self.k)

    def reason(self, score: float, threshold: float) -> str:
        """Says how far the map is from others."""
        return f"Krum score {score:.4g} of its heat maps is above {threshold:.4g}"

    def examine(self, updates: Updates, server: Server, state: State) -> Evidence:
        """Selects the winner; nobody where no client's maps are finite."""
        evidence = super().examine(updates, server, state)
        if evidence.selected is not None:
            return evidence
        return replace(evidence, selected=np.zeros(len(updates), dtype=bool))

    def weights(self, updates: Updates, accepted: np.ndarray) -> np.ndarray:
        """Gives all weight to the winner, whatever its sample count."""
        if not self.enforce:
            return super().weights(updates, accepted)
        return accepted.astype(np.float64)


def _squared_distances(maps: np.ndarray) -> np.ndarray:
    """Returns float64 `[n, n]`."""
    rows = maps.reshape(len(maps), -1).astype(np.float64)
    return np.stack([np.square(rows - row).sum(axis=1) for row in rows])
