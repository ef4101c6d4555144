"""How an experiment splits the images over its clients, before any poisoning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tffl.attacks import create_attack
from tffl.core.errors import require
from tffl.data.build import build_federation, load_dataset
from tffl.data.heterogeneity import label_distance, size_spread

if TYPE_CHECKING:
    from tffl.config import Config

MAX_SAMPLED = 10_000
"""Clients of a sampled partition, at most: each is drawn on its own."""

PICTURES = (".png", ".svg", ".pdf")
"""Formats of the picture."""


@dataclass(frozen=True)
class Split:
    """The number of images of each class that the server and each client hold.

    Attributes:
      holders: Names of the clients, after the server if it holds any images.
      counts: int64 `[holders, classes]`.
      class_names: One per class.
      title: Dataset and partition, in words.
      training_images: Images that were split.
      test_images: The number of test images.
      sampled: Whether clients draw from shared images, rather than have their own.
    """

    holders: list[str]
    counts: np.ndarray
    class_names: tuple[str, ...]
    title: str
    training_images: int
    test_images: int
    sampled: bool

    @classmethod
    def of(cls, config: Config) -> Split:
        """Splits the images as a simulation would: without those that the attack sets aside.

        Raises:
          UsageError: The split is impossible, or too large to show.
        """
        sampled = config.data.partition == "sampled"
        clients = config.federation.clients
        require(
            not sampled or clients <= MAX_SAMPLED,
            f"{clients} sampled clients are too many to show: show the first {MAX_SAMPLED} with "
            f"--clients {MAX_SAMPLED}; they hold the same images however many others there are",
        )
        attack = create_attack(config.attack.name, config.attack.options)
        dataset = load_dataset(config.data)
        attack.check(dataset)
        federation = build_federation(config, dataset, attack.reserve(dataset))
        holders = [f"client {index}" for index in range(len(federation.clients))]
        if config.data.partition == "natural":
            holders = list(dataset.client_names)
        counts = federation.class_counts()
        if federation.server is not None:
            own = np.bincount(federation.server.labels, minlength=dataset.classes)
            holders, counts = ["server", *holders], np.vstack([own, counts])
        return cls(
            holders,
            counts,
            dataset.class_names,
            f"{dataset.name}, {_partition(config)}",
            len(federation.images) if sampled else int(counts.sum()),
            len(dataset.test_labels),
            sampled,
        )

    def sentence(self) -> str:
        """Returns a sentence about the number of images in all and of each holder."""
        images = f"{self.training_images} training images in {len(self.holders)} shards"
        if self.sampled:
            count = len(self.holders)
            images = f"{count} clients who share {self.training_images} training images"
        sizes, held = self.counts.sum(axis=1), (self.counts > 0).sum(axis=1)
        return (
            f"{images}, each with {_range(sizes)} images of {_range(held)} classes; "
            f"{self.test_images} test images."
        )

    def heterogeneity(self) -> str:
        """Says how much the clients differ, the server aside."""
        clients = self.counts[self.holders[0] == "server" :]
        return (
            f"Mean distance of a client's class shares from everyone's: "
            f"{label_distance(clients):.3f} (total variation; 0 if all have the same). Sizes "
            f"spread by {size_spread(clients):.0%} of their mean (standard deviation)."
        )

    def draw(self, path: Path) -> bool:
        """Draws it as a picture; returns whether it could be drawn.

        Raises:
          TfflError: The file cannot be written.
        """
        from tffl.drawing import guard
        from tffl.drawing.split import split_picture

        return guard.write(
            path, split_picture, self.counts, self.holders, self.class_names, self.title
        )


def check_picture(path: Path | None) -> None:
    """Raises `UsageError` if a picture of a split cannot have this name."""
    require(
        path is None or path.suffix.lower() in PICTURES,
        f"--out {path} is not allowed: the name should end in {', '.join(PICTURES)}",
    )


def _partition(config: Config) -> str:
    data = config.data
    detail = {
        "dirichlet": f" (beta = {data.beta:g})",
        "dirichlet-size": f" (beta = {data.beta:g})",
        "sampled": f" (beta = {data.beta:g})",
        "shards": f" ({data.classes_per_client} classes a client)",
    }
    shift = "" if data.shift == "none" else f", shifted by {data.shift}"
    return f"{data.partition}{detail.get(data.partition, '')}{shift}, seed {config.seed}"


def _range(values: np.ndarray) -> str:
    low, high = values.min(), values.max()
    return str(low) if low == high else f"{low} to {high}"
