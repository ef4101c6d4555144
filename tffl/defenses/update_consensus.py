"""Update consensus: who is far from the median update, points elsewhere, or has a near-duplicate.

    m   = coordinate-wise median of the updates
    d_i = ‖Δ_i − m‖,   a_i = 1 − cos(Δ_i, m),   ν_i = min_{j ≠ i} ‖Δ_i/‖Δ_i‖ − Δ_j/‖Δ_j‖‖
    z(x, s)_i = (x_i − median x) / max(1.4826·MAD x, s·median x)
    score_i = max( z(d, 0.3)_i,  z(a, 0.2)_i,  k·a_i,  k·q·median ν / ν_i )       flagged above k

So a client is flagged if either z exceeds k = 4, if it points against the median (a > 1), or if the
direction of another is nearer to its own than q = 0.5 times what is usual. The last test finds
colluders who send the same, whatever its length, and a client whose update they copy is suspected
with them.

This is tffl's own, and one part of `shield`. Robust z-scores are from: How to Detect and Handle
Outliers, Boris Iglewicz and David Hoaglin, 1993. Choices:

- The spreads have floors that grow with the median: no unit, no scale. Distances of many
  coordinates all but agree, so that their MAD would make a few percent suspicious. A client with
  more data, or trained with plain SGD on uneven data, easily goes twice as far as the others; so it
  takes 2.2 times the median distance at least.
- When 8 of 20 flip their sign, they stretch the MAD so far that no z exceeds 4, although every one
  is above all others'. Their cosines are negative, and honest ones hardly ever are. If most are
  negative, the attackers determine the median, and that test is switched off.
- In tuning rounds of honest clients, the nearest direction was never nearer than 0.8 times what is
  usual; the colluders of the directed deviation attack, who draw the same signs, were at 0.2–0.3.
- Only trainable columns count, and BatchNorm statistics do not; heat maps depend on them.
- Few attackers cannot move the median. From about a quarter on they do, as honest clients spread
  and they do not. `reference_point = "root"` puts the update that the server gets
  from samples of its own in the place of m, in all tests, stretched to the clients' median length:
  it may have trained on far less data, and only its direction is to be trusted. Pointing against it
  counts however many do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

import numpy as np
from pydantic import Field

from tffl.core import geometry
from tffl.core.errors import UsageError, require
from tffl.core.layout import WeightLayout
from tffl.core.thresholds import NORMAL, TOLERANCE
from tffl.core.updates import Updates
from tffl.data.samples import ROOT_DATA
from tffl.defenses.base import State
from tffl.defenses.detector import Detector, Evidence
from tffl.defenses.parts.duplicates import nearness
from tffl.defenses.parts.order import WIDTH, middle
from tffl.defenses.parts.thresholds import Fixed, Threshold
from tffl.defenses.server import Server

DISTANCE_FLOOR, TURN_FLOOR = 0.3, 0.2
"""The least spreads of distance and of 1 − cosine, relative to their medians."""

TINY = float(np.finfo(np.float64).tiny)

Point: TypeAlias = Callable[[slice, np.ndarray], np.ndarray]
"""(columns, the rows in them) → what the rows are compared with there, float64 `[width]`."""


def robust_z(values: np.ndarray, floor: float, least: float) -> np.ndarray:
    """Returns how many robust standard deviations each value lies above the median, float64 `[n]`.

    Args:
      values: At least 0 and finite, `[n]`.
      floor: The smallest spread, relative to the median.
      least: The smallest spread, where more than half of the values are 0; positive.

    >>> robust_z(np.array([9.0, 10.0, 10.0, 11.0, 50.0]), floor=0.1, least=1e-6).round(4)
    array([-0.6745,  0.    ,  0.    ,  0.6745, 26.9796])
    """
    center = np.median(values)
    spread = NORMAL * np.median(np.abs(values - center))
    with np.errstate(over="ignore"):
        return (values - center) / max(spread, floor * center, least)


def deviations(updates: Updates, point: Point) -> tuple[np.ndarray, np.ndarray, float]:
    """Measures every update against a point, in one pass.

    Args:
      updates: Finite rows, at least one.
      point: What to compare them with.

    Returns:
      Distances ‖Δ_i − p‖, float64 `[n]`; 1 − cos(Δ_i, p), float64 `[n]`, 1 where either is zero;
      and ‖p‖, all over the trainable columns.
    """

    def measure(columns: slice) -> np.ndarray:
        part = updates.block(columns)
        here, rows = point(columns, part), part.astype(np.float64)
        products, squares = np.einsum("ij,j->i", rows, here), np.einsum("ij,ij->i", rows, rows)
        length = np.full(len(rows), np.einsum("j,j->", here, here))
        rows -= here
        return np.stack([np.einsum("ij,ij->i", rows, rows), products, squares, length])

    total = np.zeros((4, len(updates)))
    for sums in updates.map_columns(measure, trainable=True, size=WIDTH):
        total += sums
    distances, products, squares, length = total
    scale = np.sqrt(squares * length)
    cosines = np.divide(products, scale, out=np.zeros_like(scale), where=scale > 0)
    return np.sqrt(distances), 1 - np.clip(cosines, -1, 1), math.sqrt(length[0])


@dataclass(frozen=True)
class UpdateConsensus(Detector):
    """Rejects updates that are far from the median, point elsewhere, or have a near-duplicate.

    Attributes:
      k: How many robust standard deviations are too many. In tuning rounds without attackers, 4
        flagged none of 320 clients trained with Adam on Fashion-MNIST and CIFAR-10, none of 80 with
        SGD on even data, and 2 of 160 with SGD on uneven data (Dirichlet 0.5).
      duplicate: q, below 1: a nearest direction nearer than q times the clients' median one is
        suspicious; 0 switches the test off.
      reference_point: What updates are compared with: their coordinate-wise `median`, or the
        server's own update from its `root` data. If that is zero or not finite in some round, all
        clients are flagged, as there is nothing to compare with.

      opposed: Pointing against the reference point is suspicious by itself. On very uneven data
        (Dirichlet 0.1) 7 % of honest clients did in a tuning run.

    >>> rows = np.array([[5.0, 1.0], [5.0, 3.0], [4.0, 5.0], [2.0, 5.0], [9.0, -9.0]])
    >>> UpdateConsensus().judge_rows(rows).accepted.tolist()
    [True, True, True, True, False]
    """

    k: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 4.0
    duplicate: Annotated[float, Field(ge=0, lt=1)] = 0.5
    reference_point: Literal["median", "root"] = "median"
    opposed: bool = True

    reference: ClassVar[str] = (
        "tffl's own; robust z-scores: Iglewicz, Hoaglin, How to Detect and Handle Outliers, 1993"
    )

    def declared_knowledge(self) -> tuple[str, ...]:
        """Returns root data, if it is to be used."""
        return (
            *super().declared_knowledge(),
            *((ROOT_DATA,) if self.reference_point == "root" else ()),
        )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` where no client can deviate more than the others."""
        super().check(participants, layout)
        require(
            participants >= 3,
            f"update-consensus needs at least 3 participants a round, not {participants}: among "
            "two, both deviate equally",
        )

    def score(self, updates: Updates, server: Server) -> np.ndarray:
        """Returns the largest of each client's tests."""
        return self.examine(updates, server, {}).scores

    def examine(self, updates: Updates, server: Server, state: State) -> Evidence:
        """Scores finite rows, and says which tests they fail."""
        finite = updates.finite()
        scores, notes = np.full(len(updates), np.inf), np.full(len(updates), "", dtype=object)
        if finite.any():
            scores[finite], notes[finite] = self._tests(updates.select(finite), server)
        return Evidence(scores, tuple(notes))

    @property
    def threshold(self) -> Threshold:
        """The fixed k."""
        return Fixed(self.k, unscored=True)

    def _tests(self, updates: Updates, server: Server) -> tuple[np.ndarray, np.ndarray]:
        """Returns the scores of finite rows, and what to say of each that fails a test."""
        point = middle if self.reference_point == "median" else self._root(updates, server)
        if point is None:
            why = "the server's own update is zero or not finite: nothing to compare with"
            return np.full(len(updates), np.inf), np.full(len(updates), why, dtype=object)
        distance, turn, length = deviations(updates, point)
        far = robust_z(distance, DISTANCE_FLOOR, least=max(TOLERANCE * length, TINY))
        turned = robust_z(turn, TURN_FLOOR, least=TOLERANCE)
        trusted = self.reference_point == "root" or np.mean(turn > 1) < 0.5
        against = turn if trusted and self.opposed else np.zeros_like(turn)
        duplicate = nearness(geometry.products(updates)) if self.duplicate else np.zeros_like(far)
        tests = [far, turned, self.k * against, self.k * self.duplicate * duplicate]
        scores = np.maximum.reduce(tests)

        name = "the median update" if self.reference_point == "median" else "the server's update"
        usual, cosine = np.median(distance), 1 - np.median(turn)

        def note(row: int) -> str:
            parts = []
            if far[row] > self.k:
                figures = f"distance {distance[row]:.4g}, median {usual:.4g}, z = {far[row]:.4g}"
                parts.append(f"far from {name}: {figures}")
            if turned[row] > self.k or against[row] > 1:
                figures = f"cosine {1 - turn[row]:.4g}, median {cosine:.4g}, z = {turned[row]:.4g}"
                parts.append(f"points away from {name}: {figures}")
            if self.duplicate * duplicate[row] > 1:
                parts.append(
                    f"nearly the direction of another: {duplicate[row]:.4g} times nearer than usual"
                )
            return "; ".join(parts)

        return scores, np.array([note(row) for row in range(len(updates))], dtype=object)

    def _root(self, updates: Updates, server: Server) -> Point | None:
        """Returns the server's own update, as long as the clients' median; None if unusable."""
        if server.root is None:
            raise UsageError("update-consensus needs samples of the server's own")
        root = server.root.train(updates.start, updates.round)
        length = geometry.norm(root, updates)
        if not 0 < length < math.inf:
            return None
        factor = float(np.median(updates.norms(trainable=True))) / length
        return lambda columns, rows: root[columns] * np.float64(factor)
