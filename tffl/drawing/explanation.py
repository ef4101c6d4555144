"""What a heat-map detector saw in one round, next to the truth that it did not know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.explain.maps import Findings

if TYPE_CHECKING:
    import pandas as pd

    from tffl.config import Config

SCORES = {
    "gradcam-ae": "reconstruction error",
    "layercam-ae": "reconstruction error",
    "cam-consensus": "reconstruction error, relative to the median client",
    "gradcam-krum": "Krum score",
}
"""What a defense's scores are, where there is a better word than score."""


@dataclass(frozen=True)
class Look:
    """The heat maps of the n clients of a round.

    Attributes:
      round: 1-based.
      title: In words, such as `"label-flip against gradcam-ae"`.
      score_name: What the scores are.
      client_ids: int64 `[n]`.
      malicious: bool `[n]`, the truth.
      flagged: bool `[n]`.
      scores: float64 `[n]`, NaN where the defense has none.
      threshold: Of the scores; NaN if there is none.
      maps: Raw, float32 `[n, p, h, w]`.
      probes: The first of the p probes, uint8 `[…, height, width, channels]`, if they are known.
      inputs: What was rebuilt, float32 `[n, p, …]`, NaN for clients that were not judged.
      rebuilt: What it was rebuilt as.
      part: Name of the detector, where several looked at the same round.
      names: Of the clients, where they are files that somebody sent: then there is no round, and
        nobody knows the truth.
    """

    round: int
    title: str
    score_name: str
    client_ids: np.ndarray
    malicious: np.ndarray
    flagged: np.ndarray
    scores: np.ndarray
    threshold: float
    maps: np.ndarray
    probes: np.ndarray | None = None
    inputs: np.ndarray | None = None
    rebuilt: np.ndarray | None = None
    part: str = ""
    names: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """What is looked at."""
        return self.title if self.names else f"round {self.round}: {self.title}"

    def name(self, row: int) -> str:
        """Returns what a client is called."""
        return self.names[row] if self.names else f"client {self.client_ids[row]}"

    @property
    def scored(self) -> bool:
        """Whether the defense has scores."""
        return not bool(np.isnan(self.scores).all())

    def rows(self) -> list[dict[str, Any]]:
        """Returns a row per client: the truth, the verdict, and what there is to say of its maps.

        `distance` is what `distances` returns; `dead_maps` and `non_finite_maps` are counts.
        """
        found, far = Findings.of(self.maps), distances(self.maps)
        return [
            {
                "client": int(client),
                "malicious": bool(self.malicious[row]),
                "score": float(self.scores[row]),
                "flagged": bool(self.flagged[row]),
                "dead_maps": int(found.dead[row]),
                "non_finite_maps": int(found.non_finite[row]),
                "distance": float(far[row]),
            }
            for row, client in enumerate(self.client_ids)
        ]


def distances(maps: np.ndarray) -> np.ndarray:
    """Returns how far each client's maps are from the clients' median map, float64 `[n]`.

    Euclidean distances, averaged over probes and divided by those of the median client, so that 1
    is usual; infinite for clients whose maps are not finite, which no median takes into account.

    Args:
      maps: float32 `[n, p, h, w]`.

    >>> distances(np.array([0.0, 1.0, 2.0, 4.0, np.nan]).reshape(5, 1, 1, 1))
    array([1.5, 0.5, 0.5, 2.5, inf])
    """
    rows = maps.reshape(*maps.shape[:2], -1).astype(np.float64)
    usable = finite(maps)
    result = np.full(len(maps), np.inf)
    if not usable.any():
        return result
    center = np.median(rows[usable], axis=0)
    found = np.linalg.norm(rows[usable] - center, axis=2).mean(axis=1)
    usual = float(np.median(found))
    result[usable] = found / usual if usual > 0 else np.where(found == 0, 1.0, np.inf)
    return result


def finite(maps: np.ndarray) -> np.ndarray:
    """Returns bool `[n]`: whose maps `[n, …]` hold neither NaN nor infinity."""
    return np.asarray(np.isfinite(maps).all(axis=tuple(range(1, maps.ndim))))


def recorded(
    config: Config,
    round: int,
    rounds: pd.DataFrame,
    clients: pd.DataFrame,
    stored: Mapping[str, np.ndarray],
) -> list[Look]:
    """Returns what the detectors of a run looked at in a round; nothing if there were none.

    Args:
      config: Of the run.
      round: 1-based.
      rounds: The columns of `rounds.csv`.
      clients: The columns of `clients.csv`.
      stored: What the run has kept of the round: `Verdict.pictures`, and the `client_ids`.
    """

    def judged(maps: np.ndarray) -> Look:
        return described(config, round, rounds, clients, stored["client_ids"], maps)

    return looks(stored, judged)


def looks(pictures: Mapping[str, np.ndarray], look: Callable[[np.ndarray], Look]) -> list[Look]:
    """Returns what each detector looked at; nothing if there are no heat maps.

    Args:
      pictures: `Verdict.pictures`.
      look: Raw maps float32 `[n, p, h, w]` → what else is known of those who look so.
    """
    # Several detectors of a combination keep their maps under their names.
    parts = [name.removesuffix("maps") for name in map_names(pictures)]
    return [_looked(look(pictures[f"{part}maps"]), pictures, part) for part in parts]


def map_names(stored: Mapping[str, np.ndarray]) -> list[str]:
    """Returns the names under which detectors keep their heat maps."""
    return [name for name in stored if name.split("/")[-1] == "maps"]


def _looked(look: Look, stored: Mapping[str, np.ndarray], part: str) -> Look:
    return replace(
        look,
        title=f"{look.title}, {part.strip('/')}" if part else look.title,
        probes=stored.get(f"{part}probes"),
        inputs=stored.get(f"{part}inputs"),
        rebuilt=stored.get(f"{part}rebuilt"),
        part=part.strip("/").replace("/", "-"),
    )


def described(
    config: Config,
    round: int,
    rounds: pd.DataFrame,
    clients: pd.DataFrame,
    client_ids: np.ndarray,
    maps: np.ndarray,
) -> Look:
    """Returns raw maps float32 `[n, p, h, w]`, next to what the tables of a run say of a round."""
    mine = clients[clients["round"] == round].set_index("client").loc[client_ids]
    defense, attack = config.defense.name, config.attack.name
    return Look(
        round=round,
        title=f"{'no attack' if attack == 'none' else attack} against "
        f"{'no defense' if defense == 'none' else defense}",
        score_name=SCORES.get(defense, f"score of {defense}"),
        client_ids=client_ids,
        malicious=mine["malicious"].to_numpy(bool),
        flagged=mine["flagged"].to_numpy(bool),
        scores=mine["score"].to_numpy(float),
        threshold=float(rounds.set_index("round")["threshold"][round]),
        maps=maps,
    )
