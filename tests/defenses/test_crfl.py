"""CRFL: the authors' numbers over rounds, its noise, and runs that cannot go on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tffl.config import Config
from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.defenses import Server, create_defense, defenses
from tffl.defenses.crfl import Crfl
from tffl.defenses.session import Session
from tffl.record.identity import differences_but_end

from .byzantine import FROZEN, as_updates, cloud, judge

START = np.array([0.5, -1.0, 0.25, 1.5])
ROWS = np.array(
    [
        [3.0, -1.0, 0.5, 2.0],
        [1.0, 2.0, -4.0, 0.0],
        [-2.0, 0.5, 1.0, 5.0],
        [9.0, -6.0, 3.0, 1.0],
        [0.5, 0.5, 0.5, 0.5],
    ]
)
AUTHORS = [
    [1.26745, -0.814789, 0.203697, 1.448514],
    [1.492659, -0.750074, 0.187519, 1.419222],
    [1.63134, -0.734135, 0.183534, 1.433906],
]
"""Global models after rounds 1 to 3, in which clients send ROWS / round, of AI-secure/CRFL.

From `average_models_params` and `clip_weight_norm` of `utils/helper.py` and the MNIST norms of
`main.py` at 549eb53, without noise.
"""


def test_models_are_those_of_the_authors_code() -> None:
    session = Session(Crfl(norm=2, noise=0), start=START)
    for round, expected in enumerate(AUTHORS, 1):
        session.judge(ROWS / round, counts=np.array([1, 9, 1, 1, 1]))
        np.testing.assert_allclose(session.weights, expected, atol=2e-6)


def test_the_first_norm_is_that_of_the_first_model() -> None:
    session = Session(Crfl(noise=0, growth=0.5), start=3 * START)  # of norm 5.66
    for round in (1, 2):
        session.judge(9 * ROWS)
        assert session.weights is not None
        allowed = np.linalg.norm(3 * START) + 0.5 * round
        assert np.linalg.norm(session.weights) == pytest.approx(allowed, rel=1e-5)
    assert Crfl().limit(0.0, 1) == pytest.approx(2.1)  # a model of zeros


def test_a_model_within_the_norm_is_the_plain_mean(server) -> None:
    rows = cloud(7, 5) / 100
    verdict = judge(Crfl(noise=0), as_updates(rows, counts=range(7)), server)
    np.testing.assert_allclose(verdict.aggregate[FROZEN:], rows.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(verdict.weights, 1 / 7)
    np.testing.assert_allclose(verdict.scores, np.linalg.norm(rows, axis=1) / 2.1, rtol=1e-6)


def test_the_servers_learning_rate_moves_the_model_before_it_is_shortened(server) -> None:
    half = replace(server, learning_rate=0.5)
    updates = replace(as_updates(9 * ROWS), start=np.array([9, 9, *START], np.float32))
    verdict = judge(Crfl(norm=2, noise=0), updates, half)
    moved = START + 0.5 * 9 * ROWS.mean(axis=0)
    reached = updates.start + 0.5 * verdict.aggregate
    np.testing.assert_allclose(reached[FROZEN:], moved * 2.1 / np.linalg.norm(moved), rtol=1e-5)
    np.testing.assert_allclose(reached[:FROZEN], 9 + 0.5 * 2, rtol=1e-6)  # mean of 0 … 4


def test_noise_depends_on_seed_and_round_and_ends_before_the_last_one() -> None:
    layout = WeightLayout((Entry("w", (70_000,), True), Entry("bn/moving_variance", (9,), False)))
    server = Server(None, layout, clients=2, seed=5, learning_rate=0.5, rounds=3)
    start, ids = np.zeros(layout.size, np.float32), np.arange(2)
    matrix = np.full((2, layout.size), 1e-3, np.float32)

    def step(round: int, server: Server, **options: float) -> np.ndarray:
        updates = Updates(round, ids, ids + 1, start, matrix, layout)
        return 0.5 * judge(Crfl(**options), updates, server).aggregate

    noise = step(2, server, noise=0.2) - step(2, server, noise=0)
    assert not noise[-9:].any()
    assert noise[:-9].mean() == pytest.approx(0, abs=0.005)
    assert noise[:-9].std() == pytest.approx(0.2, rel=0.02)
    np.testing.assert_array_equal(step(2, server, noise=0.2), step(2, server, noise=0.2))
    others = (step(1, server, noise=0.2), step(2, replace(server, seed=6), noise=0.2))
    assert all((other != step(2, server, noise=0.2))[:-9].all() for other in others)
    np.testing.assert_array_equal(step(3, server, noise=0.2), step(3, server, noise=0))
    unknown = replace(server, rounds=None)
    assert (step(3, unknown, noise=0.2) != step(3, server, noise=0))[:-9].all()


@pytest.mark.parametrize("name", ["crfl", "nnm+crfl", "flcert+crfl"])
def test_a_run_cannot_go_on_after_its_last_round(name: str) -> None:
    assert create_defense(name, {}).depends_on_total_rounds
    first = Config.model_validate({"defense": {"name": name}, "federation": {"rounds": 3}})
    assert "depends on the number of rounds" in differences_but_end(first, first.with_rounds(4))
    assert not differences_but_end(first, first.with_rounds(3))
    quiet = first.model_copy(
        update={"defense": first.defense.model_validate({"name": name, "noise": 0})}
    )
    assert not differences_but_end(quiet, quiet.with_rounds(4))


@pytest.mark.parametrize(("option", "value"), [("norm", 0), ("growth", -1), ("noise", "nan")])
def test_refuses_options_out_of_range(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^defense\.{option}\b.* is not allowed"):
        defenses.create("crfl", {option: value})
