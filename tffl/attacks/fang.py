"""Fang's attacks on Krum and on the trimmed mean: against the honest change, within its reach.

Both go against s, the sign of the honest mean update.

fang-krum sends −λ·s, with the largest λ of a halving search with which Krum chooses that row among
k honest updates and q crafted ones. Krum sums the k − 2 smallest squared distances of each row; of
those of a crafted row, q − 1 are 0, r = k − q − 1 lead to honest updates, and each of these is at
least (λ‖s‖ − max_i ‖x_i‖)². The honest row of lowest score S (counting honest neighbors only, which
is never too low) wins beyond

    λ ≤ √(S / (r·‖s‖²)) + max_i ‖x_i‖ / ‖s‖

where the search starts. It ends at λ < 1e-5, and sends that. When all honest updates are known, q
is the number m of malicious participants; otherwise the k seen updates stand in for the honest
ones, and q grows from 1 to m until a λ is found.

fang-trimmed-mean sends, in every coordinate, values beyond the honest ones, on the side that s
points away from. With e the smallest honest value where s = 1, the largest where s = −1:

    all honest updates known:  uniform between e and e·b or e/b, whichever lies outward (b = 2)
    otherwise:                 uniform in [μ − 4σ, μ − 3σ] where s = 1, [μ + 3σ, μ + 4σ] elsewhere

It also works against the coordinate-wise median.

Local Model Poisoning Attacks to Byzantine-Robust Federated Learning
    Minghong Fang, Xiaoyu Cao, Jinyuan Jia, Neil Zhenqiang Gong. USENIX Security 2020.

Deviations: the bound on λ is derived above, for Krum's squared distances and with ‖s‖ for √d, since
s is 0 in dead coordinates; it is of the form of the paper's Theorem 1, whose text could not be
verified. Krum's f is taken as q; with n ≤ 2m + 1 there is no bound (r ≤ 0), and r = 1 is taken.
The intervals of the second attack lie around updates, not around models as in the paper; a trimmed
mean that drops m values at each end, or a median, does not see the difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args

import numpy as np
from pydantic import BeforeValidator, Field

from tffl.attacks.base import State
from tffl.attacks.model_attack import InformedAttack, Spread
from tffl.attacks.statistics import Line, generators, mean, per_coordinate
from tffl.core.geometry import squared_distances
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary

RULE = "aggregation rule"
SMALLEST = 1e-5
"""λ below which the search ends."""


def spread_or_distance(value: Any) -> Any:
    """Reads the name of a spread, or a distance."""
    if value in get_args(Spread):
        return value
    try:
        distance = float(value)
    except (TypeError, ValueError):
        distance = -1
    if not 0 <= distance < math.inf:
        raise ValueError("'none', 'own' or 'noise', or a distance of at least 0")
    return distance


SpreadOrDistance = Annotated[Spread | float, BeforeValidator(spread_or_distance)]


def nearest_sums(distances: np.ndarray, neighbors: int) -> np.ndarray:
    """Returns the sum of the smallest `neighbors` entries of each row, float64 `[n]`."""
    return np.sort(distances, axis=1)[:, :neighbors].sum(axis=1)


def krum_picks_crafted(
    honest: np.ndarray, to_crafted: np.ndarray, crafted: int, apart: float = 0.0
) -> bool:
    """Says whether Krum with f = `crafted` prefers a crafted row to all honest ones.

    Args:
      honest: Squared distances of honest rows, float64 `[k, k]`, zeros on the diagonal.
      to_crafted: Their squared distances to the crafted row, float64 `[k]`.
      crafted: q, how many copies of it there are.
      apart: Squared distance of the copies from the row.
    """
    neighbors = max(len(honest) - 2, 1)
    copies = np.concatenate([np.full(crafted - 1, apart), to_crafted])
    others = np.repeat(to_crafted[:, None], crafted, axis=1)
    itself = np.diag(np.full(len(honest), np.inf))
    rivals = nearest_sums(np.hstack([honest + itself, others]), neighbors)
    return bool(nearest_sums(copies[None], neighbors)[0] < rivals.min())


def largest_lambda(line: Line, honest: np.ndarray, crafted: int) -> float:
    """Returns the bound on λ; see the module's docstring.

    Args:
      line: Distances from −λ·s to the honest rows; `line.square` > 0.
      honest: Squared distances of honest rows, float64 `[k, k]`.
      crafted: q.
    """
    itself = np.diag(np.full(len(honest), np.inf))
    neighbors = min(max(len(honest) - 2, 1), len(honest) - 1)
    lowest = nearest_sums(honest + itself, neighbors).min()
    left = max(len(honest) - crafted - 1, 1)
    return float(
        np.sqrt(lowest / (left * line.square)) + np.sqrt(line.constant.max() / line.square)
    )


def search(line: Line, honest: np.ndarray, crafted: int, apart: float = 0.0) -> tuple[float, bool]:
    """Returns λ, and whether Krum chooses a crafted row with it; 0 if an honest row is not finite.

    Args:
      line: Distances from −λ·s to the honest rows; `line.square` > 0.
      honest: Squared distances of honest rows, float64 `[k, k]`.
      crafted: q, how many rows are crafted.
      apart: Squared distance of the others from the first of them.
    """
    step = largest_lambda(line, honest, crafted)
    if not np.isfinite(step):
        return 0.0, False
    while step >= SMALLEST:
        if krum_picks_crafted(honest, line.at(step), crafted, apart):
            return step, True
        step /= 2
    return step, False


@dataclass(frozen=True)
class FangKrum(InformedAttack):
    """Sends the farthest row against the honest direction that Krum would still choose.

    Attributes:
      spread: How the colluders' rows differ. `none` or 0: not at all. `own`: each sends its own
        trained update, plus what the crafted row has beyond the mean of the updates that the
        attackers see. `noise`: each adds its own Gaussian noise to the crafted row. A number: the
        Euclidean distance of the other rows from the first one, each in a random direction; the
        search assumes that it is small against the distances of honest updates.

    Krum's aggregate, which is one of the rows, points against the honest mean:

    >>> rows = np.random.default_rng(0).normal(1, 2, (10, 50))
    >>> sent = FangKrum().poison_rows(rows, malicious=[0, 1, 2])
    >>> from tffl.defenses import Krum
    >>> aggregate = Krum(malicious=3).judge_rows(sent).aggregate
    >>> bool(rows[3:].mean() > 0.5), bool(aggregate.mean() < -0.5)
    (True, True)
    """

    spread: SpreadOrDistance = 0.0  # type: ignore[assignment]

    reference: ClassVar[str] = (
        "Fang et al., Local Model Poisoning Attacks to Byzantine-Robust Federated Learning, "
        "USENIX Security 2020"
    )
    knowledge: ClassVar[tuple[str, ...]] = (*InformedAttack.knowledge, RULE)

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns the rows `[m, d]`, or `[1, d]` if all send the same."""
        seen = self.seen(updates, malicious, adversary)
        own = updates.select(malicious)
        against = -np.sign(mean(seen))
        line = Line.of(seen, np.zeros_like(against), against)
        row = self._step(line, squared_distances(seen), len(own)) * against
        if self._apart == 0:
            return row[None].astype(np.float32), state
        return self._copies(row, own, adversary), state

    @property
    def _apart(self) -> float:
        """Distance of the other rows from the first one, as crafted."""
        return 0.0 if isinstance(self.spread, str) else self.spread

    def _step(self, line: Line, honest: np.ndarray, malicious: int) -> float:
        if line.square == 0:
            return 0.0
        step = 0.0
        for crafted in [malicious] if self.knows == "all-benign" else range(1, malicious + 1):
            step, chosen = search(line, honest, crafted, self._apart**2)
            if chosen:
                break
        return step

    def _copies(self, row: np.ndarray, own: Updates, adversary: Adversary) -> np.ndarray:
        """Returns `row`, and around it one more for each further colluder, float32 `[m, d]`."""
        sources = generators(own, adversary, "fang-krum")

        def drawn(part: np.ndarray) -> np.ndarray:
            return np.stack([source.standard_normal(part.shape[1]) for source in sources])

        noise = per_coordinate(own, drawn)
        noise *= self._apart / np.linalg.norm(noise, axis=1, keepdims=True)
        noise[0] = 0
        return noise + row.astype(np.float32)


