"""What a defense decides about the clients of a round, and what it shows of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

NOT_FINITE = "the update holds NaN or infinity"
"""Reason of a row that no rule can compute with."""

NOT_SELECTED = "not selected"
"""Reason of a row that a selection leaves out of its average without suspecting it."""


@dataclass(frozen=True)
class HeatMaps:
    """The heat maps of n clients' models for p probe images, for a person to look at.

    Attributes:
      maps: float32 `[n, p, h, w]`, as the models yield them; they may hold NaN.
      probes: uint8 `[q, height, width, channels]`, the first q of the p probes; None if unknown.
      inputs: float32 `[n, p, …]`, what a detector made of the maps and judged; NaN for clients
        that it did not judge; None if it keeps nothing.
      rebuilt: As `inputs`, what an autoencoder rebuilt of them.
      best: float32 `[n]`, 1 for the client that was selected by its maps, 0 for others, NaN for
        clients that were not judged; None if the detector selects nobody.
      part: Path of the detector within a combination, such as `"krum/"`, where that is needed to
        tell several apart.
    """

    maps: np.ndarray
    probes: np.ndarray | None = None
    inputs: np.ndarray | None = None
    rebuilt: np.ndarray | None = None
    best: np.ndarray | None = None
    part: str = ""


@dataclass(frozen=True)
class AuditImages:
    """The images of an audit and how n clients' models label them, for a person to look at.

    Attributes:
      images: uint8 `[k, height, width, channels]`, some of the audit images.
      labels: int64 `[k]`, the labels that most models gave them.
      support: float64 `[k]`, the share of the models that gave that label.
      kept: bool `[k]`, whether the image counted.
      label_counts: int64 `[outputs]`, all images that counted, by label.
      accuracies: float64 `[n]`, each model's share of images labeled as most models do.
      confusions: int64 `[n, outputs, outputs]`, label of the majority × label of the model.
      auxiliary: uint8 `[a, height, width, channels]`, some of the images that a GAN started from;
        None without any.
      part: As in `HeatMaps`.
    """

    images: np.ndarray
    labels: np.ndarray
    support: np.ndarray
    kept: np.ndarray
    label_counts: np.ndarray
    accuracies: np.ndarray
    confusions: np.ndarray
    auxiliary: np.ndarray | None = None
    part: str = ""


@dataclass(frozen=True)
class CoalitionPlane:
    """Who of n clients pushes together, and what that costs, for a person to look at.

    Attributes:
      coherence: float64 `[n]`, the mean cosine of a client's deviation with those of the suspects,
        less that with the others'; NaN for clients that were not judged.
      cost: float64 `[n]`, what it costs the server's images, over rounds and averaged over classes,
        in robust standard deviations from the median client, while all clients were in the average;
        NaN as above.
      groups: int64 `[n]`, the number of the group with which it was convicted, in the order in
        which they were found, from 0 on; −1 for none.
      suspects: bool `[n]`, the group that was found first, convicted or not.
      evidence: float64 `[n]`, the excess of its group relative to the limit, above 1; for others
        how near they come to it; NaN as above.
      part: As in `HeatMaps`.
    """

    coherence: np.ndarray
    cost: np.ndarray
    groups: np.ndarray
    suspects: np.ndarray
    evidence: np.ndarray
    part: str = ""


Shown: TypeAlias = HeatMaps | AuditImages | CoalitionPlane
"""What a defense may show of a round. No decision is read from it."""


@dataclass(frozen=True, kw_only=True)
class Judgment:
    """Whom a defense suspects among the n clients of one round, before anything is averaged.

    Attributes:
      flagged: bool `[n]`, suspected by this round's evidence alone.
      convicted: bool `[n]`, malicious in the defense's judgment, after any vote. Detection metrics
        are computed from it.
      accepted: bool `[n]`, part of the average: not convicted, unless the defense only observes or
        selects a few.
      scores: float64 `[n]`, higher is more suspicious; NaN where the defense has none.
      threshold: Scores above it are flagged; NaN where there is none.
      reasons: One string per client, empty where it is accepted and neither flagged nor convicted.
      shown: What a person may want to see of it, such as heat maps.
    """

    flagged: np.ndarray
    convicted: np.ndarray
    accepted: np.ndarray
    scores: np.ndarray
    threshold: float
    reasons: tuple[str, ...]
    shown: tuple[Shown, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Verdict(Judgment):
    """A judgment, and the average that follows from it.

    Attributes:
      weights: float64 `[n]`, each client's share of the average; zeros and sums to 1, or all zero
        when nobody was accepted.
      aggregate: float32 `[d]`, the aggregated update; zeros when nobody was accepted, so that the
        global model stays as it is.

    >>> nobody = np.zeros(2, bool)
    >>> judgment = Judgment(
    ...     flagged=nobody,
    ...     convicted=nobody,
    ...     accepted=~nobody,
    ...     scores=np.zeros(2),
    ...     threshold=1.0,
    ...     reasons=("", ""),
    ... )
    >>> Verdict.of(judgment, np.full(2, 0.5), np.ones(3, np.float32)).weights
    array([0.5, 0.5])
    """

    weights: np.ndarray
    aggregate: np.ndarray

    @classmethod
    def of(cls, judgment: Judgment, weights: np.ndarray, aggregate: np.ndarray) -> Verdict:
        """Completes a judgment with weights float64 `[n]` and the average float32 `[d]`."""
        return cls(**{**vars(judgment), "weights": weights, "aggregate": aggregate})

    @classmethod
    def dividing(
        cls,
        accepted: np.ndarray,
        scores: np.ndarray,
        weights: np.ndarray,
        aggregate: np.ndarray,
        reasons: Iterable[str],
        threshold: float = math.nan,
    ) -> Verdict:
        """Returns the verdict of a rule that convicts whomever it does not accept, bool `[n]`.

        >>> mean, weights = np.ones(3, np.float32), np.array([1.0, 0.0])
        >>> found = Verdict.dividing(weights > 0, np.zeros(2), weights, mean, ("", "odd"))
        >>> found.convicted
        array([False,  True])
        """
        return cls(
            flagged=~accepted,
            convicted=~accepted,
            accepted=accepted,
            scores=scores,
            threshold=threshold,
            reasons=tuple(reasons),
            weights=weights,
            aggregate=aggregate,
        )
