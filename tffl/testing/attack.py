"""What every attack has to do, however much it harms."""

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
from tffl.core.updates import Updates
from tffl.data.federation import Dataset, Federation
from tffl.data.samples import Samples
from tffl.models import models
from tffl.testing.checking import (
    copied,
    expect,
    expect_array,
    require_instance,
    run_checks,
    same_arrays,
    stored,
)
from tffl.testing.defense import expect_same_options
from tffl.testing.worlds import CLASSES, IMAGE_SHAPE, deal, small_dataset, small_round

if TYPE_CHECKING:
    import keras

    from tffl.attacks.adversary import Adversary

CLIENTS, SEED, ROUNDS = 12, 3, 3
MALICIOUS = np.array([1, 4, 9])
MODEL = "lenet5"
SCHEDULE = {"from_round": 2, "until_round": 6, "every_rounds": 2}
ATTACKED = (2, 4, 6)


def check_attack(attack: Attack, *, name: str = "", skip: Collection[str] = ()) -> None:
    """Raises `AssertionError` unless an attack does what the rest of tffl relies on.

    It poisons a small dataset of ten classes, images uint8 `[12, 12, 1]`, and tampers with small
    rounds of random updates of 12 clients, of whom 3 are malicious.

    The checks, by name:

    - `reserve`: positions of training images, each once.
    - `poison`: only malicious clients hold other data; the pool only grows; nothing is written to;
      the same seed poisons alike.
    - `success set`: images, targets and source are as `SuccessSet` says.
    - `claims`: counts that clients claim are whole numbers, at least as `claims` says.
    - `tamper`: only malicious rows change, and do so if `changes_updates()` says it; neither the
      rest of the updates nor the state is written to.
    - `nobody`: with no malicious client in a round, nothing changes.
    - `determinism`: the same round twice is attacked in the same way, to the last bit.
    - `knowledge`: honest clients' sample counts and updates (NaN then) are not read unless
      `granted()` names them. Whose updates an attack overhears it alone knows: one that overhears
      is not held to it.
    - `state`: rounds go on from a state that was written to a file, as a checkpoint is.
    - `options`: what `options()` returns makes an equal attack.
    - `schedule`: `from_round`, `until_round` and `every_rounds` are respected.

    Args:
      attack: With options that fit that dataset.
      name: As a config calls it, if it is registered: its options are then read as a config's are.
      skip: Names of checks that do not apply.

    Raises:
      AssertionError: A check has failed; one line that begins with its name.
      UsageError: It is no attack, or there is no such check to skip.

    >>> from tffl.attacks.label_flip import LabelFlip
    >>> check_attack(LabelFlip(source=1, target=7), name="label-flip")
    """
    require_instance(attack, Attack)
    run_checks(CHECKS, Battlefield(attack, name), skip)


@dataclass(frozen=True)
class Battlefield:
    """An attack and what it is checked with.

    Attributes:
      attack: To be checked.
      name: As a config calls it, or empty.
    """

    attack: Attack
    name: str

    @cached_property
    def dataset(self) -> Dataset:
        """Images of ten classes."""
        return small_dataset()

    @cached_property
    def config(self) -> Config:
        """The experiment, as every client knows it."""
        federation = {"clients": CLIENTS, "malicious": len(MALICIOUS), "rounds": 10}
        sections = {"model": {"name": MODEL}, "training": {"batch_size": 8}}
        return build({"seed": SEED, "federation": federation, **sections})

    @property
    def honest(self) -> Federation:
        """The federation before anybody poisons it."""
        return deal(self.dataset, CLIENTS, self.attack.reserve(self.dataset))

    @cached_property
    def poisoned(self) -> Federation:
        """The federation that clients train on."""
        return self.attack.poison(self.honest, MALICIOUS, SEED)

    @cached_property
    def adversary(self) -> Adversary:
        """What the attackers own; where they may know the server's images, those too."""
        from tffl.attacks.adversary import Adversary

        images, labels = self.dataset.test_images, self.dataset.test_labels
        samples = Samples(images, labels, CLASSES, self.dataset.class_names)
        return Adversary(_model(), self.config, self.poisoned, MALICIOUS, server_samples=samples)

    def round(self, number: int) -> Updates:
        """Returns the updates that clients have trained, all of them taking part."""
        layout = self.adversary.layout
        start = layout.flatten(_model().get_weights())
        return small_round(layout, np.arange(CLIENTS), start, number)

    def tampered(self, updates: Updates, state: State) -> tuple[np.ndarray, State]:
        """Returns the matrix that the server receives, and what the attackers remember."""
        sent = replace(updates, matrix=updates.matrix.copy())
        malicious = np.isin(updates.client_ids, MALICIOUS)
        after = self.attack.tamper(sent, malicious, self.adversary, state)
        return sent.matrix, after

    def rounds(
        self, keep: Callable[[State], State], change: Callable[[Updates], Updates]
    ) -> tuple[list[np.ndarray], State]:
        """Attacks several rounds, with `keep` between them, on updates after `change`."""
        state, matrices = keep(self.attack.init(self.adversary)), []
        for number in range(1, ROUNDS + 1):
            matrix, state = self.tampered(change(self.round(number)), state)
            state = keep(state)
            matrices.append(matrix)
        return matrices, state

    def make(self, options: Mapping[str, Any]) -> Attack:
        """Returns the attack with other options."""
        return create_attack(self.name, options) if self.name else type(self.attack)(**options)


