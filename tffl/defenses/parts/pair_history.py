"""What a server remembers of its clients and of each two of them, with forgetting.

A mean over the rounds of a client, or over those that two clients shared: the weight of a round
shrinks by λ with each later one that counts for the same client or pair.

    W ← λ·W + 1,   mean ← mean + (value − mean) / W
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

MOST = 1000
"""How many clients are remembered: those that took part last, and all of the last round.

Pairs of so many take 16 MB.
"""

PAIRED = ("pairs", "pair_weights")
"""What is a matrix of all pairs."""


@dataclass(frozen=True)
class PairHistory:
    """Means over rounds, of m clients.

    Attributes:
      ids: The clients, ascending, int64 `[m]`.
      rounds: When each took part last, int64 `[m]`.
      pairs: Means of pairs, symmetric float64 `[m, m]`.
      pair_weights: W of pairs, float64 `[m, m]`; 0 for those who have not met.
      values: Means of clients, float64 `[m, k]`.
      weights: W of clients, float64 `[m]`.
      held: Who was convicted in its last round, bool `[m]`.
    """

    ids: np.ndarray
    rounds: np.ndarray
    pairs: np.ndarray
    pair_weights: np.ndarray
    values: np.ndarray
    weights: np.ndarray
    held: np.ndarray

    @classmethod
    def empty(cls, values: int) -> PairHistory:
        """Remembers nobody.

        Args:
          values: k, how many each client has.
        """
        return cls._of(np.empty(0, np.int64), values)

    @classmethod
    def of_state(cls, state: Mapping[str, np.ndarray]) -> PairHistory:
        """Reads what `state` returned."""
        return cls(**{field.name: state[field.name] for field in fields(cls)})

    @classmethod
    def _of(cls, ids: np.ndarray, values: int) -> PairHistory:
        n = len(ids)
        pairs, lines = np.zeros((2, n, n)), np.zeros((n, values))
        rounds, held = np.zeros(n, np.int64), np.zeros(n, dtype=bool)
        return cls(ids, rounds, pairs[0], pairs[1], lines, np.zeros(n), held)

    @property
    def state(self) -> dict[str, np.ndarray]:
        """All arrays by name."""
        return dict(vars(self))

    def with_pairs(
        self, ids: np.ndarray, round: int, pairs: np.ndarray, forgetting: float
    ) -> PairHistory:
        """Adds what each two clients of a round have in common.

        Args:
          ids: Who took part, ascending, int64 `[n]`.
          round: 1-based.
          pairs: float64 `[n, n]`.
          forgetting: λ, from 0 to 1.
        """
        grown = self._holding(ids)
        at = np.searchsorted(grown.ids, ids)
        both = np.ix_(at, at)
        grown.rounds[at] = round
        grown.pair_weights[both] = forgetting * grown.pair_weights[both] + 1
        grown.pairs[both] += (pairs - grown.pairs[both]) / grown.pair_weights[both]
        return grown._latest(max(MOST, len(ids)))

    def with_values(self, ids: np.ndarray, values: np.ndarray, forgetting: float) -> PairHistory:
        """Adds values float64 `[n, k]` of clients who are remembered."""
        at = np.searchsorted(self.ids, ids)
        means, weights = self.values.copy(), self.weights.copy()
        means[at] = self.means(ids, values, forgetting)
        weights[at] = forgetting * weights[at] + 1
        return replace(self, values=means, weights=weights)

    def means(self, ids: np.ndarray, values: np.ndarray, forgetting: float) -> np.ndarray:
        """Returns what the means of these clients would be with these values, float64 `[n, k]`."""
        at = np.searchsorted(self.ids, ids)
        weight = forgetting * self.weights[at, None] + 1
        return self.values[at] + (values - self.values[at]) / weight

    def of(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns pairs float64 `[n, n]` and held bool `[n]` of clients who are remembered."""
        at = np.searchsorted(self.ids, ids)
        return self.pairs[np.ix_(at, at)], self.held[at]

    def convicting(self, ids: np.ndarray, convicted: np.ndarray) -> PairHistory:
        """Notes whom the verdict of a round convicted, bool `[n]`."""
        held = self.held.copy()
        held[np.searchsorted(self.ids, ids)] = convicted
        return replace(self, held=held)

    def _holding(self, ids: np.ndarray) -> PairHistory:
        """Returns a copy with room for these clients."""
        grown = self._of(np.union1d(self.ids, ids), self.values.shape[1])
        at = np.searchsorted(grown.ids, self.ids)
        for name, array in vars(self).items():
            if name != "ids":
                getattr(grown, name)[np.ix_(at, at) if name in PAIRED else at] = array
        return grown

    def _latest(self, most: int) -> PairHistory:
        """Forgets whoever has been away longest, if there are too many."""
        if len(self.ids) <= most:
            return self
        kept = np.sort(np.argsort(-self.rounds, kind="stable")[:most])
        return PairHistory(
            **{
                name: array[np.ix_(kept, kept)] if name in PAIRED else array[kept]
                for name, array in vars(self).items()
            }
        )
