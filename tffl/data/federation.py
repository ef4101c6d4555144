"""The samples of a federation: one pool, and one index array into it per client.

Samples are images, as bytes or floats, or feature vectors. Names say images throughout; what works
on images only calls `Dataset.require_images`, which refuses feature vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from tffl.core.errors import require
from tffl.core.pixels import BYTES, ChannelStatistics, PixelRange, pixel_range
from tffl.data.channels import channel_statistics


@dataclass(frozen=True)
class Dataset:
    """A labeled dataset in memory: images or feature vectors.

    Attributes:
      name: The name in `tffl list datasets`, or that of a file or folder.
      train_images: uint8 or float32 `[N, height, width, channels]`, or float32 `[N, features]`.
      train_labels: int32 `[N]`.
      train_ids: int64 `[N]`, the official index of each training image if the dataset defines
        one (CIFAR-10), else `0 … N − 1`.
      test_images: `[M, …]`, of the same type and shape.
      test_labels: int32 `[M]`.
      class_names: One name per class, at least two.
      train_clients: int32 `[N]`, the client of each training sample, if the data name them.
      client_names: One name per client of `train_clients`.

    Example:
      >>> images, labels = np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 1, 0, 1], np.int32)
      >>> Dataset("blank", images, labels, np.arange(4), images, labels, ("a", "b")).image_shape
      (8, 8, 1)
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    train_ids: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    train_clients: np.ndarray | None = None
    client_names: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Height, width, channels; or the number of features."""
        return self.train_images.shape[1:]

    @property
    def is_images(self) -> bool:
        """Whether the samples are images."""
        return self.train_images.ndim == 4

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels.

        Raises:
          UsageError: The samples are feature vectors.
        """
        self.require_images("what looks at pixels")
        height, width, channels = self.train_images.shape[1:]
        return height, width, channels

    def require_images(self, what: str) -> None:
        """Raises `UsageError` if the samples are not images, which something needs."""
        require(
            self.is_images,
            f"{what} needs images, and {self.name} holds vectors of {self.sample_shape[0]} "
            "features",
        )

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of samples, labels, clients and class names: of what decides a run."""
        digest = hashlib.sha256(repr(self.class_names).encode())
        for array in (
            *(self.train_images, self.train_labels, self.train_clients),
            *(self.test_images, self.test_labels),
        ):
            if array is not None:
                digest.update(f"{array.dtype.str} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @property
    def pixels(self) -> PixelRange:
        """The values of the darkest pixel and the brightest."""
        return pixel_range(self.train_images) if self.is_images else BYTES

    @cached_property
    def channel_statistics(self) -> ChannelStatistics:
        """Mean and standard deviation of each channel of all training images.

        Raises:
          UsageError: The samples are feature vectors.
        """
        self.require_images("data.normalization = 'per-channel'")
        return channel_statistics(self.train_images, self.pixels)


@dataclass(frozen=True, eq=False)
class ClientData:
    """The samples of one client.

    Attributes:
      indices: int32 `[n]`, positions in the federation's pool of images.
      labels: int32 `[n]`, the client's labels; an attack may have changed them.

    Example:
      >>> len(ClientData(np.array([3, 5], np.int32), np.array([0, 1], np.int32)))
      2
    """

    indices: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """Number of samples, n."""
        return len(self.indices)

    def __eq__(self, other: object) -> bool:
        """Returns whether both hold the same samples and labels, in the same order."""
        return isinstance(other, ClientData) and (
            np.array_equal(self.indices, other.indices)
            and np.array_equal(self.labels, other.labels)
        )


@dataclass(frozen=True, eq=False)
class ReplacedClients(Sequence[ClientData]):
    """A sequence of clients, some of whose samples are replaced.

    It stores the replaced samples only, so that a million clients need no copy.

    Attributes:
      original: All clients before the replacement.
      replaced: Client id → its new samples.
    """

    original: Sequence[ClientData]
    replaced: Mapping[int, ClientData]

    def __len__(self) -> int:
        """Number of clients."""
        return len(self.original)

    def __getitem__(self, client: int) -> ClientData:  # type: ignore[override]
        """Returns the samples of a client, replaced or original."""
        found = self.replaced.get(client)
        return self.original[client] if found is None else found


@dataclass(frozen=True)
class Federation:
    """The images of an experiment and who holds which of them, fixed before round 1.

    Attributes:
      dataset: The source of the images; its test images measure the accuracy.
      images: `[P, …]`, the pool of training samples. Attacks append poisoned copies, and
        `data.shift` changes what clients see; no other image is copied.
      pool_ids: int64 `[P]`, the `Dataset.train_ids` of each image in the pool; −1 for images that
        an attack appended. An attack finds its reserved images by these ids.
      clients: The samples of each client, by client id. `tffl.data.sampled` draws them on access.
      server: The server's own samples, or None.

    Example:
      >>> from tffl.config import Config, DataConfig
      >>> from tffl.data import build_federation, load_dataset
      >>> dataset = load_dataset(DataConfig(dataset="digits"))
      >>> federation = build_federation(Config(), dataset, reserved=np.empty(0, int))
      >>> len(federation.clients), len(federation.clients[0])
      (10, 145)
    """

    dataset: Dataset
    images: np.ndarray
    pool_ids: np.ndarray
    clients: Sequence[ClientData]
    server: ClientData | None = None

    def append(self, images: np.ndarray) -> tuple[Federation, np.ndarray]:
        """Returns a federation with more images in its pool, and their indices in the pool.

        Args:
          images: `[m, …]`, of the same type and shape as the pool's images.

        Returns:
          The federation, and the indices int32 `[m]` of the new images.

        Raises:
          UsageError: The images have another type or shape than those of the pool.
        """
        require(
            images.dtype == self.images.dtype and images.shape[1:] == self.images.shape[1:],
            f"images of an attack are {images.dtype} {images.shape[1:]}: they should be "
            f"{self.images.dtype} {self.images.shape[1:]}, as the training images are",
        )
        indices = np.arange(len(self.images), len(self.images) + len(images), dtype=np.int32)
        pool_ids = np.concatenate([self.pool_ids, np.full(len(images), -1, dtype=np.int64)])
        pool = np.concatenate([self.images, images])
        return replace(self, images=pool, pool_ids=pool_ids), indices

    def with_clients(self, replaced: Mapping[int, ClientData]) -> Federation:
        """Returns a federation in which some clients hold other samples, by client id."""
        return replace(self, clients=ReplacedClients(self.clients, replaced)) if replaced else self

    def class_counts(self) -> np.ndarray:
        """Returns the number of samples per client and label, int64 `[clients, classes]`."""
        classes = self.dataset.classes
        return np.stack([np.bincount(c.labels, minlength=classes) for c in self.clients])
