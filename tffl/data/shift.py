"""Feature shift: clients whose images differ by what they show, not by their classes.

    rotation    client i of n turns its images by  s · (2i / (n − 1) − 1)  degrees, from −s to s
    noise       client i of n adds Gaussian noise of standard deviation  s · (i + 1) / n

The test set stays as it is, and so do the server's own samples.

Federated Learning on Non-IID Data Silos: An Experimental Study
    Qinbin Li, Yiqun Diao, Quan Chen, Bingsheng He. ICDE 2022. (noise, whose σ is a share of the
    range of pixels here)
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tffl.config import Config
from tffl.core import seeds
from tffl.data.federation import Federation

STRENGTHS = {"rotation": 30.0, "noise": 0.1}
"""What `data.shift_strength` is if it is absent."""


def shifted(config: Config, federation: Federation) -> Federation:
    """Returns a federation in which every client sees its samples in its own way.

    Raises:
      UsageError: Feature vectors should be rotated.
    """
    kind = config.data.shift
    if kind == "none":
        return federation
    strength = config.data.shift_strength or STRENGTHS[kind]
    pool, count = federation.images.copy(), len(federation.clients)
    if kind == "rotation":
        federation.dataset.require_images("data.shift = 'rotation'")
    low, high = federation.dataset.pixels
    span = high - low if federation.dataset.is_images else 1.0  # features are standardized
    for client in range(count):
        own = federation.clients[client].indices
        if kind == "rotation":
            pool[own] = rotated(pool[own], angle(client, count, strength))
        else:
            draw = seeds.generator(config.seed, "feature noise", client=client)
            pool[own] = noisy(pool[own], strength * span * (client + 1) / count, draw)
    return replace(federation, images=pool)


def angle(client: int, count: int, strength: float) -> float:
    """Returns by how many degrees a client turns its images.

    >>> [angle(client, 3, 30.0) for client in range(3)]
    [-30.0, 0.0, 30.0]
    """
    return strength * (2 * client / (count - 1) - 1) if count > 1 else 0.0


def rotated(images: np.ndarray, degrees: float) -> np.ndarray:
    """Returns images `[n, height, width, channels]` turned about their center, bilinearly."""
    from scipy.ndimage import rotate

    if degrees == 0 or not len(images):
        return images
    turned = rotate(
        images.astype(np.float32), degrees, axes=(2, 1), reshape=False, order=1, mode="nearest"
    )
    return _like(images, turned)


def noisy(samples: np.ndarray, deviation: float, draw: np.random.Generator) -> np.ndarray:
    """Returns samples `[n, …]` plus Gaussian noise; bytes stay within 0 … 255."""
    noise = draw.normal(scale=deviation, size=samples.shape)
    return _like(samples, samples + noise)


def _like(samples: np.ndarray, changed: np.ndarray) -> np.ndarray:
    if samples.dtype == np.uint8:
        changed = np.clip(np.rint(changed), 0, 255)
    return changed.astype(samples.dtype)
