"""Defenses that stand before another one, such as `nnm+krum` or `flcert+median`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from tffl.core.errors import UsageError, require
from tffl.core.layout import WeightLayout
from tffl.core.options import Options
from tffl.core.updates import Updates
from tffl.core.verdict import NOT_FINITE, Verdict
from tffl.defenses.base import Defense, State
from tffl.defenses.none import FedAvg, FiniteAvg
from tffl.defenses.parts.tolerance import attacker_note, with_count
from tffl.defenses.server import Server


@dataclass(frozen=True)
class Wrapper(Options, ABC):
    """Options of what stands before another defense."""

    reference: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()

    @property
    def attackers(self) -> int | float | None:
        """As in `Defense`."""
        return None

    @abstractmethod
    def wrap(self, inner: Defense) -> Defense:
        """Returns the defense that results.

        Raises:
          UsageError: The two do not go together.
        """


def wrap(name: str, parts: Sequence[Any]) -> Defense:
    """Joins the parts of a name from the right; a wrapper at the end stands before plain FedAvg.

    Args:
      name: What the user called them, for messages.
      parts: Wrappers, then at most one defense.

    Raises:
      UsageError: A part before the last is not one that can stand before another.
    """
    *outer, last = parts
    defense = FedAvg() if isinstance(last, Wrapper) else last
    wrappers = [*outer, last] if isinstance(last, Wrapper) else outer
    for position, wrapper in reversed(list(enumerate(wrappers))):
        require(
            isinstance(wrapper, Wrapper),
            f"defense {name} is not allowed: {name.split('+')[position]} cannot stand before "
            "another defense; nnm, bucketing and flcert can",
        )
        defense = wrapper.wrap(defense)
    return defense


@dataclass(frozen=True)
class Mixture:
    """How a pre-aggregation mixes n clients' updates.

    Attributes:
      mixing: float64 `[k, n]`, how each of the k new updates is combined from the clients'.
      owner: int64 `[n]`, the new update whose verdict stands for each client.
      sample_counts: int64 `[k]`, what the new updates count in a weighted mean.
    """

    mixing: np.ndarray
    owner: np.ndarray
    sample_counts: np.ndarray


class PreAggregation(Wrapper):
    """Mixes updates, so that those that another defense sees differ less from each other."""

    @abstractmethod
    def mix(self, updates: Updates, server: Server) -> Mixture:
        """Returns how to mix finite updates, at least one."""

    def check(self, participants: int) -> int:
        """Returns how many updates the defense behind it sees; raises `UsageError` if it can't."""
        return participants

    def wrap(self, inner: Defense) -> Defense:
        """Returns the two as one defense; refuses one with several models."""
        require(
            inner.models == 1,
            "only what stands behind flcert sees the clients of one model: name flcert first, as "
            "in flcert+nnm+krum",
        )
        # Where no row is finite there is nothing to mix, and FedAvg would average even that.
        return Mixed(before=self, inner=FiniteAvg() if isinstance(inner, FedAvg) else inner)


@dataclass(frozen=True)
class Mixed(Defense):
    """A pre-aggregation, and the defense that judges what it mixed.

    A client is judged by the update that owns it, and its weight is its share of the mean of all
    updates it is part of. That share may stay above 0 for a client that is not accepted itself.
    Both expect as many attackers as there are among the round's clients, whatever number of updates
    they see; rows that are not finite count as attackers found.
    """

    before: PreAggregation
    inner: Defense

    @property
    def convicts(self) -> bool:
        """Whether the inner defense does."""
        return self.inner.convicts

    @property
    def uses_model(self) -> bool:
        """Whether the inner defense does."""
        return self.inner.uses_model

    @property
    def tracks_clients(self) -> bool:
        """Whether the inner defense does."""
        return self.inner.tracks_clients

    @property
    def needs_history(self) -> bool:
        """Whether the inner defense does."""
        return self.inner.needs_history

    @property
    def depends_on_total_rounds(self) -> bool:
        """Whether the inner defense does."""
        return self.inner.depends_on_total_rounds

    @property
    def judges_statistics(self) -> bool:
        """Whether the inner defense does."""
        return self.inner.judges_statistics

    def options(self) -> dict[str, Any]:
        """Returns the options of both."""
        return {**asdict(self.before), **self.inner.options()}

    def declared_knowledge(self) -> tuple[str, ...]:
        """Returns what either has."""
        own = (*self.before.needs, *attacker_note(self.before.attackers))
        return tuple(dict.fromkeys((*own, *self.inner.declared_knowledge())))

    def for_round(self, participants: int, removed: int = 0) -> Mixed:
        """Gives both the count of one round."""
        before = with_count(self.before, self.before.attackers, participants, removed)
        return replace(self, before=before, inner=self.inner.for_round(participants, removed))

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Checks both; the inner one for as many updates as it will see."""
        parts = self.for_round(participants)
        seen = parts.before.check(participants)
        try:
            parts.inner.check(seen, layout)
        except UsageError as error:
            if seen == participants:
                raise
            note = f"{error} (of {participants} updates, it sees {seen}: they are mixed before it)"
            raise UsageError(note) from None

    def check_server(self, server: Server) -> None:
        """Checks the inner defense."""
        self.inner.check_server(server)

    def init(self, server: Server) -> State:
        """Returns the inner state."""
        return self.inner.init(server)

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Mixes finite updates; a client's verdict is that on the mixture that it owns."""
        finite = updates.finite()
        if not finite.any():
            return self.inner.judge(updates, server, state)
        kept = updates.select(finite)
        parts = self.for_round(len(updates), removed=len(updates) - len(kept))
        mixture = parts.before.mix(kept, server)
        ids = kept.client_ids if len(mixture.mixing) == len(kept) else None
        mixed = kept.mixed(
            mixture.mixing,
            np.arange(len(mixture.mixing)) if ids is None else ids,
            mixture.sample_counts,
        )
        verdict, state = parts.inner.judge(mixed, server, state)
        return _spread(verdict, mixture, finite), state


def _spread(verdict: Verdict, mixture: Mixture, finite: np.ndarray) -> Verdict:
    """Returns the clients' verdict, given the one on mixed updates.

    What the inner defense shows is dropped, as it shows mixtures and not clients.
    """
    n, owner = len(finite), mixture.owner

    def fill(values: np.ndarray, other: Any) -> np.ndarray:
        result = np.full(n, other, dtype=values.dtype)
        result[finite] = values
        return result

    reasons = np.array([*verdict.reasons, ""], dtype=object)[owner]
    return Verdict(
        flagged=fill(verdict.flagged[owner], True),
        convicted=fill(verdict.convicted[owner], True),
        accepted=fill(verdict.accepted[owner], False),
        weights=fill(mixture.mixing.T @ verdict.weights, 0.0),
        scores=fill(verdict.scores[owner], np.inf),
        threshold=verdict.threshold,
        reasons=tuple(fill(reasons, NOT_FINITE)),
        aggregate=verdict.aggregate,
    )
