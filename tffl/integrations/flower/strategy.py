"""Flower's FedAvg with a tffl defense between the replies and the average."""

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
from tffl.core.pixels import BYTES, PixelRange
from tffl.core.weighting import Weighting
from tffl.data.samples import PROBE_DATA, RootData, Samples
from tffl.defenses import Defense, Server, Verdict, create_defense
from tffl.defenses.base import State
from tffl.integrations.flower import checks
from tffl.integrations.flower.arrays import flat_weights, to_record
from tffl.integrations.flower.judgment import Judgment, client_row, judge, uninvited_row
from tffl.integrations.flower.metrics import average
from tffl.integrations.flower.replies import (
    ReplyReader,
    by_node,
    claimed_samples,
    only_content,
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
"""What a node may claim to have trained on, unless the user says otherwise."""

log = logging.getLogger("flwr")  # Flower's own, so that a server has one log


class DefendedStrategy(FedAvg):
    """FedAvg that a tffl defense judges.

    The defense knows nodes by small numbers, in the order in which they were first seen; after a
    restart without SuperNode authentication a node is a stranger. Where it draws something, such as
    probe images, it does so by a seed that nobody can guess unless the user names one.

    Args:
      defense: A name, such as `"shield"` or `"nnm+krum"`, or a defense.
      options: Of the named defense.
      model: The Keras model that is trained, built: for its variables and structure. Its weights do
        not matter, but what it does not train does: counters, and what Normalization has adapted
        to. Defenses that look at images expect logits out; before the first round, the model that
        it starts from is tried on the samples.
      clients: The most nodes that may ever take part; further ones are not asked. As many as are
        connected when the first round begins if None.
      seed: Of everything random in the defense.
      learning_rate: What an aggregated update is multiplied by, `> 0`.
      samples: Labeled images that the defense may look at clients' models with; the server's own.
        They are checked, and a model that ends in softmax is looked at without it.
      pixels: What the model takes for the darkest pixel of the samples and the brightest; 0 to 255
        if None. Where it does not suit, that is an error if it is not given, and else a warning.
      root: Trusted samples, and how to train on them, for defenses that compare with the server's
        own update.
      max_samples: The most samples that a node may claim, 1 to 2**40; more is malformed.
      weighting: Average by the samples that nodes `claimed`, `capped` at thrice the median, or by
        one for each, `uniform`.
      out: A folder for `clients.csv` (a verdict per round and node, in the columns of tffl's runs;
        `malicious` is empty, for nobody knows), `nodes.csv` and `state.safetensors`, which are
        written after each round.
      resume: Continue what `out` holds. Give `strategy.arrays` to `start` then.
      **fedavg: Flower's own options: `fraction_train`, `min_available_nodes`, `weighted_by_key`, …

    Attributes:
      arrays: The global model after the last round, None before the first one.
      verdict: What the defense said in the last round, None if it could not judge.

    Raises:
      UsageError: The defense does not exist, cannot work in a Flower server, or lacks something.
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
        self._before = 0  # rounds of the runs that this one continues
        self._last = 0
        self._asked: dict[int, int] = {}  # of this round: client id → node id
        self._checked = 0
        self._start = np.empty(0, dtype=np.float32)
        self._keys: tuple[str, ...] = ()
        self._table = Table(CLIENT_COLUMNS)
        self._make_server(clients or 1)  # the first one comes with the first round: check it now
        self._out = Path(out) if out is not None else None
        self._open(resume)

    # What Flower calls.

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Chooses nodes as FedAvg does, and checks that the defense can work with so many.

        Raises:
          UsageError: It cannot, or the arrays are not the model's.
        """
        messages = list(super().configure_train(server_round, arrays, config, grid))
        self._take_over(arrays)
        self._meet(grid.get_node_ids())
        known = [m for m in messages if m.metadata.dst_node_id in self._clients]
        if len(known) < len(messages):
            log.warning(
                "tffl: %d nodes are not asked: they came after the %d that the defense knows",
                *(len(messages) - len(known), self._capacity),
            )
        if self._last == 0:
            self._check_images()
        asked = {self._clients[m.metadata.dst_node_id]: m.metadata.dst_node_id for m in known}
        self._asked = dict(sorted(asked.items()))
        if known and len(known) != self._checked:
            self.defense.check(len(known), self.layout)
            self._checked = len(known)
        return known

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Judges a round; returns the next global model and averages of the accepted's metrics.

        If nobody is left, or too few for the defense, the global model stays as it is.
        """
        if not self._asked:
            return None, None
        round, inbox = self._before + server_round, by_node(replies)
        reader = self._reader()
        matrix = np.empty((len(self._asked), self.layout.size), dtype=np.float32)
        answers = [
            reader.read(client, inbox.pop(node, []), row)
            for (client, node), row in zip(self._asked.items(), matrix, strict=True)
        ]
        received = reader.updates(round, answers, matrix, self.weighting)
        malformed = np.array([answer.malformed for answer in answers if answer.present], dtype=bool)
        assert self._server is not None
        judgment = judge(
            self.defense, self._server, self._state, received, malformed, checked=self._checked
        )
        norms = dict(zip(received.client_ids.tolist(), received.norms().tolist(), strict=True))
        rows = [client_row(answer, judgment, norms.get(answer.client)) for answer in answers]
        rows += [uninvited_row(self._clients.get(node)) for node in sorted(inbox)]
        self._finish(round, rows, judgment)
        contents = [
            answer.content
            for answer, row in zip(answers, rows[: len(answers)], strict=True)
            if row["accepted"] and answer.content is not None
        ]
        metrics = self.train_metrics_aggr_fn(contents, self.weighted_by_key) if contents else None
        return self.arrays, metrics

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Averages what nodes measured, without those whose replies are malformed."""
        sound: dict[int, RecordDict] = {}
        for node, messages in by_node(replies).items():
            try:
                content = only_content(messages)
                claimed_samples(content, self.weighted_by_key, self.max_samples)
            except Refused as refused:
                log.warning("tffl: evaluation of node %d is left out: %s", node, refused)
                continue
            sound[node] = content
        contents = [sound[node] for node in sorted(sound)]
        return self.evaluate_metrics_aggr_fn(contents, self.weighted_by_key) if contents else None

    def summary(self) -> None:
        """Logs the configuration."""
        log.info("\t├──> tffl's defense: %s %s", self.name, self.defense.options())
        super().summary()

    # What it remembers.

    def save(self, path: Path | str) -> None:
        """Writes everything that `restore` needs to go on.

        Raises:
          UsageError: No round has been played.
          TfflError: The file cannot be written.
        """
        require(self._last > 0, "there is nothing to save before the first round")
        assert self._capacity is not None
        state = SavedState(
            defense=identity(self.defense),
            round=self._last,
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
        """Goes on where `save` left off; rounds are counted on from there.

        Raises:
          TfflError: The file is missing or damaged.
          UsageError: It belongs to another defense or model.
        """
        saved = SavedState.read(Path(path), identity(self.defense), self.layout.size)
        self._capacity, self._seed = saved.capacity, saved.seed
        self._before = self._last = saved.round
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
        self._table.keep(self._before)

    def _finish(self, round: int, rows: list[dict[str, Any]], judgment: Judgment) -> None:
        """Takes over the next global model and memory, and writes down what was decided."""
        self.arrays = to_record(judgment.weights, self._keys, self.layout)
        self.verdict, self._state, self._last = judgment.verdict, judgment.state, round
        self._table.append(round, [{"round": round, **row} for row in rows])
        rejected = [row for row in rows if not row["accepted"]]
        log.info("tffl: round %d: %d of %d accepted", round, len(rows) - len(rejected), len(rows))
        for row in rejected:
            log.info("tffl: round %d: client %s: %s", round, row["client"], row["reason"])
        if self._out is not None:  # tables first: what is newer than the state is played again
            nodes = [{"client": client, "node": node} for node, client in self._clients.items()]
            write_text(self._out / "nodes.csv", to_csv(NODE_COLUMNS, nodes))
            write_text(self._out / "clients.csv", self._table.text())
            self.save(self._out / "state.safetensors")

    # Before a round.

    def _meet(self, nodes: Iterable[int]) -> None:
        """Gives new nodes their numbers, and in the first round the defense its server."""
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

            explainer = Explainer(self._model, self._pixels or BYTES)
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
        """Tries the global model of the first round on the samples.

        Raises:
          UsageError: It takes other pixels, outputs or classes, and no range is given.
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

    def _take_over(self, arrays: ArrayRecord) -> None:
        """Takes over the global model that a round begins with."""
        self._start, self._keys = self._read_global(arrays), tuple(arrays)
        own = {
            v.position: arrays[self._keys[v.position]].numpy() for v in self.layout.server_variables
        }
        self.layout = self.layout.with_server_values(own)

    def _reader(self) -> ReplyReader:
        return ReplyReader(
            self.layout, self._keys, self._start, self.weighted_by_key, self.max_samples
        )
