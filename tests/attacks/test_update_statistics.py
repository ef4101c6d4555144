"""Passes over the trainable columns, and distances along a line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tffl.attacks import attacks
from tffl.attacks.statistics import Line, generators, mean, per_coordinate
from tffl.core import seeds
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import BLOCK


def test_rows_are_computed_in_float64_and_zero_where_nothing_trains(a_round, layout) -> None:
    updates = a_round().updates
    result = per_coordinate(updates, lambda part: np.stack([part.max(axis=0), part[0] + 1e-12]))
    assert result.shape == (2, layout.size) and result.dtype == np.float32
    assert (result[:, ~layout.trainable] == 0).all()
    expected = updates.matrix.max(axis=0)[layout.trainable]
    np.testing.assert_array_equal(result[0, layout.trainable], expected)
    assert per_coordinate(updates, lambda part: part.sum(axis=0)).shape == (1, layout.size)


def test_the_mean_is_unweighted(a_round, layout) -> None:
    updates = a_round().updates
    expected = updates.matrix.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(mean(updates)[layout.trainable], expected[layout.trainable], 1e-6)


def test_overflow_becomes_infinity_without_a_warning(a_round, layout, recwarn) -> None:
    updates = a_round(np.full((12, 41), 1e30)).updates
    result = per_coordinate(updates, lambda part: part.sum(axis=0) * 1e10)
    assert np.isinf(result[0, layout.trainable]).all()
    assert not recwarn.list


def test_distances_along_a_line(a_round, layout) -> None:
    updates = a_round().updates
    generator = np.random.default_rng(3)
    point, direction = generator.normal(size=(2, layout.size)).astype(np.float32)
    line = Line.of(updates, point, direction)
    for step in (0.0, 0.3, -2.0, 1e6):
        away = (point + step * direction.astype(np.float64) - updates.matrix)[:, layout.trainable]
        np.testing.assert_allclose(line.at(step), (away**2).sum(axis=1), rtol=1e-9)


def test_noise_does_not_depend_on_blocks(a_round) -> None:
    size = BLOCK + 17
    wide = WeightLayout((Entry("a", (size,), True),))
    matrix = np.zeros((2, size), np.float32)
    first = a_round(honest=1, malicious=1)
    updates = replace(first.updates, matrix=matrix, layout=wide, start=matrix[0])
    attack = attacks.create("gaussian", {})
    rows, _ = attack.craft(updates, first.malicious, first.adversary, {})
    client = int(updates.client_ids[first.malicious][0])
    source = seeds.generator(first.adversary.seed, "gaussian", updates.round, client)
    np.testing.assert_array_equal(rows[0], source.standard_normal(size).astype(np.float32))


@pytest.mark.parametrize("change", ["purpose", "round", "client", "seed"])
def test_generators_depend_on_every_part(a_round, change: str) -> None:
    def first(purpose: str = "x", row: int = 0, **options) -> float:
        this = a_round(**options)
        return generators(this.updates, this.adversary, purpose)[row].random()

    changes = {
        "purpose": {"purpose": "y"},
        "round": {"number": 2},
        "client": {"row": 1},
        "seed": {"experiment": 6},
    }
    assert first() == first()
    assert first() != first(**changes[change])
