"""What tests of heat-map detectors share: clients whose maps are given, not made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from tffl.core.errors import UsageError
from tffl.core.pixels import BYTES, PixelRange
from tffl.data.samples import Samples
from tffl.defenses import Defense, Server, Verdict
from tffl.defenses.base import State

from .byzantine import as_updates


@dataclass
class GivenMaps:
    """Stands for an `Explainer`: hands out maps `[n, p, h, w]`, and notes what it was asked."""

    given: np.ndarray
    asked: Any = None
    pixels: PixelRange = BYTES

    def maps(self, updates: Any, probes: Any, method: str, layer: str | None) -> np.ndarray:
        self.asked = (probes, method, layer)
        return self.given[updates.client_ids, : len(probes)]

    def layer_name(self, layer: str | None = None) -> str:
        if layer == "nowhere":
            raise UsageError("no layer nowhere")
        return layer or "conv"

    def map_size(self, layer: str | None = None, size: int | None = None) -> tuple[int, int]:
        return self.given.shape[2:]


def see(maps: np.ndarray) -> Server:
    """A server to which n clients' models yield maps `[n, p, h, w]`."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100, 8, 8, 1), dtype=np.uint8)
    samples = Samples(images, np.arange(100, dtype=np.int32) % 10, 10)
    layout, model = as_updates(np.zeros((1, 2))).layout, SimpleNamespace(name="given")
    explainer: Any = GivenMaps(maps)
    return Server(model, layout, len(maps), 0, samples=samples, explainer=explainer)  # type: ignore[arg-type]


def judge_maps(
    defense: Defense, maps: np.ndarray, round: int = 1, state: State | None = None
) -> Verdict:
    """Judges clients that differ in nothing but their maps."""
    server = see(np.asarray(maps, dtype=np.float32))
    rows = np.arange(len(maps))[:, None] * np.ones(2)
    updates = replace(as_updates(rows), round=round)
    return defense.judge(updates, server, state or defense.init(server))[0]


def similar_maps(n: int = 10, p: int = 16, side: int = 4, seed: int = 0) -> np.ndarray:
    """Maps of honest clients: a common picture, and a little of their own."""
    rng = np.random.default_rng(seed)
    return (rng.random((p, side, side)) + rng.normal(0, 0.05, (n, p, side, side))).clip(0.01)
