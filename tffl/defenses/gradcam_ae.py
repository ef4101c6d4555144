"""GradCAM-AE: an autoencoder that rebuilds everyone's heat maps rebuilds poisoned ones worse.

    L_i = Grad-CAM map of client i's model, scaled to 0 … 1          (eqs. 11–12)
    R_i = mean_jk |L_i,jk − L'_i,jk|, L' rebuilt by the autoencoder  (eqs. 13–14)
    flagged: R_i > mean R + α · std R                                (eqs. 15–17)
    rejected: flagged; every ξ rounds, flagged in at least ε of ξ    (eqs. 18–19)

The autoencoder, D → 128 → D, is trained afresh in every round on the maps of all clients, poisoned
ones too, for 200 full-batch epochs.

GradCAM-AE: A New Shield Defense against Poisoning Attacks on Federated Learning
    Jingjing Zheng, Kai Li, Xin Yuan, Wei Ni, Eduardo Tovar. Section 5, Algorithm 1. The same
    authors' GCAMA: Detecting Poisoning Attacks on Federated Learning Using Gradient-Weighted Class
    Activation Mapping, WWW 2024 Companion.

Left open by the paper: α (1 here, the smaller of the two values in the released code), and the
image (drawn from the test set, once). Equations 17 to 19 contradict each other on whether 1 means
benign; text and released code agree that those flagged at least ε times are removed. The loss is
averaged over pixels, not summed, which Adam does not notice.

`variant = "released"` is what the released code does instead: the class that each model predicts
itself, squared errors, the sample's standard deviation, NaN in maps replaced by 0, and maps
enlarged to the image's size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from tffl.core import seeds
from tffl.core.layout import WeightLayout
from tffl.core.thresholds import check_alpha
from tffl.data.resize import bilinear_weights
from tffl.defenses.base import State
from tffl.defenses.cam_detector import CamDetector, ClassRule, MapScores
from tffl.defenses.exports import DetectorExport
from tffl.defenses.map_export import map_export
from tffl.defenses.parts.autoencoder import NAMES, Autoencoder
from tffl.defenses.parts.thresholds import MeanStd, Threshold
from tffl.defenses.parts.votes import Ballot
from tffl.defenses.server import Server
from tffl.explain.maps import Method, scaled

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

PAPER: Mapping[str, Any] = {
    "class_rule": "true",
    "error": "absolute",
    "spread": "population",
    "not_a_number": "flag",
    "resolution": "map",
}
RELEASED: Mapping[str, Any] = {
    "class_rule": "predicted",
    "error": "squared",
    "spread": "sample",
    "not_a_number": "zero",
    "resolution": "image",
}


@dataclass(frozen=True)
class GradCamAe(CamDetector):
    """Flags Grad-CAM maps that an autoencoder fails to rebuild, as published.

    Attributes:
      variant: The `paper`, or its `released` code: decides every option below that is not given.
      class_rule: The logit that a map explains.
      error: `absolute` or `squared` difference, averaged over pixels.
      spread: Standard deviation of the `population` (eq. 16) or of a `sample`.
      not_a_number: Whether NaN in a map is a finding (`flag`) or replaced by 0 (`zero`).
      resolution: Maps as large as the layer's features (`map`), or enlarged to the `image`'s size.
      alpha: α of the threshold. The released code has 1 and 1.5.
      hidden: Units of the code.
      epochs: Of the autoencoder.
      window: ξ.
      votes: ε.
      ballot: When the vote counts; `blocks` is the paper's.

    >>> GradCamAe().judge_rows([[1.0], [2.0], [3.0]])
    Traceback (most recent call last):
        ...
    tffl.core.errors.UsageError: GradCamAe looks at clients' models: give model=
    """

    variant: Literal["paper", "released"] = "paper"
    class_rule: ClassRule | None = None
    error: Literal["absolute", "squared"] | None = None
    spread: Literal["population", "sample"] | None = None
    not_a_number: Literal["flag", "zero"] | None = None
    resolution: Literal["map", "image"] | None = None
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    hidden: Annotated[int, Field(ge=1)] = 128
    epochs: Annotated[int, Field(ge=1)] = 200
    window: Annotated[int, Field(ge=1)] = 3
    votes: Annotated[int, Field(ge=1)] = 2
    ballot: Ballot = "blocks"

    method: ClassVar[Method] = "grad-cam"
    score_name: ClassVar[str] = "reconstruction error"
    reference: ClassVar[str] = (
        "Zheng et al., GradCAM-AE: A New Shield Defense against Poisoning Attacks on Federated "
        "Learning; GCAMA, WWW 2024 Companion"
    )

    def __post_init__(self) -> None:
        """Gives options that are not given the variant's value."""
        super().__post_init__()
        preset = RELEASED if self.variant == "released" else PAPER
        for name, value in preset.items():
            object.__setattr__(self, name, getattr(self, name) or value)

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` if α is so large that nobody could ever be flagged."""
        super().check(participants, layout)
        check_alpha(self.alpha, participants)

    def judge_maps(self, maps: np.ndarray, server: Server, round: int) -> MapScores:
        """Fits the autoencoder to all maps, and takes its error."""
        rows = maps.reshape(len(maps), -1)
        seed = seeds.integer(server.seed, "autoencoder", round)
        weights = self._recipe.fit(rows, np.ones(len(rows), dtype=bool), seed)
        rebuilt = self._recipe.reconstruct(rows, weights)
        scores = np.asarray(self.errors(rebuilt - rows)).astype(np.float64)
        return MapScores(scores, weights, maps, rebuilt.reshape(maps.shape))

    @property
    def threshold(self) -> Threshold:
        """Mean + α·std."""
        return MeanStd(self.alpha, sample=self.spread == "sample")

    def reason(self, score: float, threshold: float) -> str:
        """Says how large the error is."""
        return f"reconstruction error {score:.4g} is above {threshold:.4g}"

    def prepare(self, maps: np.ndarray, size: int) -> np.ndarray:
        """Scales maps to 0 … 1; replaces NaN and enlarges them where the variant does."""
        return np.asarray(self.inputs(maps, size))

    def inputs(self, maps: Any, size: int) -> Any:
        """Does what `prepare` does, to an array or a tensor; returns a tensor."""
        from keras import ops

        if self.not_a_number == "zero":
            maps = ops.nan_to_num(maps)
        if self.resolution == "image":
            maps = enlarged(maps, size)
        return scaled(maps)

    def errors(self, difference: Any) -> Any:
        """Returns the error `[n]` of rows `[n, D]` that differ so much from their copies."""
        from keras import ops

        squared = self.error == "squared"
        return ops.mean(ops.square(difference) if squared else ops.abs(difference), axis=1)

    def exports(self, server: Server, state: State) -> Mapping[str, DetectorExport]:
        """Returns the autoencoders of the last round that had any, as `detector`."""
        return map_export(self, server, state, self.networks(state), self.serve)

    def networks(self, state: State) -> dict[str, keras.Model]:
        """Returns the autoencoder of the last round."""
        if NAMES[0] not in state:
            return {}
        return {"autoencoder": self._recipe.load(state)}

    def serve(
        self, maps: tf.Tensor, networks: Mapping[str, keras.Model], size: int
    ) -> dict[str, tf.Tensor]:
        """Rebuilds maps, scaled and enlarged as in a run; their error is the score."""
        from keras import ops

        inputs = self.inputs(maps, size)
        rows = ops.reshape(inputs, (ops.shape(inputs)[0], -1))
        rebuilt = networks["autoencoder"](rows)
        shape = ops.shape(inputs)
        return {"reconstruction": ops.reshape(rebuilt, shape), "score": self.errors(rebuilt - rows)}

    @property
    def _recipe(self) -> Autoencoder:
        return Autoencoder(self.hidden, "sigmoid", self.epochs)


def enlarged(maps: Any, size: int) -> Any:
    """Returns maps `[…, h, w]` enlarged bilinearly to `[…, size, size]`, as a tensor."""
    from keras import ops

    rows, columns = (bilinear_weights(length, size) for length in maps.shape[-2:])
    return ops.matmul(ops.matmul(rows, maps), columns.T)
