"""What a defense is: the updates of a round in, a verdict out.

    features → score → threshold → vote → aggregate

`Detector` runs these five steps; a defense overrides those in which its paper differs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tffl.federated.layout import WeightLayout
from tffl.federated.updates import Updates

if TYPE_CHECKING:
    import keras

    from tffl.explain.maps import Explainer

State = Mapping[str, np.ndarray]
"""What a defense remembers from round to round; a checkpoint stores it as it is."""


ROOT_DATA = "root data"
"""What a defense needs if the server must have samples of its own; see `Root`."""


@dataclass(frozen=True)
class Root:
    """The server's own, trusted samples.

    Attributes:
      images: uint8 `[m, height, width, channels]`, `m >= 1`.
      labels: int32 `[m]`.
      train: (start float32 `[d]`, round) → the update float32 `[d]` that the server gets when it
        trains on them exactly as a client would in that round.
    """

    images: np.ndarray
    labels: np.ndarray
    train: Callable[[np.ndarray, int], np.ndarray]


PROBE_DATA = "probe images"
"""What a defense needs if it looks at how clients' models see some images; see `Samples`."""


AUXILIARY_DATA = "auxiliary images"
"""What a defense needs if it learns from the server's images of some classes."""


@dataclass(frozen=True)
class Samples:
    """Labeled images: uint8 `[m, height, width, channels]`, int32 `[m]`, how many classes, names.

    The classes' names may be unknown.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Server:
    """What a real server owns, and nothing more: never the ground truth.

    Attributes:
      model: The global network, for its structure; its weights are those of the round's start.
      layout: Columns of the update matrix.
      clients: Number of registered clients; ids are below it.
      seed: The experiment's seed; draw through `tffl.seeds`.
      root: Its own samples, if the experiment grants it any.
      learning_rate: What it multiplies an aggregated update by.
      samples: Labeled images to look at clients' models with: its root samples if it has any, else
        the test set, as in the papers.
      explainer: Makes class activation maps of clients' models.
    """

    model: keras.Model
    layout: WeightLayout
    clients: int
    seed: int
    root: Root | None = None
    learning_rate: float = 1.0
    samples: Samples | None = None
    explainer: Explainer | None = None


@dataclass(frozen=True)
class Endpoint:
    """A function that an export serves.

    Attributes:
      function: Tensors, in the order of `inputs` and by their names → tensors by name.
      inputs: Name → shape, None for what may vary, and dtype.
    """

    function: Callable[..., dict[str, Any]]
    inputs: Mapping[str, tuple[tuple[int | None, ...], str]]


@dataclass(frozen=True)
class DetectorExport:
    """A trained detector that a server without tffl can load.

    Attributes:
      networks: Keras models by name.
      endpoints: What it serves, by the signature's name.
      arrays: What its inputs are made with, such as `probes`, uint8 `[p, height, width, channels]`.
      about: What else is needed to make its inputs and to judge the scores, for a JSON file.
    """

    networks: Mapping[str, keras.Model]
    endpoints: Mapping[str, Endpoint]
    arrays: Mapping[str, np.ndarray]
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What a defense decided about the n clients of one round.

    Attributes:
      flagged: bool `[n]`, suspected by this round's evidence alone.
      convicted: bool `[n]`, malicious in the defense's judgment, after any vote. Detection metrics
        are computed from it.
      accepted: bool `[n]`, part of the average: not convicted, unless the defense only observes.
      weights: float64 `[n]`, each client's share of the average; zeros and sums to 1, or all zero
        when nobody was accepted.
      scores: float64 `[n]`, higher is more suspicious; NaN where the defense has none.
      threshold: Scores above it are flagged; NaN where there is none.
      aggregate: float32 `[d]`, the aggregated update; zeros when nobody was accepted, so that the
        global model stays as it is.
      reasons: One string per client, empty where it is accepted and neither flagged nor convicted.
      pictures: What a person may want to see of it, such as heat maps; the first axis is clients,
        and of `probes` and `audit_images` images.
    """

    flagged: np.ndarray
    convicted: np.ndarray
    accepted: np.ndarray
    weights: np.ndarray
    scores: np.ndarray
    threshold: float
    aggregate: np.ndarray
    reasons: tuple[str, ...]
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Defense(ABC):
    """Judges the updates of each round. Subclasses are frozen dataclasses of their options."""

    reference: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()

    @property
    def models(self) -> int:
        """How many global models the server keeps; clients are split into as many groups."""
        return 1

    @property
    def convicts(self) -> bool:
        """Whether it ever names suspects, apart from rows that are not finite."""
        return True

    @property
    def tracks_clients(self) -> bool:
        """Whether it remembers from round to round what each client sent."""
        return False

    @property
    def judges_statistics(self) -> bool:
        """Whether what no gradient trains, such as BatchNorm statistics, can make a suspect.

        It can where clients' models are tried on images.
        """
        return bool({PROBE_DATA, AUXILIARY_DATA} & set(self.granted()))

    def groups(self, server: Server) -> np.ndarray:
        """Returns int64 `[server.clients]`: which of the global models each client trains."""
        return np.zeros(server.clients, dtype=np.int64)

    def options(self) -> dict[str, Any]:
        """Returns every option and its value."""
        return asdict(self)

    def granted(self) -> tuple[str, ...]:
        """Returns what the experiment lets it have beyond the updates, for the record."""
        told = self.options().get("malicious")
        return (*self.needs, *(() if told is None else (f"told malicious = {told}",)))

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

    @abstractmethod
    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Returns the verdict on a round, and the state for the next one."""

    def inspect(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Judges for someone who averages by himself: the verdict's aggregate may be left zero."""
        return self.judge(updates, server, state)


def sample_shares(updates: Updates, accepted: np.ndarray) -> np.ndarray:
    """Returns FedAvg's weights float64 `[n]`: sample counts of the accepted rows, summing to 1."""
    counts = np.where(accepted, updates.sample_counts, 0).astype(np.float64)
    return counts / counts.sum() if counts.any() else counts
