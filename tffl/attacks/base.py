"""What an attack may do: poison its clients' data before training, and their rows after it.

An attack is a frozen dataclass whose fields are its options. Every hook has a neutral default, so
that a data attack overrides `poison`, and an attack on updates extends `ModelAttack`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from tffl.core.errors import require
from tffl.core.layout import WeightLayout
from tffl.core.options import Options
from tffl.core.pixels import PixelRange
from tffl.core.states import State as State
from tffl.core.updates import Updates
from tffl.data.federation import Dataset, Federation

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary

OWN_DATA = "own data"


@dataclass(frozen=True)
class SuccessSet:
    """Inputs that measure attack success: the share that the global model assigns to the targets.

    Attributes:
      images: uint8 `[m, height, width, channels]`, `m >= 1`.
      targets: int32 `[m]`, the classes that count as success.
      source: `"test"` if no client trained on these images; `"train"` if the attackers did, so that
        the share measures memory and not generalization.

    >>> images = np.zeros((5, 28, 28, 1), np.uint8)
    >>> seven = SuccessSet(images, targets=np.full(5, 7, np.int32), source="test")
    >>> predicted = np.array([7, 7, 7, 1, 7])
    >>> float((predicted == seven.targets).mean())
    0.8
    """

    images: np.ndarray
    targets: np.ndarray
    source: str


@dataclass(frozen=True)
class Attack(Options):
    """No attack: every client is honest.

    Attributes:
      from_round: First round of the attack. In rounds that this and the next four options leave
        out, malicious clients train their unchanged data honestly.
      until_round: Last round of the attack; 0 for the last round of the run. With `from_round =
        until_round = R` there is one attack, in round R.
      every_rounds: Attack in every k-th round only, counted from `from_round`.
      on_rounds: Rounds in a row that are attacked, from `from_round` on: a burst.
      off_rounds: Rounds between two bursts, in which the attackers behave to win trust (an on-off
        attack); 0 for no pause. Not together with `every_rounds`.
      claims: Factor of the sample counts that malicious clients claim in these rounds.

    >>> attack = Attack(from_round=2, until_round=6, every_rounds=2)
    >>> [round for round in range(1, 10) if attack.active(round)]
    [2, 4, 6]
    >>> on_off = Attack(from_round=3, on_rounds=2, off_rounds=3)
    >>> [round for round in range(1, 15) if on_off.active(round)]
    [3, 4, 8, 9, 13, 14]
    """

    from_round: Annotated[int, Field(ge=1)] = 1
    until_round: Annotated[int, Field(ge=0)] = 0
    every_rounds: Annotated[int, Field(ge=1)] = 1
    on_rounds: Annotated[int, Field(ge=1)] = 1
    off_rounds: Annotated[int, Field(ge=0)] = 0
    claims: Annotated[float, Field(gt=0, le=1e6)] = 1.0

    reference: ClassVar[str] = ""
    retrains: ClassVar[bool] = False
    """Whether the clients train again when they attack, which two joined attacks cannot both do."""
    knowledge: ClassVar[tuple[str, ...]] = (OWN_DATA,)
    """What the attack reads beyond the global model with any options; plain words."""

    def active(self, round: int) -> bool:
        """Says whether the attackers attack in this round, 1-based."""
        since = round - self.from_round
        ended = 0 < self.until_round < round
        due = since % self.every_rounds == 0
        burst = since % (self.on_rounds + self.off_rounds) < self.on_rounds
        return since >= 0 and due and burst and not ended

    def claimed(self, counts: np.ndarray) -> np.ndarray:
        """Returns the sample counts that malicious clients claim, int64 `[n]`.

        Args:
          counts: The numbers of samples that they have, int64 `[n]`.
        """
        return np.ceil(self.claims * counts).astype(np.int64)

    def changes_updates(self) -> bool:
        """Says whether every attacker sends something other than what it trained.

        If not, an attacker whose data the attack could not poison acts like an honest client.
        """
        return self.claims != 1

    def declared_knowledge(self) -> tuple[str, ...]:
        """Returns what the attack reads with these options, in the words of `knowledge`."""
        return self.knowledge

    def options(self) -> dict[str, Any]:
        """Returns every option and its value."""
        return asdict(self)

    def check(self, dataset: Dataset) -> None:
        """Raises `UsageError` if the attack cannot work on this dataset."""

    def check_clients(self, malicious: int, participants: int) -> None:
        """Raises `UsageError` if the attack cannot work with so many clients.

        Args:
          malicious: Number of malicious clients among all.
          participants: Largest number of clients in a round.
        """
        require(
            not 0 < self.until_round < self.from_round,
            f"attack.until_round = {self.until_round} lies before attack.from_round = "
            f"{self.from_round}: no round would be attacked",
        )
        require(
            self.every_rounds == 1 or self.off_rounds == 0,
            f"attack.every_rounds = {self.every_rounds} and attack.off_rounds = {self.off_rounds} "
            "are not allowed together: attack.on_rounds = 1 with attack.off_rounds = "
            f"{self.every_rounds - 1} attacks in the same rounds as the former",
        )

    def reserve(self, dataset: Dataset) -> np.ndarray:
        """Returns the training indices int64 that no honest client (nor the server) may hold."""
        return np.empty(0, dtype=np.int64)

    def poison(self, federation: Federation, malicious: np.ndarray, seed: int) -> Federation:
        """Returns the federation with the malicious clients' data poisoned.

        Args:
          federation: As partitioned; reserved images are in its pool, and no client holds them.
          malicious: Malicious client ids, int64, ascending.
          seed: The experiment's seed; draw through `tffl.core.seeds`.
        """
        return federation

    def init(self, adversary: Adversary) -> State:
        """Returns what the attackers remember before round 1."""
        return {}

    def send(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray | None, State]:
        """Returns the rows that the malicious clients send.

        Called in every round in which the attack is active, also when no malicious client takes
        part.

        Args:
          updates: All trained updates of the round, read-only. An attack reads of them only what it
            declares in `knowledge`.
          malicious: bool `[n]`, True where the row belongs to a malicious client.
          adversary: What the attackers own.
          state: What they remember.

        Returns:
          float32 `[m, d]`, a row per malicious client in their order; `[1, d]` if all of them send
          the same; or None if they send what they trained. And what they remember for the next
          round in which they attack.
        """
        return None, state

    def poison_rows(
        self,
        rows: np.ndarray,
        *,
        malicious: Sequence[int] | np.ndarray,
        counts: np.ndarray | None = None,
        layout: WeightLayout | None = None,
        start: np.ndarray | None = None,
        seed: int = 0,
        round: int = 1,
    ) -> np.ndarray:
        """Attacks one round of plain rows, without an experiment and without a memory.

        Args:
          rows: What all clients trained, numbers `[n, d]`: trained weights minus the global ones.
          malicious: Positions of the malicious rows, or bool `[n]`.
          counts: Sample counts int64 `[n]`, for attacks that read them; one each if None.
          layout: What the columns are; one trainable variable if None. `tffl.layout_of(model)`
            reads a model's.
          start: The global weights float32 `[d]` that clients started from; zeros if None.
          seed: Of the attackers' random draws.
          round: 1-based; it decides the draws too.

        Returns:
          What the server receives, float32 `[n, d]`: a copy, with other rows of the malicious.

        Raises:
          UsageError: The attack poisons data, or needs a model or data, which rows alone do not
            give; it cannot work with so many clients; or the arguments do not fit the rows.
        """
        from tffl.attacks.plain_rows import Colluders, malicious_mask

        name = type(self).__name__
        updates = Updates.of_rows(rows, counts=counts, layout=layout, start=start, round=round)
        mask = malicious_mask(np.asarray(malicious), len(updates))
        self.check_clients(int(mask.sum()), len(updates))
        colluders = Colluders(name, updates, np.flatnonzero(mask), seed)
        sent, _ = self.send(updates, mask, colluders, self.init(colluders))
        require(
            sent is not None or not mask.any(),
            f"{name} poisons data, and its clients send what they train on it, so that there is no "
            "row to change: use it in tffl.simulate",
        )
        matrix = np.array(updates.deltas)
        if sent is not None:
            matrix[mask] = sent
        return matrix

    def current_success_set(
        self, first: SuccessSet, pixels: PixelRange, state: State
    ) -> SuccessSet | None:
        """Returns the inputs with what the attackers have learned; None if they never change.

        Args:
          first: What `success_set` returned.
          pixels: The values of the darkest pixel and the brightest.
          state: What they remember after the round; with several global models, of the first.
        """
        return None

    def success_set(self, federation: Federation, seed: int) -> SuccessSet | None:
        """Returns the inputs that measure attack success, or None if the attack has no target."""
        return None
