"""Bias anomaly: mislabeled data shows in the bias of the final layer.

    score_i = max_k |b_ik − b_k|

where b_ik is client i's bias of class k after training and b_k the reference. The gradient of the
final bias is the output error itself, not multiplied by any activation, so that wrong labels
move it most directly.

Anomaly Localization in Model Gradients Under Backdoor Attacks Against Federated Learning
    Zeki Bilgin. 2021. Equation 17 and section 5.4.

The paper measures the score and builds no detector; threshold and vote are tffl's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tffl.core.errors import require
from tffl.core.layout import WeightLayout
from tffl.core.thresholds import check_alpha
from tffl.core.updates import Updates
from tffl.defenses.detector import Detector
from tffl.defenses.parts.thresholds import MeanStd, MedianMad, Threshold
from tffl.defenses.server import Server


def max_deviation(rows: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Returns each row's largest absolute difference from the reference, float64 `[n]`.

    Args:
      rows: `[n, classes]`.
      reference: `[classes]`.

    >>> max_deviation(np.array([[1.0, 2.0], [0.0, -5.0]]), np.array([0.0, 1.0]))
    array([1., 6.])
    """
    return np.abs(rows - reference).max(axis=1)


@dataclass(frozen=True)
class BiasAnomaly(Detector):
    """Rejects clients whose final-layer bias deviates more than the others'.

    Attributes:
      reference_point: What a bias is compared with: the plain mean over this round's clients
        (`clients`, as in the author's notebook), or the joint model they started from (`joint`,
        as in the paper's text).
      rule: Flag above median + k·1.4826·MAD, or above mean + alpha·std.
      k: For `median-mad`; 3.5 is the usual advice, and flags 1.7 % of 10 honest clients, 0.6 % of
        50, if their biases are independently normal (simulated). Real ones are not: in the
        README's quickstart it blames 7 to 16 % of 10 clients of 144 images when nobody attacks.
      alpha: For `mean-std`; 1.5 can still flag 3 equal attackers of 10, 2 could not.

    >>> from tffl.core.layout import Entry
    >>> layout = WeightLayout((Entry("logits/bias", (2,), True),))
    >>> rows = np.array([[1.0, 2.0], [1.1, 1.9], [0.9, 2.1], [1.2, 2.0], [-9.0, 9.0]])
    >>> BiasAnomaly().judge_rows(rows, layout=layout).accepted.tolist()
    [True, True, True, True, False]
    """

    reference_point: Literal["clients", "joint"] = "clients"
    rule: Literal["median-mad", "mean-std"] = "median-mad"
    k: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3.5
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.5

    reference: ClassVar[str] = (
        "Bilgin, Anomaly Localization in Model Gradients Under Backdoor Attacks Against FL, 2021"
    )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` without a final bias, or if the rule could flag nobody."""
        super().check(participants, layout)
        _ = layout.final_bias
        if self.rule == "mean-std":
            check_alpha(self.alpha, participants)
            return
        require(
            participants >= 3,
            f"defense.rule = median-mad needs at least 3 participants a round, not {participants}: "
            "among two, both deviate equally",
        )

    def score(self, updates: Updates, server: Server) -> np.ndarray:
        """Returns the largest deviation of each client's final bias."""
        bias = updates.block(updates.layout.final_bias).astype(np.float64)
        finite = np.isfinite(bias).all(axis=1)
        scores = np.full(len(bias), np.inf)
        if finite.any():
            scores[finite] = max_deviation(bias[finite], self._reference(bias[finite]))
        return scores

    @property
    def threshold(self) -> Threshold:
        """The rule that `rule` names."""
        return MeanStd(self.alpha) if self.rule == "mean-std" else MedianMad(self.k)

    def reason(self, score: float, threshold: float) -> str:
        """Says how far the bias deviates, and what the threshold was."""
        point = "the clients' mean" if self.reference_point == "clients" else "the joint model"
        return f"final bias deviates from {point} by {score:.4g}, above {threshold:.4g}"

    def _reference(self, bias: np.ndarray) -> np.ndarray:
        """Returns the bias to compare with, as a difference from the joint model's."""
        return bias.mean(axis=0) if self.reference_point == "clients" else np.zeros(bias.shape[1])
