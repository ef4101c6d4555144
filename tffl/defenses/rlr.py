"""RLR (robust learning rate): go backward where too few clients agree on the direction.

    a_j = |Σ_i sgn(Δ_ij)|                      how many more clients vote one way than the other
    η_j = 1 if a_j >= θ, else −1
    Δ_j = η_j · Σ_i (n_i / N)·Δ_ij

Defending against Backdoors in Federated Learning with Robust Learning Rate
    Mustafa Safa Özdayi, Murat Kantarcioglu, Yulia R. Gel. AAAI 2021.

θ is a fraction of the round's clients here unless it is a count. The authors' script has 4 of 10
clients (Fashion-MNIST), 8 of 40 (CIFAR-10) and 8 of 33 (Federated EMNIST), AlignIns' code 8 of 20.
The default, 0.4, is the first and the last of these. Their code combines the rates with other
aggregates as well, and with clipping and noise; this is the one with FedAvg. BatchNorm statistics,
which their models do not have, are averaged as they are, for a step backward would make a moving
variance negative.

The rule leaves nobody out, and a backdoor survives in columns on which its clients agree with
enough others. Its price: where honest clients disagree, which is most columns near convergence or
with uneven data, the model is moved against their mean.

The rule has no verdict on clients. Recorded is the share of columns in which a client's sign is
opposed to that of the majority.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import BeforeValidator, Field

from tffl.core.errors import require
from tffl.core.layout import WeightLayout
from tffl.core.options import count_or_fraction
from tffl.core.updates import Updates
from tffl.defenses.base import State, sample_shares
from tffl.defenses.robust_mean import Combined, RobustMean
from tffl.defenses.server import Server


def sign_votes(updates: Updates) -> tuple[np.ndarray, np.ndarray]:
    """Counts the signs of every column.

    Args:
      updates: Finite rows.

    Returns:
      Σ_i sgn(Δ_ij), int32 `[d]`, and the share of trainable columns in which each client's sign is
      opposed to the sign of that sum, float64 `[n]`. A zero is opposed to nothing.

    >>> votes, opposed = sign_votes(Updates.of_rows(np.array([[1, 2], [3, 0], [-1, 5]])))
    >>> votes, opposed
    (array([1, 2], dtype=int32), array([0. , 0. , 0.5]))
    """
    trainable = updates.layout.trainable

    def block(columns: slice) -> tuple[np.ndarray, np.ndarray]:
        signs = np.sign(updates.block(columns)).astype(np.int8)
        total = signs.sum(axis=0, dtype=np.int32)
        against = (signs * np.sign(total).astype(np.int8) < 0) & trainable[columns]
        return total, np.count_nonzero(against, axis=1)

    votes = np.empty(updates.layout.size, dtype=np.int32)
    opposed = np.zeros(len(updates))
    for columns, (total, against) in zip(
        updates.columns(), updates.map_columns(block), strict=True
    ):
        votes[columns] = total
        opposed += against
    return votes, opposed / trainable.sum()


@dataclass(frozen=True)
class Rlr(RobustMean):
    """Averages by sample counts, and turns the step around where the clients' signs disagree.

    Attributes:
      threshold: θ, by how many votes the signs of a column must lean to one side: a count, or a
        fraction of the round's clients.

    >>> rows = np.array([[1.0, 1.0], [1.0, -1.0], [1.0, 4.0], [1.0, -1.0]])
    >>> Rlr(threshold=2).judge_rows(rows).aggregate
    array([ 1.  , -0.75], dtype=float32)
    """

    threshold: Annotated[
        Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, le=1)],
        BeforeValidator(count_or_fraction),
    ] = 0.4

    reference: ClassVar[str] = (
        "Özdayi, Kantarcioglu, Gel, Defending against Backdoors in Federated Learning with Robust "
        "Learning Rate, AAAI 2021"
    )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` if even a unanimous vote would not reach the threshold."""
        require(
            isinstance(self.threshold, float) or self.threshold <= participants,
            f"defense.threshold = {self.threshold} is not allowed with {participants} participants "
            f"a round: no column ever has that many votes; choose at most {participants}",
        )

    def combine(self, updates: Updates, server: Server, state: State) -> tuple[Combined, State]:
        """Averages, and negates the columns that lack agreement."""
        votes, opposed = sign_votes(updates)
        weights = sample_shares(updates, np.ones(len(updates), dtype=bool))
        aggregate = updates.mean(weights)
        backward = (np.abs(votes) < self._votes(len(updates))) & updates.layout.trainable
        np.negative(aggregate, out=aggregate, where=backward)
        return Combined(aggregate, weights, opposed), state

    def _votes(self, n: int) -> int:
        """Returns θ as a count of n clients; at most n, however many sent no finite row."""
        if isinstance(self.threshold, int):
            return min(self.threshold, n)
        return math.ceil(self.threshold * n - 1e-9)
