"""Attacks on updates: malicious clients send rows that no training produced.

    crafted rows → spread around them → only the columns that the attack may modify → the matrix

`craft` makes the rows, and `send` confines them to trainable columns, of which `poisoning_ratio` is
the share that may be modified. Attacks that craft one row for all can vary it (`CommonRowAttack`).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tffl.attacks.base import OWN_DATA, Attack, State
from tffl.attacks.spread import around_own, with_noise
from tffl.core import seeds
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary

COLLUDERS, OVERHEARD, ALL_BENIGN = "colluders' updates", "overheard updates", "all benign updates"
PARTICIPANTS = "number of participants"

Spread = Literal["none", "own", "noise"]
VARIED = ("own", "noise")
"""Values of `spread` with which colluders send different rows."""


@dataclass(frozen=True)
class ModelAttack(Attack):
    """Replaces the malicious rows by crafted ones.

    Columns that no gradient trains (BatchNorm statistics) stay as the client's training left them.

    Attributes:
      poisoning_ratio: Share of the trainable parameters that the attackers may modify, chosen at
        random once per experiment; the others stay as trained. Bounds on distances that an attack
        documents hold for 1, unless its docstring says otherwise.
        Source: Zheng et al., GradCAM-AE, 2025, Table 5.

    >>> class Opposite(ModelAttack):
    ...     def craft(self, updates, malicious, adversary, state):
    ...         return -updates.deltas[malicious], state
    >>> Opposite().poison_rows(np.array([[1.0, 2.0], [3.0, 4.0]]), malicious=[1])
    array([[ 1.,  2.],
           [-3., -4.]], dtype=float32)
    """

    poisoning_ratio: Annotated[float, Field(gt=0, le=1)] = 1.0

    def changes_updates(self) -> bool:
        """Returns True."""
        return True

    def after(self, poisoning: Attack) -> ModelAttack:
        """Returns this attack as it follows an attack on data, such as with the same target."""
        return self

    @abstractmethod
    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Makes the rows to send.

        Args:
          updates: All updates of the round as trained, read-only; those of malicious clients too,
            whose data may be poisoned.
          malicious: bool `[n]`, at least one is True.
          adversary: What the attackers own.
          state: What they remember.

        Returns:
          float32 `[m, d]`, a row per malicious client in their order, or `[1, d]` if all send the
          same. Values in columns that may not be modified are ignored. And what the attackers
          remember for the next round in which they attack.
        """

    def send(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray | None, State]:
        """Returns the trained rows, with the crafted values in the columns that may be modified."""
        if not malicious.any():
            return None, state
        crafted, state = self.craft(updates, malicious, adversary, state)
        crafted = self.varied(crafted, updates, malicious, adversary)
        rows = np.array(updates.select(malicious).deltas)
        np.copyto(rows, crafted, where=self.modifiable(updates.layout, adversary.seed))
        return rows, state

    def varied(
        self, crafted: np.ndarray, updates: Updates, malicious: np.ndarray, adversary: Adversary
    ) -> np.ndarray:
        """Returns the rows to send, made of the crafted ones: here, these themselves."""
        return crafted

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
class CommonRowAttack(ModelAttack):
    """Crafts one row for all colluders, which they can send in different versions.

    As published, such attacks send identical rows, which a server recognizes by that alone.

    Attributes:
      spread: How the colluders' rows differ. `none`: not at all, as published. `own`: each sends
        its own trained update, plus what the crafted row has beyond the mean of the honest updates
        that the attackers see. `noise`: each adds its own Gaussian noise to the crafted row. Bounds
        on distances that an attack documents hold for `none`.
      spread_share: Standard deviation of that noise in each coordinate, as a share of the standard
        deviation of the honest updates that the attackers see.

    >>> class Zeros(CommonRowAttack):
    ...     def craft(self, updates, malicious, adversary, state):
    ...         return np.zeros((1, updates.layout.size), np.float32), state
    ...     def seen(self, updates, malicious, adversary):
    ...         return updates.select(~malicious)
    >>> rows = np.array([[3.0], [6.0], [1.0], [3.0]])  # the last two are honest, with mean 2
    >>> Zeros(spread="own").poison_rows(rows, malicious=[0, 1]).ravel()
    array([1., 4., 1., 3.], dtype=float32)
    """

    spread: Spread = "none"
    spread_share: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    knowledge: ClassVar[tuple[str, ...]] = (OWN_DATA, COLLUDERS)

    def declared_knowledge(self) -> tuple[str, ...]:
        """Returns what the attack reads with these options: colluders' updates to vary its row."""
        alike = self.spread not in VARIED
        return tuple(word for word in self.knowledge if not (alike and word == COLLUDERS))

    def seen(self, updates: Updates, malicious: np.ndarray, adversary: Adversary) -> Updates:
        """Returns the updates that the attackers treat as honest ones: here, their own."""
        return updates.select(malicious)

    def varied(
        self, crafted: np.ndarray, updates: Updates, malicious: np.ndarray, adversary: Adversary
    ) -> np.ndarray:
        """Returns the crafted row, or one version of it per colluder, `[m, d]`."""
        if self.spread not in VARIED:
            return crafted
        own, seen = updates.select(malicious), self.seen(updates, malicious, adversary)
        if self.spread == "own":
            return around_own(crafted, own, seen)
        return with_noise(crafted, own, seen, self.spread_share, adversary)


@dataclass(frozen=True)
class InformedAttack(CommonRowAttack):
    """Crafts its row from honest updates, or from updates that stand in for them.

    Attributes:
      knows: `all-benign`, every honest update of the round (the usual worst case); `overheard`, as
        many of them as the option `overheard` says, drawn anew each round; `colluders`, none: the
        updates that the malicious clients themselves trained stand in for the honest ones.
      overheard: J, the number of honest updates that are overheard.

    >>> class Copy(InformedAttack):
    ...     def craft(self, updates, malicious, adversary, state):
    ...         return self.seen(updates, malicious, adversary).row(0)[None], state
    >>> rows = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    >>> Copy().poison_rows(rows, malicious=[2])[2]
    array([1., 2.], dtype=float32)
    >>> Copy(knows="colluders").poison_rows(rows, malicious=[1, 2])[2]
    array([3., 4.], dtype=float32)
    """

    knows: Literal["all-benign", "overheard", "colluders"] = "all-benign"
    overheard: Annotated[int, Field(ge=1)] = 5

    knowledge: ClassVar[tuple[str, ...]] = (OWN_DATA, COLLUDERS, OVERHEARD, ALL_BENIGN)

    def declared_knowledge(self) -> tuple[str, ...]:
        """Returns what the attack reads with these options."""
        heard = {
            "all-benign": ALL_BENIGN,
            "overheard": f"{self.overheard} {OVERHEARD}",
            "colluders": COLLUDERS,
        }[self.knows]
        others = (word for word in self.knowledge if word not in InformedAttack.knowledge)
        return (OWN_DATA, heard, *others)

    def seen(self, updates: Updates, malicious: np.ndarray, adversary: Adversary) -> Updates:
        """Returns the updates that the attackers treat as honest ones, at least one.

        If no honest client takes part, these are their own.
        """
        honest = np.flatnonzero(~malicious)
        if self.knows == "colluders" or len(honest) == 0:
            return updates.select(malicious)
        if self.knows == "overheard" and self.overheard < len(honest):
            draw = seeds.generator(adversary.seed, "overheard", updates.round)
            honest = np.sort(draw.choice(honest, self.overheard, replace=False))
        return updates.select(honest)