def beyond_extremes(part: np.ndarray, b: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nearer and the farther end of each coordinate's interval, float64 `[width]`.

    Args:
      part: All honest updates, float64 `[n, width]`.
      b: How far the farther end is, as a factor above 1.
    """
    rising = part.mean(axis=0) > 0
    edge = np.where(rising, part.min(axis=0), part.max(axis=0))
    # Away from the other values: multiply a positive maximum or a negative minimum, else divide.
    grows = (edge > 0) ^ rising
    return edge, np.where(grows, edge * b, edge / b)


def beyond_deviations(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nearer and the farther end of each coordinate's interval, float64 `[width]`.

    Args:
      part: Updates that stand in for the honest ones, float64 `[n, width]`.
    """
    center, deviation = part.mean(axis=0), part.std(axis=0)
    away = np.where(center > 0, -deviation, deviation)
    return center + 3 * away, center + 4 * away


@dataclass(frozen=True)
class FangTrimmedMean(InformedAttack):
    """Sends values beyond the honest ones, on the side against their mean.

    Attributes:
      b: Factor from the extremes of the honest updates to the far end of the interval, if all of
        them are known.

    Both honest means are positive, so the row lies below the honest values:

    >>> rows = np.array([[0.0, 0.0], [1.0, 2.0], [1.0, 4.0], [3.0, 2.0]])
    >>> sent = FangTrimmedMean(b=2).poison_rows(rows, malicious=[0])[0]
    >>> bool((sent <= [1, 2]).all() and (sent >= [0.5, 1]).all())
    True
    """

    b: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 2.0

    reference: ClassVar[str] = FangKrum.reference
    knowledge: ClassVar[tuple[str, ...]] = (*InformedAttack.knowledge, RULE)

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns the rows `[m, d]`."""
        sources = generators(updates.select(malicious), adversary, "fang-trimmed-mean")

        def drawn(part: np.ndarray) -> np.ndarray:
            full = self.knows == "all-benign"
            near, far = beyond_extremes(part, self.b) if full else beyond_deviations(part)
            shares = np.stack([source.random(part.shape[1]) for source in sources])
            return near + shares * (far - near)

        return per_coordinate(self.seen(updates, malicious, adversary), drawn), state
