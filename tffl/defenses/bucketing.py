"""Bucketing: shuffle the clients, and average those that meet in a bucket.

    π = a random permutation of the n clients, anew each round
    Δ'_i = (1/s) Σ_k Δ_π(k)  over k = (i − 1)·s + 1 … i·s             i = 1 … ⌈n/s⌉

Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing
    Sai Praneeth Karimireddy, Lie He, Martin Jaggi. ICLR 2022.

The mean within a bucket is plain, as in the paper, so that no claimed sample count decides there;
to the rule behind it a bucket counts the samples of all its clients. If s does not divide n, the
last bucket averages the remaining clients. f attackers spoil up to f buckets, so the rule behind
it, as in `bucketing+krum`, must tolerate f of ⌈n/s⌉; a fraction given to it is one of the n
clients. A client is judged by its bucket, which includes honest clients that share one with an
attacker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.core import seeds
from tffl.core.errors import require
from tffl.core.updates import LARGEST_CLAIM, Updates
from tffl.defenses.base import Defense
from tffl.defenses.server import Server
from tffl.defenses.wrapper import Mixture, PreAggregation


def bucket_mixing(buckets: np.ndarray) -> np.ndarray:
    """Returns float64 `[k, n]`: each row averages the clients of one bucket.

    Args:
      buckets: int64 `[n]`, each client's bucket from 0 to k − 1, none of them empty.

    >>> bucket_mixing(np.array([0, 1, 0]))
    array([[0.5, 0. , 0.5],
           [0. , 1. , 0. ]])
    """
    member = np.arange(buckets.max() + 1)[:, None] == buckets
    return member / member.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Bucketing(PreAggregation):
    """Averages randomly chosen clients in buckets before another rule sees them.

    Attributes:
      bucket: s, clients in a bucket, at least 1; with 2, the rule behind it sees half as many
        updates, and tolerates about half as many attackers.

    >>> from tffl.defenses.median import Median
    >>> rows = np.array([[1.0], [1.1], [0.9], [1.2], [1.0], [9.0]])
    >>> bool(Bucketing(bucket=2).wrap(Median()).judge_rows(rows).aggregate[0] < 2)
    True
    """

    bucket: Annotated[int, Field(ge=1)] = 2

    reference: ClassVar[str] = (
        "Karimireddy et al., Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing, "
        "ICLR 2022"
    )

    def wrap(self, inner: Defense) -> Defense:
        """Refuses a defense that remembers clients: who shares a bucket changes every round."""
        require(
            not inner.tracks_clients,
            "bucketing cannot stand before a defense that remembers clients from round to round, "
            "as who shares a bucket changes every round; use another one, or defense.window=1",
        )
        return super().wrap(inner)

    def check(self, participants: int) -> int:
        """Returns the number of buckets; raises `UsageError` if there is only one."""
        count = -(-participants // self.bucket)
        require(
            count > 1,
            f"defense.bucket = {self.bucket} is not allowed with {participants} participants a "
            "round: all would be in one bucket; choose a smaller one",
        )
        return count

    def mix(self, updates: Updates, server: Server) -> Mixture:
        """Fills the buckets; a bucket's verdict is that of all its clients."""
        draw = seeds.generator(server.seed, "bucketing", updates.round)
        buckets = draw.permutation(np.arange(len(updates)) // self.bucket)
        counts = np.bincount(buckets, weights=updates.sample_counts)
        counts = np.minimum(counts, LARGEST_CLAIM).astype(np.int64)
        return Mixture(bucket_mixing(buckets), buckets, counts)
