"""What every attack has to do, however much damage it does."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.attacks import create_attack
from tffl.attacks.base import Attack, State, SuccessSet
from tffl.attacks.bounded import SAMPLE_COUNTS
from tffl.attacks.model_attack import ALL_BENIGN, OVERHEARD
from tffl.config import Config, build
from tffl.core.pixels import BYTES
from tffl.core.updates import Updates
from tffl.data.federation import Dataset, Federation
from tffl.data.samples import Samples
from tffl.models import models
from tffl.testing.checking import (
    copied,
    expect,
    expect_array,
    expect_reading,
    expect_same_options,
    made,
    run_checks,
    same_arrays,
    stored,
)
from tffl.testing.fixtures import CLASSES, IMAGE_SHAPE, small_dataset, small_round, split_evenly

if TYPE_CHECKING:
    import keras

    from tffl.attacks.adversary import Adversary

CLIENTS, SEED, ROUNDS = 12, 3, 3
MALICIOUS = np.array([1, 4, 9])
MODEL = "lenet5"
STEADY = {"from_round": 1, "until_round": 0, "every_rounds": 1, "on_rounds": 1, "off_rounds": 0}
SCHEDULES: tuple[tuple[dict[str, int], tuple[int, ...]], ...] = (
    ({"from_round": 2, "until_round": 6, "every_rounds": 2}, (2, 4, 6)),
    ({"from_round": 2, "on_rounds": 2, "off_rounds": 3}, (2, 3, 7, 8)),
)
"""Schedules, and the rounds up to 10 that are attacked with them."""


def check_attack(attack: Attack, *, name: str = "", skip: Collection[str] = ()) -> None:
    """Raises `AssertionError` unless an attack does what the rest of tffl relies on.

    It poisons a small dataset of ten classes, images uint8 `[12, 12, 1]`, and attacks small rounds
    of random updates of 12 clients, of whom 3 are malicious.

    The checks, by name:

    - `reserve`: positions of training images, each once.
    - `poison`: the data changes for malicious clients only; the pool only grows; no array is
      written to; the same seed yields the same data.
    - `success set`: images, targets and source are as `SuccessSet` says, also after a round.
    - `claims`: `claimed` returns whole numbers that are not negative.
    - `inputs`: `send` writes neither to the updates nor to the state.
    - `send`: the rows have the shape and dtype that `send` promises, and differ from the trained
      ones exactly if `changes_updates()` says so.
    - `nobody`: a round without a malicious client works.
    - `determinism`: the same round twice yields the same rows, to the last bit.
    - `knowledge`: the attack reads sample counts and updates of honest clients only if
      `declared_knowledge()` names them: otherwise it sends the same rows when the counts change and
      the updates are NaN. Of an attack that overhears some updates, only the counts are checked, as
      it draws the updates itself.
    - `state`: the attack continues from a state that was written to a file and read again.
    - `options`: an equal attack can be made from what `options()` returns.
    - `schedule`: `from_round`, `until_round`, `every_rounds`, `on_rounds` and `off_rounds` are
      respected.

    Args:
      attack: With options that fit that dataset.
      name: Its name in a config, if it is registered: its options are then read as a config's are.
      skip: Names of checks that do not apply.

    Raises:
      AssertionError: A check has failed; one line that begins with its name.
      UsageError: `attack` is not an attack, or `skip` names an unknown check.

    >>> from tffl.attacks.label_flip import LabelFlip
    >>> check_attack(LabelFlip(source=1, target=7), name="label-flip")
    """
    run_checks(attack, Attack, CHECKS, AttackCase(attack, name), skip)


@dataclass(frozen=True)
class AttackCase:
    """An attack, and the federation and rounds with which it is checked.

    Attributes:
      attack: The attack.
      name: Its name in a config, or empty.
    """

    attack: Attack
    name: str

    @cached_property
    def dataset(self) -> Dataset:
        """Images of ten classes."""
        return small_dataset()

    @cached_property
    def config(self) -> Config:
        """The part of the experiment that every client knows."""
        federation = {"clients": CLIENTS, "malicious": len(MALICIOUS), "rounds": 10}
        sections = {"model": {"name": MODEL}, "training": {"batch_size": 8}}
        return build({"seed": SEED, "federation": federation, **sections})

    @property
    def honest(self) -> Federation:
        """The federation before the attack."""
        return split_evenly(self.dataset, CLIENTS, self.attack.reserve(self.dataset))

    @cached_property
    def poisoned(self) -> Federation:
        """The federation after the attack on its data."""
        return self.attack.poison(self.honest, MALICIOUS, SEED)

    @cached_property
    def adversary(self) -> Adversary:
        """What the attackers own, and the server's images for attacks that know them."""
        from tffl.attacks.adversary import Adversary

        images, labels = self.dataset.test_images, self.dataset.test_labels
        samples = Samples(images, labels, CLASSES, self.dataset.class_names)
        return Adversary(_model(), self.config, self.poisoned, MALICIOUS, server_samples=samples)

    def round(self, number: int) -> Updates:
        """Returns the updates that all clients trained in a round."""
        layout = self.adversary.layout
        start = layout.flatten(_model().get_weights())
        return small_round(layout, np.arange(CLIENTS), start, number)

    def sent(self, updates: Updates, state: State) -> tuple[np.ndarray, State]:
        """Returns the malicious clients' rows float32 `[m, d]`, and what the attackers remember.

        Raises:
          AssertionError: `send` returns something else.
        """
        malicious = np.isin(updates.client_ids, MALICIOUS)
        rows, after = self.attack.send(updates, malicious, self.adversary, state)
        expect(isinstance(after, Mapping), f"send returns a {type(after).__name__} as state")
        own = updates.select(malicious)
        if rows is None:
            return own.deltas, after
        shape = (len(own), updates.layout.size)
        if np.shape(rows) != (1, shape[1]):  # one row stands for all of them
            expect_array(rows, np.float32, shape, "what send returns")
        expect(rows.dtype == np.float32, f"rows are {rows.dtype}, and should be float32")
        return np.broadcast_to(rows, shape), after

    def rounds(
        self, keep: Callable[[State], State], change: Callable[[Updates], Updates]
    ) -> tuple[list[np.ndarray], State]:
        """Attacks several rounds, after `change` of the updates, and passes states through `keep`.

        Returns:
          The rows of each round, and the last state.
        """
        state, rounds = keep(self.attack.init(self.adversary)), []
        for number in range(1, ROUNDS + 1):
            rows, state = self.sent(change(self.round(number)), state)
            state = keep(state)
            rounds.append(rows)
        return rounds, state

    def make(self, options: Mapping[str, Any]) -> Attack:
        """Returns the attack with other options."""
        return made(self.attack, self.name, create_attack, options)


