"""Distance-constrained poisoning: the worst joint model that a row near the honest mean can make.

    max_Δ  F(w'(Δ))    subject to    ‖Δ − c‖ ≤ r

    m ← 0;  every step:  m ← P_r(m + η·r·∇F/‖∇F‖);  all attackers send Δ = c + m

c and r are mean and spread of the honest updates that the attackers see, w' the joint model that
averaging would yield (`tffl.attacks.bounded`), F the cross-entropy on the attackers' own data, and
P_r the projection onto the ball. BatchNorm statistics stay as trained.

GradCAM-AE: A New Shield Defense against Poisoning Attacks on Federated Learning
    Jingjing Zheng, Kai Li, et al. 2025. Equations 7 to 10.

The paper states the problem and leaves its solution open ("projected gradient descent attacks" are
its inspiration); the solver is tffl's. It bounds the distance to the joint model w', which holds
the poison itself: with w' = w_t + c + p·m, that distance is (1 − p)·‖m‖. tffl bounds ‖m‖ by r, so
that equation 9b holds even with (1 − p)·r in place of r. The threshold r, which the paper
calls preset, is a quantile of the honest distances; with 0.5, attackers are as near to the mean as
the median honest client, and rules like Krum prefer them. With data poisoned by another attack, F
is the loss on that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tffl.attacks.base import State
from tffl.attacks.bounded import BoundedAttack, ExpectedModel, project, unit
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


@dataclass(frozen=True)
class DistanceConstrained(BoundedAttack):
    """Raises the joint model's loss within the distance of honest updates from their mean.

    All attackers send the same row.

    Where the loss rises along (3, 4), the row lies in that direction, as far as honest ones:

    >>> from types import SimpleNamespace
    >>> adversary = SimpleNamespace(
    ...     seed=0,
    ...     samples=lambda: (np.zeros((9, 1)), np.zeros(9)),
    ...     gradient=lambda weights, images, labels: (0.0, np.array([3.0, 4.0])),
    ... )
    >>> updates = Updates.of_rows(np.array([[9, 9], [1, 0], [-1, 0], [0, 1], [0, -1]]))
    >>> malicious = np.array([True, False, False, False, False])
    >>> DistanceConstrained().send(updates, malicious, adversary, {})[0].round(3)
    array([[0.6, 0.8]], dtype=float32)
    """

    reference: ClassVar[str] = (
        "Zheng et al., GradCAM-AE: A New Shield Defense against Poisoning Attacks on Federated "
        "Learning, 2025"
    )

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns the row `[1, d]` that all send."""
        expected = ExpectedModel.of(updates, malicious, self.seen(updates, malicious, adversary))
        free = self.modifiable(updates.layout, adversary.seed)
        bound = self.bound(expected, updates, malicious, free)
        move = np.zeros(updates.layout.size)
        for images, labels in self.batches(adversary, updates.round):
            _, gradient = adversary.gradient(expected.joint(move), images, labels)
            ascent = unit(np.where(free, gradient, 0))
            move = project(move + self.step * bound * ascent, bound)
        return (expected.center + move).astype(np.float32)[None], state