@cache
def _model() -> keras.Model:
    return models[MODEL](IMAGE_SHAPE, CLASSES, seed=1)


def _check_reserve(field: Battlefield) -> None:
    field.attack.check(field.dataset)
    field.attack.check_clients(len(MALICIOUS), CLIENTS)
    reserved = field.attack.reserve(field.dataset)
    expect_array(reserved, np.int64, (len(reserved),), "reserve")
    expect(len(np.unique(reserved)) == len(reserved), "an image is reserved twice")
    inside = (reserved >= 0) & (reserved < len(field.dataset.train_ids))
    expect(inside.all(), "a reserved image is none of the training images")


def _check_poison(field: Battlefield) -> None:
    honest, dataset = field.honest, field.dataset
    names = ("train_images", "train_labels", "test_images", "test_labels")
    before = copied({name: getattr(dataset, name) for name in names})
    held = [(data.indices.copy(), data.labels.copy()) for data in honest.clients]
    poisoned = field.attack.poison(honest, MALICIOUS, SEED)
    again = field.attack.poison(field.honest, MALICIOUS, SEED)
    expect(
        same_arrays(before, {name: getattr(dataset, name) for name in names}),
        "poison writes to the dataset",
    )
    expect(same_arrays({"": again.images}, {"": poisoned.images}), "it draws other images again")
    pool = len(honest.images)
    expect((poisoned.images[:pool] == honest.images).all(), "it changes images of the pool")
    expect_array(poisoned.images, np.uint8, (len(poisoned.pool_ids), *honest.images.shape[1:]), "")
    expect(len(poisoned.clients) == CLIENTS, "the number of clients changes")
    for client, (indices, labels) in enumerate(held):
        data, mine = poisoned.clients[client], honest.clients[client]
        same = np.array_equal(mine.indices, indices) and np.array_equal(mine.labels, labels)
        expect(same, "it writes to what clients hold")
        expect(data == again.clients[client], "it poisons otherwise with the same seed")
        expect(client in MALICIOUS or data == mine, f"honest client {client} holds other data")
        expect_array(data.indices, np.int32, (len(data),), "a client's indices")
        expect_array(data.labels, np.int32, (len(data),), "a client's labels")
        expect(((data.indices >= 0) & (data.indices < len(poisoned.images))).all(), "no such image")
        expect(((data.labels >= 0) & (data.labels < CLASSES)).all(), "no such class")


def _check_success_set(field: Battlefield) -> None:
    found = field.attack.success_set(field.poisoned, SEED)
    if found is None:
        return
    expect(isinstance(found, SuccessSet), f"success_set returns a {type(found).__name__}")
    count = len(found.targets)
    expect(count > 0, "there are no images: return None")
    expect_array(found.images, np.uint8, (count, *field.dataset.image_shape), "images")
    expect_array(found.targets, np.int32, (count,), "targets")
    expect(((found.targets >= 0) & (found.targets < CLASSES)).all(), "a target is no class")
    expect(found.source in ("test", "train"), f"source is {found.source!r}, not test or train")


def _check_claims(field: Battlefield) -> None:
    counts = np.array([0, 1, 20, 20])
    claimed = field.attack.claimed(counts)
    expect_array(claimed, np.int64, (4,), "claimed")
    expect((claimed >= 0).all(), "a claim is negative")


