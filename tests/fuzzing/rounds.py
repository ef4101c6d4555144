"""Rounds of hostile updates and claims, and what a defense may make of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.core.weighting import weighted_counts
from tffl.data.samples import RootData, Samples
from tffl.defenses import Defense, Server, Verdict, create_defense, defenses
from tffl.defenses.none import FedAvg
from tffl.explain.maps import Explainer

from .outcome import NotFinite, Outcome, attempt, demand

CLIENTS = 10
SIDE, CLASSES, IMAGES = 8, 3, 12

SMALL: dict[str, dict[str, Any]] = {
    "any-of": {"of": "multi-krum,update-consensus"},
    "all-of": {"of": "bias-anomaly,median"},
    "cam-consensus": {"probes": 6, "group": 3, "epochs": 3},
    "deepsight": {"noise_images": 6},
    "fldetector": {"window": 2, "start": 2},
    "gan-audit": {"images": 4, "inversion_steps": 1},
    "gradcam-ae": {"epochs": 2},
    "layercam-ae": {"epochs": 2},
    "probe-loss": {"probes": 8},
    "shield": {
        "cam-consensus": {"probes": 6, "group": 3, "epochs": 3},
        "probe-loss": {"probes": 8},
    },
}
"""Options with which defenses that look at images, or at many rounds, get along with little."""

NAMES = (
    *defenses,
    "nnm+krum",
    "nnm+trimmed-mean",
    "bucketing+median",
    "bucketing+multi-krum",
    "flcert+median",
)

SLOW = (
    *("cam-consensus", "gan-audit", "gradcam-ae", "gradcam-krum", "layercam-ae", "shield"),
    *("deepsight", "geometric-median", "signguard"),
)
"""Those that take tenths of seconds for a case: most of them run or train networks."""

SPECIAL = [
    *(float("nan"), float("inf"), -float("inf")),
    *(0.0, -0.0, 1e-45, -1e-45, 1.1754944e-38, 1e-30, 1e30, -1e30),
    *(1e38, -1e38, 3.4028235e38, -3.4028235e38, 1.0, 5.0),
]
values = st.one_of(st.sampled_from(SPECIAL), st.floats(width=32))


@dataclass(frozen=True)
class Spoil:
    """What one client does to its row; `where` and `other` are taken modulo what there is."""

    kind: str
    row: int
    where: int
    other: int
    value: float


KINDS = (
    *("row", "one", "variable", "alternating", "variance"),
    *("copy", "opposite", "times", "tiny", "everyone"),
)

spoils = st.builds(
    Spoil,
    st.sampled_from(KINDS),
    st.integers(0, 7),
    st.integers(0, 200),
    st.integers(0, 7),
    values,
)

LIES = [-1, -(2**63), 2**40 + 1, 2**53, 2**62, 2**63 - 1, 2**63, 1e38, 0.5, *SPECIAL[:3]]
allowed = st.one_of(st.integers(1, 500), st.sampled_from([0, 1, 2**31, 2**40]))
claims = st.one_of(allowed, st.sampled_from(LIES), st.integers())


@dataclass(frozen=True)
class Sent:
    """What the clients of one round send: honest rows of a seed, then spoiled, and their claims."""

    ids: tuple[int, ...]
    counts: tuple[float, ...]
    seed: int
    spread: float
    spoils: tuple[Spoil, ...]


@st.composite
def sendings(draw: st.DrawFn) -> Sent:
    clients = draw(st.sampled_from([8, 7, 6, 5, 8, 3, 2, 1]))
    ids = draw(st.permutations(range(CLIENTS)))[:clients]
    counted = claims if draw(st.integers(0, 7)) == 7 else allowed
    return Sent(
        ids=tuple(sorted(ids)),
        counts=tuple(draw(counted) for _ in ids),
        seed=draw(st.integers(0, 1000)),
        spread=draw(st.sampled_from([0.1, 0.1, 1e-3, 1.0, 0.0, 1e-40])),
        spoils=tuple(draw(st.lists(spoils, max_size=4))),
    )


weightings = st.sampled_from(["claimed", "uniform", "capped"])
cases = st.tuples(st.lists(sendings(), min_size=1, max_size=3).map(tuple), weightings)
"""One to three rounds in a row, for what a defense remembers may be spoiled too."""

HONEST = ((Sent(tuple(range(8)), (10,) * 8, seed=1, spread=0.1, spoils=()),) * 2, "claimed")


@cache
def server() -> Server:
    """A server with everything that a defense may ask for, compiled once per process."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    images = keras.Input((SIDE, SIDE, 1), name="images")
    x = layers.Conv2D(2, 3, name="conv")(images / 255)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.ReLU()(layers.Conv2D(3, 3, name="deep")(x))
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(images, layers.Dense(CLASSES, name="logits")(x), name="tiny")
    layout = WeightLayout.of(model)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (IMAGES, SIDE, SIDE, 1), dtype=np.uint8)
    labels = (np.arange(IMAGES) % CLASSES).astype(np.int32)

    def train(start: np.ndarray, round: int) -> np.ndarray:
        step = np.random.default_rng(round).normal(0, 0.1, start.shape)
        return np.where(layout.trainable, step, 0).astype(np.float32)

    return Server(
        model,
        layout,
        CLIENTS,
        seed=0,
        root=RootData(pictures, labels, train),
        samples=Samples(pictures, labels, CLASSES),
        explainer=Explainer(model),
    )


