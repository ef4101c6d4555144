"""What every defense has to do, whatever its verdicts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core.errors import UsageError
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.core.verdict import Verdict
from tffl.data.samples import AUXILIARY_DATA, PROBE_DATA, RootData, Samples
from tffl.defenses import create_defense
from tffl.defenses.base import Defense, State
from tffl.defenses.server import Server
from tffl.testing.checking import (
    expect,
    expect_array,
    expect_reading,
    expect_same_options,
    made,
    run_checks,
    same_arrays,
    stored,
)
from tffl.testing.fixtures import CLASSES, LAYOUT, small_model, small_round, striped_images

if TYPE_CHECKING:
    from tffl.explain.maps import Explainer

ROUNDS = 3
FEW = (1, 2, 3, 5, 8)
"""Numbers of clients with which a defense either works or refuses to."""

ROUNDING = 1e-3
"""Largest difference between sums over clients in two orders, relative to the largest sum."""


def check_defense(
    defense: Defense, *, name: str = "", clients: int = 12, skip: Collection[str] = ()
) -> None:
    """Raises `AssertionError` unless a defense does what the rest of tffl relies on.

    It judges small rounds of random updates. A defense that looks at clients' models or at images
    gets a small network and 200 images; one that compares with the server's own update gets one.
    TensorFlow is imported for the former only.

    The checks, by name:

    - `inputs`: `judge` writes neither to the updates nor to the state.
    - `verdict`: dtypes, shapes, finite values; weights sum to 1, or are all zero; reasons.
    - `determinism`: the same round twice yields the same verdict, to the last bit.
    - `suspect`: it decides as `judge` does.
    - `permutation`: the verdict on a client does not depend on the order of clients. Skip it for a
      defense that draws lots among clients.
    - `state`: the defense continues from a state that was written to a file and read again.
    - `options`: an equal defense can be made from what `options()` returns.
    - `few clients`: `check` raises `UsageError` for a number of clients, or `judge` works with it.
    - `not finite`: rows with NaN or infinity are convicted, left out, and do not reach the mean;
      if no row is finite, the mean is zero. Skip it for a defense that averages every row.
    - `far rows`: rows of any finite size yield a verdict.
    - `equal rows`: rows that are all equal, or all zero, yield a verdict.

    Args:
      defense: With options that fit `clients` clients in a round. A wrapper is checked around
        another defense: what its `wrap` or `create_defense("mine+krum", {})` returns.
      name: Its name in a config, if it is registered: its options are then read as a config's are.
      clients: Number of participants in a round.
      skip: Names of checks that do not apply.

    Raises:
      AssertionError: A check has failed; one line that begins with its name.
      UsageError: `defense` is not a defense, or `skip` names an unknown check.

    >>> from tffl.defenses.multi_krum import MultiKrum
    >>> check_defense(MultiKrum(malicious=2), name="multi-krum")
    """
    run_checks(defense, Defense, CHECKS, DefenseCase(defense, name, clients), skip)


@dataclass(frozen=True)
class DefenseCase:
    """A defense, and the rounds and the server with which it is checked.

    Attributes:
      defense: The defense.
      name: Its name in a config, or empty.
      participants: Number of clients in a round.
    """

    defense: Defense
    name: str
    participants: int

    @property
    def server(self) -> Server:
        """Has a third more clients than take part, for every global model of the defense."""
        clients = self.defense.models * (self.participants + self.participants // 3)
        declared = set(self.defense.declared_knowledge())
        if self.defense.uses_model or {PROBE_DATA, AUXILIARY_DATA} & declared:
            return _server_with_model(clients)
        return Server(None, LAYOUT, clients, 5, _root(LAYOUT.size))

    def round(self, number: int = 1, clients: int | None = None) -> Updates:
        """Returns updates of clients that train one model; each round draws them anew."""
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
        """Judges several rounds, and passes every state through `keep`.

        Returns:
          The verdicts, and the last state.
        """
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
    samples = Samples(striped_images(labels, 4), labels, CLASSES, tuple("abcdefghij"))
    root = _root(layout.size)
    return Server(model, layout, clients, 5, root, samples=samples, explainer=_explainer())


def _root(size: int) -> RootData:
    labels = np.arange(40, dtype=np.int32) % CLASSES
    images = striped_images(labels, 5)
    return RootData(images, labels, lambda start, round: _root_update(size, round))


def _root_update(size: int, round: int) -> np.ndarray:
    """Returns the drift of `small_round` and some noise."""
    drift = np.random.default_rng([7, round]).normal(0, 1, size)
    noise = np.random.default_rng([8, round]).normal(0, 1, size)
    return (0.01 * (drift + noise)).astype(np.float32)


def _columns(verdict: Verdict) -> dict[str, Any]:
    """Returns the fields of a verdict as arrays, without pictures."""
    names = ("flagged", "convicted", "accepted", "weights", "scores", "threshold", "aggregate")
    reasons = np.array("\n".join(verdict.reasons))
    return {**{name: np.asarray(getattr(verdict, name)) for name in names}, "reasons": reasons}


def _expect_same(one: Verdict, other: Verdict, message: str) -> None:
    mine, yours = _columns(one), _columns(other)
    differing = [name for name in mine if not same_arrays({"": mine[name]}, {"": yours[name]})]
    expect(not differing, f"{message} differs in {', '.join(differing)}")


def expect_verdict(verdict: Any, n: int, size: int) -> None:
    """Raises `AssertionError` unless `verdict` is a complete `Verdict` on n clients.

    Args:
      verdict: The first value that `judge` returned.
      n: Number of clients.
      size: Number of columns, d.
    """
    expect(isinstance(verdict, Verdict), f"judge returns a {type(verdict).__name__}, not a Verdict")
    for name in ("flagged", "convicted", "accepted"):
        expect_array(getattr(verdict, name), bool, (n,), name)
    for name in ("weights", "scores"):
        expect_array(getattr(verdict, name), np.float64, (n,), name)
    expect_array(verdict.aggregate, np.float32, (size,), "aggregate")
    expect(np.isfinite(verdict.aggregate).all(), "aggregate is not finite")
    expect(isinstance(verdict.threshold, float), "threshold is not a float")
    weights, total = verdict.weights, verdict.weights.sum()
    expect((weights >= 0).all(), "a weight is negative or NaN")
    expect(abs(total - 1) < 1e-6 or not weights.any(), f"weights sum to {total:.6g}, not to 1")
    _expect_reasons(verdict, n)


def _expect_reasons(verdict: Verdict, n: int) -> None:
    reasons = verdict.reasons
    is_text = isinstance(reasons, tuple) and all(isinstance(each, str) for each in reasons)
    expect(is_text and len(reasons) == n, f"reasons are not a tuple of {n} strings")
    said = np.array([bool(reason) for reason in reasons])
    silent = verdict.accepted & ~verdict.flagged & ~verdict.convicted
    expect(not said[silent].any(), "a client is accepted, not flagged, and has a reason")
    expect(said[~verdict.accepted].all(), "a client is not accepted, and no reason is given")


def _check_verdict(case: DefenseCase) -> None:
    verdicts, _ = case.rounds(lambda state: state)
    for verdict in verdicts:
        expect_verdict(verdict, case.participants, case.server.layout.size)


def _check_determinism(case: DefenseCase) -> None:
    updates = case.round()
    _expect_same(case.judge(updates), case.judge(updates), "the same round, judged again,")


def _check_inputs(case: DefenseCase) -> None:
    server = case.server
    case.defense.check(case.participants * case.defense.models, server.layout)
    case.defense.check_server(server)

    def judge(updates: Updates, state: State) -> State:
        return case.defense.judge(updates, server, state)[1]

    state = case.defense.init(server)
    for number in (1, 2):  # the second time the state is not empty
        state = expect_reading(judge, case.round(number), state, "judge")


def _check_suspect(case: DefenseCase) -> None:
    server, updates = case.server, case.round()
    verdict = case.judge(updates)
    judgment, _ = case.defense.suspect(updates, server, case.defense.init(server))
    completed = Verdict.of(judgment, verdict.weights, verdict.aggregate)
    _expect_same(completed, verdict, "suspect, beside judge,")


def _check_permutation(case: DefenseCase) -> None:
    updates = case.round()
    order = np.random.default_rng(1).permutation(len(updates))
    moved = replace(
        updates, matrix=updates.matrix[order], sample_counts=updates.sample_counts[order]
    )
    one, other = case.judge(updates), case.judge(moved)
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


def _check_state(case: DefenseCase) -> None:
    verdicts, last = case.rounds(lambda state: state)
    again, other = case.rounds(stored)
    for number, (one, two) in enumerate(zip(verdicts, again, strict=True), start=1):
        _expect_same(one, two, f"round {number}, after its state was stored and read,")
    expect(same_arrays(last, other), "the last state differs after states were stored and read")


def _check_options(case: DefenseCase) -> None:
    defense, name = case.defense, case.name
    expect_same_options(defense, lambda options: made(defense, name, create_defense, options))


def _check_few_clients(case: DefenseCase) -> None:
    server = case.server
    for clients in FEW:
        try:
            case.defense.check(clients * case.defense.models, server.layout)
        except UsageError:
            continue
        try:
            verdict = case.judge(case.round(clients=clients))
            expect_verdict(verdict, clients, server.layout.size)
        except AssertionError as error:
            raise AssertionError(f"check allows {clients} clients, and {error}") from error
        except Exception as error:
            text = f"check allows {clients} clients, and judge raises {type(error).__name__}"
            raise AssertionError(f"{text}: {error}") from error


def _check_not_finite(case: DefenseCase) -> None:
    updates = case.round()
    n, size = len(updates), updates.layout.size
    for count in (2, n - 1, n):
        matrix = updates.matrix.copy()
        matrix[:count, [0, -1]] = [[np.nan, -np.inf]]
        matrix[count - 1] = np.inf
        verdict = case.judge(replace(updates, matrix=matrix))
        expect_verdict(verdict, n, size)
        bad = np.arange(n) < count
        text = f"of {n} rows, {count} are not finite, and one of them is"
        expect(verdict.flagged[bad].all(), f"{text} not flagged")
        expect(verdict.convicted[bad].all(), f"{text} not convicted")
        expect(not verdict.accepted[bad].any(), f"{text} accepted")
        expect(not verdict.weights[bad].any(), f"{text} given a weight")
    expect(not verdict.aggregate.any(), "no row is finite, and the aggregate is not zero")


def _check_far_rows(case: DefenseCase) -> None:
    updates = case.round()
    for size in (1e10, 1e30):
        matrix = updates.matrix.copy()
        matrix[:3] *= np.float32(size)
        verdict = case.judge(replace(updates, matrix=matrix))
        expect_verdict(verdict, len(updates), updates.layout.size)


def _check_equal_rows(case: DefenseCase) -> None:
    updates = case.round()
    for row in (updates.matrix[0], np.zeros(updates.layout.size, np.float32)):
        matrix = np.tile(row, (len(updates), 1))
        verdict = case.judge(replace(updates, matrix=matrix))
        expect_verdict(verdict, len(updates), updates.layout.size)


CHECKS: Mapping[str, Callable[[DefenseCase], None]] = {
    "inputs": _check_inputs,
    "verdict": _check_verdict,
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
