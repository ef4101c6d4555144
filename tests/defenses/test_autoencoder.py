"""The compiled fit against plain Keras training."""

import keras
import numpy as np
import pytest

from tffl.defenses.parts.autoencoder import NAMES, Autoencoder


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).random((9, 12), dtype=np.float32)


@pytest.mark.parametrize("output", ["sigmoid", "linear"])
def test_fitting_equals_keras_training(rows, output):
    recipe = Autoencoder(5, output, epochs=30)
    chosen = np.arange(9) < 6
    model = recipe.build(12, seed=4)
    model.compile(keras.optimizers.Adam(1e-3, weight_decay=1e-5), "mse")
    model.fit(rows[chosen], rows[chosen], batch_size=6, epochs=30, shuffle=False, verbose=0)
    fitted = recipe.fit(rows, chosen, seed=4)
    for name, expected in zip(NAMES, model.get_weights(), strict=True):
        np.testing.assert_allclose(fitted[name], expected, atol=1e-5)
    np.testing.assert_allclose(
        recipe.reconstruct(rows, fitted), recipe.load(fitted)(rows).numpy(), atol=1e-6
    )


def test_rows_that_are_not_chosen_teach_nothing(rows):
    recipe, chosen = Autoencoder(5, epochs=20), np.arange(9) < 6
    other = rows.copy()
    other[6:] = 0.5
    first, second = (recipe.fit(data, chosen, seed=1) for data in (rows, other))
    for name in NAMES:
        np.testing.assert_array_equal(first[name], second[name])


def test_the_seed_decides(rows):
    recipe, everyone = Autoencoder(5, epochs=3), np.ones(9, bool)
    first, again, other = (recipe.fit(rows, everyone, seed) for seed in (1, 1, 2))
    assert all((first[name] == again[name]).all() for name in NAMES)
    assert (first["encoder/kernel"] != other["encoder/kernel"]).any()


@pytest.mark.learning
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_learns(rows, seed):
    recipe, everyone = Autoencoder(12, "linear", epochs=800), np.ones(9, bool)
    rebuilt = recipe.reconstruct(rows, recipe.fit(rows, everyone, seed))
    assert np.square(rebuilt - rows).mean() < 0.5 * rows.var()


def test_many_at_once_are_as_good_as_one_after_the_other(rows):
    recipe = Autoencoder(5, "linear", epochs=40)
    data = np.stack([rows, rows[::-1], 2 * rows])
    chosen = np.array([[True] * 9, [True] * 4 + [False] * 5, [False] * 3 + [True] * 6])
    together = recipe.fit_all(data, chosen, [3, 4, 3])
    rebuilt = recipe.reconstruct_all(data, together)
    for case, seed in enumerate([3, 4, 3]):
        alone = recipe.fit(data[case], chosen[case], seed)
        for name in NAMES:
            np.testing.assert_allclose(together[name][case], alone[name], atol=1e-6)
        np.testing.assert_allclose(rebuilt[case], recipe.reconstruct(data[case], alone), atol=1e-6)
