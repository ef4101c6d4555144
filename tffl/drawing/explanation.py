"""The heat maps of one round, next to the truth that the detector did not know."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core.verdict import HeatMaps, Shown
from tffl.defenses.create import score_name
from tffl.explain.maps import Findings

if TYPE_CHECKING:
    import pandas as pd

    from tffl.config import Config


@dataclass(frozen=True)
class Explanation:
    """The heat maps of the n clients of a round, and what is known of the clients.

    Attributes:
      round: 1-based.
      title: In words, such as `"label-flip against gradcam-ae"`.
      score_name: What the scores measure.
      client_ids: int64 `[n]`.
      malicious: bool `[n]`, the truth.
      flagged: bool `[n]`.
      scores: float64 `[n]`, NaN where the defense has none.
      threshold: Of the scores; NaN if there is none.
      heat_maps: What a detector saw.
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
    heat_maps: HeatMaps
    names: tuple[str, ...] = ()

    @property
    def maps(self) -> np.ndarray:
        """The maps as the models yield them, float32 `[n, p, h, w]`."""
        return self.heat_maps.maps

    @property
    def part(self) -> str:
        """Name of the detector, where several saw the same round; else empty."""
        return self.heat_maps.part.strip("/").replace("/", "-")

    @property
    def heading(self) -> str:
        """The title, with the round if there is one."""
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
    client_ids: np.ndarray,
    shown: Iterable[Shown],
) -> list[Explanation]:
    """Explains what the detectors of a run saw in a round; nothing if they saw no heat maps.

    Args:
      config: Of the run.
      round: 1-based.
      rounds: The columns of `rounds.csv`.
      clients: The columns of `clients.csv`.
      client_ids: int64 `[n]`.
      shown: What the defense showed.
    """
    return explanations(
        shown, lambda seen: described(config, round, rounds, clients, client_ids, seen)
    )


def explanations(
    shown: Iterable[Shown], describe: Callable[[HeatMaps], Explanation]
) -> list[Explanation]:
    """Returns one explanation per detector that saw heat maps, with its name in the title."""
    found = [describe(one) for one in shown if isinstance(one, HeatMaps)]
    return [
        replace(one, title=f"{one.title}, {one.heat_maps.part.strip('/')}") if one.part else one
        for one in found
    ]


def title_of(config: Config) -> str:
    """Returns who fights whom, such as `"lie against shield"`."""
    defense, attack = config.defense.name, config.attack.name
    return (
        f"{'no attack' if attack == 'none' else attack} against "
        f"{'no defense' if defense == 'none' else defense}"
    )


def described(
    config: Config,
    round: int,
    rounds: pd.DataFrame,
    clients: pd.DataFrame,
    client_ids: np.ndarray,
    heat_maps: HeatMaps,
) -> Explanation:
    """Returns heat maps of clients int64 `[n]`, with what the tables of a run say of them."""
    mine = clients[clients["round"] == round].set_index("client").loc[client_ids]
    defense = config.defense.name
    return Explanation(
        round=round,
        title=title_of(config),
        score_name=score_name(defense, f"score of {defense}"),
        client_ids=client_ids,
        malicious=mine["malicious"].to_numpy(bool),
        flagged=mine["flagged"].to_numpy(bool),
        scores=mine["score"].to_numpy(float),
        threshold=float(rounds.set_index("round")["threshold"][round]),
        heat_maps=heat_maps,
    )
