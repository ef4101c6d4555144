"""A Flower strategy: FedAvg with a tffl defense between the replies and the average."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from tffl.core.atomic import write_text
from tffl.core.errors import UsageError, require
from tffl.core.layout import WeightLayout
from tffl.core.pixels import PixelRange, pixel_range
from tffl.core.weighting import Weighting
from tffl.data.samples import PROBE_DATA, RootData, Samples
from tffl.defenses import Defense, Server, Verdict, create_defense
from tffl.defenses.base import State
from tffl.integrations.flower import checks
from tffl.integrations.flower.arrays import flat_weights, to_record
from tffl.integrations.flower.judgment import RoundOutcome, client_row, judge, unrequested_row
from tffl.integrations.flower.metrics import average
from tffl.integrations.flower.replies import (
    ReplyReader,
    by_node,
    claimed_samples,
    single_content,
)
from tffl.integrations.flower.saved_state import SavedState, identity
from tffl.models.validation import check_built
from tffl.record.tables import CLIENT_COLUMNS, Table, to_csv
from tffl.untrusted.refusal import Refused

if TYPE_CHECKING:
    import keras
    from flwr.serverapp import Grid

NODE_COLUMNS = ("client", "node")

MOST_SAMPLES = 1_000_000
"""The default limit on the samples that a node may claim."""

log = logging.getLogger("flwr")  # Flower's own, so that a server has one log


class DefendedStrategy(FedAvg):
    """FedAvg with a tffl defense that judges every round.

    The defense identifies nodes by client numbers, in the order of their first appearance. Without
    SuperNode authentication, a node that restarts is a new node. Random choices, such as the probe
    images, use a secret random seed unless the user gives one.

    Args:
      defense: A name, such as `"shield"` or `"nnm+krum"`, or a defense.
      options: The options of a named defense.
      model: The built Keras model that is trained. It gives the variables and the structure; its
        trainable weights are ignored, but the values of counters and adapted Normalization layers
        are used. For defenses that use images it should return logits, and the initial model is
        tested on the samples before the first round.
      clients: The largest number of nodes that may ever take part; further nodes are ignored. By
        default, the number of nodes that are connected when the first round begins.
      seed: The seed of all random choices of the defense.
      learning_rate: The factor of the aggregated update, `> 0`.
      samples: Labeled images of the server, for defenses that apply clients' models to images:
        uint8, or float32 in any range. They are checked; a final softmax of the model is left out.
      pixels: The model's values for the darkest and the brightest pixel of the samples; 0 and 255
        if None, or the range of float samples. If the model does not suit the default range, that
        is an error; a given range only warns.
      root: Trusted samples of the server and a function that trains on them, for defenses that
        compare clients with the server's own update.
      max_samples: The largest number of samples that a node may claim, 1 to 2**40; a reply that
        claims more is malformed.
      weighting: The weights of the average: the samples that nodes `claimed`, `capped` at thrice
        their median, or `uniform`.
      out: A folder for `clients.csv` (a verdict per round and node, in the columns of tffl's runs;
        `malicious` is empty, because it is unknown), `nodes.csv` and `state.safetensors`, written
        after each round.
      resume: Whether to continue the run in `out`. If so, pass `strategy.arrays` to `start`.
      **fedavg: Options of Flower's FedAvg: `fraction_train`, `min_available_nodes`,
        `weighted_by_key`, …

    Attributes:
      arrays: The global model after the last round; None before the first one.
      verdict: The verdict of the last round; None if the defense could not judge it.

    Raises:
      UsageError: The defense does not exist, cannot work in a Flower server, or lacks data.
    """

    arrays: ArrayRecord | None
    verdict: Verdict | None

    def __init__(
        self,
        defense: Defense | str,
        options: Mapping[str, Any] | None = None,
        *,
        model: keras.Model,
        clients: int | None = None,
        seed: int | None = None,
        learning_rate: float = 1.0,
        samples: Samples | None = None,
        pixels: PixelRange | None = None,
        root: RootData | None = None,
        max_samples: int = MOST_SAMPLES,
        weighting: Weighting = "claimed",
        out: Path | str | None = None,
        resume: bool = False,
        **fedavg: Any,
    ) -> None:
        metrics = {"train_metrics_aggr_fn": average, "evaluate_metrics_aggr_fn": average}
        super().__init__(**(metrics | fedavg))
        if isinstance(defense, str):
            self.name, self.defense = defense, create_defense(defense, options or {})
        else:
            require(options is None, "options go with a defense's name, not with an object")
            self.name, self.defense = type(defense).__name__, defense
        checks.check_defense(self.name, self.defense, samples, root)
        checks.check_options(clients, max_samples, learning_rate, weighting)
        check_built(model, "the model")
        self.layout = WeightLayout.of(model)
        self.max_samples = max_samples
        self.weighting = weighting
        self.arrays = None
        self.verdict = None
        self._model = model
        if samples is not None:
            self._model = checks.model_for_images(model, samples, root)
        self._capacity = clients
        self._seed = secrets.randbelow(1 << 32) if seed is None else seed
        self._learning_rate = learning_rate
        self._samples = samples
        self._pixels = pixels
        self._root = root
        self._server: Server | None = None
        self._state: State = {}
        self._clients: dict[int, int] = {}  # Flower's node id → the defense's client id
        self._earlier_rounds = 0  # rounds of the runs that this one continues
        self._last_round = 0
        self._participants: dict[int, int] = {}  # client id → node id in this round
        self._checked_size = 0  # number of clients that the defense was last checked for
        self._start = np.empty(0, dtype=np.float32)
        self._keys: tuple[str, ...] = ()
        self._table = Table(CLIENT_COLUMNS)
        self._make_server(clients or 1)  # checks the defense; the real server needs the nodes
        self._out = Path(out) if out is not None else None
        self._open(resume)

    # Methods that Flower calls.

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Chooses nodes as FedAvg does, and checks that the defense works with their number.

        Raises:
          UsageError: The defense does not, or the arrays do not belong to the model.
        """
        messages = list(super().configure_train(server_round, arrays, config, grid))
        self._adopt_global_model(arrays)
        self._number_nodes(grid.get_node_ids())
        numbered = [m for m in messages if m.metadata.dst_node_id in self._clients]
        if len(numbered) < len(messages):
            log.warning(
                "tffl: %d nodes are not asked: the defense already has the %d that it can have",
                *(len(messages) - len(numbered), self._capacity),
            )
        if self._last_round == 0:
            self._check_images()
        nodes = [message.metadata.dst_node_id for message in numbered]
        self._participants = dict(sorted((self._clients[node], node) for node in nodes))
        if numbered and len(numbered) != self._checked_size:
            self.defense.check(len(numbered), self.layout)
            self._checked_size = len(numbered)
        return numbered

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Judges a round.

        Returns:
          The next global model, and the average metrics of the accepted nodes. The global model
          does not change if no or too few valid replies are left for the defense.
        """
        if not self._participants:
            return None, None
        round, messages_by_node = self._earlier_rounds + server_round, by_node(replies)
        reader = self._reader()
        matrix = np.empty((len(self._participants), self.layout.size), dtype=np.float32)
        received = [
            reader.read(client, messages_by_node.pop(node, []), row)
            for (client, node), row in zip(self._participants.items(), matrix, strict=True)
        ]
        updates = reader.updates(round, received, matrix, self.weighting)
        malformed = np.array([reply.malformed for reply in received if reply.present], dtype=bool)
        assert self._server is not None
        outcome = judge(
            self.defense, self._server, self._state, updates, malformed, checked=self._checked_size
        )
        norms = dict(zip(updates.client_ids.tolist(), updates.norms().tolist(), strict=True))
        rows = [client_row(reply, outcome, norms.get(reply.client)) for reply in received]
        rows += [unrequested_row(self._clients.get(node)) for node in sorted(messages_by_node)]
        self._record_round(round, rows, outcome)
        contents = [
            reply.content
            for reply, row in zip(received, rows[: len(received)], strict=True)
            if row["accepted"] and reply.content is not None
        ]
        metrics = self.train_metrics_aggr_fn(contents, self.weighted_by_key) if contents else None
        return self.arrays, metrics

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Averages the metrics of the nodes, without malformed replies."""
        contents_by_node: dict[int, RecordDict] = {}
        for node, messages in by_node(replies).items():
            try:
                content = single_content(messages)
                claimed_samples(content, self.weighted_by_key, self.max_samples)
            except Refused as refused:
                log.warning("tffl: evaluation of node %d is left out: %s", node, refused)
                continue
            contents_by_node[node] = content
        contents = [contents_by_node[node] for node in sorted(contents_by_node)]
        return self.evaluate_metrics_aggr_fn(contents, self.weighted_by_key) if contents else None

    def summary(self) -> None:
        """Logs the configuration."""
        log.info("\t├──> tffl's defense: %s %s", self.name, self.defense.options())
        super().summary()

    # Saving and restoring.

    def save(self, path: Path | str) -> None:
        """Writes the state for `restore`.

        Raises:
          UsageError: No round is finished.
          TfflError: The file cannot be written.
        """
        require(self._last_round > 0, "there is nothing to save before the first round")
        assert self._capacity is not None
        state = SavedState(
            defense=identity(self.defense),
            round=self._last_round,
            seed=self._seed,
            capacity=self._capacity,
            keys=self._keys,
            weights=self._read_global(self.arrays),
            nodes=tuple(sorted(self._clients, key=self._clients.__getitem__)),
            server_variables={v.position: v.value for v in self.layout.server_variables},
            memory=self._state,
        )
        state.write(Path(path))

    def restore(self, path: Path | str) -> None:
        """Continues from a state that `save` has written; the count of rounds continues as well.

        Raises:
          TfflError: The file is missing or damaged.
          UsageError: The state belongs to another defense or model.
        """
        saved = SavedState.read(Path(path), identity(self.defense), self.layout.size)
        self._capacity, self._seed = saved.capacity, saved.seed
        self._earlier_rounds = self._last_round = saved.round
        self._clients = {node: client for client, node in enumerate(saved.nodes)}
        self.layout = self.layout.with_server_values(saved.server_variables)
        self._server = self._make_server(saved.capacity)
        self._state = saved.memory
        self._keys = saved.keys
        self.arrays = to_record(saved.weights, self._keys, self.layout)

    def _open(self, resume: bool) -> None:
        if self._out is None:
            require(not resume, "resume needs the folder: out")
            return
        table, state = self._out / "clients.csv", self._out / "state.safetensors"
        if not resume:
            require(not table.exists(), f"{self._out} holds a run: give another folder, or resume")
            return
        self.restore(state)
        self._table = Table.read(table, CLIENT_COLUMNS)
        self._table.keep(self._earlier_rounds)

    def _record_round(self, round: int, rows: list[dict[str, Any]], outcome: RoundOutcome) -> None:
        """Adopts the next global model and state, and records the verdicts."""
        self.arrays = to_record(outcome.weights, self._keys, self.layout)
        self.verdict, self._state, self._last_round = outcome.verdict, outcome.state, round
        self._table.append(round, [{"round": round, **row} for row in rows])
        rejected = [row for row in rows if not row["accepted"]]
        log.info("tffl: round %d: %d of %d accepted", round, len(rows) - len(rejected), len(rows))
        for row in rejected:
            log.info("tffl: round %d: client %s: %s", round, row["client"], row["reason"])
        if self._out is not None:  # the tables come first: rows newer than the state are repeated
            nodes = [{"client": client, "node": node} for node, client in self._clients.items()]
            write_text(self._out / "nodes.csv", to_csv(NODE_COLUMNS, nodes))
            write_text(self._out / "clients.csv", self._table.text())
            self.save(self._out / "state.safetensors")

    # Before a round.

    def _number_nodes(self, nodes: Iterable[int]) -> None:
        """Assigns client numbers to new nodes, and creates the server in the first round."""
        present = sorted(nodes)
        if self._capacity is None:
            self._capacity = max(len(present), 1)
        for node in present:
            if node not in self._clients and len(self._clients) < self._capacity:
                self._clients[node] = len(self._clients)
        if self._server is None:
            self._server = self._make_server(self._capacity)
            self._state = self.defense.init(self._server)

    def _make_server(self, clients: int) -> Server:
        explainer = None
        if self._samples is not None:
            from tffl.explain.maps import Explainer

            pixels = self._pixels or pixel_range(self._samples.images)
            explainer = Explainer(self._model, pixels)
        server = Server(
            self._model,
            self.layout,
            clients,
            self._seed,
            self._root,
            self._learning_rate,
            self._samples,
            explainer,
        )
        self.defense.check_server(server)
        return server

    def _check_images(self) -> None:
        """Tests the global model of the first round on the samples.

        Raises:
          UsageError: The model expects other pixels, outputs or classes, and no range is given.
        """
        if self._samples is None or PROBE_DATA not in self.defense.declared_knowledge():
            return
        weights = self.layout.unflatten(self._start)
        checks.check_images(self._model, weights, self._samples, self._pixels, self._seed)

    def _read_global(self, arrays: ArrayRecord | None) -> np.ndarray:
        try:
            return flat_weights(arrays, tuple(arrays or ()), self.layout)
        except Refused as refused:
            raise UsageError(
                f"the arrays of the global model are not those of {self._model.name}: {refused}; "
                "start with ArrayRecord([np.asarray(w) for w in model.get_weights()])"
            ) from None

    def _adopt_global_model(self, arrays: ArrayRecord) -> None:
        """Adopts the global model with which a round begins."""
        self._start, self._keys = self._read_global(arrays), tuple(arrays)
        own = {
            v.position: arrays[self._keys[v.position]].numpy() for v in self.layout.server_variables
        }
        self.layout = self.layout.with_server_values(own)

    def _reader(self) -> ReplyReader:
        return ReplyReader(
            self.layout, self._keys, self._start, self.weighted_by_key, self.max_samples
        )
