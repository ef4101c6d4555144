"""tffl's defenses in a Flower server: every reply is checked and judged before it is averaged.

    replies → checked replies → updates → verdict → the next global model

`DefendedStrategy` takes the place of Flower's `FedAvg` in a ServerApp, with the same options:

    strategy = DefendedStrategy("multi-krum", {"malicious": 3}, model=model, out=Path("run"))
    strategy.start(grid, ArrayRecord(model.get_weights()), num_rounds=10)

A node's reply is worth what its bytes are. It is malformed unless it holds one array per variable
of the global model, float32, of its shape and finite, and one plausible number of samples. To the
defense such a reply is a row of NaN, which it rejects and holds against the node; where a defense
averages even that, it does not see the row. Nodes that report an error, or nothing, take no part in
the round. None of them stops it.

Integer and boolean variables, such as counters, are the server's own: what a reply says of them is
passed over, and the next global model has the server's values. Flower takes arrays only, and Keras
gives plain numbers for scalars: `ArrayRecord([np.asarray(w) for w in model.get_weights()])`.
"""

from __future__ import annotations

import io
import json
import logging
import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.lib import format as npy

from tffl.core.atomic import write_text
from tffl.core.errors import UsageError, require
from tffl.core.layout import Entry, WeightLayout
from tffl.core.tensors import read_tensors, write_tensors
from tffl.core.updates import LARGEST_CLAIM, Updates
from tffl.core.weighting import Weighting, weighed
from tffl.data.samples import AUXILIARY_DATA, PROBE_DATA, ROOT_DATA, Root, Samples
from tffl.defenses import Defense, Server, Verdict, create_defense
from tffl.defenses.base import State
from tffl.explain.pixels import BYTES, PixelRange
from tffl.models.layers import set_weights
from tffl.models.validation import check_built
from tffl.record.tables import CLIENT_COLUMNS, Table, to_csv
from tffl.untrusted.expected import Expected
from tffl.untrusted.refusal import Refused, shown

try:
    from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.serverapp.strategy import FedAvg
except ImportError as error:  # pragma: no cover
    raise ImportError(f"tffl.integrations.flower needs pip install 'tffl[flower]': {error}") from (
        error
    )

if TYPE_CHECKING:
    import keras
    from flwr.serverapp import Grid

NODE_COLUMNS = ("client", "node")

MOST_SAMPLES = 1_000_000
"""What a node may claim to have trained on, unless the user says otherwise."""

