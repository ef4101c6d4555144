"""PoisonedFL: every round pushes the global model the same random way, so that nothing cancels out.

    s ∈ {−1, 1}^d                    drawn once
    g = w_t − w_{t−1}                the last global step,  Δ' the row that was sent then
    v = |g − Δ'·‖g‖/‖Δ'‖|            magnitudes like those of the honest part of that step
    Δ ← c·‖g‖ · v/‖v‖ ⊙ s

    every e rounds, with G the global change since:  X = #{j: sign(G_j) = s_j}
    c ← 0.7·c   if X is below the 99 % quantile of Binomial(d, ½), and 0.7·c ≥ 0.5

So the attackers become less loud until the server follows them. They need neither data nor anyone's
update: only the global weights, which the server sends them.

Model Poisoning Attacks to Federated Learning via Multi-Round Consistency
    Yueqi Xie, Minghong Fang, Neil Zhenqiang Gong. CVPR 2025.

This is the rule of the authors' program (`byzantine.py` and its training loop, read in copies),
with its constants; of the paper's text only the abstract could be read. As there, they send zeros
in the first round, a coordinate that has not moved counts with the sign of its weight, and G begins
one round after the last test. Deviations: the quantile comes from a normal approximation, which
yields the four numbers that the program lists; e counts rounds since the last reference, also if
the attackers pause or are absent, and g is the mean step per round since they last took part.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.attacks.base import State
from tffl.attacks.bounded import length
from tffl.attacks.model_attack import CommonRowAttack
from tffl.attacks.parts import last_step, seen_weights
from tffl.core import seeds
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary

TINY = 1e-9
"""Added to norms that divide, as in the authors' program."""

SHRINKS, SMALLEST = 0.7, 0.5
"""Factor of c after a test that the attack fails, and the least value that c may reach."""


def chance_agreements(columns: int) -> int:
    """Returns the 99 % quantile of how many of some random signs agree.

    >>> [chance_agreements(d) for d in (1204682, 139960, 717924, 145212)]
    [603618, 70415, 359948, 73049]
    """
    quantile = columns / 2 + NormalDist().inv_cdf(0.99) * np.sqrt(columns) / 2
    return int(np.floor(quantile + 0.5))


def next_row(step: np.ndarray, sent: np.ndarray, signs: np.ndarray, factor: float) -> np.ndarray:
    """Returns the row of a round.

    Args:
      step: g, float64 `[d]`.
      sent: Δ', the row that was sent before it; zeros if none was.
      signs: s, float64 `[d]`; 0 in columns that stay as trained.
      factor: c.

    Returns:
      float64 `[d]`.

    >>> next_row(np.array([3.0, 4.0]), np.zeros(2), np.array([1.0, -1.0]), factor=2.0).round(6)
    array([ 6., -8.])
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norm = length(step)
        sizes = np.abs(step - sent * (norm / (length(sent) + TINY)))
        return factor * norm * (sizes * signs / (length(sizes) + TINY))


def followed(change: np.ndarray, weights: np.ndarray, signs: np.ndarray) -> bool:
    """Says whether the global model follows the signs more than chance would have it.

    Args:
      change: G, float64 `[d]`.
      weights: The global weights, which decide where there is no change.
      signs: s; columns with 0 are left out.
    """
    free = signs != 0
    toward = np.sign(np.where(change == 0, weights, change))
    agreeing = int(np.count_nonzero((toward == signs) & free))
    return agreeing >= chance_agreements(int(np.count_nonzero(free)))


@dataclass(frozen=True)
class PoisonedFL(CommonRowAttack):
    """Pushes the global model in one random direction in all rounds, as hard as works.

    Attributes:
      factor: c of the first rounds: the norm of the row, relative to that of the last global step.
      interval: e, the number of rounds after which c is tested.

    A global step of length 5 is answered by a row of length 2 · 5, of the same magnitudes:

    >>> from types import SimpleNamespace
    >>> updates = Updates.of_rows(np.zeros((3, 2)), start=np.array([3.0, 4.0]), round=2)
    >>> last = {"start": np.zeros(2), "round": [1], "sent": np.zeros(2), "factor": [2.0]}
    >>> adversary, malicious = SimpleNamespace(seed=0), np.array([True, False, False])
    >>> abs(PoisonedFL().craft(updates, malicious, adversary, last)[0]).round(3)
    array([[6., 8.]], dtype=float32)
    """

    factor: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 8.0
    interval: Annotated[int, Field(ge=2)] = 50

    reference: ClassVar[str] = (
        "Xie et al., Model Poisoning Attacks to Federated Learning via Multi-Round Consistency, "
        "CVPR 2025"
    )

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns the row `[1, d]` that all send."""
        signs = self.signs(updates, adversary)
        factor, reference = self.tested(updates, signs, state)
        step = last_step(updates, state)
        row = np.zeros(updates.layout.size)
        if step is not None:
            row = next_row(step, state["sent"], signs, factor)
        with np.errstate(over="ignore"):
            row = row.astype(np.float32)
        memory = {**seen_weights(updates), "sent": row, "factor": np.array([factor]), **reference}
        return row[None], memory

    def signs(self, updates: Updates, adversary: Adversary) -> np.ndarray:
        """Returns s, float64 `[d]`; 0 in columns that the attack may not modify."""
        coins = seeds.generator(adversary.seed, "poisonedfl").integers(0, 2, updates.layout.size)
        free = self.modifiable(updates.layout, adversary.seed)
        return np.where(free, 2.0 * coins - 1, 0.0)

    def tested(self, updates: Updates, signs: np.ndarray, state: State) -> tuple[float, State]:
        """Returns c of this round, and the weights with which those of a later one are compared."""
        if "start" not in state:
            return self.factor, {}
        factor = float(state["factor"][0])
        if "reference" not in state:
            now = np.array([updates.round], np.int64)
            return factor, {"reference": updates.start, "reference_round": now}
        if updates.round - int(state["reference_round"][0]) < self.interval - 1:
            return factor, {key: state[key] for key in ("reference", "reference_round")}
        with np.errstate(invalid="ignore"):
            change = updates.start.astype(np.float64) - state["reference"]
        fails = not followed(change, updates.start, signs)
        return (SHRINKS * factor if fails and SHRINKS * factor >= SMALLEST else factor), {}
