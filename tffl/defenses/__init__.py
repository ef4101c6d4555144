"""Defenses of a federated server: one file each, named in a config by `defense.name`."""

from typing import TYPE_CHECKING

from tffl.core.lazy import lazy
from tffl.core.verdict import Verdict
from tffl.defenses.base import Defense
from tffl.defenses.registry import defenses
from tffl.defenses.server import Server

if TYPE_CHECKING:
    from tffl.defenses.create import create_defense as create_defense

_HOMES = {
    **defenses.homes(),
    "AllButLowest": "tffl.defenses.parts.thresholds",
    "Detector": "tffl.defenses.detector",
    "Fixed": "tffl.defenses.parts.thresholds",
    "Gap": "tffl.defenses.parts.thresholds",
    "Highest": "tffl.defenses.parts.thresholds",
    "MeanStd": "tffl.defenses.parts.thresholds",
    "MedianMad": "tffl.defenses.parts.thresholds",
    "RobustMean": "tffl.defenses.robust_mean",
    "ScoreDetector": "tffl.defenses.score_detector",
    "Selection": "tffl.defenses.selection",
    "Session": "tffl.defenses.session",
    "Vote": "tffl.defenses.parts.votes",
    "create_defense": "tffl.defenses.create",
}

__all__ = [*sorted(_HOMES), "Defense", "Server", "Verdict", "defenses"]
__getattr__ = lazy(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
