"""Statistics consensus: whose BatchNorm statistics are far from the others'.

    variance   u_i = log(v_i + ε)               ε = 0.001, Keras' own
    mean       u_i = m_i / √(median v + ε)
    score_i    = max over variables of RMS over channels of (u_i − median u)
    flagged:     score_i > max(least, median score + k · max(1.4826·MAD, 0.3·median score))

Most rules use trainable weights only, as no gradient trains the statistics. But a client that
multiplies its variances by 100 ruins the average, even with honest weights. A score of 1 means a
variance that is off by a factor of e, or a mean that is off by a standard deviation, in all
channels of a layer; or by more in few of them.

This is tffl's own. Choices:

- Honest clients with uneven data differ by what they see, the more the longer they train, and their
  scores vary by factors. So nobody below `least` is flagged, and above it nobody near the others.
- Other variables that no gradient trains, such as frozen layers, count relative to their size in
  the global model. Honest clients leave them as they are.
- In 40 rounds of honest clients (672 updates: ResNet-8 on digits, Fashion-MNIST and CIFAR-10 of
  16 x 16 pixels; even data, shards, Dirichlet 0.5 and 0.1; one epoch or twelve) it flagged one
  client, with Dirichlet 0.1 and twelve epochs. Three clients whose variances were multiplied by 4
  or by 100 were flagged in every round; by 2, one of 120, which is why small lies pass.
- A model without such variables has scores of 0, and nobody is flagged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.core.errors import require
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.defenses.base import State
from tffl.defenses.detector import Detector, Evidence
from tffl.defenses.parts.thresholds import MedianMad, Threshold
from tffl.defenses.server import Server

EPSILON = 1e-3
"""What BatchNorm in Keras adds to variances: smaller ones are as good as equal."""

FLOOR = 0.3
"""The least spread of scores, relative to their median."""

VARIANCES = {"moving_mean": "moving_variance", "mean": "variance"}
"""Last part of the names of means → of the variances that stand beside them."""


def statistics(layout: WeightLayout) -> list[Entry]:
    """Returns the variables that no gradient trains."""
    return [entry for entry in layout.entries if not entry.trainable]


def statistic_distances(updates: Updates) -> np.ndarray:
    """Measures how far each client's statistics are from the clients' median.

    Args:
      updates: Finite rows, at least one.

    Returns:
      float64 `[n, variables]`, in the order of `statistics`: logarithms of factors for variances,
      standard deviations for means, else shares of the global values' size.
    """
    found = [_distances(updates, entry) for entry in statistics(updates.layout)]
    return np.array(found).reshape(len(found), len(updates)).T


def _distances(updates: Updates, entry: Entry) -> np.ndarray:
    values = _values(updates, entry.name)
    layer, _, leaf = entry.name.rpartition("/")
    variance = f"{layer}/{VARIANCES.get(leaf, '')}"
    if leaf in VARIANCES.values():
        values = np.log(np.maximum(values, 0) + EPSILON)
    elif variance in updates.layout.slices:
        values /= np.sqrt(np.maximum(np.median(_values(updates, variance), axis=0), 0) + EPSILON)
    else:
        values /= np.sqrt(np.square(updates.start[updates.layout[entry.name]]).mean()) or 1.0
    distances = values - np.median(values, axis=0)
    with np.errstate(over="ignore"):
        return np.sqrt(np.square(distances).mean(axis=1))


def _values(updates: Updates, name: str) -> np.ndarray:
    columns = updates.layout[name]
    return updates.start[columns] + updates.block(columns).astype(np.float64)


@dataclass(frozen=True)
class StatisticsConsensus(Detector):
    """Rejects clients whose BatchNorm statistics are far from the others'.

    Attributes:
      spread: k, how many robust standard deviations above the median score are too many.
      least: The smallest score that can be too high.

    >>> kernel, variance = Entry("kernel", (1,), True), Entry("norm/moving_variance", (1,), False)
    >>> layout = WeightLayout((kernel, variance))
    >>> rows = np.array([[0.1, 1.0], [0.2, 1.1], [0.1, 0.9], [0.1, 99.0]])
    >>> StatisticsConsensus().judge_rows(rows, layout=layout).accepted.tolist()
    [True, True, True, False]
    """

    spread: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 6.0
    least: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    reference: ClassVar[str] = "tffl's own"

    @property
    def judges_statistics(self) -> bool:
        """True: it judges nothing else."""
        return True

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` with fewer than 3 participants."""
        super().check(participants, layout)
        require(
            participants >= 3,
            f"statistics-consensus needs at least 3 participants a round, not {participants}: of "
            "two, neither is the odd one",
        )

    def score(self, updates: Updates, server: Server) -> np.ndarray:
        """Returns the scores that `examine` finds."""
        return self.examine(updates, server, {}).scores

    def examine(self, updates: Updates, server: Server, state: State) -> Evidence:
        """Measures the distances of statistics, and names each client's farthest one."""
        finite, entries = updates.finite(), statistics(updates.layout)
        scores, notes = np.zeros(len(updates)), [""] * len(updates)
        if not finite.any() or not entries:
            return Evidence(scores, tuple(notes))
        apart = statistic_distances(updates.select(finite))
        scores[finite] = apart.max(axis=1)
        usual = np.median(apart, axis=0)
        for row, part in zip(np.flatnonzero(finite), apart, strict=True):
            most = int(part.argmax())
            own, others = (_words(entries[most], value) for value in (part[most], usual[most]))
            notes[row] = f"its {entries[most].name} is off by {own} (median client: {others})"
        return Evidence(scores, tuple(notes))

    @property
    def threshold(self) -> Threshold:
        """Median + k·spread, at least `least`."""
        return MedianMad(self.spread, FLOOR, self.least)


def _words(entry: Entry, value: float) -> str:
    leaf = entry.name.rpartition("/")[2]
    if leaf in VARIANCES.values():
        return f"a factor of {math.exp(min(value, 700)):.3g}"
    if leaf in VARIANCES:
        return f"{value:.3g} standard deviations"
    return f"{value:.3g} times its size"
