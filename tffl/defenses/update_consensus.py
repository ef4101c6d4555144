"""Update consensus: who is far from the median update, points elsewhere, or has a double.

    m   = coordinate-wise median of the updates
    d_i = ‖Δ_i − m‖,   a_i = 1 − cos(Δ_i, m),   ν_i = min_{j ≠ i} ‖Δ_i − Δ_j‖
    z(x)_i = (x_i − median x) / max(1.4826·MAD x, median x / 10)
    score_i = max( z(d)_i,  z(a)_i,  k·q·median ν / ν_i )               flagged above k

So a client is flagged if either z exceeds k = 4, or if its nearest neighbor is nearer than q = 0.2
times what is usual. The third test finds colluders who send the same, and a client whose update
they copy is suspected with them.

This is tffl's own, and the second half of `shield`. Robust z-scores are from: How to Detect and
Handle Outliers, Boris Iglewicz and David Hoaglin, 1993. Choices:

- The spread has a floor of a tenth of the median. Distances of many independent coordinates all
  but agree, so that their MAD would make a few percent suspicious. 1 − cos is treated alike, as a
  squared distance between directions. Both floors grow with what they measure: no unit, no scale.
- Trainable columns count. BatchNorm statistics are not looked at; heat maps depend on them.
- A median is nobody's as long as attackers are few. From about a quarter on they move it, as honest
  clients spread and they do not. `reference_point = "root"` puts the update that the server gets
  from samples of its own in the place of m, in both tests, stretched to the clients' median length:
  it may have trained on far less data, and only its direction is to be trusted. Against a trusted
  direction there is a fourth test, FLTrust's: k·a_i > k, a negative cosine. When 8 of 20 flip their
  sign, they stretch the MAD so far that no z exceeds 4, although every one is above all others'.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

import numpy as np
from pydantic import Field

from tffl.defenses.base import ROOT_DATA, Server, State
from tffl.defenses.detector import Detector, Evidence
from tffl.defenses.parts.geometry import norm, squared_distances
from tffl.defenses.parts.order import WIDTH, ranked
from tffl.defenses.parts.thresholds import NORMAL, TOLERANCE
from tffl.errors import UsageError, require
from tffl.federated.layout import WeightLayout
from tffl.federated.updates import Updates

FLOOR = 0.1
"""The least spread, relative to the median."""

NEAREST = 1e-3
"""Neighbors nearer than this, relative to the median, count as that near: scores stay finite."""

TINY = float(np.finfo(np.float64).tiny)

Point: TypeAlias = Callable[[slice, np.ndarray], np.ndarray]
"""(columns, the rows in them) → what the rows are compared with there, float64 `[width]`."""


def robust_z(values: np.ndarray, least: float) -> np.ndarray:
    """Returns how many robust standard deviations each value lies above the median, float64 `[n]`.

    Args:
      values: At least 0 and finite, `[n]`.
      least: The smallest spread, where more than half of the values are 0; positive.

    >>> robust_z(np.array([9.0, 10.0, 10.0, 11.0, 50.0]), least=1e-6).round(4)
    array([-0.6745,  0.    ,  0.    ,  0.6745, 26.9796])
    """
    center = np.median(values)
    spread = NORMAL * np.median(np.abs(values - center))
    with np.errstate(over="ignore"):
        return (values - center) / max(spread, FLOOR * center, least)


def duplication(squares: np.ndarray) -> np.ndarray:
    """Returns how many times nearer than usual each nearest neighbor is, float64 `[n]`.

    Args:
      squares: Squared distances, float64 `[n, n]`; what is on the diagonal does not count.

    >>> points = np.array([0.0, 1.0, 3.0, 3.1, 7.0])
    >>> duplication((points[:, None] - points) ** 2).round(4)
    array([ 1.    ,  1.    , 10.    , 10.    ,  0.2564])
    """
    apart = squares.copy()
    np.fill_diagonal(apart, np.inf)
    nearest = np.sqrt(apart.min(axis=1))
    usual = np.median(nearest)
    if not 0 < usual < math.inf:
        return np.zeros(len(nearest))
    return usual / np.maximum(nearest, NEAREST * usual)


def middle(columns: slice, rows: np.ndarray) -> np.ndarray:
    """Returns the median of each column, float64 `[width]`; of an even number, the mean of two."""
    n, ordered = len(rows), ranked(rows)
    return ordered[:, (n - 1) // 2 : n // 2 + 1].mean(axis=1, dtype=np.float64)


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
    """Rejects updates that are far from the median update, point elsewhere, or have a double.

    Attributes:
      k: How many robust standard deviations are too many. At 4, of honest clients trained with Adam
        it flagged 4 of 1,640 (digits, MNIST, Fashion-MNIST; LeNet-5; 10 and 20 clients, IID and
        Dirichlet 0.5). With plain SGD at rate 0.05 on the digits, where single honest clients jump
        twice as far as the others, it flagged 3–10 % of 10 clients, 0–6 % of 20 and 1–5 % of 100,
        mostly by distance, and more with few images each. There, 2 of 3 votes leave 0–9 % of 10
        and 0.5–2 % of 20 clients, and k = 8 leaves 0–4 % and 0–0.5 %, but misses flipped signs.
      duplicate: q, below 1: a nearest neighbor nearer than q times the clients' median one is
        suspicious; 0 switches the test off.
      reference_point: What updates are compared with: their coordinate-wise `median`, or the
        server's own update from its `root` data. If that is zero or not finite in some round, all
        clients are flagged, as there is nothing to compare with.
    """

    k: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 4.0
    duplicate: Annotated[float, Field(ge=0, lt=1)] = 0.2
    reference_point: Literal["median", "root"] = "median"

    reference: ClassVar[str] = (
        "tffl's own; robust z-scores: Iglewicz, Hoaglin, How to Detect and Handle Outliers, 1993"
    )

    def granted(self) -> tuple[str, ...]:
        """Returns root data, if it is to be used."""
        return (*super().granted(), *((ROOT_DATA,) if self.reference_point == "root" else ()))

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

    def threshold(self, scores: np.ndarray) -> float:
        """Returns k."""
        return self.k

    def _tests(self, updates: Updates, server: Server) -> tuple[np.ndarray, np.ndarray]:
        """Returns the scores of finite rows, and what to say of each that fails a test."""
        point = middle if self.reference_point == "median" else self._root(updates, server)
        if point is None:
            why = "the server's own update is zero or not finite: nothing to compare with"
            return np.full(len(updates), np.inf), np.full(len(updates), why, dtype=object)
        distance, turn, length = deviations(updates, point)
        far = robust_z(distance, least=max(TOLERANCE * length, TINY))
        astray = robust_z(turn, least=TOLERANCE)
        double = duplication(squared_distances(updates)) if self.duplicate else np.zeros_like(far)
        against = turn if self.reference_point == "root" else np.zeros_like(turn)
        tests = [far, astray, self.k * against, self.k * self.duplicate * double]
        scores = np.maximum.reduce(tests)

        name = "the median update" if self.reference_point == "median" else "the server's update"
        usual, cosine = np.median(distance), 1 - np.median(turn)

        def note(row: int) -> str:
            parts = []
            if far[row] > self.k:
                figures = f"distance {distance[row]:.4g}, median {usual:.4g}, z = {far[row]:.4g}"
                parts.append(f"far from {name}: {figures}")
            if astray[row] > self.k or against[row] > 1:
                figures = f"cosine {1 - turn[row]:.4g}, median {cosine:.4g}, z = {astray[row]:.4g}"
                parts.append(f"points away from {name}: {figures}")
            if self.duplicate * double[row] > 1:
                parts.append(f"nearly a copy of another: {double[row]:.4g} times nearer than usual")
            return "; ".join(parts)

        return scores, np.array([note(row) for row in range(len(updates))], dtype=object)

    def _root(self, updates: Updates, server: Server) -> Point | None:
        """Returns the server's own update, as long as the clients' median; None if unusable."""
        if server.root is None:
            raise UsageError("update-consensus needs samples of the server's own")
        root = server.root.train(updates.start, updates.round)
        length = norm(root, updates)
        if not 0 < length < math.inf:
            return None
        factor = float(np.median(updates.norms(trainable=True))) / length
        return lambda columns, rows: root[columns] * np.float64(factor)