@cache
def _model() -> keras.Model:
    return models[MODEL](IMAGE_SHAPE, CLASSES, seed=1)


def _check_reserve(case: AttackCase) -> None:
    case.attack.check(case.dataset)
    case.attack.check_clients(len(MALICIOUS), CLIENTS)
    reserved = case.attack.reserve(case.dataset)
    expect_array(reserved, np.int64, (len(reserved),), "reserve")
    expect(len(np.unique(reserved)) == len(reserved), "an image is reserved twice")
    inside = (reserved >= 0) & (reserved < len(case.dataset.train_ids))
    expect(inside.all(), "a reserved position is not that of a training image")


def _check_poison(case: AttackCase) -> None:
    honest, dataset = case.honest, case.dataset
    names = ("train_images", "train_labels", "test_images", "test_labels")
    before = copied({name: getattr(dataset, name) for name in names})
    held = [(data.indices.copy(), data.labels.copy()) for data in honest.clients]
    poisoned = case.attack.poison(honest, MALICIOUS, SEED)
    again = case.attack.poison(case.honest, MALICIOUS, SEED)
    expect(
        same_arrays(before, {name: getattr(dataset, name) for name in names}),
        "poison writes to the dataset",
    )
    expect(
        same_arrays({"": again.images}, {"": poisoned.images}), "the same seed draws other images"
    )
    pool = len(honest.images)
    expect((poisoned.images[:pool] == honest.images).all(), "it changes images of the pool")
    expect_array(poisoned.images, np.uint8, (len(poisoned.pool_ids), *honest.images.shape[1:]), "")
    expect(len(poisoned.clients) == CLIENTS, "the number of clients changes")
    for client, (indices, labels) in enumerate(held):
        data, mine = poisoned.clients[client], honest.clients[client]
        same = np.array_equal(mine.indices, indices) and np.array_equal(mine.labels, labels)
        expect(same, "poison writes to the data of clients")
        expect(data == again.clients[client], "the same seed poisons other samples")
        expect(client in MALICIOUS or data == mine, f"the data of honest client {client} changes")
        expect_array(data.indices, np.int32, (len(data),), "a client's indices")
        expect_array(data.labels, np.int32, (len(data),), "a client's labels")
        expect(
            ((data.indices >= 0) & (data.indices < len(poisoned.images))).all(),
            "an index is not that of an image",
        )
        expect(((data.labels >= 0) & (data.labels < CLASSES)).all(), "a label is not a class")


def _check_success_set(case: AttackCase) -> None:
    found = case.attack.success_set(case.poisoned, SEED)
    if found is None:
        return
    _expect_success_set(case, found)
    _, state = case.sent(case.round(1), case.attack.init(case.adversary))
    now = case.attack.current_success_set(found, BYTES, state)
    if now is None:
        return
    _expect_success_set(case, now)
    expect((now.targets == found.targets).all(), "the targets of the current success set differ")


