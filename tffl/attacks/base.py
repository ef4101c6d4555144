"""What an attack may do: poison its clients' data before training, and their rows after it.

An attack is a frozen dataclass whose fields are its options. Every hook has a neutral default, so
that a data attack overrides `poison`, and a model attack `tamper`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tffl.data.federation import Dataset, Federation
from tffl.federated.updates import Updates


@dataclass(frozen=True)
class SuccessSet:
    """Inputs on which an attack wants the global model to answer as it pleases.

    Attributes:
      images: uint8 `[m, height, width, channels]`, `m >= 1`.
      targets: int32 `[m]`, the answers that count as success.
      source: `"test"` when no client ever trained on these images, `"train"` when the attackers
        did, so that the number measures memory and not generalization.
    """

    images: np.ndarray
    targets: np.ndarray
    source: str


@dataclass(frozen=True)
class Attack:
    """No attack: every client is honest."""

    reference: ClassVar[str] = ""
    knowledge: ClassVar[tuple[str, ...]] = ()

    def check(self, dataset: Dataset) -> None:
        """Raises `UsageError` if the attack makes no sense on this dataset."""

    def reserve(self, dataset: Dataset) -> np.ndarray:
        """Returns the training indices int64 that no honest client (nor the server) may hold."""
        return np.empty(0, dtype=np.int64)

    def poison(self, federation: Federation, malicious: np.ndarray, seed: int) -> Federation:
        """Returns the federation with the malicious clients' data poisoned.

        Args:
          federation: As partitioned; reserved images are in its pool but belong to nobody.
          malicious: Malicious client ids, int64, ascending.
          seed: The experiment's seed; draw through `tffl.seeds`.
        """
        return federation

    def tamper(self, updates: Updates, malicious: np.ndarray, seed: int) -> None:
        """Overwrites the malicious rows of `updates.deltas` in place.

        Args:
          updates: All trained updates of the round. What of it an attack may read is what it
            declares in `knowledge`.
          malicious: bool `[n]`, True where the row belongs to a malicious client.
          seed: The experiment's seed.
        """

    def success_set(self, federation: Federation, seed: int) -> SuccessSet | None:
        """Returns the inputs that measure attack success, or None if the attack has no target."""
        return None
