"""AlignIns: leave out updates whose direction is far from the median direction, then clip.

    TDA_i = cos(Δ_i, w)                                       w: the global model's weights
    MPSA_i = share of the ⌊s·d⌋ largest |Δ_ij| with sgn(Δ_ij) = p_j,   p = sgn(Σ_i sgn(Δ_i))
    z(x)_i = |x_i − median(x)| / std(x)
    A = { i : z(MPSA)_i <= λ_s and z(TDA)_i <= λ_c }
    Δ = Σ n_i Δ_i·min(1, M / ‖Δ_i‖) / Σ n_i  over A,          M = median of ‖Δ_i‖ over A

Detecting Backdoor Attacks in Federated Learning via Direction Alignment Inspection
    Jiahao Xu, Zikai Zhang, Rui Hu. CVPR 2025.

TDA is temporal direction alignment, MPSA masked principal sign alignment. Defaults are those of the
authors' code, s = 0.3 and λ_s = λ_c = 1. Such a radius is narrow: of honest clients alone it leaves
out about a half, as one third of normally distributed values are more than a standard deviation
from the median, and there are two filters. As std is not robust, m attackers of n that agree are
never farther than √(n / m) from the median, however far that is: with a larger radius many hide.

What tffl takes where the paper says nothing, or does otherwise than the code:

- Columns are the trainable ones; their code takes BatchNorm statistics, too. Here they are just
  averaged over A, as they are.
- A z that equals the radius is kept, so that rounding does not decide; their code leaves it out.
  Where all clients have the same value, z is 0; there it is 0/0, and everybody is left out.
- All entries that equal the ⌊s·d⌋-th largest belong to the mask; there, the first found.
- The median norm of an even number of clients is the mean of the middle two; there, the lower one.
- If A is empty the model stays as it is, as in their code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.core.errors import require
from tffl.core.geometry import cosines_with
from tffl.core.layout import WeightLayout
from tffl.core.thresholds import TOLERANCE
from tffl.core.updates import Updates
from tffl.core.verdict import Judgment
from tffl.defenses.base import State
from tffl.defenses.detector import Detector, Evidence
from tffl.defenses.parts.clipping import clip_factors
from tffl.defenses.parts.magnitudes import largest_magnitudes, median_distances
from tffl.defenses.parts.scaling import scaled_mean
from tffl.defenses.parts.thresholds import Fixed, Threshold
from tffl.defenses.server import Server

RESOLUTION = 1e-9
"""Shares and cosines that spread no more than this are equal but for rounding."""


def sign_agreement(updates: Updates, share: float) -> np.ndarray:
    """Returns MPSA: how many of a client's largest entries have the principal sign, float64 `[n]`.

    Args:
      updates: Finite rows.
      share: s, the share of trainable entries that count as the largest, at least one entry.

    >>> rows = np.array([[1, -2, 9], [2, -1, -9], [3, 5, 0]])
    >>> sign_agreement(Updates.of_rows(rows), share=0.67)
    array([0.5, 0.5, 0.5])
    """
    trainable = updates.layout.trainable
    count = max(1, int(share * np.count_nonzero(trainable)))
    least = largest_magnitudes(updates, trainable, count)[:, None]

    def block(columns: slice) -> np.ndarray:
        part = updates.block(columns)
        signs = np.sign(part).astype(np.int8)
        principal = np.sign(signs.sum(axis=0, dtype=np.int32))
        largest = np.abs(part) >= least
        agreeing = largest & (signs == principal)
        return np.stack([np.count_nonzero(x, axis=1) for x in (agreeing, largest)])

    blocks = updates.map_columns(block, trainable=True)
    agreeing, largest = sum(blocks, np.zeros((2, len(updates)), dtype=np.int64))
    return agreeing / largest


@dataclass(frozen=True)
class AlignIns(Detector):
    """Leaves out unusual directions, clips the others to their median norm, and averages.

    The score is the larger of both distances from the median, each divided by its radius: above 1
    a client is flagged. Weights are those of FedAvg, before clipping.

    Attributes:
      sparsity: s, the share of a client's largest entries whose signs are compared.
      sign_radius: λ_s > 0, how many standard deviations from the median the agreement with the
        principal signs may be.
      cosine_radius: λ_c > 0, the same for the cosine to the global model.

    >>> rows = np.array([[1.0, 2.0, 1.0], [1.1, 1.9, 1.0], [0.9, 2.1, 1.0], [-9.0, -9.0, -9.0]])
    >>> AlignIns().judge_rows(rows).accepted.tolist()
    [True, True, True, False]
    """

    sparsity: Annotated[float, Field(gt=0, le=1)] = 0.3
    sign_radius: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    cosine_radius: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    reference: ClassVar[str] = (
        "Xu, Zhang, Hu, Detecting Backdoor Attacks in Federated Learning via Direction Alignment "
        "Inspection, CVPR 2025"
    )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` for fewer than three clients."""
        super().check(participants, layout)
        require(
            participants >= 3,
            f"alignins needs at least 3 participants a round, not {participants}: two are equally "
            "far from their median",
        )

    @property
    def threshold(self) -> Threshold:
        """1: scores are relative to the radii."""
        return Fixed(1.0 + TOLERANCE)

    def score(self, updates: Updates, server: Server) -> np.ndarray:
        """Returns the larger of both relative distances."""
        return self.distances(updates).max(axis=0)

    def examine(self, updates: Updates, server: Server, state: State) -> Evidence:
        """Says of both distances how large they are."""
        signs, angles = self.distances(updates)
        notes = [
            f"{sign * self.sign_radius:.2f} standard deviations from the median agreement with "
            f"the principal signs, {angle * self.cosine_radius:.2f} from the median cosine to the "
            "global model"
            for sign, angle in zip(signs, angles, strict=True)
        ]
        return Evidence(np.maximum(signs, angles), tuple(notes))

    def distances(self, updates: Updates) -> np.ndarray:
        """Returns z(MPSA) / λ_s and z(TDA) / λ_c, float64 `[2, n]`; inf for rows not finite."""
        finite = updates.finite()
        result = np.full((2, len(updates)), np.inf)
        if finite.any():
            kept = updates.select(finite)
            agreement = sign_agreement(kept, self.sparsity)
            cosine, _ = cosines_with(kept, kept.start)
            result[0, finite] = median_distances(agreement, RESOLUTION) / self.sign_radius
            result[1, finite] = median_distances(cosine, RESOLUTION) / self.cosine_radius
        return result

    def average(self, updates: Updates, judgment: Judgment, weights: np.ndarray) -> np.ndarray:
        """Clips to the median norm of the accepted, and averages."""
        if not self.enforce:
            return super().average(updates, judgment, weights)
        norms = updates.norms(trainable=True)
        inside = norms[judgment.accepted]
        factors = clip_factors(norms, float(np.median(inside)) if len(inside) else 0.0)
        return scaled_mean(updates, weights, factors)