def _expect_success_set(case: AttackCase, found: SuccessSet) -> None:
    expect(isinstance(found, SuccessSet), f"success_set returns a {type(found).__name__}")
    count = len(found.targets)
    expect(count > 0, "it holds no images: return None instead")
    expect_array(found.images, np.uint8, (count, *case.dataset.image_shape), "images")
    expect_array(found.targets, np.int32, (count,), "targets")
    expect(((found.targets >= 0) & (found.targets < CLASSES)).all(), "a target is not a class")
    expect(found.source in ("test", "train"), f"source is {found.source!r}, not test or train")


def _check_claims(case: AttackCase) -> None:
    counts = np.array([0, 1, 20, 20])
    claimed = case.attack.claimed(counts)
    expect_array(claimed, np.int64, (4,), "claimed")
    expect((claimed >= 0).all(), "a claim is negative")


def _check_inputs(case: AttackCase) -> None:
    malicious = np.isin(np.arange(CLIENTS), MALICIOUS)

    def send(updates: Updates, state: State) -> State:
        return case.attack.send(updates, malicious, case.adversary, state)[1]

    state: State = case.attack.init(case.adversary)
    for number in (1, 2):  # the second time the state is not empty
        state = expect_reading(send, case.round(number), state, "send")


def _check_send(case: AttackCase) -> None:
    attack, state, changed = case.attack, case.attack.init(case.adversary), False
    for number in range(1, ROUNDS + 1):
        updates = case.round(number)
        rows, state = case.sent(updates, state)
        changed |= rows.tobytes() != updates.deltas[MALICIOUS].tobytes()
    if not attack.changes_updates():
        expect(not changed, "changes_updates() is false, and a row changes")
    elif attack.claimed(np.array([20])) == 20:
        expect(changed, "changes_updates() is true, and no row changes")


def _check_nobody(case: AttackCase) -> None:
    updates = case.round(1).select(~np.isin(np.arange(CLIENTS), MALICIOUS))
    case.sent(updates, case.attack.init(case.adversary))


def _unchanged(value: Any) -> Any:
    return value


def _expect_same(one: list[np.ndarray], other: list[np.ndarray], message: str) -> None:
    same = all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))
    expect(same, message)


def _check_determinism(case: AttackCase) -> None:
    state = case.attack.init(case.adversary)
    one, _ = case.sent(case.round(1), state)
    other, _ = case.sent(case.round(1), case.attack.init(case.adversary))
    _expect_same([one], [other], "rows differ when the round is played again")


def _check_knowledge(case: AttackCase) -> None:
    declared = case.attack.declared_knowledge()
    expect(
        all(isinstance(word, str) for word in declared),
        "declared_knowledge() returns something other than strings",
    )
    if SAMPLE_COUNTS not in declared:
        _expect_unread(case, "sample counts", _other_counts)
    if ALL_BENIGN not in declared and not any(word.endswith(OVERHEARD) for word in declared):
        _expect_unread(case, "updates", _other_rows)


def _other_rows(updates: Updates) -> Updates:
    matrix = updates.matrix.copy()
    matrix[~np.isin(updates.client_ids, MALICIOUS)] = np.nan
    return replace(updates, matrix=matrix)


def _other_counts(updates: Updates) -> Updates:
    counts = np.where(np.isin(updates.client_ids, MALICIOUS), updates.sample_counts, 1)
    counts[0] = 1000
    return replace(updates, sample_counts=counts)


def _expect_unread(case: AttackCase, what: str, change: Callable[[Updates], Updates]) -> None:
    one, last = case.rounds(_unchanged, _unchanged)
    other, after = case.rounds(_unchanged, change)
    undeclared = f"honest clients' {what}, and does not declare it"
    _expect_same(one, other, f"it reads {undeclared}")
    expect(same_arrays(last, after), f"it remembers {undeclared}")


def _check_state(case: AttackCase) -> None:
    one, last = case.rounds(_unchanged, _unchanged)
    other, after = case.rounds(stored, _unchanged)
    _expect_same(one, other, "rows differ after the state was stored and read")
    expect(same_arrays(last, after), "the last state differs after states were stored and read")


def _check_options(case: AttackCase) -> None:
    expect_same_options(case.attack, case.make)


def _check_schedule(case: AttackCase) -> None:
    for schedule, attacked in SCHEDULES:
        attack = case.make({**case.attack.options(), **STEADY, **schedule})
        active = tuple(number for number in range(1, 11) if attack.active(number))
        expect(active == attacked, f"with {schedule} rounds {active} are attacked, not {attacked}")


CHECKS: Mapping[str, Callable[[AttackCase], None]] = {
    "reserve": _check_reserve,
    "poison": _check_poison,
    "success set": _check_success_set,
    "claims": _check_claims,
    "inputs": _check_inputs,
    "send": _check_send,
    "nobody": _check_nobody,
    "determinism": _check_determinism,
    "knowledge": _check_knowledge,
    "state": _check_state,
    "options": _check_options,
    "schedule": _check_schedule,
}
