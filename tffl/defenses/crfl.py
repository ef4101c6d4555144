"""CRFL: average, shorten the global model to a norm, and blur it with noise.

    w = start + η·(1/n)·Σ_i Δ_i                 η: the server's learning rate
    w ← w·min(1, ρ_t / ‖w‖),                    ρ_t = ρ_0 + growth·t in round t
    w ← w + N(0, σ²·I)                          in every round but the last

CRFL: Certifiably Robust Federated Learning against Backdoor Attacks
    Chulin Xie, Minghao Chen, Pin-Yu Chen, Bo Li. ICML 2021.

What is protected is not this model but the vote of many noisy copies of it. Within the assumptions
of the paper's theorem, a backdoor of limited size in some clients' data cannot change that vote.

The paper's text was not at hand: the rule is that of the authors' code. There ρ_t is 2 + 0.1·t for
MNIST, 4 + 0.25·t for EMNIST and 2 + 0.025·t for LOAN, with a cap that no round reaches, and σ is
0.01. All their models are logistic regressions, and their ρ_0 is the norm of the first model,
rounded up. So it is here by default; a ρ_0 of 2 would leave nothing of a convolutional network.

The mean is plain, as in their code: sample counts do not matter. What tffl does otherwise:

- Norm and noise are those of the trainable columns. Their models have no others; BatchNorm
  statistics are averaged as they are.
- They evaluate a round before its noise is added. Here a round is evaluated with it, as clients
  receive the model; the last round has none. So a run cannot be resumed with more rounds, and one
  that a callback ends early ends with noise. So does every round where the number of rounds is not
  known, as in `tffl.Session`.

Other implementations (FLPoison, BackFed) shorten updates instead of the model, which has no
certificate.

The rule has no verdict on clients. Recorded is the norm of each client's own model, divided by ρ_t.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.core.geometry import norm
from tffl.core.updates import NARROW, Updates
from tffl.defenses.base import State
from tffl.defenses.parts.clipping import clip_factors, excess
from tffl.defenses.parts.noise import add_noise
from tffl.defenses.robust_mean import Combined, RobustMean
from tffl.defenses.server import Server

LEAST_NORM = 2.0
"""The smallest ρ_0 of the authors, where none is given: a model may start from zeros."""

UNKNOWN = -1.0
"""ρ_0 before the first round."""


def model_norms(updates: Updates) -> np.ndarray:
    """Returns the norms of the clients' models in the trainable columns, float64 `[n]`.

    >>> model_norms(Updates.of_rows(np.array([[0.0, 0.0], [0.0, 4.0]]), start=np.array([3.0, 0])))
    array([3., 5.])
    """

    def squares(columns: slice) -> np.ndarray:
        models = updates.block(columns).astype(np.float64) + updates.start[columns]
        return np.einsum("ij,ij->i", models, models)

    blocks = updates.map_columns(squares, trainable=True, size=NARROW)
    return np.sqrt(sum(blocks, np.zeros(len(updates))))


@dataclass(frozen=True)
class Crfl(RobustMean):
    """Averages updates without weights, shortens the model that results, and adds noise.

    `tffl certify` votes with the last model, and says what the theorem proves about the votes.

    Attributes:
      norm: ρ_0 > 0; if None, the norm of the model that round 1 begins with, and at least 2.
      growth: By how much a model may be longer in each round than in the one before.
      noise: σ >= 0 on every trainable weight, in every round but the last. With 0, only poisoned
        data of the last round can be certified against.

    >>> rows = np.array([[3.0, 4.0], [3.0, 4.0], [6.0, 8.0]])
    >>> Crfl(norm=1.9, noise=0).judge_rows(rows).aggregate.round(3)
    array([1.2, 1.6], dtype=float32)
    """

    norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    growth: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01

    reference: ClassVar[str] = (
        "Xie, Chen, Chen, Li, CRFL: Certifiably Robust Federated Learning against Backdoor "
        "Attacks, ICML 2021"
    )

    @property
    def depends_on_total_rounds(self) -> bool:
        """The last round has no noise."""
        return self.noise > 0

    def init(self, server: Server) -> State:
        """Returns a memory without ρ_0."""
        return {"norm": np.array([UNKNOWN])}

    def limit(self, first: float, round: int) -> float:
        """Returns ρ_t of a round, 1-based, given the norm of the model that round 1 began with."""
        base = max(first, LEAST_NORM) if self.norm is None else self.norm
        return base + self.growth * round

    def combine(self, updates: Updates, server: Server, state: State) -> tuple[Combined, State]:
        """Averages, shortens and blurs."""
        trainable, rate = updates.layout.trainable, server.learning_rate
        if state["norm"][0] == UNKNOWN:
            state = {"norm": np.array([norm(updates.start, updates)])}
        limit = self.limit(float(state["norm"][0]), updates.round)
        shares = np.full(len(updates), 1 / len(updates))
        mean = updates.mean(shares)
        moved = updates.start + rate * mean.astype(np.float64)
        factor = clip_factors(np.array([norm(moved, updates)]), limit)
        step = (moved * factor - updates.start) / rate
        aggregate = np.where(trainable, step, mean).astype(np.float32)
        if updates.round != server.rounds:
            add_noise(aggregate, self.noise / rate, updates, server, "crfl")
        return Combined(aggregate, shares, excess(model_norms(updates), limit)), state
