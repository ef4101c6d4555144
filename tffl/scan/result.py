"""The result of a scan: one verdict on each file, and the opinions of all defenses on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tffl.core.errors import require
from tffl.core.verdict import Judgment
from tffl.defenses.base import State
from tffl.untrusted.model_folder import ModelFolder
from tffl.untrusted.refusal import printable

REFUSED, SUSPECT, NOT_JUDGED, OK = "refused", "suspect", "not judged", "ok"
VERDICTS = (REFUSED, SUSPECT, NOT_JUDGED, OK)
"""The verdicts on a file, the worst first."""


@dataclass(frozen=True)
class Opinion:
    """The opinion of one defense on one file.

    Attributes:
      defense: The name of the defense; empty if the file was refused.
      suspect: Whether the file is a suspect.
      score: The score; NaN if there is none.
      threshold: The threshold of the scores; NaN if there is none.
      reason: The reason in words.
    """

    defense: str
    suspect: bool
    score: float
    threshold: float
    reason: str


@dataclass(frozen=True)
class ScanResult:
    """The result of a scan.

    Attributes:
      folder: The files, and the updates of those that could be read.
      verdicts: Defense → its judgment of `folder.updates`, with what it saw.
      memories: Defense → its state after the scan, such as a fitted autoencoder.
      unjudged: Defense → the reason why it could not judge, such as too few files.
      warnings: Warnings about limits of the verdicts.
    """

    folder: ModelFolder
    verdicts: Mapping[str, Judgment]
    memories: Mapping[str, State]
    unjudged: Mapping[str, str]
    warnings: Sequence[str] = ()

    def opinions(self, name: str) -> list[Opinion]:
        """Returns the opinions of all defenses on a file; for a refused file, the reason."""
        if name in self.folder.refused:
            return [Opinion("", True, math.nan, math.nan, self.folder.refused[name])]
        row = self.folder.names.index(name)
        return [
            Opinion(
                defense,
                bool(verdict.convicted[row]),
                float(verdict.scores[row]),
                float(verdict.threshold),
                verdict.reasons[row],
            )
            for defense, verdict in self.verdicts.items()
        ]

    @cached_property
    def files(self) -> dict[str, list[Opinion]]:
        """Name of each file → the opinions on it, sorted by name."""
        names = sorted([*self.folder.names, *self.folder.refused])
        return {name: self.opinions(name) for name in names}

    @cached_property
    def suspects(self) -> list[str]:
        """Names of the files that are refused, or convicted by any defense."""
        return [name for name in self.files if self.verdict(name) in (REFUSED, SUSPECT)]

    @property
    def defenses(self) -> list[str]:
        """The names of all defenses, also of those that could not judge."""
        return [*self.verdicts, *self.unjudged]

    def verdict(self, name: str) -> str:
        """Returns the verdict on a file, one of `VERDICTS`: `suspect` if any defense says so."""
        if name in self.folder.refused:
            return REFUSED
        opinions = self.files[name]
        if not opinions:
            return NOT_JUDGED
        return SUSPECT if any(opinion.suspect for opinion in opinions) else OK

    def reason(self, name: str) -> str:
        """Returns why a file is a suspect: a line for each defense that convicts it."""
        opinions = self.files[name]
        several = len(opinions) > 1
        return "\n".join(
            f"{opinion.defense}: {opinion.reason}" if several else opinion.reason
            for opinion in opinions
            if opinion.suspect and (opinion.reason or several)
        )

    def check_judged(self) -> None:
        """Raises `UsageError` if nothing is suspect, but a defense could not judge."""
        for name, reason in self.unjudged.items():
            require(bool(self.suspects), f"{name} could not judge: {reason}")

    def as_dict(self) -> dict[str, Any]:
        """Returns the result for JSON, with names that are safe to print."""
        return {
            "files": [
                {
                    "file": printable(name, 255),
                    "verdict": self.verdict(name),
                    "reason": self.reason(name),
                    "suspect": name in self.suspects,
                    "readable": name not in self.folder.refused,
                    "opinions": [vars(opinion) for opinion in opinions],
                }
                for name, opinions in self.files.items()
            ],
            "suspects": [printable(name, 255) for name in self.suspects],
            "unjudged": dict(self.unjudged),
            "warnings": list(self.warnings),
        }