def _check_tamper(field: Battlefield) -> None:
    attack, changes = field.attack, np.zeros(CLIENTS, bool)
    state: State = attack.init(field.adversary)
    names = ("start", "client_ids", "sample_counts")
    for number in range(1, ROUNDS + 1):
        updates = field.round(number)
        before = copied({name: getattr(updates, name) for name in names})
        given, remembered = state, copied(state)
        matrix, state = field.tampered(updates, given)
        expect(isinstance(state, Mapping), f"tamper returns a {type(state).__name__} as state")
        expect(same_arrays(given, remembered), "tamper writes to the state that it is given")
        same = same_arrays(before, {name: getattr(updates, name) for name in names})
        expect(same, "tamper writes to start, client_ids or sample_counts")
        expect_array(matrix, np.float32, updates.matrix.shape, "the matrix")
        changes |= _changed(matrix, updates.matrix)
    honest = np.setdiff1d(np.flatnonzero(changes), MALICIOUS).tolist()
    expect(not honest, f"rows of honest clients change: {honest}")
    if not attack.changes_updates():
        expect(not changes.any(), "changes_updates() is false, and a row changes")
    elif attack.claimed(np.array([20])) == 20:
        expect(changes.any(), "changes_updates() is true, and no row changes")


def _changed(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns bool `[n]`: which rows differ in any bit."""
    pairs = zip(one, other, strict=True)
    return np.array([mine.tobytes() != yours.tobytes() for mine, yours in pairs])


def _check_nobody(field: Battlefield) -> None:
    updates = field.round(1).select(~np.isin(np.arange(CLIENTS), MALICIOUS))
    updates = replace(updates, matrix=updates.deltas, rows=None)
    matrix, _ = field.tampered(updates, field.attack.init(field.adversary))
    expect(matrix.tobytes() == updates.matrix.tobytes(), "a row changes")


def _as_it_is(value: Any) -> Any:
    return value


def _expect_same(one: list[np.ndarray], other: list[np.ndarray], message: str) -> None:
    same = all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))
    expect(same, message)


def _check_determinism(field: Battlefield) -> None:
    state = field.attack.init(field.adversary)
    one, _ = field.tampered(field.round(1), state)
    other, _ = field.tampered(field.round(1), field.attack.init(field.adversary))
    _expect_same([one], [other], "rows differ when the round is played again")


def _check_knowledge(field: Battlefield) -> None:
    granted = field.attack.granted()
    expect(all(isinstance(word, str) for word in granted), "granted() are no strings")
    if SAMPLE_COUNTS not in granted:
        _expect_unread(field, "sample counts", _other_counts)
    if ALL_BENIGN not in granted and not any(word.endswith(OVERHEARD) for word in granted):
        _expect_unread(field, "updates", _other_rows)


def _other_rows(updates: Updates) -> Updates:
    matrix = updates.matrix.copy()
    matrix[~np.isin(updates.client_ids, MALICIOUS)] = np.nan
    return replace(updates, matrix=matrix)


def _other_counts(updates: Updates) -> Updates:
    counts = np.where(np.isin(updates.client_ids, MALICIOUS), updates.sample_counts, 1)
    counts[0] = 1000
    return replace(updates, sample_counts=counts)


def _expect_unread(field: Battlefield, what: str, change: Callable[[Updates], Updates]) -> None:
    one, last = field.rounds(_as_it_is, _as_it_is)
    other, after = field.rounds(_as_it_is, change)
    sent, again = ([matrix[MALICIOUS] for matrix in matrices] for matrices in (one, other))
    undeclared = f"honest clients' {what}, and does not declare it"
    _expect_same(sent, again, f"it reads {undeclared}")
    expect(same_arrays(last, after), f"it remembers {undeclared}")


def _check_state(field: Battlefield) -> None:
    one, last = field.rounds(_as_it_is, _as_it_is)
    other, after = field.rounds(stored, _as_it_is)
    _expect_same(one, other, "rows differ after the state was stored and read")
    expect(same_arrays(last, after), "the last state differs after states were stored and read")


def _check_options(field: Battlefield) -> None:
    expect_same_options(field.attack, field.make)


def _check_schedule(field: Battlefield) -> None:
    attack = field.make({**field.attack.options(), **SCHEDULE})
    active = tuple(number for number in range(1, 10) if attack.active(number))
    expect(active == ATTACKED, f"with {SCHEDULE} rounds {active} are attacked, not {ATTACKED}")


CHECKS: Mapping[str, Callable[[Battlefield], None]] = {
    "reserve": _check_reserve,
    "poison": _check_poison,
    "success set": _check_success_set,
    "claims": _check_claims,
    "tamper": _check_tamper,
    "nobody": _check_nobody,
    "determinism": _check_determinism,
    "knowledge": _check_knowledge,
    "state": _check_state,
    "options": _check_options,
    "schedule": _check_schedule,
}
