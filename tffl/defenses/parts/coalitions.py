"""Which clients push together, and what that costs: the search of `tffl.defenses.coalition`.

Given the mean cosines A of n clients' deviations, and what each of them costs each class, h_ic, for
a client i and a group S of k clients:

    cohesion(S) = mean_{i≠j∈S} A_ij − mean_{i∈S, j∉S} A_ij
    gap_c(S)    = mean_{i∈S} h_ic − mean_{i∉S} h_ic
    breadth(S)  = max(0, Σ_c gap_c) / Σ_c |gap_c|

    cost(S)     = breadth(S) · max(t_Welch / 2.3, t_Student / 2.1) / (1 + 1/k) / widening(n)
    excess(S)   = max( cost(S) · min(1, cohesion(S) / 0.35) , cohesion(S) / 0.95 )
    alone(i)    = breadth({i}) · (robust z of mean_c h_ic) / 3.5

t compares what the members cost, on average over the classes, with what all others do, with the
variances of both sides apart (Welch) or as one (Student). Honest clients of uneven data are
coherent, too, but cost about what others cost: the expected cost of a group does not depend on who
is in it, as a sum over clients does not depend on their order. What they do cost comes from classes
that they lack, and they make up for it in those that they have, so that their breadth is small.
Attackers harm most classes.

Chance makes some pair look costly more easily than some group of eight, hence 1 + 1/k, and t
spreads more widely among few clients, hence `widening`. The less a group coheres, the more it has
to cost. Members who all but send the same, against the others, need not cost anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from tffl.core.thresholds import NORMAL

WELCH, STUDENT = 2.3, 2.1
"""Limits on breadth times t. Honest groups reached 0.9 of the limit in tuning rounds."""

CLOSE = 0.35
"""Cohesion below which a group has to cost more. Honest groups that cost have 0.2 to 0.3."""

CLOSED = 0.95
"""Limit on cohesion. Honest groups reached 0.83 in tuning rounds, and clones have 0.9 to 1.6."""

ALONE = 3.5
"""Limit on breadth times robust z of a single client.

Honest ones reached 1 in tuning rounds, but one with hardly any class but one (Dirichlet 0.1) 3.9.
"""

TAIL, USUAL = 1.6e-5, 5.5
"""Student's distribution for 20 clients has that much beyond this value."""

FOLLOWING = 2 / 3
"""How far on the way from the others to a group its followers begin."""

EIGENVECTORS = 3
"""How many leading ones propose groups."""

Measure: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Who is left, bool `[n]`, m of them → what each costs each class, float64 `[m, classes]`."""

TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Coalitions:
    """What a search found among n clients.

    Attributes:
      groups: int64 `[n]`, the number of the group of each member, in the order in which they were
        found, from 0 on; −1 for others.
      evidence: float64 `[n]`: `excess` of its group for a member, above 1; for another client that
        of the best group with it that was not convicted, at most 1.
      suspects: bool `[n]`, the group that the search found first, convicted or not.
      costs: float64 `[n]`, what each client cost on average over the classes when they were found.
    """

    groups: np.ndarray
    evidence: np.ndarray
    suspects: np.ndarray
    costs: np.ndarray

    @property
    def members(self) -> np.ndarray:
        """Who is in any group, bool `[n]`."""
        return self.groups >= 0


def proposals(affinity: np.ndarray) -> np.ndarray:
    """Returns groups that may push together, bool `[k, n]`, distinct, of 2 to n // 2 clients.

    They are the clients at either end of the leading eigenvectors, and the branches of the tree
    that average linkage grows.

    Args:
      affinity: Symmetric, float64 `[n, n]`, n at least 4.

    >>> pair = np.eye(4)
    >>> pair[0, 2] = pair[2, 0] = 0.9
    >>> [True, False, True, False] in proposals(pair).tolist()
    True
    """
    n = len(affinity)
    groups = [*_ends(affinity), *_branches(affinity)]
    sizes = np.array([len(group) for group in groups])
    masks = np.zeros((len(groups), n), dtype=bool)
    masks[np.repeat(np.arange(len(groups)), sizes), np.concatenate(groups)] = True
    return np.unique(masks, axis=0)


def _ends(affinity: np.ndarray) -> list[np.ndarray]:
    _, vectors = np.linalg.eigh(affinity)
    orders = [np.argsort(vector, kind="stable") for vector in vectors.T[-EIGENVECTORS:]]
    sizes = range(2, len(affinity) // 2 + 1)
    return [end for order in orders for size in sizes for end in (order[:size], order[-size:])]


def _branches(affinity: np.ndarray) -> list[np.ndarray]:
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    n = len(affinity)
    apart = np.maximum(np.diag(affinity).mean() - affinity, 0)
    np.fill_diagonal(apart, 0)
    branches = [np.array([leaf]) for leaf in range(n)]
    for left, right, _, _ in linkage(squareform(apart, checks=False), "average"):
        branches.append(np.concatenate([branches[int(left)], branches[int(right)]]))
    return [branch for branch in branches[n:] if len(branch) <= n // 2]


def cohesion(affinity: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns how much more members have in common with each other than with others, `[k]`.

    Args:
      affinity: float64 `[n, n]`.
      groups: bool `[k, n]`, each of at least 2 and less than n clients.
    """
    inside = groups.astype(np.float64)
    size = inside.sum(axis=1)
    toward = inside @ affinity
    within = np.einsum("ki,ki->k", toward, inside) - inside @ np.diag(affinity)
    across = np.einsum("ki,ki->k", toward, 1 - inside)
    return within / (size * (size - 1)) - across / (size * (affinity.shape[0] - size))


