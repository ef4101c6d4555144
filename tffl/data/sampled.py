"""Clients that are drawn when they are asked for: as many as one likes, and nothing kept of any.

    q ~ Dirichlet(β · C · p)      the client's own shares of the C classes, whose shares are p
    label ~ q, image ~ uniform    of that class, with replacement, for each of its samples

A split deals every image once, so that there cannot be more clients than images. Here clients share
the images, as if each were a draw from an endless population that the training images stand for.
What client c holds depends on (seed, c) and on nothing else: not on who was asked for before, nor
on how many clients there are.

Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification
    Tzu-Ming Harry Hsu, Hang Qi, Matthew Brown. 2019.

The paper writes Dirichlet(α p); α = β · C makes β the concentration that it is in the `dirichlet`
split: with balanced classes both draw from Dirichlet(β, …, β). The paper draws images without
replacement while they last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tffl.core import seeds
from tffl.data.federation import ClientData


def sample_class_counts(
    shares: np.ndarray, beta: float, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Draws a client's shares of the classes, and how many samples of each it holds.

    Args:
      shares: float64 `[classes]`, above 0; those of all training images.
      beta: Concentration, above 0; the smaller, the fewer classes a client has.
      count: Samples of the client.
      generator: Of the client.

    Returns:
      int64 `[classes]`, their sum is `count`.
    """
    own = generator.dirichlet(beta * len(shares) * shares)
    return generator.multinomial(count, own)


@dataclass(frozen=True, eq=False)
class SampledClients(Sequence[ClientData]):
    """Clients 0 … `number` − 1, each drawn anew whenever it is asked for.

    Attributes:
      pool: What they draw from.
      number: How many there are.
      samples: What each of them holds.
      beta: Concentration of their classes.
      seed: The experiment's.
    """

    pool: ClientData
    number: int
    samples: int
    beta: float
    seed: int

    def __len__(self) -> int:
        """Number of clients."""
        return self.number

    def __getitem__(self, client: int) -> ClientData:  # type: ignore[override]
        """Draws a client; its indices ascend, and may repeat."""
        if not 0 <= client < self.number:
            raise IndexError(client)
        starts, sizes = self._classes
        draw = seeds.generator(self.seed, "sampled client", client=int(client))
        counts = sample_class_counts(sizes / sizes.sum(), self.beta, self.samples, draw)
        kinds = np.repeat(np.arange(len(sizes)), counts)
        chosen = np.sort(self._order[starts[kinds] + draw.integers(sizes[kinds])])
        return ClientData(self.pool.indices[chosen], self.pool.labels[chosen])

    @cached_property
    def _order(self) -> np.ndarray:
        """Positions in the pool, by class."""
        return np.argsort(self.pool.labels, kind="stable")

    @cached_property
    def _classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each class that there is begins in `_order`, and its size."""
        _, starts, sizes = np.unique(
            self.pool.labels[self._order], return_index=True, return_counts=True
        )
        return starts, sizes
