"""Joined attacks, such as `label-flip+scaling`: the parts act one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.attacks.base import Attack, State, SuccessSet
from tffl.attacks.model_attack import ModelAttack
from tffl.core import states
from tffl.core.errors import require
from tffl.core.pixels import PixelRange
from tffl.core.updates import Updates
from tffl.data.federation import Dataset, Federation

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


def compose(name: str, parts: Sequence[Attack]) -> Attack:
    """Joins attacks into one.

    Args:
      name: Their name in the config, for messages.
      parts: At least one; an attack on data first, then one on the updates trained on it.

    Raises:
      UsageError: More than one part is an attack on data, or more than one on updates, or both
        parts train the clients again.
    """
    if len(parts) == 1:
        return parts[0]
    require(
        all(type(part) is not Attack for part in parts),
        f"attack {name} joins 'none' with an attack: leave it out",
    )
    crafting = [isinstance(part, ModelAttack) for part in parts]
    require(
        crafting.count(False) <= 1 and crafting.count(True) <= 1 and not crafting[0],
        f"attack {name} is not allowed: join one attack on data with one on updates, in this "
        "order, as in label-flip+scaling",
    )
    require(
        sum(part.retrains for part in parts) <= 1,
        f"attack {name} is not allowed: both parts train the clients again, and the second would "
        "undo the first",
    )
    first, *others = parts
    after = (part.after(first) if isinstance(part, ModelAttack) else part for part in others)
    return Composed(parts=(first, *after))


@dataclass(frozen=True)
class Composed(Attack):
    """Parts that act one after the other on the same malicious clients.

    Attributes:
      parts: In the order in which they act.
    """

    parts: tuple[Attack, ...] = ()

    def active(self, round: int) -> bool:
        """Says whether the attackers attack in this round; the parts share one schedule."""
        return self.parts[0].active(round)

    def claimed(self, counts: np.ndarray) -> np.ndarray:
        """Returns how many samples clients claim; the parts share one factor."""
        return self.parts[0].claimed(counts)

    def changes_updates(self) -> bool:
        """Says whether any part changes updates."""
        return any(part.changes_updates() for part in self.parts)

    def declared_knowledge(self) -> tuple[str, ...]:
        """Returns what any part reads."""
        return tuple(
            dict.fromkeys(word for part in self.parts for word in part.declared_knowledge())
        )

    def options(self) -> dict[str, Any]:
        """Returns the options of all parts; options of the same name have one value."""
        return {key: value for part in self.parts for key, value in part.options().items()}

    def check(self, dataset: Dataset) -> None:
        """Checks every part."""
        for part in self.parts:
            part.check(dataset)

    def check_clients(self, malicious: int, participants: int) -> None:
        """Checks every part."""
        for part in self.parts:
            part.check_clients(malicious, participants)

    def reserve(self, dataset: Dataset) -> np.ndarray:
        """Returns what any part reserves."""
        return np.unique(np.concatenate([part.reserve(dataset) for part in self.parts]))

    def poison(self, federation: Federation, malicious: np.ndarray, seed: int) -> Federation:
        """Returns the federation after every part has poisoned it, in their order."""
        for part in self.parts:
            federation = part.poison(federation, malicious, seed)
        return federation

    def init(self, adversary: Adversary) -> State:
        """Returns the memories of all parts, each under its number."""
        return states.join([part.init(adversary) for part in self.parts])

    def send(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray | None, State]:
        """Returns the last part's rows; each part works on what the one before it returned."""
        sent: np.ndarray | None = None
        memories: list[State] = []
        for number, part in enumerate(self.parts):
            rows, memory = part.send(updates, malicious, adversary, states.part(state, number))
            memories.append(memory)
            if rows is not None:
                sent, updates = rows, updates.with_rows(malicious, rows)
        return sent, states.join(memories)

    def current_success_set(
        self, first: SuccessSet, pixels: PixelRange, state: State
    ) -> SuccessSet | None:
        """Returns those of the first part that has any."""
        for number, part in enumerate(self.parts):
            found = part.current_success_set(first, pixels, states.part(state, number))
            if found is not None:
                return found
        return None

    def success_set(self, federation: Federation, seed: int) -> SuccessSet | None:
        """Returns the success inputs of the first part that has any: the attack on data."""
        sets = (part.success_set(federation, seed) for part in self.parts)
        return next((found for found in sets if found is not None), None)