def coherence(affinity: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Returns how much more each client has in common with a group than with others, `[n]`.

    A client itself counts on neither side, and a side without anyone as 0.

    Args:
      affinity: float64 `[n, n]`.
      group: bool `[n]`.

    >>> pair = np.eye(4)
    >>> pair[0, 2] = pair[2, 0] = 0.9
    >>> coherence(pair, np.array([True, False, True, False]))
    array([0.9, 0. , 0.9, 0. ])
    """
    apart = ~np.eye(len(group), dtype=bool)
    inside, outside = apart & group, apart & ~group
    toward, away = (
        (affinity * side).sum(axis=1) / np.maximum(side.sum(axis=1), 1)
        for side in (inside, outside)
    )
    return np.asarray(toward - away)


def cost(costs: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns what groups cost more than the others, relative to the limit, float64 `[k]`.

    Args:
      costs: What each client costs each class, float64 `[n, classes]`.
      groups: bool `[k, n]`, each of at least 2 and at most n − 2 clients.

    >>> costs = np.array([[0.0], [1.0], [0.0], [1.0], [0.0], [1.0], [9.0], [9.2]])
    >>> cost(costs, np.array([[False] * 6 + [True] * 2])).round(2)
    array([5.05])
    """
    ratios = np.maximum(*_statistics(costs.mean(axis=1), groups))
    return breadth(costs, groups) * ratios / widening(len(costs)) / (1 + 1 / groups.sum(axis=1))


def alone(costs: np.ndarray) -> np.ndarray:
    """Returns what each client costs more than the median one, relative to the limit, `[n]`.

    Args:
      costs: float64 `[n, classes]`.

    >>> alone(np.array([[-1.0], [-0.5], [0.0], [0.5], [1.0], [9.0]])).round(2)
    array([0.  , 0.  , 0.  , 0.  , 0.  , 2.25])
    """
    total = costs.mean(axis=1)
    middle = np.median(total)
    spread = NORMAL * np.median(np.abs(total - middle))
    beyond = np.maximum(total - middle, 0) / max(spread, TINY)
    return breadth(costs, np.eye(len(costs), dtype=bool)) * beyond / ALONE


def breadth(costs: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns which share of the differences is harm, `[k]`: 1 if no class gains, 0 if all do.

    Args:
      costs: float64 `[n, classes]`.
      groups: bool `[k, n]`.

    >>> specialists = np.array([[-3.0, 1, 1, 1], [-3.0, 1, 1, 1], [0.0, 0, 0, 0], [0.0, 0, 0, 0]])
    >>> breadth(specialists, np.array([[True, True, False, False]]))
    array([0.])
    """
    inside = groups.astype(np.float64)
    size = inside.sum(axis=1, keepdims=True)
    gaps = inside @ costs / size - (1 - inside) @ costs / (len(costs) - size)
    return np.maximum(gaps.sum(axis=1), 0) / np.maximum(np.abs(gaps).sum(axis=1), TINY)


def _statistics(costs: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns both t of costs `[n]`, relative to their limits, each `[k]`."""
    n, size = len(costs), groups.sum(axis=1)
    rest = n - size
    (mean, squares), (other, others) = _moments(costs, groups), _moments(costs, ~groups)
    apart = squares / (size * (size - 1)) + others / (rest * (rest - 1))
    pooled = (squares + others) / (n - 2) * (1 / size + 1 / rest)
    with np.errstate(over="ignore"):
        welch, student = ((mean - other) / np.sqrt(np.maximum(p, TINY)) for p in (apart, pooled))
    return welch / WELCH, student / STUDENT


def _moments(costs: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and sum of squared deviations of each group."""
    inside = groups.astype(np.float64)
    mean = inside @ costs / inside.sum(axis=1)
    deviations = (costs - mean[:, None]) * inside
    return mean, np.einsum("ki,ki->k", deviations, deviations)


def widening(clients: int) -> float:
    """Returns how much farther out t is that is as rare as 5.5 for 20 clients; at least 1.

    >>> [round(widening(n), 2) for n in (6, 10, 20, 100)]
    [3.77, 1.52, 1.0, 1.0]
    """
    from scipy.stats import t

    return max(1.0, float(t.isf(TAIL, clients - 2)) / USUAL)


@dataclass(frozen=True)
class Search:
    """Takes out the group that costs most beyond chance, again and again, until none does.

    No more than half of the clients are ever taken out. What the others cost is measured again
    after each group, since it was another average to which that group had contributed.

    Attributes:
      least: The least cohesion of a group.
      relief: What the limit is multiplied by for the group of all who were convicted last time.
    """

    least: float
    relief: float

    def __call__(self, affinity: np.ndarray, measure: Measure, held: np.ndarray) -> Coalitions:
        """Searches the clients of one round.

        Args:
          affinity: Mean cosines A, symmetric float64 `[n, n]`, n at least 4.
          measure: Returns h of those who are left.
          held: bool `[n]`, who was convicted last time.
        """
        n = len(held)
        groups, evidence, suspects = np.full(n, -1), np.zeros(n), np.zeros(n, dtype=bool)
        first = np.zeros(n)
        while True:
            left = groups < 0
            room, costs = n // 2 - int((~left).sum()), measure(left)
            here = affinity[np.ix_(left, left)]
            found, ratios = self._weigh(here, costs, held[left], room)
            evidence[left] = np.minimum(
                np.where(found, ratios[:, None], 0).max(axis=0, initial=0), 1
            )
            if len(found) == 0:
                break
            best = int(np.argmax(ratios))
            group = found[best]
            if not suspects.any():
                suspects[left], first = group, costs.mean(axis=1)
            if ratios[best] <= 1:
                break
            if group.sum() > 1:
                joining = _followers(here, group)[: room - int(group.sum())]
                group = group | np.isin(np.arange(len(group)), joining)
            members = np.flatnonzero(left)[group]
            evidence[members], groups[members] = ratios[best], groups.max() + 1
        return Coalitions(groups, evidence, suspects, first)

    def _weigh(
        self, affinity: np.ndarray, costs: np.ndarray, held: np.ndarray, room: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns groups of at most `room` clients and the excess of each, or single clients.

        Single ones only if no group exceeds its limit: whoever costs most may belong to one.
        """
        proposed = proposals(affinity) if room >= 2 else np.empty((0, len(costs)), dtype=bool)
        groups = np.concatenate([proposed, held[None]])
        relief = np.append(np.ones(len(proposed)), self.relief)
        sizes = groups.sum(axis=1)
        possible = (sizes >= 2) & (sizes <= min(room, len(costs) - 2))
        groups, relief = groups[possible], relief[possible]
        coherence = cohesion(affinity, groups)
        coherent = coherence >= self.least * relief
        groups, relief, coherence = groups[coherent], relief[coherent], coherence[coherent]
        ratios = cost(costs, groups) * np.minimum(1, coherence / CLOSE)
        ratios = np.maximum(ratios, coherence / CLOSED) / relief
        if ratios.max(initial=0) > 1 or room < 1:
            return groups, ratios
        singles = np.eye(len(costs), dtype=bool)
        return np.concatenate([groups, singles]), np.append(ratios, alone(costs))


def _followers(affinity: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Returns who else belongs to a group, nearest first, int64 `[m]`.

    They lie beyond two thirds of the way from the others to the members, whatever they cost: the
    data of their own may hide it.
    """
    near = affinity[group].mean(axis=0)
    border = near[~group].mean() + FOLLOWING * cohesion(affinity, group[None]).item()
    rows = np.flatnonzero(~group & (near > border))
    return rows[np.argsort(-near[rows], kind="stable")]
