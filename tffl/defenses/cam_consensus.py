"""CAM consensus: flags clients whose heat maps differ from the consensus of all clients' maps.

For every client i and probe p, with L the raw LayerCAM map,

    shape   S_ip = (L_ip − min L_ip) / (max L_ip − min L_ip)
    scale   R_ip = asinh(8 · L_ip / s_p) / 8,   s_p = median_i ‖L_ip‖

both averaged to 4 × 4 pixels. The probes are dealt into groups. In a group, each of the two blocks
is compared with the clients' consensus, x ← clip((x − median_i x) / (1.4826 · median |·|), ±10).
Clients whose maps are nearly the same have one vote in every median, and share a fold. The clients
are dealt into folds. An autoencoder D → 8 → D without a final activation, fitted to the 60 % of the
other folds' clients whose errors are smallest, rebuilds those of a fold; twice, with |x| as the
first error:

    e_ig = mean absolute error of client i in group g, divided by its median over clients
    score_i = mean_g e_ig;  flagged: score_i > median + k · max(1.4826 · MAD, median / 4)

tffl's own, made from GradCAM-AE (`tffl.defenses.gradcam_ae`) by repairing what makes it fail:

- The published autoencoder learns poisoned maps like all others, and its error follows a map's
  brightness. Here it sees differences from the consensus, and is not fitted to the worst 40 %.
- An autoencoder rebuilds those that it was fitted to better than anyone else, and the more so the
  fewer they are. One for all would divide clients into those that it was fitted to and the
  suspects. Here no client is judged by an autoencoder that was fitted to its maps.
- Colluders who all send the same would dominate the others' autoencoders and the medians, and pass
  as the consensus. Here they count once.
- One probe says little: 16 of all classes a group say much, and four groups more.
- Mean + α·std cannot flag several attackers at once; median and MAD can, up to half.
- A client whose maps are dead (zero everywhere) while others' are not is flagged outright: an
  attacker that drives its maps to zero would otherwise hide what it does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from tffl.core import seeds
from tffl.core.errors import require
from tffl.core.layout import WeightLayout
from tffl.core.thresholds import NORMAL
from tffl.data.resize import area_weights
from tffl.defenses.base import State
from tffl.defenses.cam_detector import CamDetector, ClassRule, MapScores
from tffl.defenses.exports import DetectorExport
from tffl.defenses.map_export import map_export
from tffl.defenses.parts.autoencoder import NAMES, Autoencoder, Weights
from tffl.defenses.parts.duplicates import firsts
from tffl.defenses.parts.thresholds import MedianMad, Threshold
from tffl.defenses.server import Server
from tffl.explain.maps import Findings, Method, scaled

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

POOLED = 4
"""Height and width to which maps are averaged."""

CLIP = 10.0
"""How many robust standard deviations a value can lie from the consensus."""

FITS = 2
"""How often autoencoders are fitted, each time to those that were rebuilt best."""

NEAR_DUPLICATE = 0.2
"""Maps nearer than this, relative to the median distance of nearest neighbors, count as one."""

FLOOR = 0.25
"""The least spread, relative to the median."""


def consensus_features(maps: Any, voters: Any = slice(None)) -> Any:
    """Returns how shape and scale of maps differ from the clients' consensus, float32 `[n, D]`.

    Args:
      maps: Raw maps float32 `[n, p, h, w]` of one group of probes, finite; an array or a tensor,
        and a tensor comes back.
      voters: Which clients decide what is usual, bool `[n]` or all; not for tensors.
    """
    from keras import ops

    norms = ops.sqrt(ops.sum(ops.square(maps), axis=(2, 3)))
    usual = ops.maximum(ops.median(norms[voters], axis=0), 1e-12)[:, None, None]
    scale = ops.arcsinh(8 * maps / usual) / 8
    blocks = [_standardized(pooled(block), voters) for block in (scaled(maps), scale)]
    return ops.concatenate(blocks, axis=1)


def pooled(maps: Any) -> Any:
    """Averages maps `[n, p, h, w]` to at most 4 × 4 pixels each, and returns `[n, p · 16]`."""
    from keras import ops

    rows, columns = (area_weights(side, min(side, POOLED)) for side in maps.shape[-2:])
    small = ops.matmul(ops.matmul(rows, maps), columns.T)
    return ops.reshape(small, (-1, maps.shape[1] * len(rows) * len(columns)))


def same_maps(maps: np.ndarray) -> np.ndarray:
    """Returns for each client the first whose maps are nearly the same, int64 `[n]`."""
    rows = np.asarray(pooled(maps), dtype=np.float64)
    return firsts(rows @ rows.T, NEAR_DUPLICATE)


def _standardized(block: Any, voters: Any) -> Any:
    """Returns the distance from the voters' median in robust standard deviations, clipped."""
    from keras import ops

    centered = block - ops.median(block[voters], axis=0)
    spread = NORMAL * ops.median(ops.abs(centered[voters]))
    return ops.clip(centered / ops.maximum(spread, 1e-6), -CLIP, CLIP)


