"""Attacks on updates: malicious clients send what no training gave.

    crafted rows → only the columns that the attack may modify → the matrix

`craft` makes the rows; here they are confined to trainable columns, of which `poisoning_ratio` says
how large a share may be modified.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tffl.attacks.base import OWN_DATA, Attack, State
from tffl.core import seeds
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary

COLLUDERS, OVERHEARD, ALL_BENIGN = "colluders' updates", "overheard updates", "all benign updates"
PARTICIPANTS = "number of participants"


@dataclass(frozen=True)
class ModelAttack(Attack):
    """Replaces the malicious rows by crafted ones.

    Columns that no gradient trains (BatchNorm statistics) stay as the client's training left them.

    Attributes:
      poisoning_ratio: Share of the trainable parameters that the attackers may modify, chosen at
        random once per experiment; the others stay as trained. What an attack says of distances
        holds for 1 unless its own page says otherwise.
        Source: Zheng et al., GradCAM-AE, 2025, Table 5.
    """

    poisoning_ratio: Annotated[float, Field(gt=0, le=1)] = 1.0

    def changes_updates(self) -> bool:
        """Returns True: that is what it is for."""
        return True

    @abstractmethod
    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Makes the rows to send.

        Args:
          updates: All trained updates of the round, the malicious clients' own honest or
            data-poisoned training included. Only to be read.
          malicious: bool `[n]`, at least one is True.
          adversary: What the attackers own.
          state: What they remember.

        Returns:
          float32 `[m, d]`, a row per malicious client in their order, or `[1, d]` if all send the
          same; and what the attackers remember for the next time. What it holds in columns that
          may not be modified is ignored.
        """

    def send(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray | None, State]:
        """Returns the trained rows, with the crafted values in the columns that may be modified."""
        if not malicious.any():
            return None, state
        crafted, state = self.craft(updates, malicious, adversary, state)
        rows = np.array(updates.select(malicious).deltas)
        np.copyto(rows, crafted, where=self.modifiable(updates.layout, adversary.seed))
        return rows, state

    def modifiable(self, layout: WeightLayout, seed: int) -> np.ndarray:
        """Returns bool `[d]`: the columns that the attack may modify."""
        free = layout.trainable.copy()
        if self.poisoning_ratio < 1:
            columns = np.flatnonzero(free)
            count = max(1, int(self.poisoning_ratio * len(columns) + 0.5))
            chosen = seeds.generator(seed, "poisoning ratio").permutation(columns)[:count]
            free[:] = False
            free[chosen] = True
        return free


@dataclass(frozen=True)
class InformedAttack(ModelAttack):
    """Crafts its rows from what it sees of the honest ones.

    Attributes:
      knows: `all-benign`, every honest update of the round (the usual worst case); `overheard`, of
        `overheard` of them, drawn anew each round; `colluders`, none: the updates that the
        malicious clients themselves trained stand in for the honest ones.
      overheard: J, how many honest updates are overheard.
    """

    knows: Literal["all-benign", "overheard", "colluders"] = "all-benign"
    overheard: Annotated[int, Field(ge=1)] = 5

    knowledge: ClassVar[tuple[str, ...]] = (OWN_DATA, COLLUDERS, OVERHEARD, ALL_BENIGN)

    def granted(self) -> tuple[str, ...]:
        """Returns what it reads with these options."""
        heard = {
            "all-benign": ALL_BENIGN,
            "overheard": f"{self.overheard} {OVERHEARD}",
            "colluders": COLLUDERS,
        }[self.knows]
        others = (word for word in self.knowledge if word not in InformedAttack.knowledge)
        return (OWN_DATA, heard, *others)

    def seen(self, updates: Updates, malicious: np.ndarray, adversary: Adversary) -> Updates:
        """Returns the updates that the attackers take for honest ones, at least one.

        Where no honest client takes part, that is their own.
        """
        honest = np.flatnonzero(~malicious)
        if self.knows == "colluders" or len(honest) == 0:
            return updates.select(malicious)
        if self.knows == "overheard" and self.overheard < len(honest):
            draw = seeds.generator(adversary.seed, "overheard", updates.round)
            honest = np.sort(draw.choice(honest, self.overheard, replace=False))
        return updates.select(honest)
