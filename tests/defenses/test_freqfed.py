"""FreqFed: numbers of a public reimplementation, what counts as a model, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.defenses.freqfed import FreqFed, frequency_distances, low_frequencies

ROWS = np.array(
    [
        [
            3,
            6,
            -9,
            6,
            -1,
            0,
            2,
            -4,
            9,
            -8,
            -4,
            -2,
            1,
            -2,
            -7,
            -9,
            -9,
            -9,
            -7,
            9,
            -6,
            3,
            5,
            -5,
            -4,
            -1,
            -4,
            9,
            -6,
            8,
            6,
            7,
            -7,
            -2,
            2,
            0,
            3,
            3,
            3,
            -8,
            9,
            1,
            8,
            -4,
            -3,
            7,
            -6,
            -8,
            -2,
            3,
        ],
        [
            -7,
            7,
            -3,
            -5,
            1,
            8,
            7,
            7,
            -4,
            -9,
            5,
            4,
            5,
            -9,
            -9,
            0,
            -3,
            -1,
            8,
            -6,
            1,
            -3,
            -4,
            6,
            -7,
            -3,
            -7,
            -7,
            -4,
            4,
            2,
            -1,
            -6,
            6,
            6,
            -5,
            -8,
            -3,
            -7,
            6,
            0,
            0,
            -4,
            0,
            9,
            -5,
            5,
            -9,
            -4,
            8,
        ],
        [
            7,
            -8,
            7,
            7,
            -1,
            -3,
            9,
            9,
            3,
            -2,
            -6,
            8,
            -4,
            1,
            3,
            -5,
            -4,
            5,
            -6,
            3,
            8,
            3,
            3,
            -1,
            9,
            -5,
            -3,
            3,
            3,
            -7,
            -6,
            4,
            6,
            3,
            8,
            -2,
            -3,
            6,
            -9,
            -6,
            -6,
            -2,
            -7,
            6,
            7,
            -2,
            -9,
            4,
            -7,
            2,
        ],
        [
            -6,
            8,
            3,
            9,
            2,
            4,
            -2,
            6,
            -7,
            -7,
            -3,
            4,
            0,
            7,
            8,
            -2,
            -1,
            1,
            3,
            0,
            2,
            9,
            4,
            -3,
            -1,
            -2,
            -7,
            -9,
            6,
            -2,
            -3,
            2,
            1,
            8,
            2,
            8,
            1,
            -3,
            -3,
            9,
            2,
            -6,
            6,
            6,
            -9,
            -7,
            4,
            -2,
            -3,
            -8,
        ],
        [
            -1,
            -5,
            9,
            -6,
            0,
            1,
            -1,
            5,
            -9,
            6,
            5,
            0,
            1,
            0,
            6,
            8,
            9,
            8,
            6,
            -11,
            8,
            -4,
            -7,
            6,
            2,
            3,
            5,
            -10,
            6,
            -9,
            -5,
            -7,
            6,
            3,
            -4,
            1,
            -3,
            -1,
            -4,
            7,
            -7,
            0,
            -10,
            3,
            1,
            -5,
            6,
            7,
            3,
            -1,
        ],
    ],
    dtype=np.float32,
)
"""The last row is nearly the first, turned around."""

LOW = [-3.0, 0.390713, -6.364687, 7.045115, -4.39514, -1.841853, -1.383033, 4.79821]
LOW += [-1.385819, 8.263924, 5.548097, 3.159454, 12.942546]
DISTANCES = [
    [0.0, 1.194513, 1.23778, 1.008604, 1.988192],
    [1.194513, 0.0, 0.881778, 0.58958, 0.776459],
    [1.23778, 0.881778, 0.0, 0.62951, 0.767993],
    [1.008604, 0.58958, 0.62951, 0.0, 1.04634],
    [1.988192, 0.776459, 0.767993, 1.04634, 0.0],
]
"""What two nested one-dimensional transforms of SciPy's older module give, cell by cell.

They follow a public reimplementation (a function `freqfed` beside `model_to_square_matrix`; the
index that showed it names no repository), as no code of the authors was found.
"""


def test_numbers_of_a_public_reimplementation() -> None:
    np.testing.assert_allclose(low_frequencies(ROWS[0]), LOW, atol=1e-6)
    found = frequency_distances(Updates.of_rows(ROWS), models=False)
    np.testing.assert_allclose(found, DISTANCES, atol=2e-6)


def test_high_frequencies_do_not_count() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1, 10_000)) + 0.05 * rng.normal(size=(9, 10_000))
    wave = np.cos(np.pi * (2 * np.arange(100) + 1) * 99 / 200)
    rows[:3] += 100 * np.outer(wave, wave).ravel()  # longer than all else, and invisible
    far = rows.copy()
    far[:3] += 100  # the lowest frequency
    assert FreqFed(of="updates").judge_rows(rows).scores.max() < 0.1
    verdict = FreqFed(of="updates").judge_rows(far)
    assert verdict.convicted[:3].all() and verdict.accepted.sum() >= 5
    assert "low frequencies" in verdict.reasons[0]
    mean = far[verdict.accepted].mean(axis=0)
    np.testing.assert_allclose(verdict.aggregate, mean, rtol=1e-4, atol=1e-5)


def test_models_are_updates_from_the_start() -> None:
    start = np.full(50, 3.0, np.float32)
    moved = Updates.of_rows(ROWS, start=start)
    plain = Updates.of_rows(ROWS + start)
    found = frequency_distances(moved, models=True)
    np.testing.assert_allclose(found, frequency_distances(plain, models=False), atol=1e-9)
    assert np.abs(found - frequency_distances(moved, models=False)).max() > 0.1


def test_statistics_are_no_part_of_a_model() -> None:
    layout = WeightLayout((Entry("bn/m", (3,), False), Entry("w", (50,), True)))
    rows = np.concatenate([1e6 * np.arange(15).reshape(5, 3), ROWS], axis=1)
    found = frequency_distances(Updates.of_rows(rows, layout=layout), models=False)
    np.testing.assert_allclose(found, DISTANCES, atol=2e-6)


def test_means_are_weighted_and_small_rounds_refused() -> None:
    rows = np.array([[1.0, 2.0], [1.1, 1.9], [0.9, 2.1], [-9.0, -9.0]])
    verdict = FreqFed().judge_rows(rows, counts=np.array([1, 2, 1, 50]))
    np.testing.assert_allclose(verdict.weights, [0.25, 0.5, 0.25, 0])
    with pytest.raises(UsageError, match="freqfed needs at least 3 participants a round, not 2"):
        FreqFed().judge_rows(rows[:2])