@cache
def first_weights() -> np.ndarray:
    own = server()
    assert own.model is not None
    return own.layout.flatten(own.model.get_weights())


def matrix(sent: Sent, start: np.ndarray, layout: WeightLayout) -> np.ndarray:
    """Returns the rows that the clients send, float32 `[n, d]`."""
    n, rng = len(sent.ids), np.random.default_rng(sent.seed)
    common = rng.normal(0, 1, layout.size)
    drawn = sent.spread * (common + 0.5 * rng.normal(size=(n, layout.size)))
    rows: np.ndarray = np.where(layout.trainable, drawn, 0.01 * np.abs(drawn)).astype(np.float32)
    variances = [layout[e.name] for e in layout.entries if e.name.endswith("moving_variance")]
    for spoil in sent.spoils:
        row, value = spoil.row % n, np.float32(spoil.value)
        with np.errstate(all="ignore"):
            if spoil.kind == "row":
                rows[row] = value
            elif spoil.kind == "one":
                rows[row, spoil.where % layout.size] = value
            elif spoil.kind == "variable":
                entry = layout.entries[spoil.where % len(layout.entries)]
                rows[row, layout[entry.name]] = value
            elif spoil.kind == "alternating":
                rows[row, ::2], rows[row, 1::2] = value, -value
            elif spoil.kind == "variance":
                for columns in variances:
                    rows[row, columns] = -start[columns] - np.abs(value) - 1
            elif spoil.kind == "copy":
                rows[row] = rows[spoil.other % n]
            elif spoil.kind == "opposite":
                rows[row] = -rows[spoil.other % n]
            elif spoil.kind == "times":
                rows[row] *= value
            elif spoil.kind == "tiny":
                rows[row] *= np.float32(1e-42)
            else:
                rows[:] = rows[row]
    return rows


def judge(name: str, case: tuple[tuple[Sent, ...], Any]) -> Outcome:
    """Lets a defense judge rounds as a federation does, and holds it to its word."""
    return attempt(lambda: _judge(name, *case))


def _judge(name: str, rounds: tuple[Sent, ...], weighting: Any) -> None:
    own, defense = server(), create_defense(name, SMALL.get(name, {}))
    groups = defense.groups(own)
    starts = [first_weights()] * defense.models
    state = defense.init(own)
    for number, sent in enumerate(rounds, start=1):
        everybody = np.array(sent.ids)
        defense.check(len(everybody), own.layout)
        rows = matrix(sent, starts[0], own.layout)
        counts = np.array(sent.counts)  # of whatever type holds them: nobody has looked yet
        for model in np.unique(groups[everybody]):
            mine = groups[everybody] == model
            received = Updates(
                *(number, everybody[mine], counts[mine]),
                *(starts[model], rows[mine].copy(), own.layout),
            )
            received = replace(
                received, sample_counts=weighted_counts(received.sample_counts, weighting)
            )
            assert own.model is not None
            own.model.set_weights(own.layout.unflatten(starts[model]))
            verdict, state = defense.judge(received, own, state)
            check(verdict, received, defense)
            with np.errstate(over="ignore", invalid="ignore"):
                after = starts[model] + verdict.aggregate
            if not np.isfinite(after).all():
                return  # a server would keep its model, and no defense judges this
            starts[model] = after


def check(verdict: Verdict, updates: Updates, defense: Defense) -> None:
    """Raises `Broken` if a verdict is not what `Verdict` says it is."""
    n, finite = len(updates), updates.finite()
    aggregate, weights = verdict.aggregate, verdict.weights
    if type(defense) is not FedAvg:  # which judges nobody, and says so
        if not np.isfinite(aggregate).all():
            raise NotFinite("the aggregate is not finite")
        demand(not verdict.accepted[~finite].any(), "a row that is not finite is accepted")
        demand(not weights[~finite].any(), "a row that is not finite has a weight")
        demand(verdict.convicted[~finite].all(), "a row that is not finite is not convicted")
    demand(aggregate.shape == (updates.layout.size,), f"the aggregate is {aggregate.shape}")
    demand(aggregate.dtype == np.float32, f"the aggregate is {aggregate.dtype}")
    for field in ("flagged", "convicted", "accepted", "weights", "scores"):
        value = getattr(verdict, field)
        demand(value.shape == (n,), f"{field} has shape {value.shape}, of {n} clients")
    demand(np.isfinite(weights).all() and (weights >= 0).all(), f"weights are {weights}")
    total = weights.sum()
    demand(np.isclose(total, 1) or total == 0, f"weights sum to {total}")
    demand(len(verdict.reasons) == n, f"{len(verdict.reasons)} reasons of {n} clients")
    demand(not any("\n" in reason for reason in verdict.reasons), "a reason has two lines")
