"""The images of a federation: one pool, and for every client an index array into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tffl.core.errors import require


@dataclass(frozen=True)
class Dataset:
    """A labeled image dataset in memory.

    Attributes:
      name: As in `tffl list datasets`.
      train_images: uint8 `[N, height, width, channels]`.
      train_labels: int32 `[N]`.
      train_ids: int64 `[N]`, the canonical index of each training image where the dataset has
        one (CIFAR-10), else `0 … N − 1`.
      test_images: uint8 `[M, height, width, channels]`.
      test_labels: int32 `[M]`.
      class_names: One per class.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    train_ids: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        height, width, channels = self.train_images.shape[1:]
        return height, width, channels


@dataclass(frozen=True, eq=False)
class ClientData:
    """What one client trains on.

    Attributes:
      indices: int32 `[n]`, positions in the federation's pool of images.
      labels: int32 `[n]`, the client's own labels, which an attack may have changed.
    """

    indices: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """Number of samples, n."""
        return len(self.indices)

    def __eq__(self, other: object) -> bool:
        """Says whether both are the same samples, in the same order, with the same labels."""
        return isinstance(other, ClientData) and (
            np.array_equal(self.indices, other.indices)
            and np.array_equal(self.labels, other.labels)
        )


@dataclass(frozen=True, eq=False)
class ReplacedClients(Sequence[ClientData]):
    """Clients of which some hold other data: as large as what has changed, however many there are.

    Attributes:
      before: All of them.
      changed: Client id → what it holds now.
    """

    before: Sequence[ClientData]
    changed: Mapping[int, ClientData]

    def __len__(self) -> int:
        """Number of clients."""
        return len(self.before)

    def __getitem__(self, client: int) -> ClientData:  # type: ignore[override]
        """Returns what a client holds now."""
        found = self.changed.get(client)
        return self.before[client] if found is None else found


@dataclass(frozen=True)
class Federation:
    """Everything that is fixed before round 1.

    Attributes:
      dataset: Where the images come from; its test part measures accuracy.
      images: uint8 `[P, height, width, channels]`, the pool of training images. Attacks append
        poisoned copies; nothing else is ever copied.
      pool_ids: int64 `[P]`, for each image of the pool its `Dataset.train_ids`; −1 for those that
        an attack appended. Reserved images are found by it.
      clients: One entry per client id; where nobody could list them all, they are drawn when they
        are asked for (`tffl.data.sampled`).
      server: The server's own shard, if the experiment grants it one.
    """

    dataset: Dataset
    images: np.ndarray
    pool_ids: np.ndarray
    clients: Sequence[ClientData]
    server: ClientData | None = None

    def append(self, images: np.ndarray) -> tuple[Federation, np.ndarray]:
        """Adds images uint8 `[m, …]` to the pool; returns the federation and their indices.

        Raises:
          UsageError: They are no such images, so that the pool would become something else.
        """
        require(
            images.dtype == np.uint8 and images.shape[1:] == self.images.shape[1:],
            f"images of an attack are {images.dtype} {images.shape[1:]}: they should be uint8 "
            f"{self.images.shape[1:]}, as the training images are",
        )
        indices = np.arange(len(self.images), len(self.images) + len(images), dtype=np.int32)
        pool_ids = np.concatenate([self.pool_ids, np.full(len(images), -1, dtype=np.int64)])
        pool = np.concatenate([self.images, images])
        return replace(self, images=pool, pool_ids=pool_ids), indices

    def with_clients(self, changed: Mapping[int, ClientData]) -> Federation:
        """Returns the federation with some clients' data replaced, given by their ids."""
        return replace(self, clients=ReplacedClients(self.clients, changed)) if changed else self

    def class_counts(self) -> np.ndarray:
        """Returns int64 `[clients, classes]`: how many samples of each label a client holds."""
        classes = self.dataset.classes
        return np.stack([np.bincount(c.labels, minlength=classes) for c in self.clients])
