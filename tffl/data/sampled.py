"""Clients whose samples are drawn on access: any number of clients, none of them stored.

    q ~ Dirichlet(β · C · p)      the client's shares of the C classes; p are the overall shares
    label ~ q, image ~ uniform    among the images of that label, with replacement

A split gives every image to one client, so that there cannot be more clients than images. Here
clients share the images, as if each client were drawn from an unbounded population that the
training images represent. The samples of client c depend on (seed, c) only, not on the order of
access or the number of clients.

Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification
    Tzu-Ming Harry Hsu, Hang Qi, Matthew Brown. 2019.

The paper writes Dirichlet(α p). With α = β · C, β means the same as in the `dirichlet` split: with
balanced classes, both draw from Dirichlet(β, …, β). The paper draws images without replacement as
long as there are any.
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
    """Draws how many samples of each class a client holds.

    Args:
      shares: float64 `[classes]`, above 0, the share of each class among all training images.
      beta: Concentration β, above 0; the smaller, the fewer classes a client has.
      count: Number of samples of the client.
      generator: The client's generator.

    Returns:
      int64 `[classes]`, whose sum is `count`.
    """
    client_shares = generator.dirichlet(beta * len(shares) * shares)
    return generator.multinomial(count, client_shares)


@dataclass(frozen=True, eq=False)
class SampledClients(Sequence[ClientData]):
    """Clients 0 … `number` − 1, whose samples are drawn on each access.

    Attributes:
      pool: The samples that clients draw from.
      number: Number of clients.
      samples: Number of samples of each client.
      beta: Concentration β of a client's classes.
      seed: The experiment's seed.
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
        """Returns the samples of a client; their indices ascend and may repeat."""
        if not 0 <= client < self.number:
            raise IndexError(client)
        starts, sizes = self._classes
        draw = seeds.generator(self.seed, "sampled client", client=int(client))
        counts = sample_class_counts(sizes / sizes.sum(), self.beta, self.samples, draw)
        classes = np.repeat(np.arange(len(sizes)), counts)
        chosen = np.sort(self._order[starts[classes] + draw.integers(sizes[classes])])
        return ClientData(self.pool.indices[chosen], self.pool.labels[chosen])

    @cached_property
    def _order(self) -> np.ndarray:
        """Positions in the pool, sorted by class."""
        return np.argsort(self.pool.labels, kind="stable")

    @cached_property
    def _classes(self) -> tuple[np.ndarray, np.ndarray]:
        """The start of each class in `_order`, and its size, for classes that have samples."""
        _, starts, sizes = np.unique(
            self.pool.labels[self._order], return_index=True, return_counts=True
        )
        return starts, sizes
