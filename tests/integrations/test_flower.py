"""Flower's strategy: tffl's own verdicts, every malformed reply, memory over rounds, the log."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("flwr.supercore.task_identity")

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from tffl.callbacks import Group
from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.data.samples import RootData, Samples
from tffl.defenses import Server, Verdict, create_defense
from tffl.defenses.none import FedAvg
from tffl.integrations.flower import DefendedStrategy, average
from tffl.integrations.flower.arrays import flat_weights
from tffl.record.rounds import client_rows
from tffl.record.tables import CLIENT_COLUMNS, Table, read_rows
from tffl.untrusted.refusal import Refused

NODES = [900, 2**64 - 3, 17, 400, 55, 7, 123456789]
"""Node ids as Flower draws them: unsigned, of 64 bits, in no order."""

ATTACKERS = (1, 4)


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    """Messages can only be made within a task."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    yield
    TaskIdentity._run_id = TaskIdentity._node_id = TaskIdentity._task_id = None


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Four inputs, three logits, and BatchNorm, whose statistics no gradient trains."""
    layers = [keras.layers.BatchNormalization(name="bn"), keras.layers.Dense(3, name="logits")]
    return keras.Sequential([keras.Input((4,)), *layers], name="tiny")


class Grid:
    """A SuperLink whose nodes answer with functions of (question, round)."""

    def __init__(self, nodes: dict[int, Callable[[Message, int], Any]]) -> None:
        self.nodes = nodes

    def get_node_ids(self) -> list[int]:
        return list(self.nodes)

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
        answers = [
            self.nodes[m.metadata.dst_node_id](m, m.content["config"]["server-round"])
            for m in messages
        ]
        return [m for answer in answers for m in (answer if isinstance(answer, list) else [answer])]


def content(arrays: Any, samples: Any = 10, **metrics: Any) -> RecordDict:
    """Returns what a client sends back."""
    record = arrays if isinstance(arrays, ArrayRecord) else ArrayRecord(list(arrays))
    counted = {} if samples is None else {"num-examples": samples}
    return RecordDict({"arrays": record, "metrics": MetricRecord({**counted, **metrics})})


def reply(question: Message, arrays: Any, samples: Any = 10, **metrics: Any) -> Message:
    answer = Message(content(arrays, samples, **metrics), reply_to=question)
    answer.metadata.__dict__["_src_node_id"] = question.metadata.dst_node_id
    return answer


def moving(delta: np.ndarray, samples: int = 10) -> Callable[[Message, int], Message]:
    """Returns a node that moves the model by `delta[round - 1]`."""

    def answer(question: Message, round: int) -> Message:
        arrays = question.content.array_records["arrays"].to_numpy_ndarrays()
        step, begin, moved = delta[round - 1], 0, []
        for array in arrays:
            part = step[begin : begin + array.size].reshape(array.shape)
            moved.append(array + part)
            begin += array.size
        return reply(question, moved, samples)

    return answer


def deltas(size: int, rounds: int, seed: int = 0) -> np.ndarray:
    """Returns updates float32 `[rounds, 7, d]`: five that agree and two far away."""
    generator = np.random.default_rng(seed)
    common = generator.normal(size=(rounds, 1, size))
    rows = common + 0.3 * generator.normal(size=(rounds, len(NODES), size))
    rows[:, ATTACKERS] = -3 * common + 0.3 * generator.normal(size=(rounds, 2, size))
    return (rows * 0.01).astype(np.float32)


def train(
    strategy: DefendedStrategy, nodes: dict[int, Callable[..., Any]], first: Any, rounds: int = 1
) -> Any:
    arrays = first if isinstance(first, ArrayRecord) else ArrayRecord(list(first))
    return strategy.start(Grid(nodes), arrays, num_rounds=rounds)


def make(defense: Any, options: Any = None, **more: Any) -> DefendedStrategy:
    return DefendedStrategy(defense, options, fraction_evaluate=0.0, **more)


def honest(model: keras.Model, rounds: int = 1) -> dict[int, Callable[..., Any]]:
    """Returns seven nodes by id; client i is the i-th in ascending order of ids."""
    size = WeightLayout.of(model).size
    rows = deltas(size, rounds)
    return {
        node: moving(rows[:, client], samples=10 + client)
        for client, node in enumerate(sorted(NODES))
    }


def tffl_rounds(
    defense: str, options: dict[str, Any], model: keras.Model, rounds: int, **server: Any
) -> tuple[np.ndarray, list[dict[str, Any]], list[Verdict]]:
    """Plays the same rounds as `honest` without Flower: final weights, rows of the table."""
    layout = WeightLayout.of(model)
    rule, rows = create_defense(defense, options), deltas(layout.size, rounds)
    owner = Server(model, layout, len(NODES), 5, **server)
    state, weights = rule.init(owner), layout.flatten(model.get_weights())
    told, verdicts = [], []
    for round in range(1, rounds + 1):
        ids = np.arange(len(NODES))
        sent = (weights + rows[round - 1]) - weights  # as it comes back over the wire
        updates = Updates(round, ids, 10 + ids, weights, sent, layout)
        verdict, state = rule.judge(updates, owner, state)
        weights = weights + (owner.learning_rate * verdict.aggregate).astype(np.float32)
        group = Group(0, updates, verdict, np.zeros(len(ids), dtype=bool))
        told += [{**row, "malicious": None} for row in client_rows(round, [group])]
        verdicts.append(verdict)
    return weights, told, verdicts


def flat(model: keras.Model, arrays: ArrayRecord | None) -> np.ndarray:
    assert arrays is not None
    return WeightLayout.of(model).flatten(arrays.to_numpy_ndarrays())


def table(rows: Sequence[dict[str, Any]]) -> str:
    whole = Table(CLIENT_COLUMNS)
    for round in sorted({row["round"] for row in rows}):
        whole.append(round, [row for row in rows if row["round"] == round])
    return whole.text()


@pytest.mark.parametrize(
    ("defense", "options"),
    [
        ("none", {}),
        ("multi-krum", {"malicious": 2}),
        ("nnm+median", {"malicious": 2}),
        ("update-consensus", {"window": 3, "votes": 2}),
        ("foolsgold", {}),
        ("centered-clipping", {}),
        ("fldetector", {"window": 2}),
    ],
)
def test_same_verdicts_as_tffl_over_rounds(
    model: keras.Model, tmp_path: Path, defense: str, options: dict[str, Any]
) -> None:
    try:
        weights, rows, _ = tffl_rounds(defense, options, model, rounds=4)
    except UsageError as error:  # pragma: no cover
        pytest.fail(str(error))
    strategy = make(defense, options, model=model, seed=5, out=tmp_path / "run")
    result = train(strategy, honest(model, 4), model.get_weights(), rounds=4)
    np.testing.assert_array_equal(flat(model, result.arrays), weights)
    assert (tmp_path / "run" / "clients.csv").read_text() == table(rows)


def test_attackers_are_left_out_by_update_consensus(model: keras.Model, tmp_path: Path) -> None:
    strategy = make("update-consensus", model=model, out=tmp_path)
    train(strategy, honest(model), model.get_weights())
    accepted = [row["accepted"] for row in read_rows(tmp_path / "clients.csv")]
    assert accepted == ["1", "0", "1", "1", "0", "1", "1"]


def test_defenses_that_look_at_images_get_the_samples(tmp_path: Path) -> None:
    from tffl.models import models

    network = models["lenet5"]((12, 12, 1), 3, seed=0)
    generator = np.random.default_rng(0)
    samples = Samples(
        generator.integers(0, 256, (12, 12, 12, 1), dtype=np.uint8),
        np.arange(12, dtype=np.int32) % 3,
        3,
    )
    with pytest.raises(UsageError, match=r"shield tests clients' models .* give samples"):
        make("shield", model=network)
    from tffl.explain.maps import Explainer

    options = {"cam-consensus": {"probes": 3}, "probe-loss": {"probes": 3}}
    own = {"samples": samples, "explainer": Explainer(network)}
    weights, rows, _ = tffl_rounds("shield", options, network, 1, **own)
    strategy = make("shield", options, model=network, seed=5, samples=samples, out=tmp_path)
    result = train(strategy, honest(network), network.get_weights())
    np.testing.assert_array_equal(flat(network, result.arrays), weights)
    assert (tmp_path / "clients.csv").read_text() == table(rows)


@pytest.mark.parametrize("defense", ["shield", "gan-audit"])
def test_float_images_are_judged_as_bytes_are(defense: str, tmp_path: Path) -> None:
    """A network of pixels from 0 to 1 with floats, and one that scales bytes itself."""
    from tffl.models import models

    scaling = models["lenet5"]((12, 12, 1), 3, seed=0)
    inputs = x = keras.Input((12, 12, 1))
    for layer in scaling.layers[1:]:
        x = x if isinstance(layer, keras.layers.Rescaling) else layer(x)
    plain = keras.Model(inputs, x)
    draw, labels = np.random.default_rng(0), np.arange(12, dtype=np.int32) % 3
    images = draw.integers(0, 256, (12, 12, 12, 1), dtype=np.uint8)
    options = {"cam-consensus": {"probes": 3}, "probe-loss": {"probes": 3}}
    options = options if defense == "shield" else {"images": 12, "inversion_steps": 5}
    verdicts = []
    for network, shown in ((scaling, images), (plain, (images / 255).astype(np.float32))):
        samples = Samples(shown, labels, 3)
        strategy = make(defense, options, model=network, seed=5, samples=samples)
        train(strategy, honest(network), network.get_weights())
        assert strategy.verdict is not None
        verdicts.append(strategy.verdict)
    one, two = verdicts
    assert one.accepted.tolist() == two.accepted.tolist()
    np.testing.assert_allclose(one.scores, two.scores, atol=0.1)


def test_images_that_do_not_suit_the_model_are_found_before_anyone_trains() -> None:
    """A network without a scaling of its own, whose weights suit pixels from 0 to 1."""
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(inputs))
    network = keras.Model(inputs, keras.layers.Dense(4)(x))
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8, 1)).astype(np.uint8)
    samples = Samples(images, np.arange(80, dtype=np.int32) % 4, 4)
    before = network.get_weights()
    with pytest.raises(UsageError, match=r"as pixels \(0,1\)"):
        train(make("probe-loss", model=network, samples=samples), honest(network), before)
    for was, now in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)
    told = make("probe-loss", model=network, samples=samples, pixels=(0, 1))
    train(told, honest(network), before)
    assert told.verdict is not None


SAMPLES = Samples(np.zeros((4, 6, 6, 1), np.uint8), np.arange(4, dtype=np.int32) % 3, 3)
PROBES = {"probe-loss": {"probes": 3}}


def classifier(**options: Any) -> keras.Model:
    layers = [keras.layers.Conv2D(2, 3), keras.layers.Flatten(), keras.layers.Dense(3, **options)]
    return keras.Sequential([keras.Input((6, 6, 1)), *layers])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"images": SAMPLES.images.astype(np.float64)},
            r"samples\.images are float64: they should",
        ),
        ({"images": SAMPLES.images[..., 0]}, r"samples\.images have shape \(4, 6, 6\)"),
        ({"images": np.zeros((4, 5, 5, 1), np.uint8)}, r"takes images of \(6, 6, 1\)"),
        ({"labels": SAMPLES.labels + 1}, r"samples\.labels are 1 to 3: for 3 classes"),
        ({"labels": np.eye(4, dtype=np.int32)}, r"samples\.labels have shape \(4, 4\)"),
        ({"classes": 7}, "has 3 outputs for 7 classes"),
    ],
)
def test_samples_are_checked_when_the_strategy_is_made(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        make("shield", PROBES, model=classifier(), samples=replace(SAMPLES, **changes))


def test_a_root_s_images_are_checked_with_the_samples() -> None:
    root = RootData(SAMPLES.images / 255, SAMPLES.labels, lambda start, round: start)
    with pytest.raises(UsageError, match=r"root\.images are float64"):
        make("shield", PROBES, model=classifier(), samples=SAMPLES, root=root)


def test_a_model_has_to_be_built(model: keras.Model) -> None:
    with pytest.raises(UsageError, match="the model is not built"):
        make("none", model=keras.Sequential([keras.layers.Dense(3)]))
    with pytest.raises(UsageError, match=r"the model is a builtins\.list"):
        make("none", model=model.get_weights())


def test_what_a_defense_looks_at_is_checked_when_the_strategy_is_made() -> None:
    flat = [keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    with pytest.raises(UsageError, match="no convolution"):
        make("gradcam-ae", model=keras.Sequential(flat), samples=SAMPLES)


def test_a_defense_sees_the_logits_of_a_model_that_ends_in_softmax(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = classifier(activation="softmax")
    with caplog.at_level("WARNING", logger="flwr"):
        strategy = make("probe-loss", {"probes": 3}, model=network, samples=SAMPLES, seed=5)
    assert "ends in softmax: defenses see what goes into it" in caplog.text
    seen = strategy._model
    assert network.layers[-1].activation is keras.activations.softmax
    assert seen.layers[-1].activation is keras.activations.linear
    weights = network.get_weights()
    result = train(strategy, honest(network), weights)
    assert [array.shape for array in result.arrays.to_numpy_ndarrays()] == [
        array.shape for array in weights
    ]
    assert strategy.verdict is not None


def test_defenses_that_need_root_data_get_it(model: keras.Model) -> None:
    with pytest.raises(UsageError, match=r"fltrust compares .* give root"):
        make("fltrust", model=model)
    size = WeightLayout.of(model).size
    towards = deltas(size, 1)[0, 0]
    images, labels = np.zeros((1, 2, 2, 1), np.uint8), np.zeros(1, np.int32)
    root = RootData(images, labels, lambda start, round: towards)
    weights, _, (verdict,) = tffl_rounds("fltrust", {}, model, 1, root=root)
    strategy = make("fltrust", model=model, seed=5, root=root)
    result = train(strategy, honest(model), model.get_weights())
    np.testing.assert_array_equal(flat(model, result.arrays), weights)
    assert verdict.weights[list(ATTACKERS)].tolist() == [0, 0]


def test_a_server_learning_rate_scales_the_step(model: keras.Model) -> None:
    first = WeightLayout.of(model).flatten(model.get_weights())
    steps = []
    for rate in (1.0, 0.5):
        strategy = make("none", model=model, learning_rate=rate)
        steps.append(
            flat(model, train(strategy, honest(model), model.get_weights()).arrays) - first
        )
    np.testing.assert_allclose(steps[1], steps[0] / 2, atol=1e-7)


def test_uniform_weighting_ignores_what_nodes_claim(model: keras.Model, tmp_path: Path) -> None:
    strategy = make("none", model=model, weighting="uniform", out=tmp_path)
    train(strategy, honest(model), model.get_weights())
    rows = read_rows(tmp_path / "clients.csv")
    assert {row["weight"] for row in rows} == {"0.142857143"}
    assert [row["samples"] for row in rows] == [str(10 + client) for client in range(7)]


# Malformed replies.


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def with_first(question: Message, change: Callable[[np.ndarray], np.ndarray]) -> Message:
    """Replies with what was sent, the first array changed."""
    first, *others = question.content.array_records["arrays"].to_numpy_ndarrays()
    return reply(question, [change(first), *others])


def with_bytes(question: Message, data: bytes, stype: str = "numpy.ndarray") -> Message:
    record = ArrayRecord(dict(question.content.array_records["arrays"]))
    record["0"] = Array(dtype="float32", shape=(4,), stype=stype, data=data)
    return reply(question, record)


def same(question: Message, **more: Any) -> Message:
    return reply(question, question.content.array_records["arrays"].to_numpy_ndarrays(), **more)


def filled(value: float) -> Callable[[Message], Message]:
    return lambda question: with_first(question, lambda a: np.full_like(a, value))


def changed(question: Message, change: Callable[[RecordDict], Any]) -> Message:
    answer = same(question)
    change(answer.content)
    return answer


def with_header(shape: str) -> bytes:
    """Returns four zeros whose header says another shape."""
    whole = npy(np.zeros(4, np.float32))
    before, after = whole.split(b"(4,), }")
    end = after.index(b"\n")
    text = f"{shape}, }}".encode().ljust(len(b"(4,), }") + end)
    return before + text + after[end:]


MALFORMED: dict[str, tuple[Callable[[Message], Any], str]] = {
    "one array less": (
        lambda q: reply(q, q.content.array_records["arrays"].to_numpy_ndarrays()[:-1]),
        "5 arrays: it should be 6",
    ),
    "one array more": (
        lambda q: reply(q, [*q.content.array_records["arrays"].to_numpy_ndarrays(), np.zeros(1)]),
        "7 arrays: it should be 6",
    ),
    "no arrays": (lambda q: reply(q, []), "0 arrays: it should be 6"),
    "another name": (
        lambda q: changed(q, lambda c: c["arrays"].__setitem__("x\n", c["arrays"].pop("0"))),
        "array 0 is missing",
    ),
    "transposed": (
        lambda q: reply(q, [a.T for a in q.content.array_records["arrays"].to_numpy_ndarrays()]),
        r"has shape \(3, 4\): it should be \(4, 3\)",
    ),
    "one dimension more": (lambda q: with_first(q, lambda a: a[None]), r"has shape \(1, 4\)"),
    "scalar": (lambda q: with_first(q, lambda a: np.array(1, np.float32)), r"has shape \(\)"),
    "float64": (lambda q: with_first(q, lambda a: a.astype(np.float64)), "holds float64"),
    "integers": (lambda q: with_first(q, lambda a: a.astype(np.int32)), "holds int32"),
    "byte-swapped": (lambda q: with_first(q, lambda a: a.astype(">f4")), "holds >f4"),
    "strings": (lambda q: with_first(q, lambda a: np.array(list("abcd"))), "holds <U1"),
    "NaN": (filled(math.nan), "NaN or infinity"),
    "infinity": (filled(-math.inf), "NaN or infinity"),
    "beyond float32": (
        lambda q: with_first(q, lambda a: np.full_like(a, -3.4e38)),
        "beyond float32",
    ),
    "negative variance": (
        lambda q: reply(q, [-np.ones_like(a) for a in arrays_of(q)]),
        "negative variance",
    ),
    "garbage": (lambda q: with_bytes(q, b"\x00" * 40), "no readable NumPy header"),
    "empty bytes": (lambda q: with_bytes(q, b""), "no readable NumPy header"),
    "a zip": (lambda q: with_bytes(q, b"PK\x03\x04" + b"\x00" * 40), "no readable NumPy header"),
    "a pickle": (
        lambda q: with_bytes(q, pickled()),
        "holds object",
    ),
    "truncated": (lambda q: with_bytes(q, npy(np.zeros(4, np.float32))[:-1]), "15 bytes"),
    "too long": (lambda q: with_bytes(q, npy(np.zeros(4, np.float32)) + b"x"), "17 bytes"),
    "a shape of terabytes": (
        lambda q: with_bytes(q, with_header("(999999999999,)")),
        r"has shape \(999999999999,\)",
    ),
    "a shape of code": (
        lambda q: with_bytes(q, with_header("(1 << 40,)")),
        "no readable NumPy header",
    ),
    "megabytes": (lambda q: with_bytes(q, b"\x00" * (1 << 20)), "1048576 bytes for 4 values"),
    "another serializer": (
        lambda q: with_bytes(q, npy(np.zeros(4, np.float32)), stype="pickle\x1b[2J"),
        r"stored as pickle\\x1b\[2J",
    ),
    "no samples": (lambda q: same(q, samples=None), "lack num-examples"),
    "NaN samples": (lambda q: same(q, samples=math.nan), "num-examples = nan"),
    "infinite samples": (lambda q: same(q, samples=math.inf), "num-examples = inf"),
    "half a sample": (lambda q: same(q, samples=10.5), "num-examples = 10.5"),
    "zero samples": (lambda q: same(q, samples=0), "num-examples = 0 is not between"),
    "negative samples": (lambda q: same(q, samples=-5), "num-examples = -5 is not between"),
    "too many samples": (lambda q: same(q, samples=1_000_001), "not between 1 and 1000000"),
    "absurdly many": (lambda q: same(q, samples=1e300), "not between 1 and 1000000"),
    "a list of samples": (lambda q: same(q, samples=[10]), "is not a number"),
    "no metrics": (lambda q: changed(q, lambda c: c.pop("metrics")), "0 metric records"),
    "two metrics": (
        lambda q: changed(q, lambda c: c.__setitem__("b", MetricRecord({"num-examples": 1}))),
        "2 metric records",
    ),
    "two models": (
        lambda q: changed(q, lambda c: c.__setitem__("b", ArrayRecord(arrays_of(q)))),
        "2 array records",
    ),
    "two replies": (lambda q: [same(q), same(q)], "2 replies from one node"),
    "a reply and an error": (lambda q: [same(q), failed(q)], "2 replies from one node"),
}


def arrays_of(question: Message) -> list[np.ndarray]:
    return question.content.array_records["arrays"].to_numpy_ndarrays()


def failed(question: Message, reason: str = "boom") -> Message:
    answer = Message(Error(7, reason), reply_to=question)
    answer.metadata.__dict__["_src_node_id"] = question.metadata.dst_node_id
    return answer


def pickled() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([None], dtype=object), allow_pickle=True)
    return stream.getvalue()


ONE = WeightLayout((Entry("logits/bias", (4,), True),))

BAD = 2
"""Client that sends what is malformed; honest otherwise."""


@pytest.fixture
def high(model: keras.Model) -> list[np.ndarray]:
    """First weights that are so large that an update can leave float32."""
    return [np.full_like(w, 3e37) for w in model.get_weights()]


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_reply_is_named_and_the_round_goes_on(
    model: keras.Model, tmp_path: Path, high: list[np.ndarray], kind: str
) -> None:
    answer, reason = MALFORMED[kind]
    first = high if kind == "beyond float32" else model.get_weights()
    aggregates = []
    for defense in ("none", "multi-krum"):
        nodes = honest(model)
        nodes[sorted(NODES)[BAD]] = lambda question, round: answer(question)
        out = tmp_path / defense
        options = {"malicious": 2} if defense == "multi-krum" else {}
        result = train(make(defense, options, model=model, out=out), nodes, first)
        aggregates.append(flat(model, result.arrays))
        rows = read_rows(out / "clients.csv")
        assert len(rows) == len(NODES)
        row = rows[BAD]
        assert (row["accepted"], row["flagged"], row["weight"]) == ("0", "1", "0.0")
        assert row["samples"] == row["update_norm"] == row["malicious"] == ""
        assert re.search(reason, row["reason"]), row["reason"]
        assert row["reason"].isprintable()
        assert sum(row["accepted"] == "1" for row in rows) >= 4
    layout = WeightLayout.of(model)
    start, others = layout.flatten(first), [i for i in range(len(NODES)) if i != BAD]
    sent = (start + deltas(layout.size, 1)[0][others]) - start
    counts = np.array([10 + client for client in others])
    updates = Updates(1, np.array(others), counts, start, sent, layout)
    expected = start + updates.mean(counts / counts.sum())
    np.testing.assert_array_equal(aggregates[0], expected)
    assert np.isfinite(aggregates[1]).all()


@given(st.binary(max_size=6), st.integers(0, 143), st.integers(0, 144))
def test_bytes_changed_anywhere_are_refused_or_harmless(patch: bytes, at: int, cut: int) -> None:
    whole = npy(np.zeros(4, np.float32))
    assert len(whole) == 144
    data = (whole[:at] + patch + whole[at + len(patch) :])[: 144 if cut < 100 else cut]
    array = Array(dtype="float32", shape=(4,), stype="numpy.ndarray", data=data)
    try:
        weights = flat_weights(ArrayRecord({"0": array}), ["0"], ONE)
    except Refused as refused:
        assert str(refused).isprintable()
    else:
        assert weights.dtype == np.float32
        assert weights.shape == (4,)
        assert np.isfinite(weights).all()


def test_an_observing_defense_does_not_average_malformed_replies(
    model: keras.Model, tmp_path: Path
) -> None:
    nodes = honest(model)
    nodes[sorted(NODES)[BAD]] = lambda question, round: filled(math.nan)(question)
    options = {"enforce": False}
    strategy = make("update-consensus", options, model=model, out=tmp_path)
    result = train(strategy, nodes, model.get_weights())
    assert np.isfinite(flat(model, result.arrays)).all()
    rows = read_rows(tmp_path / "clients.csv")
    assert [row["accepted"] for row in rows] == ["1", "1", "0", "1", "1", "1", "1"]
    assert [row["flagged"] for row in rows] == ["0", "1", "1", "0", "1", "0", "0"]


def test_a_malformed_reply_is_held_against_its_node(model: keras.Model, tmp_path: Path) -> None:
    nodes = honest(model, 3)
    node = sorted(NODES)[BAD]
    good = nodes[node]
    nodes[node] = lambda q, round: good(q, round) if round == 3 else filled(math.nan)(q)
    strategy = make("update-consensus", {"window": 3, "votes": 2}, model=model, out=tmp_path)
    train(strategy, nodes, model.get_weights(), rounds=3)
    row = next(
        r for r in read_rows(tmp_path / "clients.csv") if r["round"] == "3" and r["client"] == "2"
    )
    assert (row["flagged"], row["accepted"]) == ("0", "0")
    assert row["reason"] == "flagged in 2 of its last 3 rounds"


def test_errors_and_silence_cost_a_node_its_round_only(model: keras.Model, tmp_path: Path) -> None:
    nodes = honest(model)
    ids = sorted(NODES)
    nodes[ids[0]] = lambda question, round: failed(question, "line 1\n\x1b[2Jline 2" + "x" * 999)
    nodes[ids[5]] = lambda question, round: []
    strategy = make("update-consensus", model=model, out=tmp_path)
    train(strategy, nodes, model.get_weights())
    rows = read_rows(tmp_path / "clients.csv")
    assert rows[0]["reason"].startswith("error 7: line 1\\n\\x1b[2Jline 2xxx")
    assert len(rows[0]["reason"]) == 300
    assert rows[5]["reason"] == "no reply"
    assert [row["flagged"] for row in rows] == ["0", "1", "0", "0", "1", "0", "0"]
    assert [row["accepted"] for row in rows] == ["0", "0", "1", "1", "0", "0", "1"]


def test_replies_of_nodes_that_were_not_asked_are_rejected(
    model: keras.Model, tmp_path: Path
) -> None:
    def impostor(question: Message, round: int) -> list[Message]:
        forged = same(question)
        forged.metadata.__dict__["_src_node_id"] = 4242
        return [good(question, round), forged]

    nodes = honest(model)
    good = nodes[sorted(NODES)[0]]
    nodes[sorted(NODES)[0]] = impostor
    train(make("none", model=model, out=tmp_path), nodes, model.get_weights())
    *known, stranger = read_rows(tmp_path / "clients.csv")
    assert [row["accepted"] for row in known] == ["1"] * 7
    assert (stranger["client"], stranger["accepted"], stranger["flagged"]) == ("", "0", "1")
    assert stranger["reason"] == "malformed reply: the node was not asked"


@pytest.mark.parametrize("answer", [failed, filled(math.nan), lambda question: []])
def test_the_global_model_stays_if_nobody_is_left(
    model: keras.Model, tmp_path: Path, answer: Callable[[Message], Any]
) -> None:
    nodes = {node: lambda question, round: answer(question) for node in NODES}
    for defense in ("none", "update-consensus"):
        strategy = make(defense, model=model, out=tmp_path / defense)
        result = train(strategy, nodes, model.get_weights())
        first = WeightLayout.of(model).flatten(model.get_weights())
        np.testing.assert_array_equal(flat(model, result.arrays), first)
        assert strategy.verdict is None
        assert {r["accepted"] for r in read_rows(tmp_path / defense / "clients.csv")} == {"0"}


def test_the_global_model_stays_if_too_few_are_left_for_the_defense(
    model: keras.Model, tmp_path: Path
) -> None:
    nodes = honest(model)
    nodes[NODES[0]] = lambda question, round: failed(question)
    strategy = make("krum", {"malicious": 2}, model=model, out=tmp_path)
    result = train(strategy, nodes, model.get_weights())
    first = WeightLayout.of(model).flatten(model.get_weights())
    np.testing.assert_array_equal(flat(model, result.arrays), first)
    reasons = {row["reason"] for row in read_rows(tmp_path / "clients.csv")}
    assert any(reason.startswith("not judged: krum needs n > 2f + 2") for reason in reasons)


def test_a_step_beyond_float32_is_not_taken(model: keras.Model, tmp_path: Path) -> None:
    def far(question: Message, round: int) -> Message:
        return with_first(question, lambda a: np.full_like(a, 3e38))

    nodes = dict.fromkeys(NODES, far)
    strategy = make("none", model=model, learning_rate=2.0, out=tmp_path)
    result = train(strategy, nodes, model.get_weights())
    assert np.isfinite(flat(model, result.arrays)).all()
    reasons = {row["reason"] for row in read_rows(tmp_path / "clients.csv")}
    assert reasons == {"not averaged: the global model would not be finite"}


# What is impossible is said before the first round.


def test_too_few_participants_are_an_error(model: keras.Model) -> None:
    strategy = make("krum", {"malicious": 3}, model=model)
    with pytest.raises(UsageError, match="krum needs n > 2f \\+ 2: with n = 7"):
        train(strategy, honest(model), model.get_weights())


def test_other_arrays_than_the_models_are_an_error(model: keras.Model) -> None:
    with pytest.raises(UsageError, match="not those of tiny: 5 arrays"):
        train(make("none", model=model), honest(model), model.get_weights()[:-1])
    wide = [weight.astype(np.float64) for weight in model.get_weights()]
    with pytest.raises(UsageError, match=r"not those of tiny: .*float64"):
        train(make("none", model=model), honest(model), wide)


@pytest.mark.parametrize(
    ("defense", "more", "message"),
    [
        ("flcert", {}, "global models, and a Flower server has one"),
        ("krumm", {}, "did you mean 'krum'"),
        ("gradcam-ae", {}, "give samples"),
        ("none", {"clients": 0}, "clients = 0"),
        ("none", {"max_samples": 0}, "max_samples = 0"),
        ("none", {"max_samples": 2**63}, "max_samples = 9223372036854775808"),
        ("none", {"learning_rate": math.nan}, "learning_rate = nan"),
        ("none", {"weighting": "sworn"}, "weighting 'sworn'"),
        ("none", {"resume": True}, "resume needs the folder"),
        (FedAvg(), {"options": {}}, "options go with a defense's name"),
    ],
)
def test_what_cannot_be(model: keras.Model, defense: Any, more: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(defense, model=model, **more)


# Memory.


def test_a_restored_strategy_goes_on_as_if_nothing_had_happened(
    model: keras.Model, tmp_path: Path
) -> None:
    def strategy(name: str, **more: Any) -> DefendedStrategy:
        options = {"window": 4, "votes": 2, "ballot": "blocks"}
        return make("update-consensus", options, model=model, out=tmp_path / name, **more)

    whole = train(strategy("whole"), honest(model, 5), model.get_weights(), rounds=5)
    train(strategy("parts"), honest(model, 5), model.get_weights(), rounds=3)
    second = strategy("parts", resume=True)
    rest = {
        node: lambda question, round, play=play: play(question, round + 3)
        for node, play in reversed(honest(model, 5).items())
    }
    result = train(second, rest, second.arrays, rounds=2)
    np.testing.assert_array_equal(flat(model, result.arrays), flat(model, whole.arrays))
    for name in ("clients.csv", "nodes.csv"):
        assert (tmp_path / "parts" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_a_folder_is_neither_overwritten_nor_taken_for_another_run(
    model: keras.Model, tmp_path: Path
) -> None:
    train(make("none", model=model, out=tmp_path), honest(model), model.get_weights())
    with pytest.raises(UsageError, match="holds a run"):
        make("none", model=model, out=tmp_path)
    with pytest.raises(UsageError, match=r"written by tffl\.defenses\.none"):
        make("median", model=model, out=tmp_path, resume=True)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(UsageError, match="holds 31 weights, and the model has 15"):
        make("none", model=other, out=tmp_path, resume=True)
    with pytest.raises(UsageError, match="nothing to save"):
        make("none", model=model).save(tmp_path / "early.safetensors")


def test_nodes_keep_their_numbers_and_late_ones_need_room(
    model: keras.Model, tmp_path: Path
) -> None:
    everyone, early = honest(model, 2), sorted(NODES)[2:]
    grid = Grid({node: everyone[node] for node in early})
    for name, clients in (("full", None), ("room", 7)):
        strategy = make("none", model=model, clients=clients, out=tmp_path / name)
        arrays = ArrayRecord(model.get_weights())
        for round, nodes in ((1, early), (2, sorted(NODES))):
            grid.nodes = {node: everyone[node] for node in nodes}
            asked = strategy.configure_train(round, arrays, ConfigRecord(), grid)
            arrays, _ = strategy.aggregate_train(round, grid.send_and_receive(asked))
        rows = read_rows(tmp_path / name / "clients.csv")
        second = [int(row["client"]) for row in rows if row["round"] == "2"]
        assert second == list(range(5 if name == "full" else 7))
        known = {int(r["client"]): int(r["node"]) for r in read_rows(tmp_path / name / "nodes.csv")}
        assert [known[client] for client in range(5)] == early


def test_a_round_of_some_nodes_judges_only_those(model: keras.Model, tmp_path: Path) -> None:
    strategy = DefendedStrategy(
        "multi-krum",
        {"malicious": 0.2},
        model=model,
        out=tmp_path,
        fraction_train=0.72,
        fraction_evaluate=0.0,
    )
    train(strategy, honest(model, 3), model.get_weights(), rounds=3)
    rounds = [row["round"] for row in read_rows(tmp_path / "clients.csv")]
    assert rounds == ["1"] * 5 + ["2"] * 5 + ["3"] * 5


# Metrics.


def test_metrics_are_those_of_the_accepted(model: keras.Model) -> None:
    def measured(play: Callable[..., Message], loss: Any) -> Callable[..., Message]:
        def answer(question: Message, round: int) -> Message:
            message = play(question, round)
            message.content["metrics"]["loss"] = loss
            return message

        return answer

    nodes = honest(model)
    for client, node in enumerate(sorted(NODES)):
        nodes[node] = measured(nodes[node], 1000.0 if client in ATTACKERS else float(client))
    strategy = make("update-consensus", model=model)
    result = train(strategy, nodes, model.get_weights())
    accepted = [0, 2, 3, 5, 6]
    counts = [10 + client for client in accepted]
    loss = sum(c * n for c, n in zip(accepted, counts, strict=True)) / sum(counts)
    assert result.train_metrics_clientapp[1]["loss"] == pytest.approx(loss)


def test_average_survives_what_strangers_put_into_metrics() -> None:
    records = [
        content([], 1, loss=1.0, only=5, list=[1.0]),
        content([], 3, loss=2.0),
        content([], 2, loss=math.nan),
        content([], 9, loss=[1.0, 2.0]),
        content([], 9, loss=-math.inf),
        content([], 9, loss=1.7e308),
    ]
    result = dict(average(records, "num-examples"))
    assert result == {"loss": pytest.approx(1.75), "only": 5}


def test_evaluation_goes_on_without_malformed_replies(model: keras.Model) -> None:
    def judged(question: Message, round: int) -> Message:
        return reply(question, arrays_of(question), 10, accuracy=0.5)

    bad = [failed, lambda q: same(q, samples=math.nan), lambda q: [judged(q, 1), judged(q, 1)]]
    nodes = dict.fromkeys(NODES, judged)
    for node, answer in zip(NODES, bad, strict=False):
        nodes[node] = lambda question, round, answer=answer: answer(question)
    strategy = DefendedStrategy("none", model=model, fraction_train=0.0)
    result = train(strategy, nodes, model.get_weights())
    assert result.evaluate_metrics_clientapp[1]["accuracy"] == 0.5


# Variables that share a path, count, or are no float32.


def twins_that_count() -> keras.Model:
    """Two branches of one function, and a counter: of `count`, `dense/kernel`, `dense/kernel`."""

    def branch() -> keras.Model:
        inputs = keras.Input((4,))
        return keras.Model(inputs, keras.layers.Dense(2, name="dense")(inputs))

    inputs = keras.Input((4,))
    x = keras.layers.Normalization(name="norm")(inputs)
    both = keras.layers.Concatenate()([branch()(x), branch()(x)])
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(both), name="twins")
    model.get_layer("norm").count.assign(7)
    return model


def moved_by(step: float, count: int) -> Callable[[Message, int], Message]:
    """Returns a node that moves every weight by `step`, and counts."""

    def answer(question: Message, round: int) -> Message:
        arrays = arrays_of(question)
        moved = [a + (np.float32(step) if a.dtype.kind == "f" else count) for a in arrays]
        return reply(question, [np.asarray(a) for a in moved])

    return answer


def test_variables_of_one_path_and_counters_are_averaged_as_they_should(tmp_path: Path) -> None:
    model = twins_that_count()
    nodes = {n: moved_by(0.5 * i, 1000 * i) for i, n in enumerate(sorted(NODES)[:3])}
    strategy = make("none", model=twins_that_count(), out=tmp_path)
    first = [a if a.dtype.kind == "f" else np.full_like(a, 9) for a in model.get_weights()]
    result = train(strategy, nodes, first, rounds=2).arrays.to_numpy_ndarrays()
    for before, after in zip(first, result, strict=True):
        assert after.dtype == before.dtype and after.shape == before.shape
        step = 1.0 if before.dtype.kind == "f" else 0
        np.testing.assert_allclose(after, before + step, atol=1e-6)
    assert all(row["accepted"] == "1" for row in read_rows(tmp_path / "clients.csv"))

    again = make("none", model=twins_that_count(), out=tmp_path, resume=True)
    for before, after in zip(result, again.arrays.to_numpy_ndarrays(), strict=True):
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after, before)


def test_a_counter_of_another_shape_is_no_reason_to_refuse_a_reply(tmp_path: Path) -> None:
    model = twins_that_count()

    def odd(question: Message, round: int) -> Message:
        return reply(
            question, [a if a.dtype.kind == "f" else np.ones(5) for a in arrays_of(question)]
        )

    strategy = make("none", model=model, out=tmp_path)
    first = [np.asarray(a) for a in model.get_weights()]
    train(strategy, {17: odd, 400: moved_by(0.0, 1)}, first)
    assert [row["accepted"] for row in read_rows(tmp_path / "clients.csv")] == ["1", "1"]
    with pytest.raises(UsageError, match=r"norm/count is int64 \[5\]: it should be int\d\d \[\]"):
        wrong = [a if a.dtype.kind == "f" else np.ones(5, np.int64) for a in model.get_weights()]
        train(make("none", model=model), {17: odd, 400: odd}, wrong)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_models_of_another_precision(dtype: str) -> None:
    dense = keras.layers.Dense(3, name="logits", dtype=dtype)
    model = keras.Sequential([keras.Input((4,)), dense])
    first = model.get_weights()

    def answer(question: Message, round: int) -> Message:
        arrays = arrays_of(question)
        assert {a.dtype for a in arrays} == {np.dtype(np.float32)} or round == 1
        model.set_weights([w + np.asarray(round, w.dtype) for w in first])
        return reply(question, model.get_weights())

    result = train(make("none", model=model), {17: answer, 7: answer}, first, rounds=2).arrays
    for before, after in zip(first, result.to_numpy_ndarrays(), strict=True):
        np.testing.assert_allclose(after, before.astype(np.float32) + 2, rtol=0.01)
