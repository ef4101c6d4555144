"""What a defense is: the updates of a round in, a verdict out.

Families of defenses have a base class each:

    Detector     score → threshold → vote → aggregate     leaves suspects out
    RobustMean   combine                                   bounds everyone's influence
    Selection    combine                                   averages a few
    Wrapper      stands before another defense

Any other rule extends `Defense` and writes `judge`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

from tffl.core.errors import require
from tffl.core.layout import WeightLayout
from tffl.core.options import check_options
from tffl.core.states import State as State
from tffl.core.updates import Updates
from tffl.core.verdict import Judgment, Verdict
from tffl.data.samples import AUXILIARY_DATA, PROBE_DATA, ROOT_DATA
from tffl.defenses.exports import DetectorExport
from tffl.defenses.parts.tolerance import attacker_note, with_count
from tffl.defenses.server import Server, make_server, of_model

AnyDefense = TypeVar("AnyDefense", bound="Defense")


@dataclass(frozen=True)
class Defense(ABC):
    """Judges the updates of each round. Subclasses are frozen dataclasses of their options.

    >>> from tffl.defenses.krum import Krum
    >>> isinstance(Krum(), Defense), Krum(malicious=2).declared_knowledge()
    (True, ('told malicious = 2',))
    """

    reference: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    tables_field: ClassVar[str] = ""
    """Name of the field, if there is one, that takes the options of other defenses.

    Each of them stands in a table of the defense's name, as in `[defense.krum]`.
    """
    score_name: ClassVar[str] = ""
    """What its scores measure, as the axis of a chart says it, where there is a better word."""

    def __post_init__(self) -> None:
        """Checks every option; subclasses that have a `__post_init__` call this one first.

        Raises:
          UsageError: A value is out of its range; one line that says what is allowed.
        """
        check_options(self)

    @property
    def models(self) -> int:
        """How many global models the server keeps; clients are split into as many groups."""
        return 1

    @property
    def attackers(self) -> int | float | None:
        """What its user says of a round's attackers: a count, a fraction, or None.

        Overridden where there is an option `malicious`.
        """
        return None

    @property
    def convicts(self) -> bool:
        """Whether it can convict anyone, apart from rows that are not finite."""
        return True

    @property
    def uses_model(self) -> bool:
        """Whether it evaluates clients' models on images."""
        return False

    @property
    def tracks_clients(self) -> bool:
        """Whether it remembers from round to round what each client sent."""
        return False

    @property
    def needs_history(self) -> bool:
        """Whether one round without names, such as a folder of files, is too little for it."""
        return self.tracks_clients

    @property
    def depends_on_total_rounds(self) -> bool:
        """Whether what it does in a round depends on how many there are in all."""
        return False

    @property
    def judges_statistics(self) -> bool:
        """Whether variables that no gradient trains, such as BatchNorm statistics, are judged.

        They are where clients' models are evaluated on images.
        """
        return bool({PROBE_DATA, AUXILIARY_DATA} & set(self.declared_knowledge()))

    def groups(self, server: Server) -> np.ndarray:
        """Returns int64 `[server.clients]`: which of the global models each client trains."""
        return np.zeros(server.clients, dtype=np.int64)

    def options(self) -> dict[str, Any]:
        """Returns every option and its value."""
        return asdict(self)

    def declared_knowledge(self) -> tuple[str, ...]:
        """Returns what the experiment lets it have beyond the updates, for the record."""
        return (*self.needs, *attacker_note(self.attackers))

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` before round 1 if the defense cannot work in this setting."""
        return

    def check_server(self, server: Server) -> None:
        """Raises `UsageError` before round 1 if what the server owns does not suit the defense."""
        return

    def init(self, server: Server) -> State:
        """Returns the state before round 1."""
        return {}

    def exports(self, server: Server, state: State) -> Mapping[str, DetectorExport]:
        """Returns trained detectors worth keeping after the last round, by a folder's name."""
        return {}

    def for_round(self: AnyDefense, participants: int, removed: int = 0) -> AnyDefense:
        """Returns this defense with the count of attackers that it expects in one round.

        A fraction is one of `participants`, of whom `removed` are found already.
        """
        return with_count(self, self.attackers, participants, removed)

    def missing(self, server: Server) -> str:
        """Returns in one sentence what this defense needs and the server lacks; empty if none."""
        name, declared = type(self).__name__, self.declared_knowledge()
        if self.uses_model and server.explainer is None:
            return f"{name} looks at clients' models: give model="
        images = server.samples is not None and len(server.samples.labels) > 0
        if {PROBE_DATA, AUXILIARY_DATA} & {*declared} and not images:
            return f"{name} looks at images: give model=, images= and labels="
        if ROOT_DATA in declared and server.root is None:
            return f"{name} compares with the server's own update: give root_update="
        return ""

    def judge_rows(
        self,
        rows: np.ndarray,
        *,
        counts: np.ndarray | None = None,
        layout: WeightLayout | None = None,
        ids: np.ndarray | None = None,
        start: np.ndarray | None = None,
        **server: Any,
    ) -> Verdict:
        """Judges one round of plain rows, without an experiment and without a memory.

        `tffl.Session` does the same over rounds.

        Args:
          rows: Client updates, float32 `[n, d]`: trained weights minus the global ones.
          counts: Sample counts int64 `[n]`; one each if None.
          layout: What the columns are; the model's, or one trainable variable, if None.
            `tffl.layout_of(model)` reads a model's.
          ids: Client ids int64 `[n]`, ascending; 0 … n − 1 if None.
          start: The global weights float32 `[d]` that clients started from; the model's, or zeros,
            if None.
          **server: What the server owns, as `tffl.defenses.server.make_server` takes it: `model`,
            `images`, `labels`, `root_update`, `seed`, `learning_rate`.

        Raises:
          UsageError: The rows are no matrix, the defense cannot work with so few of them, or it
            needs something that is not given.
        """
        if model := server.get("model"):
            layout, start = of_model(model, layout, start)
        updates = Updates.of_rows(rows, counts=counts, layout=layout, ids=ids, start=start)
        owner = make_server(updates.layout, int(updates.client_ids.max()) + 1, **server)
        self.check_given(len(updates), owner)
        return self.judge(updates, owner, self.init(owner))[0]

    def check_given(self, participants: int, server: Server) -> None:
        """Raises `UsageError` unless it can judge so many clients with what the server has."""
        name = type(self).__name__
        require(
            self.models == 1,
            f"{name} keeps {self.models} global models: judge the rows of each by what stands "
            "behind it",
        )
        lacking = self.missing(server)
        require(not lacking, lacking)
        self.check(participants, server.layout)
        self.check_server(server)

    @abstractmethod
    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Returns the verdict on a round, and the state for the next one."""

    def suspect(self, updates: Updates, server: Server, state: State) -> tuple[Judgment, State]:
        """Returns whom it suspects, and the state for the next round, as `judge` would.

        For those who need no average, such as a combination. Detectors save the time for it.
        """
        return self.judge(updates, server, state)


def sample_shares(updates: Updates, accepted: np.ndarray) -> np.ndarray:
    """Returns FedAvg's weights float64 `[n]`: sample counts of the accepted rows, summing to 1."""
    counts = np.where(accepted, updates.sample_counts, 0).astype(np.float64)
    return counts / counts.sum() if counts.any() else counts
