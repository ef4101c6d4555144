"""FLCert: several models from disjoint groups of clients, which vote.

    group of a client = its place in a random order of all ids, modulo N
    model_g = what any rule makes of the clients of group g, round by round
    prediction(x) = argmax_k |{g : model_g(x) = k}|, the lowest class of those that tie

A client takes part in one group, so that m malicious ones spoil at most m votes, whatever they do
and however good the rule is. `tffl.engine.voting.Certificates` says how many each test input
tolerates; a run writes that to `certificates.csv`.

FLCert: Provably Secure Federated Learning Against Poisoning Attacks
    Xiaoyu Cao, Zaixi Zhang, Jinyuan Jia, Neil Zhenqiang Gong. IEEE TIFS 2022.

This is the variant D, with disjoint groups. P, with random overlapping groups, needs a sampling
argument for its certificate; its text was not at hand, and it is left out. The paper puts a client
into a group by a hash of its id; here the ids are shuffled by the experiment's seed and dealt out
in turn, so that no group is empty and sizes differ by at most one. Neither depends on who is
malicious, but an attacker that may choose many ids, or knows the seed, chooses its groups.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from tffl.core import seeds, states
from tffl.core.errors import require
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.core.verdict import Verdict
from tffl.defenses.base import Defense, State
from tffl.defenses.none import FedAvg, FiniteAvg
from tffl.defenses.server import Server
from tffl.defenses.wrapper import Wrapper


def deal(clients: int, groups: int, generator: np.random.Generator) -> np.ndarray:
    """Returns each client's group, int64 `[clients]`; sizes differ by at most one.

    >>> np.bincount(deal(clients=8, groups=3, generator=np.random.default_rng(0))).tolist()
    [3, 3, 2]
    """
    result = np.empty(clients, dtype=np.int64)
    result[generator.permutation(clients)] = np.arange(clients) % groups
    return result


@dataclass(frozen=True)
class FLCert(Wrapper):
    """Trains one model per group of clients, each by the rule behind it, and lets them vote.

    Attributes:
      groups: N, at least 2. N models that agree tolerate floor(N / 2) attackers, or one less
        where a tie would be lost; and every model has only 1 / N of the data.

    >>> from tffl.defenses.median import Median
    >>> FLCert(groups=5).wrap(Median()).models
    5
    """

    groups: Annotated[int, Field(ge=2)] = 3

    reference: ClassVar[str] = (
        "Cao, Zhang, Jia, Gong, FLCert: Provably Secure Federated Learning Against Poisoning "
        "Attacks, IEEE TIFS 2022"
    )

    def wrap(self, inner: Defense) -> Defense:
        """Returns the rule, applied to each group by itself."""
        rule = FiniteAvg() if isinstance(inner, FedAvg) else inner
        return Grouped(before=self, inner=rule)


@dataclass(frozen=True)
class Grouped(Defense):
    """Several groups with a model and a state each, judged by the same rule.

    Scores and flags are those of the rule, which judges one group at a time. It expects a given
    count of attackers in every group, and a given fraction of each group's participants.

    A group's participants are a constant number only if all clients take part in every round.
    Otherwise the rule is checked for an average group, and judges smaller ones as it does when rows
    with NaN are removed. A group without participants keeps its model for that round. The
    certificate does not depend on the rule: it counts every group with an attacker as lost.
    """

    before: FLCert
    inner: Defense

    @property
    def models(self) -> int:
        """One per group."""
        return self.before.groups

    @property
    def needs_history(self) -> bool:
        """Whether the inner defense does."""
        return self.inner.needs_history

    @property
    def tracks_clients(self) -> bool:
        """Whether the rule does."""
        return self.inner.tracks_clients

    @property
    def depends_on_total_rounds(self) -> bool:
        """Whether the rule does."""
        return self.inner.depends_on_total_rounds

    def groups(self, server: Server) -> np.ndarray:
        """Deals the clients out; raises `UsageError` if there are fewer than groups."""
        clients, groups = server.clients, self.before.groups
        require(
            groups <= clients,
            f"defense.groups = {groups} is not allowed with {clients} clients: a group would be "
            "empty",
        )
        return deal(clients, groups, seeds.generator(server.seed, "flcert"))

    def options(self) -> dict[str, Any]:
        """Returns the options of both."""
        return {**asdict(self.before), **self.inner.options()}

    def declared_knowledge(self) -> tuple[str, ...]:
        """Returns what the rule has."""
        return self.inner.declared_knowledge()

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Checks the rule for the smallest group that full participation gives."""
        groups = self.before.groups
        require(
            groups <= participants,
            f"defense.groups = {groups} is not allowed with {participants} participants a round: "
            "a group would have none",
        )
        self.inner.check(participants // groups, layout)

    def check_server(self, server: Server) -> None:
        """Checks the inner defense."""
        self.inner.check_server(server)

    def init(self, server: Server) -> State:
        """Returns the states of all groups; each has room for all clients' ids."""
        return states.join([self.inner.init(server)] * self.before.groups)

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Judges participants of one group, with that group's state."""
        present = np.unique(self.groups(server)[updates.client_ids])
        require(len(present) == 1, "flcert judges one group of clients at a time")
        group = int(present[0])
        verdict, own = self.inner.judge(updates, server, states.part(state, group))
        return verdict, states.replaced(state, group, own)
