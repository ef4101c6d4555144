"""What every defense has to do, whatever it thinks of clients."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core.errors import UsageError
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.core.verdict import Verdict
from tffl.data.samples import AUXILIARY_DATA, PROBE_DATA, Root, Samples
from tffl.defenses import create_defense
from tffl.defenses.base import Defense, State
from tffl.defenses.server import Server
from tffl.testing.checking import (
    copied,
    expect,
    expect_array,
    require_instance,
    run_checks,
    same_arrays,
    stored,
)
from tffl.testing.worlds import CLASSES, LAYOUT, pictures, small_model, small_round

if TYPE_CHECKING:
    from tffl.explain.maps import Explainer

ROUNDS = 3
FEW = (1, 2, 3, 5, 8)
"""With how few clients a defense either works or refuses to."""

ROUNDING = 1e-3
"""How far sums may differ in which clients stand in another order, relative to the largest."""


def check_defense(
    defense: Defense, *, name: str = "", clients: int = 12, skip: Collection[str] = ()
) -> None:
    """Raises `AssertionError` unless a defense does what the rest of tffl relies on.

    It judges small rounds of random updates. A defense that looks at clients' models or at images
    gets a small network and 200 images; one that compares with the server's own update gets one.
    TensorFlow is imported for the former only.

    The checks, by name:

    - `verdict`: dtypes, shapes, finite values; weights sum to 1, or are all zero; reasons.
    - `inputs`: neither updates nor state are written to.
    - `determinism`: the same round twice is the same verdict, to the last bit.
    - `suspect`: it decides as `judge` does.
    - `permutation`: in another order, clients get the same verdicts. Skip it for a defense that
      draws lots among clients.
    - `state`: rounds go on from a state that was written to a file, as a checkpoint is.
    - `options`: what `options()` returns makes an equal defense.
    - `few clients`: `check` refuses a number of clients by `UsageError`, or they are judged.
    - `not finite`: rows with NaN or infinity are convicted, left out, and do not reach the mean;
      if all rows are so, the mean is zero. Skip it for a defense that averages whatever it gets.
    - `far rows`: rows of any finite size yield a verdict.
    - `equal rows`: so do rows that are all equal, or zero.

    Args:
      defense: With options that fit `clients` clients in a round; of a wrapper, what its `wrap` or
        `create_defense("mine+krum", {})` returns.
      name: As a config calls it, if it is registered: its options are then read as a config's are.
      clients: How many take part in a round.
      skip: Names of checks that do not apply.

    Raises:
      AssertionError: A check has failed; one line that begins with its name.
      UsageError: It is no defense, or there is no such check to skip.

    >>> from tffl.defenses.multi_krum import MultiKrum
    >>> check_defense(MultiKrum(malicious=2), name="multi-krum")
    """
    require_instance(defense, Defense)
    run_checks(CHECKS, Bench(defense, name, clients), skip)


@dataclass(frozen=True)
class Bench:
    """A defense and what it is checked with.

    Attributes:
      defense: To be checked.
      name: As a config calls it, or empty.
      participants: In a round.
    """

    defense: Defense
    name: str
    participants: int

    @property
    def server(self) -> Server:
        """With a third more clients than take part, for every global model that it keeps."""
        clients = self.defense.models * (self.participants + self.participants // 3)
        granted = set(self.defense.granted())
        if self.defense.uses_model or {PROBE_DATA, AUXILIARY_DATA} & granted:
            return _server_with_model(clients)
        return Server(None, LAYOUT, clients, 5, _root(LAYOUT.size))

    def round(self, number: int = 1, clients: int | None = None) -> Updates:
        """Returns updates of clients that train one model, not the same ones in every round."""
        server = self.server
        members = np.flatnonzero(self.defense.groups(server) == 0)
        draw = np.random.default_rng([3, number])
        ids = np.sort(draw.permutation(members)[: clients or self.participants])
        start = np.zeros(server.layout.size, np.float32)
        if server.model is not None:
            start = server.layout.flatten(server.model.get_weights())
        return small_round(server.layout, ids, start, number)

    def judge(self, updates: Updates) -> Verdict:
        """Judges a first round."""
        server = self.server
        return self.defense.judge(updates, server, self.defense.init(server))[0]

    def rounds(self, keep: Callable[[State], State]) -> tuple[list[Verdict], State]:
        """Judges several rounds, with `keep` between them; returns verdicts and the last state."""
        server, verdicts = self.server, []
        state = keep(self.defense.init(server))
        for number in range(1, ROUNDS + 1):
            verdict, state = self.defense.judge(self.round(number), server, state)
            state = keep(state)
            verdicts.append(verdict)
        return verdicts, state


@cache
def _explainer() -> Explainer:
    from tffl.explain.maps import Explainer

    return Explainer(small_model())


def _server_with_model(clients: int) -> Server:
    model = small_model()
    layout = WeightLayout.of(model)
    labels = np.arange(200, dtype=np.int32) % CLASSES
    samples = Samples(pictures(labels, 4), labels, CLASSES, tuple("abcdefghij"))
    root = _root(layout.size)
    return Server(model, layout, clients, 5, root, samples=samples, explainer=_explainer())


def _root(size: int) -> Root:
    labels = np.arange(40, dtype=np.int32) % CLASSES
    return Root(pictures(labels, 5), labels, lambda start, round: _root_update(size, round))


def _root_update(size: int, round: int) -> np.ndarray:
    """Returns the drift of `small_round` and some noise."""
    drift = np.random.default_rng([7, round]).normal(0, 1, size)
    noise = np.random.default_rng([8, round]).normal(0, 1, size)
    return (0.01 * (drift + noise)).astype(np.float32)


def _columns(verdict: Verdict) -> dict[str, Any]:
    """Returns what a verdict says, without pictures."""
    names = ("flagged", "convicted", "accepted", "weights", "scores", "threshold", "aggregate")
    reasons = np.array("\n".join(verdict.reasons))
    return {**{name: np.asarray(getattr(verdict, name)) for name in names}, "reasons": reasons}


def _expect_same(one: Verdict, other: Verdict, message: str) -> None:
    mine, yours = _columns(one), _columns(other)
    differing = [name for name in mine if not same_arrays({"": mine[name]}, {"": yours[name]})]
    expect(not differing, f"{message} differs in {', '.join(differing)}")


def expect_verdict(verdict: Any, n: int, size: int) -> None:
    """Raises `AssertionError` unless it is a complete `Verdict` on n clients.

    Args:
      verdict: What `judge` returned first.
      n: Number of clients.
      size: Number of columns, d.
    """
    expect(isinstance(verdict, Verdict), f"judge returns a {type(verdict).__name__}, no Verdict")
    for name in ("flagged", "convicted", "accepted"):
        expect_array(getattr(verdict, name), bool, (n,), name)
    for name in ("weights", "scores"):
        expect_array(getattr(verdict, name), np.float64, (n,), name)
    expect_array(verdict.aggregate, np.float32, (size,), "aggregate")
    expect(np.isfinite(verdict.aggregate).all(), "aggregate is not finite")
    expect(isinstance(verdict.threshold, float), "threshold is no float")
    weights, total = verdict.weights, verdict.weights.sum()
    expect((weights >= 0).all(), "a weight is negative or NaN")
    expect(abs(total - 1) < 1e-6 or not weights.any(), f"weights sum to {total:.6g}, not to 1")
    _expect_reasons(verdict, n)


def _expect_reasons(verdict: Verdict, n: int) -> None:
    reasons = verdict.reasons
    is_text = isinstance(reasons, tuple) and all(isinstance(each, str) for each in reasons)
    expect(is_text and len(reasons) == n, f"reasons are no tuple of {n} strings")
    said = np.array([bool(reason) for reason in reasons])
    silent = verdict.accepted & ~verdict.flagged & ~verdict.convicted
    expect(not said[silent].any(), "a client is accepted, not flagged, and has a reason")
    expect(said[~verdict.accepted].all(), "a client is not accepted, and no reason is given")


def _check_verdict(bench: Bench) -> None:
    server = bench.server
    bench.defense.check(bench.participants * bench.defense.models, server.layout)
    bench.defense.check_server(server)
    verdicts, _ = bench.rounds(lambda state: state)
    for verdict in verdicts:
        expect_verdict(verdict, bench.participants, server.layout.size)


def _check_determinism(bench: Bench) -> None:
    updates = bench.round()
    _expect_same(bench.judge(updates), bench.judge(updates), "the same round, judged again,")


def _check_inputs(bench: Bench) -> None:
    server, updates, state = bench.server, bench.round(), bench.defense.init(bench.server)
    names = ("matrix", "start", "client_ids", "sample_counts")
    for number in range(2):  # the second time the state is not empty
        before = copied({name: getattr(updates, name) for name in names})
        remembered = copied(state)
        given = state
        _, state = bench.defense.judge(updates, server, given)
        for name in names:
            same = same_arrays({name: getattr(updates, name)}, {name: before[name]})
            expect(same, f"judge writes to updates.{name}")
        expect(same_arrays(given, remembered), "judge writes to the state that it is given")
        updates = bench.round(number + 2)


def _check_suspect(bench: Bench) -> None:
    server, updates = bench.server, bench.round()
    verdict = bench.judge(updates)
    judgment, _ = bench.defense.suspect(updates, server, bench.defense.init(server))
    completed = Verdict.of(judgment, verdict.weights, verdict.aggregate)
    _expect_same(completed, verdict, "suspect, beside judge,")


def _check_permutation(bench: Bench) -> None:
    updates = bench.round()
    order = np.random.default_rng(1).permutation(len(updates))
    moved = replace(
        updates, matrix=updates.matrix[order], sample_counts=updates.sample_counts[order]
    )
    one, other = bench.judge(updates), bench.judge(moved)
    for name in ("flagged", "convicted", "accepted"):
        same = np.array_equal(getattr(other, name), getattr(one, name)[order])
        expect(same, f"{name} depends on the order of clients")
    for name in ("weights", "scores"):
        same = _close(getattr(other, name), getattr(one, name)[order])
        expect(same, f"{name} depend on the order of clients")
    expect(_close(other.aggregate, one.aggregate), "the aggregate depends on the order of clients")


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    known = np.abs(other[np.isfinite(other)])
    scale = known.max() if len(known) else 0.0
    return bool(np.allclose(one, other, rtol=ROUNDING, atol=ROUNDING * scale, equal_nan=True))


def _check_state(bench: Bench) -> None:
    verdicts, last = bench.rounds(lambda state: state)
    again, other = bench.rounds(stored)
    for number, (one, two) in enumerate(zip(verdicts, again, strict=True), start=1):
        _expect_same(one, two, f"round {number}, after its state was stored and read,")
    expect(same_arrays(last, other), "the last state differs after states were stored and read")


def _check_options(bench: Bench) -> None:
    def make(options: Mapping[str, Any]) -> Defense:
        return create_defense(bench.name, options) if bench.name else type(bench.defense)(**options)

    expect_same_options(bench.defense, make)


def expect_same_options(component: Any, make: Callable[[Mapping[str, Any]], Any]) -> None:
    """Raises `AssertionError` unless an attack's or a defense's options make an equal one.

    Args:
      component: With a method `options`.
      make: Options → another one.
    """
    options = component.options()
    expect(make(options) == component, "what options() returns makes another one")
    expect(
        make(json.loads(json.dumps(options))) == component,
        "what options() returns makes another one after it was written to a file",
    )


def _check_few_clients(bench: Bench) -> None:
    server = bench.server
    for clients in FEW:
        try:
            bench.defense.check(clients * bench.defense.models, server.layout)
        except UsageError:
            continue
        try:
            verdict = bench.judge(bench.round(clients=clients))
            expect_verdict(verdict, clients, server.layout.size)
        except AssertionError as error:
            raise AssertionError(f"check allows {clients} clients, and {error}") from error
        except Exception as error:
            text = f"check allows {clients} clients, and judge raises {type(error).__name__}"
            raise AssertionError(f"{text}: {error}") from error


def _check_not_finite(bench: Bench) -> None:
    updates = bench.round()
    n, size = len(updates), updates.layout.size
    for count in (2, n - 1, n):
        matrix = updates.matrix.copy()
        matrix[:count, [0, -1]] = [[np.nan, -np.inf]]
        matrix[count - 1] = np.inf
        verdict = bench.judge(replace(updates, matrix=matrix))
        expect_verdict(verdict, n, size)
        bad = np.arange(n) < count
        text = f"of {n} rows, {count} are not finite, and one of them is"
        expect(verdict.flagged[bad].all(), f"{text} not flagged")
        expect(verdict.convicted[bad].all(), f"{text} not convicted")
        expect(not verdict.accepted[bad].any(), f"{text} accepted")
        expect(not verdict.weights[bad].any(), f"{text} given a weight")
    expect(not verdict.aggregate.any(), "no row is finite, and the aggregate is not zero")


def _check_far_rows(bench: Bench) -> None:
    updates = bench.round()
    for size in (1e10, 1e30):
        matrix = updates.matrix.copy()
        matrix[:3] *= np.float32(size)
        verdict = bench.judge(replace(updates, matrix=matrix))
        expect_verdict(verdict, len(updates), updates.layout.size)


def _check_equal_rows(bench: Bench) -> None:
    updates = bench.round()
    for row in (updates.matrix[0], np.zeros(updates.layout.size, np.float32)):
        matrix = np.tile(row, (len(updates), 1))
        verdict = bench.judge(replace(updates, matrix=matrix))
        expect_verdict(verdict, len(updates), updates.layout.size)


CHECKS: Mapping[str, Callable[[Bench], None]] = {
    "verdict": _check_verdict,
    "inputs": _check_inputs,
    "determinism": _check_determinism,
    "suspect": _check_suspect,
    "permutation": _check_permutation,
    "state": _check_state,
    "options": _check_options,
    "few clients": _check_few_clients,
    "not finite": _check_not_finite,
    "far rows": _check_far_rows,
    "equal rows": _check_equal_rows,
}
