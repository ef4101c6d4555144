"""What attackers and defense remember from round to round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tffl.defenses.base import State


@dataclass(frozen=True)
class Memory:
    """What both sides remember from round to round.

    Attributes:
      attack: What the attackers remember of each global model, by its number.
      defense: What the defense does.
    """

    attack: State
    defense: State

    def tensors(self) -> dict[str, np.ndarray]:
        """Returns both in one mapping, for a checkpoint."""
        sides = (("attack", self.attack), ("defense", self.defense))
        return {f"{side}/{key}": state[key] for side, state in sides for key in state}

    @classmethod
    def of(cls, tensors: Mapping[str, np.ndarray]) -> Memory:
        """Reads what `tensors` returned."""

        def side(name: str) -> State:
            keys = (key for key in tensors if key.startswith(f"{name}/"))
            return {key.removeprefix(f"{name}/"): tensors[key] for key in keys}

        return cls(side("attack"), side("defense"))