@dataclass(frozen=True)
class CamConsensus(CamDetector):
    """Flags LayerCAM maps that differ from the clients' consensus; tffl's own detector.

    Attributes:
      probes: Dealt into groups, of all classes as evenly as possible.
      group: Probes in a group.
      k: Flag above median + k·max(1.4826·MAD, median / 4) of the scores.
      hidden: Units of each autoencoder's code; 0 leaves the autoencoders out and scores clients by
        their mean absolute feature.
      epochs: Of each fit.
      fitted_share: Share of the clients at hand that an autoencoder is fitted to.
      folds: Into how many parts clients are dealt, each judged by an autoencoder that is fitted to
        the others; 1 judges all by one that is fitted to some of them.
      dead_share: A client is flagged outright if it has a larger share of dead maps, and half of
        the clients have none; 1 never does.

    >>> CamConsensus().judge_rows([[1.0], [2.0], [3.0]])
    Traceback (most recent call last):
        ...
    tffl.core.errors.UsageError: CamConsensus looks at clients' models: give model=
    """

    probes: Annotated[int, Field(ge=1)] = 64
    group: Annotated[int, Field(ge=1)] = 16
    class_rule: ClassRule = "true"
    k: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 4.0
    hidden: Annotated[int, Field(ge=0)] = 8
    epochs: Annotated[int, Field(ge=1)] = 150
    fitted_share: Annotated[float, Field(gt=0, le=1)] = 0.6
    folds: Annotated[int, Field(ge=1, le=20)] = 4
    dead_share: Annotated[float, Field(ge=0, le=1)] = 0.25

    method: ClassVar[Method] = "layer-cam"
    score_name: ClassVar[str] = "reconstruction error, relative to the median client"
    reference: ClassVar[str] = "tffl's own, from LayerCAM-AE"

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` with fewer than 5 participants: a consensus needs a majority.

        And if the groups of probes would be of different sizes.
        """
        super().check(participants, layout)
        require(
            self.probes <= self.group or self.probes % self.group == 0,
            f"defense.probes = {self.probes} is not allowed: it is not a multiple of "
            f"defense.group = {self.group}",
        )
        require(
            participants >= 5,
            f"cam-consensus needs at least 5 participants a round, not {participants}: among fewer "
            "there is no consensus to leave",
        )

    def judge_maps(self, maps: np.ndarray, server: Server, round: int) -> MapScores:
        """Scores clients by the mean over groups of what their autoencoders cannot rebuild."""
        first = same_maps(maps)
        voters = first == np.arange(len(maps))
        features = np.stack([consensus_features(group, voters) for group in self._groups(maps)])
        errors, fitted = self._rebuild(features, first, server.seed, round)
        usual = np.median(errors[:, voters], axis=1, keepdims=True)
        scores = (errors / np.maximum(usual, 1e-12)).mean(axis=0)
        scores[self._has_dead_maps(maps)] = math.inf
        return MapScores(scores, fitted)

    @property
    def threshold(self) -> Threshold:
        """Median + k·spread, the spread with its floor."""
        return MedianMad(self.k, FLOOR)

    def reason(self, score: float, threshold: float) -> str:
        """Says how far the maps are from the consensus."""
        return f"heat maps are {score:.3g} times as odd as the median, above {threshold:.3g}"

    def exports(self, server: Server, state: State) -> Mapping[str, DetectorExport]:
        """Returns the autoencoders of the last round that had any, as `detector`."""
        return map_export(self, server, state, self.networks(state), self.serve)

    def networks(self, state: State) -> dict[str, keras.Model]:
        """Returns the autoencoder of each group of probes."""
        count = math.ceil(self.probes / self.group)
        if self.hidden == 0 or f"group{count - 1}/{NAMES[0]}" not in state:
            return {}
        weights = [{name: state[f"group{g}/{name}"] for name in NAMES} for g in range(count)]
        return {f"group{g}": self._recipe.load(weights[g]) for g in range(count)}

    def serve(
        self, maps: tf.Tensor, networks: Mapping[str, keras.Model], size: int
    ) -> dict[str, tf.Tensor]:
        """Rebuilds the features of clients that are compared with each other, and scores them."""
        from keras import ops

        rebuilt, errors = [], []
        for group, network in zip(self._groups(maps), networks.values(), strict=True):
            features = consensus_features(group)
            rebuilt.append(network(features))
            error = ops.mean(ops.abs(features - rebuilt[-1]), axis=1)
            errors.append(error / ops.maximum(ops.median(error), 1e-12))
        scores = ops.mean(ops.stack(errors), axis=0)
        return {"reconstruction": ops.concatenate(rebuilt, axis=1), "score": scores}

    @property
    def _recipe(self) -> Autoencoder:
        return Autoencoder(self.hidden, "linear", self.epochs)

    def _groups(self, maps: Any) -> Iterator[Any]:
        for begin in range(0, maps.shape[1], self.group):
            yield maps[:, begin : begin + self.group]

    def _rebuild(
        self, features: np.ndarray, first: np.ndarray, seed: int, round: int
    ) -> tuple[np.ndarray, Weights]:
        """Returns each group's errors of clients float64 `[g, n]`, and autoencoders to export.

        These are fitted to the best of all clients, for they are to judge clients still unknown.

        Args:
          features: float32 `[g, n, D]`.
          first: From `same_maps`.
          seed: The experiment's.
          round: 1-based.
        """
        groups, n, size = features.shape
        errors = np.abs(features).mean(axis=2, dtype=np.float64)
        if self.hidden == 0:
            return errors, {}
        folds = min(self.folds, n)
        draws = [seeds.generator(seed, "folds", round, group) for group in range(groups)]
        fold = np.stack([draw.permutation(n)[first] % folds for draw in draws])
        candidates = _fitting_sets(fold, folds, first == np.arange(n))
        starts = [seeds.integer(seed, "autoencoder", round, group) for group in range(groups)]
        rows = np.repeat(features, folds + 1, axis=0)
        for _ in range(FITS):
            chosen = self._best(errors[:, None], candidates).reshape(-1, n)
            weights = self._recipe.fit_all(rows, chosen, np.repeat(starts, folds + 1).tolist())
            rebuilt = self._recipe.reconstruct_all(rows, weights).reshape(groups, -1, n, size)
            unseen = np.abs(features[:, None] - rebuilt).mean(axis=3, dtype=np.float64)
            errors = np.take_along_axis(unseen, fold[:, None], axis=1)[:, 0]
        return errors, {
            f"group{group}/{name}": weight[group * (folds + 1) + folds]
            for name, weight in weights.items()
            for group in range(groups)
        }

    def _best(self, errors: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Returns bool `[…, n]`: the share of the candidates whose errors are smallest."""
        known = np.where(candidates, errors, np.inf)
        count = np.ceil(self.fitted_share * candidates.sum(axis=-1, keepdims=True)).astype(int)
        best: np.ndarray = known <= np.take_along_axis(np.sort(known), count - 1, axis=-1)
        return best

    def _has_dead_maps(self, maps: np.ndarray) -> np.ndarray:
        """Returns bool `[n]`: whose maps are dead where most clients' maps are not."""
        share = Findings.of(maps).dead / maps.shape[1]
        return (share > self.dead_share) & (np.median(share) == 0)


def _fitting_sets(fold: np.ndarray, folds: int, voters: np.ndarray) -> np.ndarray:
    """Returns to which clients each autoencoder may be fitted, bool `[g, folds + 1, n]`.

    The one of a fold is fitted to the voters of the other folds, and the last one to all voters. A
    fold that holds all voters is fitted to them.

    Args:
      fold: int `[g, n]`.
      folds: Their number.
      voters: bool `[n]`.
    """
    allowed = voters & (fold[:, None] != np.arange(folds + 1)[:, None])
    return np.where(allowed.any(axis=-1, keepdims=True), allowed, voters)