HEADER = 1 << 14
"""Bytes that a serialized array may have beyond its values; NumPy reads no longer header."""

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
        root: Root | None = None,
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
        _check_defense(self.name, self.defense, samples, root)
        require(clients is None or clients >= 1, f"clients = {clients} must be at least 1")
        require(
            1 <= max_samples <= LARGEST_CLAIM,
            f"max_samples = {max_samples} is not between 1 and {LARGEST_CLAIM}",
        )
        require(
            math.isfinite(learning_rate) and learning_rate > 0,
            f"learning_rate = {learning_rate} must be above 0",
        )
        require(weighting in get_args(Weighting), f"weighting {weighting!r} does not exist")
        check_built(model, "the model")
        self.layout = WeightLayout.of(model)
        self.max_samples = max_samples
        self.weighting = weighting
        self.arrays = None
        self.verdict = None
        self._model = model if samples is None else _seen_through(model, samples, root)
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
        round, inbox = self._before + server_round, _by_node(replies)
        matrix = np.empty((len(self._asked), self.layout.size), dtype=np.float32)
        answers = [
            self._answer(client, inbox.pop(node, []), row)
            for (client, node), row in zip(self._asked.items(), matrix, strict=True)
        ]
        received = self._updates(round, answers, matrix)
        malformed = np.array([answer.malformed for answer in answers if answer.present], dtype=bool)
        judgment = self._judge(received, malformed)
        norms = dict(zip(received.client_ids.tolist(), received.norms().tolist(), strict=True))
        rows = [_row(answer, judgment, norms.get(answer.client)) for answer in answers]
        rows += [_stranger(self._clients.get(node)) for node in sorted(inbox)]
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
        for node, messages in _by_node(replies).items():
            try:
                content = _content(messages)
                self._samples_of(content)
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
        nodes = np.array(sorted(self._clients, key=self._clients.__getitem__), dtype=np.uint64)
        state = {f"defense/{key}": value for key, value in self._state.items()}
        own = {f"server/{v.position}": v.value for v in self.layout.server_variables}
        tensors = {"weights": self._read_global(self.arrays), "nodes": nodes, **own, **state}
        metadata = {
            "defense": self._identity(),
            "round": str(self._last),
            "seed": str(self._seed),
            "clients": str(self._capacity),
            "keys": json.dumps(self._keys),
        }
        write_tensors(Path(path), tensors, metadata)

    def restore(self, path: Path | str) -> None:
        """Goes on where `save` left off; rounds are counted on from there.

        Raises:
          TfflError: The file is missing or damaged.
          UsageError: It belongs to another defense or model.
        """
        tensors, about = read_tensors(Path(path))
        require(
            about["defense"] == self._identity(),
            f"{path} was written by {about['defense']}, and this is {self._identity()}",
        )
        weights = tensors["weights"]
        require(
            weights.shape == (self.layout.size,),
            f"{path} holds {weights.size} weights, and the model has {self.layout.size}",
        )
        self._capacity, self._seed = int(about["clients"]), int(about["seed"])
        self._before = self._last = int(about["round"])
        self._clients = {int(node): client for client, node in enumerate(tensors["nodes"])}
        self.layout = self.layout.with_server_values(
            {
                int(key.removeprefix("server/")): value
                for key, value in tensors.items()
                if key.startswith("server/")
            }
        )
        self._server = self._make_server(self._capacity)
        self._state = {
            key.removeprefix("defense/"): value
            for key, value in tensors.items()
            if key.startswith("defense/")
        }
        self._keys = tuple(json.loads(about["keys"]))
        self.arrays = self._record(weights)

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

    def _identity(self) -> str:
        kind = f"{type(self.defense).__module__}:{type(self.defense).__qualname__}"
        return f"{kind} {json.dumps(self.defense.options(), sort_keys=True, default=str)}"

    def _finish(self, round: int, rows: list[dict[str, Any]], judgment: _Judgment) -> None:
        """Takes over the next global model and memory, and writes down what was decided."""
        self.arrays = self._record(judgment.weights)
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
        if self._samples is None or PROBE_DATA not in self.defense.granted():
            return
        from tffl.explain.suitability import check_model, predictor

        # No more than chance is usual before the first round, and no reason for a warning.
        model = self._model
        pixels, before = self._pixels or BYTES, model.get_weights()
        try:
            set_weights(model, self.layout.unflatten(self._start))
            check_model(predictor(model), self._samples, pixels, self._seed)
        except UsageError as error:
            if self._pixels is None:
                raise
            log.warning("tffl: %s", error)
        finally:
            set_weights(model, before)

    def _read_global(self, arrays: ArrayRecord | None) -> np.ndarray:
        try:
            return _weights(arrays, tuple(arrays or ()), self.layout)
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

    def _record(self, weights: np.ndarray) -> ArrayRecord:
        parts = self.layout.unflatten(weights)
        return ArrayRecord({k: Array(part) for k, part in zip(self._keys, parts, strict=True)})

    # After it.

    def _answer(self, client: int, messages: Sequence[Message], row: np.ndarray) -> _Answer:
        """Reads a node's update into `row`, or says what is wrong with what the node has sent."""
        if not messages:
            return _Answer(client, "no reply")
        if len(messages) == 1 and messages[0].has_error():
            error = messages[0].error
            return _Answer(client, shown(f"error {error.code}: {error.reason}", 300))
        try:
            content = _content(messages)
            samples = self._samples_of(content)
            row[:] = _weights(_only(content.array_records, "array"), self._keys, self.layout)
            with np.errstate(over="ignore"):
                row -= self._start
            if not np.isfinite(row).all():
                raise Refused("the update holds values beyond float32")
        except Refused as refused:
            row[:] = np.nan
            return _Answer(client, f"malformed reply: {refused}", malformed=True)
        return _Answer(client, samples=samples, content=content)

    def _samples_of(self, content: RecordDict) -> int:
        value = _only(content.metric_records, "metric").get(self.weighted_by_key)
        key = shown(self.weighted_by_key)
        if value is None:
            raise Refused(f"the metrics lack {key}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Refused(f"{key} is not a number")
        if isinstance(value, float) and not value.is_integer():  # neither is NaN or infinity
            raise Refused(f"{key} = {value} is not a number of samples")
        if not 1 <= value <= self.max_samples:
            raise Refused(
                f"{key} = {shown(str(value), 24)} is not between 1 and {self.max_samples}"
            )
        return int(value)

    def _updates(self, round: int, answers: Sequence[_Answer], matrix: np.ndarray) -> Updates:
        """Returns the replies of a round; malformed ones are rows of NaN, absent ones none."""
        sound = np.array([answer.sound for answer in answers], dtype=bool)
        counts = np.array([answer.samples or 0 for answer in answers], dtype=np.int64)
        counts[sound] = weighed(counts[sound], self.weighting)
        counts[~sound] = 0
        ids = np.array([answer.client for answer in answers], dtype=np.int64)
        everyone = Updates(round, ids, counts, self._start.copy(), matrix, self.layout)
        return everyone.select(np.array([answer.present for answer in answers], dtype=bool))

    def _judge(self, updates: Updates, malformed: np.ndarray) -> _Judgment:
        """Asks the defense; without a verdict everything stays as it is."""
        assert self._server is not None
        if malformed.all():
            return _Judgment(self._start, self._state, problem="nobody is left")
        try:
            if len(updates) != self._checked:
                self.defense.check(len(updates), self.layout)
            verdict, state = self.defense.judge(updates, self._server, self._state)
            if (verdict.accepted & malformed).any():  # it averages, or only observes, all there is
                updates = updates.select(~malformed)
                verdict, state = self.defense.judge(updates, self._server, self._state)
        except UsageError as error:
            log.warning("tffl: the round is not judged, and the global model stays: %s", error)
            return _Judgment(self._start, self._state, problem=shown(f"not judged: {error}", 300))
        with np.errstate(over="ignore"):
            step = (self._learning_rate * verdict.aggregate).astype(np.float32)
            weights = self._start + step
        if not np.isfinite(weights).all():
            problem = "not averaged: the global model would not be finite"
            return _Judgment(self._start, self._state, problem=problem)
        return _Judgment(weights, state, verdict, tuple(updates.client_ids.tolist()))


@dataclass(frozen=True)
class _Answer:
    """What a node made of a question.

    Attributes:
      client: Its number; None if it is not known.
      reason: Why there is no update.
      malformed: Whether it sent one that is none.
      samples: How many it claims.
      content: As sent, if it is sound.
    """

    client: int | None
    reason: str = ""
    malformed: bool = False
    samples: int | None = None
    content: RecordDict | None = None

    @property
    def sound(self) -> bool:
        """Whether there is an update."""
        return self.content is not None

    @property
    def present(self) -> bool:
        """Whether the node said anything but that it failed."""
        return self.sound or self.malformed


@dataclass(frozen=True)
class _Judgment:
    """What becomes of a round.

    Attributes:
      weights: The next global model's, float32 `[d]`.
      state: What the defense remembers.
      verdict: None if there is none, and then `problem` says why.
      clients: Whom the verdict is about, in its order.
      problem: For the log.
    """

    weights: np.ndarray
    state: State
    verdict: Verdict | None = None
    clients: tuple[int, ...] = ()
    problem: str = ""


def _by_node(replies: Iterable[Message]) -> dict[int, list[Message]]:
    by_node: dict[int, list[Message]] = {}
    for message in replies:
        by_node.setdefault(message.metadata.src_node_id, []).append(message)
    return by_node


def _content(messages: Sequence[Message]) -> RecordDict:
    if len(messages) > 1:
        raise Refused(f"{len(messages)} replies from one node")
    if messages[0].has_error():
        raise Refused(f"error {messages[0].error.code}: {messages[0].error.reason}")
    if not messages[0].has_content():
        raise Refused("it is empty")
    return messages[0].content


def _only(records: Mapping[str, Any], kind: str) -> Any:
    if len(records) != 1:
        raise Refused(f"{len(records)} {kind} records: it should be one")
    return next(iter(records.values()))


def _weights(record: ArrayRecord | None, keys: Sequence[str], layout: WeightLayout) -> np.ndarray:
    """Returns the arrays under `keys` as one finite float32 vector `[d]`.

    Raises:
      Refused: They are not one for each variable, of its shape, float32 (or of the variable's own
        precision) and finite.
    """
    found = {} if record is None else record
    expected = len(layout.entries) + len(layout.server_variables)
    if len(found) != expected or len(keys) != expected:
        raise Refused(f"{len(found)} arrays: it should be {expected}")
    missing = [key for key in keys if key not in found]
    if missing:
        raise Refused(f"array {shown(missing[0])} is missing")
    arrays = {
        entry.name: _values(found[keys[position]], entry)
        for position, entry in zip(layout.positions, layout.entries, strict=True)
    }
    return Expected(layout, ()).vector(arrays)


def _values(array: Array, entry: Entry) -> np.ndarray:
    """Reads one array after a look at its header, which alone says how much memory it takes."""
    if array.stype != "numpy.ndarray":
        raise Refused(f"{entry.name} is stored as {shown(array.stype)}, not as numpy.ndarray")
    if len(array.data) > entry.size * 8 + HEADER:
        raise Refused(f"{entry.name} has {len(array.data)} bytes for {entry.size} values")
    stream = io.BytesIO(array.data)
    try:
        readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        shape, columns_first, dtype = readers[npy.read_magic(stream)](stream)
    except Exception as error:  # whatever a stranger's bytes do to NumPy's parser
        raise Refused(f"{entry.name} has no readable NumPy header: {error}") from None
    own = "V2" if entry.dtype == "bfloat16" else entry.dtype  # NumPy does not know bfloat16
    if dtype not in (np.dtype(np.float32), np.dtype(own)):
        raise Refused(f"{entry.name} holds {dtype}: it should be {entry.dtype}")
    if tuple(shape) != entry.shape:
        raise Refused(f"{entry.name} has shape {shape}: it should be {entry.shape}")
    begin = stream.tell()
    if len(array.data) - begin != entry.size * dtype.itemsize:
        raise Refused(f"{entry.name} has {len(array.data) - begin} bytes, which do not fit")
    values = np.frombuffer(array.data, dtype, offset=begin)
    return values.reshape(entry.shape, order="F" if columns_first else "C")


def _check_defense(name: str, defense: Defense, samples: Samples | None, root: Root | None) -> None:
    require(
        defense.models == 1,
        f"{name} keeps {defense.models} global models, and a Flower server has one",
    )
    granted = set(defense.granted())
    require(
        root is not None or ROOT_DATA not in granted,
        f"{name} compares with an update of the server's own: give root",
    )
    require(
        samples is not None or not {PROBE_DATA, AUXILIARY_DATA} & granted,
        f"{name} looks at clients' models with images of the server's own: give samples",
    )


def _seen_through(model: keras.Model, samples: Samples, root: Root | None) -> keras.Model:
    """Returns the model that a defense looks at images with: checked, and ending in logits.

    Raises:
      UsageError: The model, the samples or the root do not suit.
    """
    from tffl.core.keras_settings import settle
    from tffl.explain.samples import check_samples
    from tffl.models.head import activation, as_logits
    from tffl.models.validation import check_classifier

    settle()
    check_classifier(model, f"the model {model.name}")
    check_samples(model, f"the model {model.name}", samples, root)
    if end := activation(model):
        log.warning("tffl: %s ends in %s: defenses see what goes into it", model.name, end)
    return as_logits(model)


def _row(answer: _Answer, judgment: _Judgment, norm: float | None) -> dict[str, Any]:
    """Returns a node's row of `clients.csv`; what is not known is left out."""
    row = {
        "client": answer.client,
        "samples": answer.samples,
        "flagged": answer.malformed,
        "accepted": False,
        "weight": 0.0,
        "update_norm": norm,
        "reason": answer.reason or judgment.problem,
    }
    verdict = judgment.verdict
    if verdict is None or answer.client not in judgment.clients:
        return row
    position = judgment.clients.index(answer.client)
    return row | {
        "score": float(verdict.scores[position]),
        "flagged": bool(verdict.flagged[position]),
        "accepted": bool(verdict.accepted[position]),
        "weight": float(verdict.weights[position]),
        "reason": answer.reason or verdict.reasons[position],
    }


def _stranger(client: int | None) -> dict[str, Any]:
    """Returns the row of a node that was not asked; it may have no number."""
    answer = _Answer(client, "malformed reply: the node was not asked", malformed=True)
    return _row(answer, _Judgment(np.empty(0), {}), None)


def average(contents: list[RecordDict], weighted_by_key: str) -> MetricRecord:
    """Averages metrics by claimed samples, each over the replies that hold it as a finite number.

    Unlike Flower's own function it takes replies whose metrics are not all the same.

    Args:
      contents: Each with one MetricRecord that holds a sound `weighted_by_key`.
      weighted_by_key: Name of the sample count.
    """
    sums: dict[str, float] = {}
    totals: dict[str, float] = {}
    for content in contents:
        record = next(iter(content.metric_records.values()))
        weight = float(record[weighted_by_key])  # type: ignore[arg-type]
        for key, value in record.items():
            if key == weighted_by_key or not isinstance(value, int | float):
                continue
            if abs(value) < 1e300:  # neither NaN nor what overflows in a sum
                sums[key] = sums.get(key, 0.0) + weight * float(value)
                totals[key] = totals.get(key, 0.0) + weight
    return MetricRecord({key: sums[key] / totals[key] for key in sums})
