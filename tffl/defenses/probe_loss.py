"""Probe loss: which clients' models do worse than the others' on the server's images.

    q_i = mean_p cross-entropy(f(x_p; w_t + Δ_i), y_p),   x_p a probe image, y_p its label
    flagged: q_i > median q + k · max(1.4826·MAD q, 0.3·median q)

What a client's model makes of data that the server holds is the oldest test of an update. Fang et
al. reject the updates whose absence lowers the joint model's loss most, Zeno those that raise it;
both need the number of attackers. Here every client's model is compared with the other clients',
which needs no such number, and a few dozen images are enough. It is the cross-entropy because what
climbs the joint model's loss has to be very wrong somewhere: 1 − probability, which is bounded,
found almost none of the distance-constrained attackers that it finds (stored rounds of LeNet-5 and
ResNet-8). Clients that lack classes are very wrong there, too, hence the floor of the spread and a
large k.

Local Model Poisoning Attacks to Byzantine-Robust Federated Learning
    Minghong Fang, Xiaoyu Cao, Jinyuan Jia, Neil Zhenqiang Gong. USENIX Security 2020. Loss function
    based rejection, in the section on defenses.
Zeno: Distributed Stochastic Gradient Descent with Suspicion-based Fault-tolerance
    Cong Xie, Oluwasanmi Koyejo, Indranil Gupta. ICML 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.core.cross_entropy import mean_cross_entropy
from tffl.core.errors import require
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.data.samples import PROBE_DATA
from tffl.defenses.detector import Detector
from tffl.defenses.parts.thresholds import MedianMad, Threshold
from tffl.defenses.server import Server
from tffl.explain.probes import draw

FLOOR = 0.3
"""The least spread, relative to the median."""


@dataclass(frozen=True)
class ProbeLoss(Detector):
    """Flags clients whose models do worse than the others' on the server's probe images.

    Attributes:
      probes: Number of probe images, of all classes as evenly as possible.
      redraw: Draw other probes every round.
      k: Flag above median + k robust standard deviations.

    >>> ProbeLoss().judge_rows([[1.0], [2.0], [3.0]])
    Traceback (most recent call last):
        ...
    tffl.core.errors.UsageError: ProbeLoss looks at clients' models: give model=
    """

    probes: Annotated[int, Field(ge=1)] = 64
    redraw: bool = False
    k: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5.0

    needs: ClassVar[tuple[str, ...]] = (PROBE_DATA,)
    reference: ClassVar[str] = (
        "tffl's own, after Fang et al., USENIX Security 2020, and Xie et al., Zeno, ICML 2019"
    )

    @property
    def uses_model(self) -> bool:
        """It evaluates clients' models."""
        return True

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` with fewer than 3 participants."""
        super().check(participants, layout)
        require(
            participants >= 3,
            f"probe-loss needs at least 3 participants a round, not {participants}: of two, "
            "neither is the odd one",
        )

    def check_server(self, server: Server) -> None:
        """Raises `UsageError` if there are too few images."""
        assert server.samples is not None
        have = len(server.samples.labels)
        require(
            self.probes <= have,
            f"defense.probes = {self.probes} is not allowed: the server has {have} images",
        )

    def score(self, updates: Updates, server: Server) -> np.ndarray:
        """Returns the loss of each client's model on the probes."""
        assert server.samples is not None and server.explainer is not None
        round = updates.round if self.redraw else 0
        probes = draw(server.samples, self.probes, server.seed, round=round)
        losses = mean_cross_entropy(server.explainer.logits(updates, probes), probes.classes)
        return np.where(np.isfinite(losses), losses, np.inf)

    @property
    def threshold(self) -> Threshold:
        """Median + k·spread, the spread with its floor."""
        return MedianMad(self.k, FLOOR)

    def reason(self, score: float, threshold: float) -> str:
        """Says how large the loss is."""
        return f"its model's loss on the probe images is {score:.3g}, above {threshold:.3g}"
