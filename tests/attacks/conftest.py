"""A tiny federation whose images tell their own id, and rounds of random updates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tffl.attacks import Attack
from tffl.attacks.adversary import Adversary
from tffl.config import build
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.data.federation import ClientData, Dataset, Federation
from tffl.testing.fixtures import small_federation, small_model

COLORS = ("red", "green", "blue", "gray")


def picture(ids: np.ndarray) -> np.ndarray:
    """Images uint8 [n, 6, 6, 2] that hold their id in every pixel."""
    pixels = np.stack([ids // 256, ids % 256], axis=-1).astype(np.uint8)
    return np.broadcast_to(pixels[:, None, None, :], (len(ids), 6, 6, 2)).copy()


@pytest.fixture
def dataset() -> Callable[..., Dataset]:
    def make(
        ids: np.ndarray, name: str = "colors", class_names: tuple[str, ...] = COLORS
    ) -> Dataset:
        ids = np.asarray(ids, dtype=np.int64)
        tests = np.arange(60_000, 60_020)
        return Dataset(
            name=name,
            train_images=picture(ids),
            train_labels=(ids % len(class_names)).astype(np.int32),
            train_ids=ids,
            test_images=picture(tests),
            test_labels=(tests % len(class_names)).astype(np.int32),
            class_names=class_names,
        )

    return make


@pytest.fixture
def federation() -> Callable[..., Federation]:
    def make(dataset: Dataset, sizes: list[int], reserved: np.ndarray | None = None) -> Federation:
        """Deals unreserved images in their order to clients of the given sizes."""
        nobody = np.empty(0, dtype=np.int64) if reserved is None else reserved
        free = np.setdiff1d(np.arange(len(dataset.train_ids)), nobody).astype(np.int32)
        parts = np.split(free, np.cumsum(sizes))[: len(sizes)]
        assert [len(part) for part in parts] == sizes
        return Federation(
            dataset=dataset,
            images=dataset.train_images,
            pool_ids=dataset.train_ids,
            clients=tuple(ClientData(part, dataset.train_labels[part]) for part in parts),
        )

    return make


LAYOUT = WeightLayout(
    (
        Entry("conv/kernel", (3, 4), True),
        Entry("bn/gamma", (2,), True),
        Entry("bn/moving_variance", (5,), False),
        Entry("logits/kernel", (4, 6), True),
        Entry("logits/bias", (3,), True),
    )
)


def received(
    attack: Attack, updates: Updates, malicious: np.ndarray, adversary: Any, state: Any
) -> tuple[Updates, Any]:
    """Returns what the server receives, and what the attackers remember."""
    rows, state = attack.send(updates.read_only(), malicious, adversary, state)
    matrix = updates.matrix.copy()
    if rows is not None:
        matrix[malicious] = rows
    return replace(updates, matrix=matrix), state


@dataclass(frozen=True)
class Round:
    """One round's updates, who is malicious, and colluders that own nothing but a seed."""

    updates: Updates
    malicious: np.ndarray
    adversary: Any

    def attacked(self, attack: Attack, state: Any = None) -> tuple[Updates, Any]:
        """Returns what the server receives, and what the attackers remember."""
        state = attack.init(self.adversary) if state is None else state
        return received(attack, self.updates, self.malicious, self.adversary, state)

    def sent(self, attack: Attack) -> np.ndarray:
        """Returns the trainable columns of the malicious rows after the attack."""
        return self.attacked(attack)[0].matrix[self.malicious][:, LAYOUT.trainable]

    def row(self, attack: Attack) -> np.ndarray:
        """Returns the one row that all colluders send, in trainable columns."""
        rows = self.sent(attack)
        assert (rows == rows[0]).all()
        return rows[0]

    @property
    def own(self) -> np.ndarray:
        """The trainable columns of the malicious rows, float64."""
        return self.updates.matrix[self.malicious][:, LAYOUT.trainable].astype(np.float64)

    @property
    def honest(self) -> np.ndarray:
        """The trainable columns of the honest rows, float64."""
        return self.updates.matrix[~self.malicious][:, LAYOUT.trainable].astype(np.float64)


@pytest.fixture
def layout() -> WeightLayout:
    return LAYOUT


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The client and the options of every training that an `Adversary` does from here on."""
    calls: list[dict[str, Any]] = []
    train = Adversary.train

    def noted(self: Adversary, *args: Any, **options: Any) -> np.ndarray:
        calls.append({"client": args[1], **options})
        return train(self, *args, **options)

    monkeypatch.setattr(Adversary, "train", noted)
    return calls


@pytest.fixture
def small_adversary() -> Adversary:
    """The owner of clients 1 and 3 of four."""
    federation = {"clients": 4, "malicious": 2, "rounds": 3}
    config = build({"federation": federation, "training": {"batch_size": 16}})
    return Adversary(small_model(), config, small_federation(4), np.array([1, 3]))


@pytest.fixture(scope="session")
def a_round() -> Callable[..., Round]:
    def make(
        matrix: np.ndarray | None = None,
        honest: int = 9,
        malicious: int = 3,
        seed: int = 0,
        number: int = 1,
        experiment: int = 5,
    ) -> Round:
        """Random updates with a common drift; `matrix` in trainable columns replaces them."""
        generator = np.random.default_rng([seed, number])
        n = honest + malicious
        rows = generator.normal(0, 1, (n, LAYOUT.size)) + generator.normal(0, 1, LAYOUT.size)
        if matrix is not None:
            rows[:, LAYOUT.trainable] = matrix
        mask = np.zeros(n, bool)
        mask[generator.choice(n, malicious, replace=False)] = True
        updates = Updates(
            round=number,
            client_ids=2 * np.arange(n) + 1,
            sample_counts=np.arange(1, n + 1),
            start=generator.normal(0, 1, LAYOUT.size).astype(np.float32),
            matrix=rows.astype(np.float32),
            layout=LAYOUT,
        )
        adversary = SimpleNamespace(seed=experiment, layout=LAYOUT, clients=2 * n + 1)
        return Round(updates, mask, adversary)

    return make
