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

from tffl.core.errors import UsageError, require
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
      layer: The layer whose bias is judged, such as `dense`; by default the final one.

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
    layer: str | None = None

    reference: ClassVar[str] = (
        "Bilgin, Anomaly Localization in Model Gradients Under Backdoor Attacks Against FL, 2021"
    )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` without such a bias, or if the rule could flag nobody."""
        super().check(participants, layout)
        self._bias(layout)
        if self.rule == "mean-std":
            check_alpha(self.alpha, participants)
            return
        require(
            participants >= 3,
            f"defense.rule = median-mad needs at least 3 participants a round, not {participants}: "
            "among two, both deviate equally",
        )

    def score(self, updates: Updates, server: Server) -> np.ndarray:
        """Returns the largest deviation of each client's bias."""
        bias = updates.block(self._bias(updates.layout)).astype(np.float64)
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
        which = "final bias" if self.layer is None else f"bias of {self.layer}"
        return f"{which} deviates from {point} by {score:.4g}, above {threshold:.4g}"

    def _bias(self, layout: WeightLayout) -> slice:
        """Returns the columns of the bias that is judged.

        Raises:
          UsageError: The layer has none; the message names those that have one.
        """
        layer = layout.final_layer if self.layer is None else self.layer
        if f"{layer}/bias" in layout.slices:
            return layout[f"{layer}/bias"]
        having = [entry.layer for entry in layout.entries if entry.name.endswith("/bias")]
        which = "the final layer " if self.layer is None else "layer "
        advice = f"set defense.layer to one of {', '.join(having)}, or let" if having else "let"
        raise UsageError(
            f"{which}{layer} has no bias for bias-anomaly to judge: {advice} `tffl localize` rank "
            "the weights that give attackers away, and choose another defense"
        )

    def _reference(self, bias: np.ndarray) -> np.ndarray:
        """Returns the bias to compare with, as a difference from the joint model's."""
        return bias.mean(axis=0) if self.reference_point == "clients" else np.zeros(bias.shape[1])
