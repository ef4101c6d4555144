"""Detectors that judge class activation maps: where in probe images each client's model looks.

    probes → maps of every client → score → threshold → vote → aggregate

`tffl.explain.maps` makes the maps, and a detector of this kind scores them. What all of them share
is here: which probes, which layer, which class, and what happens to maps that are not finite or
zero everywhere ("dead"). Both are counted, and neither is ever replaced without notice.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tffl.core.errors import require
from tffl.core.updates import Updates
from tffl.core.verdict import HeatMaps
from tffl.data.samples import PROBE_DATA
from tffl.defenses.base import State
from tffl.defenses.detector import Detector, Evidence
from tffl.defenses.server import Server
from tffl.explain.maps import Findings, Method, Probes, check_map_size
from tffl.explain.probes import draw, drawn_images
from tffl.models.shape import LAST_BLOCK, LAST_CONVOLUTION

ClassRule = Literal["true", "predicted", "fixed"]

THRESHOLD = "threshold"
"""Where the state holds the threshold of the last round."""


@dataclass(frozen=True)
class MapScores:
    """A detector's scores of the maps of n clients, all finite.

    Attributes:
      scores: float64 `[n]`.
      fitted: Weights and whatever else it wants to keep of this round.
      inputs: float32 `[n, p, …]`, the maps as it judged them, to be shown; None for nothing.
      rebuilt: As `inputs`, what an autoencoder made of them.
      best: bool `[n]`, the one whose update it selects; None if it selects nobody.
    """

    scores: np.ndarray
    fitted: Mapping[str, np.ndarray] = field(default_factory=dict)
    inputs: np.ndarray | None = None
    rebuilt: np.ndarray | None = None
    best: np.ndarray | None = None


@dataclass(frozen=True)
class CamDetector(Detector):
    """Flags clients whose models' heat maps of probe images are unusual.

    Attributes:
      probes: Number of probe images, of all classes as evenly as possible.
      probe_size: Their height and width; 0 takes the training images'. Networks that average over
        pixels before the last layer take other sizes, and give larger maps for larger probes.
      redraw: Draw other probes every round.
      class_rule: The logit that a map explains: of the probe's true class, of the class that each
        model predicts itself, or of a fixed one.
      fixed_class: That class.
      layer: The layer whose maps are made: `last-block`, which is the last convolution with the
        BatchNorm, the sum and the activation behind it; `last-convolution` alone, as when empty; or
        one of `tffl list models NAME --layers`, such as `backbone/conv2` in a nested model.
    """

    probes: Annotated[int, Field(ge=1)] = 1
    probe_size: Annotated[int, Field(ge=0, le=512)] = 0
    redraw: bool = False
    class_rule: ClassRule | None = "true"
    fixed_class: Annotated[int, Field(ge=0)] = 0
    layer: str = LAST_BLOCK

    method: ClassVar[Method]
    needs: ClassVar[tuple[str, ...]] = (PROBE_DATA,)

    def __post_init__(self) -> None:
        """Checks the options; recorded runs have an empty `layer` for the last convolution."""
        super().__post_init__()
        if self.layer == LAST_CONVOLUTION:
            object.__setattr__(self, "layer", "")

    @property
    def uses_model(self) -> bool:
        """It evaluates clients' models."""
        return True

    @abstractmethod
    def judge_maps(self, maps: np.ndarray, server: Server, round: int) -> MapScores:
        """Scores what `prepare` returned: finite maps `[n, p, h, w]` of at least one client."""

    def prepare(self, maps: np.ndarray, size: int) -> np.ndarray:
        """Returns float32 `[n, p, h, w]`; rows that are not finite are flagged, not judged.

        Args:
          maps: Raw, float32 `[n, p, h, w]`.
          size: Height and width of the probes.
        """
        return maps

    def check_server(self, server: Server) -> None:
        """Raises `UsageError` if there are too few probes, or if they yield no maps."""
        assert server.samples is not None and server.explainer is not None
        assert server.model is not None
        have, classes = len(server.samples.labels), server.samples.classes
        require(
            self.probes <= have,
            f"defense.probes = {self.probes} is not allowed: the server has {have} images",
        )
        require(
            self.fixed_class < classes,
            f"defense.fixed_class = {self.fixed_class} is not allowed: there are {classes} classes",
        )
        layer = server.explainer.layer_name(self.layer or None)
        size = server.explainer.map_size(layer, self.probe_size or None)
        check_map_size(size, f"{server.model.name}'s {layer}")

    def draw_probes(self, server: Server, round: int) -> Probes:
        """Returns the probes of a round."""
        assert server.samples is not None
        return draw(
            server.samples,
            self.probes,
            server.seed,
            size=self.probe_size or None,
            rule=self.class_rule or "true",
            fixed=self.fixed_class,
            round=round if self.redraw else 0,
        )

    def score(self, updates: Updates, server: Server) -> np.ndarray:
        """Returns the scores that `examine` finds."""
        return self.examine(updates, server, {}).scores

    def examine(self, updates: Updates, server: Server, state: State) -> Evidence:
        """Makes the maps, flags those that are not finite, and judges the rest."""
        assert server.explainer is not None
        probes = self.draw_probes(server, updates.round)
        raw = server.explainer.maps(updates, probes, self.method, self.layer or None)
        findings = Findings.of(raw)
        maps = self.prepare(raw, probes.images.shape[1]).astype(np.float32)
        usable = np.asarray(np.isfinite(maps).all(axis=(1, 2, 3)))
        scores = np.full(len(updates), np.inf)
        shown = HeatMaps(raw, drawn_images(probes, server.explainer.pixels))
        if not usable.any():
            return Evidence(scores, self._notes(findings, scores), shown=(shown,))
        found = self.judge_maps(maps[usable], server, updates.round)
        scores[usable] = found.scores
        fitted = {**found.fitted, THRESHOLD: np.array([self.threshold(scores)])}
        shown = replace(
            shown,
            inputs=_filled(found.inputs, usable),
            rebuilt=_filled(found.rebuilt, usable),
            best=_filled(found.best, usable),
        )
        selected = None if shown.best is None else shown.best == 1
        notes = self._notes(findings, scores)
        return Evidence(scores, notes, fitted, (shown,), selected=selected)

    def _notes(self, findings: Findings, scores: np.ndarray) -> tuple[str, ...]:
        """Says why a score is infinite."""
        return tuple(
            ""
            if np.isfinite(score)
            else f"{non_finite} of {self.probes} heat maps hold NaN or infinity"
            if non_finite
            else f"{dead} of {self.probes} heat maps are dead"
            for dead, non_finite, score in zip(
                findings.dead.tolist(), findings.non_finite.tolist(), scores.tolist(), strict=True
            )
        )


def _filled(part: np.ndarray | None, usable: np.ndarray) -> np.ndarray | None:
    """Returns an array for all clients, NaN where they were not judged."""
    if part is None:
        return None
    result = np.full((len(usable), *part.shape[1:]), np.nan, dtype=np.float32)
    result[usable] = part
    return result
