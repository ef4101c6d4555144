"""The malicious clients of an experiment: whose data is poisoned, and what they send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tffl.attacks import Attack
from tffl.attacks.adversary import Adversary
from tffl.core import states
from tffl.core.updates import Updates
from tffl.data.federation import ClientData
from tffl.defenses.base import State
from tffl.engine.observer import Observer


@dataclass(frozen=True)
class Attackers:
    """The malicious clients, honest in rounds in which the attack rests.

    Attributes:
      attack: What they do.
      adversary: What they own and can compute together.
      honest: The data of all clients as dealt, by client id.
      poisoned: The same as the attack left it.
    """

    attack: Attack
    adversary: Adversary
    honest: Sequence[ClientData]
    poisoned: Sequence[ClientData]

    @property
    def ids(self) -> np.ndarray:
        """Their client ids, ascending, int64 `[f]`."""
        return self.adversary.ids

    def init(self, models: int) -> State:
        """Returns what they remember before round 1 of each global model, by its number."""
        return states.join([self.attack.init(self.adversary)] * models)

    def data(self, round: int) -> Sequence[ClientData]:
        """Returns the data on which clients train in a round, by client id."""
        return self.poisoned if self.attack.active(round) else self.honest

    def with_poisoned_data(self) -> list[int]:
        """Returns the clients whose data the attack has changed."""
        return [i for i in self.ids.tolist() if self.poisoned[i] != self.honest[i]]

    def acting(self) -> list[int]:
        """Returns the malicious clients that do anything when they take part in an attack.

        An attack on data may find nothing to change with some of them, such as no image of the
        class whose labels it flips. They train honestly, but count as malicious.
        """
        changed = self.with_poisoned_data()
        if self.attack.changes_updates() or not changed:
            return [int(client) for client in self.ids]
        return changed

    def warn_of_idle(self, name: str, observer: Observer) -> None:
        """Warns if the attack changes nothing for some of them; `name` is the attack's."""
        acting, malicious = len(self.acting()), len(self.ids)
        if acting < malicious:
            observer.warning(
                f"{name} changes the data of {acting} of {malicious} malicious "
                "clients: the others hold nothing that it could change and train honestly, but "
                "recall counts them as malicious all the same"
            )

    def send(self, updates: Updates, state: State) -> tuple[Updates, np.ndarray, State]:
        """Replaces what malicious clients trained by what they send, rows and claimed counts.

        Args:
          updates: As trained. The rows are written into its matrix, which is not copied.
          state: What the attackers remember.

        Returns:
          The updates as sent; bool `[n]`, the clients that attack; and the attackers' memory.
        """
        if not self.attack.active(updates.round):
            return updates, np.zeros(len(updates), dtype=bool), state
        malicious = np.isin(updates.client_ids, self.ids)
        counts = updates.sample_counts.copy()
        counts[malicious] = self.attack.claimed(counts[malicious])
        sent = replace(updates, sample_counts=counts)
        rows, state = self.attack.send(sent.read_only(), malicious, self.adversary, state)
        if rows is not None:
            sent.matrix[malicious] = rows
        return sent, malicious, state
