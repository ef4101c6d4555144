"""Adaptive poisoning of heat-map defenses: the worst update whose maps look like everyone's.

    max_Δ  F(w'(Δ)) / F₀ − λ · max(0, D(Δ) / D₀ − 1)    subject to    ‖Δ − c‖ ≤ r

    D(Δ)  = Σ (L(w_t + Δ) − L̃)²,   L̃ the median of the honest clients' maps, pixel by pixel
    D₀    = median over them of Σ (L_i − L̃)²,   F₀ = F(w_t + c)

This is distance-constrained poisoning (`tffl.attacks.distance_constrained` explains F, w', c and r)
by attackers who know the defense: the distance of their own heat maps from the consensus is at most
that of a typical honest client. Every step follows the gradient of the objective, with second
derivatives of the network.

The attack is tffl's own, and measures how well a defense works against attackers who know it:
against cam-consensus, or with `method = "grad-cam"` against the published detectors. The maps are
of the layer that the experiment's defense looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from tffl.attacks.base import State
from tffl.attacks.bounded import BoundedAttack, ExpectedModel, project, unit
from tffl.core import seeds
from tffl.core.pixels import as_bytes
from tffl.core.updates import Updates
from tffl.data.federation import Dataset
from tffl.explain.maps import Probes
from tffl.explain.probes import draw

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary

DEFENSE, SECRET_PROBES = "defense", "probe images"


def layer_of(defense: Mapping[str, Any]) -> str:
    """Returns the layer whose heat maps a defense judges; empty for the last convolution.

    Args:
      defense: All of its options, and tables of those of combined defenses.

    >>> layer_of({"enforce": True, "cam-consensus": {"probe_size": 0, "layer": "last-block"}})
    'last-block'
    """
    tables = [defense, *(value for value in defense.values() if isinstance(value, Mapping))]
    return next((table["layer"] for table in tables if {"probe_size", "layer"} <= {*table}), "")


@dataclass(frozen=True)
class AdaptiveCam(BoundedAttack):
    """Raises the joint model's loss while the attackers' heat maps stay near the consensus.

    All attackers send the same row.

    Attributes:
      method: The heat maps of the defense.
      penalty: λ, the weight of the distance from the consensus.
      probes: Number of images on which the heat maps are compared.
      knows_probes: Compare on the server's secret probe images instead of the attackers' own; the
        server is assumed not to redraw them.

    >>> AdaptiveCam(knows="colluders").declared_knowledge()[:2]
    ('own data', "colluders' updates")
    >>> AdaptiveCam(knows_probes=True).declared_knowledge()[-1]
    'probe images'
    """

    method: Literal["grad-cam", "grad-cam++", "layer-cam"] = "layer-cam"
    penalty: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    probes: Annotated[int, Field(ge=1)] = 16
    knows_probes: bool = False

    knowledge: ClassVar[tuple[str, ...]] = (*BoundedAttack.knowledge, DEFENSE, SECRET_PROBES)
    reference: ClassVar[str] = "tffl's own, from Zheng et al., GradCAM-AE, 2025, equations 9 to 10"

    def check(self, dataset: Dataset) -> None:
        """Raises `UsageError` if there are no images to make heat maps of."""
        super().check(dataset)
        dataset.require_images("adaptive-cam")

    def declared_knowledge(self) -> tuple[str, ...]:
        """Returns what the attack reads with these options."""
        words = super().declared_knowledge()
        return words if self.knows_probes else tuple(w for w in words if w != SECRET_PROBES)

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns the row `[1, d]` that all send."""
        seen = self.seen(updates, malicious, adversary)
        expected = ExpectedModel.of(updates, malicious, seen)
        free = self.modifiable(updates.layout, adversary.seed)
        bound = self.bound(expected, updates, malicious, free)
        excess = self._excess(seen, adversary)
        move, first = np.zeros(updates.layout.size), None
        for images, labels in self.batches(adversary, updates.round):
            loss, climb = adversary.gradient(expected.joint(move), images, labels)
            first = first or max(loss, 1e-12)
            row = (expected.start + expected.center + move).astype(np.float32)
            ascent = expected.share * climb / first - self.penalty * excess(row)
            move = project(move + self.step * bound * unit(np.where(free, ascent, 0)), bound)
        return (expected.center + move).astype(np.float32)[None], state

    def _excess(self, seen: Updates, adversary: Adversary) -> Callable[[np.ndarray], np.ndarray]:
        """Returns the gradient of max(0, D / D₀ − 1) as a function of weights float32 `[d]`."""
        probes, explainer = self._probes(adversary), adversary.explainer
        layer = layer_of(adversary.config.defense.options)
        maps = explainer.maps(seen, probes, self.method, layer)
        consensus = np.median(maps, axis=0)
        usual = max(float(np.median(np.square(maps - consensus).sum(axis=(1, 2, 3)))), 1e-12)

        def gradient(weights: np.ndarray) -> np.ndarray:
            distance, slope = explainer.distance(weights, probes, self.method, consensus, layer)
            return slope / usual if distance > usual else np.zeros_like(slope)

        return gradient

    def _probes(self, adversary: Adversary) -> Probes:
        if self.knows_probes:
            assert adversary.server_samples is not None
            return draw(adversary.server_samples, self.probes, adversary.seed)
        images, labels = adversary.samples()
        rows = seeds.generator(adversary.seed, "imitated probes").permutation(len(labels))
        chosen = rows[: self.probes]
        return Probes(as_bytes(images[chosen], adversary.pixels), labels[chosen])
