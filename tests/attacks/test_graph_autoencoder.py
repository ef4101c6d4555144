"""Graph-autoencoder poisoning: the graph, its spectrum, the autoencoder, and both variants."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import tffl
from tffl.attacks import attacks, graph
from tffl.attacks.bounded import distances_to
from tffl.attacks.graph import cosine_adjacency, decoded, fourier_basis, inner_product_graph
from tffl.attacks.graph_autoencoder import (
    GraphAutoencoder,
    knapsack,
    most_varied,
    rebuilt,
    released_row,
)
from tffl.config import build
from tffl.core.errors import UsageError
from tffl.record.run_directory import RunDirectory


def create(**options: object) -> GraphAutoencoder:
    return attacks.create("graph-autoencoder", {"columns": 12, **options})


def colluders(adversary: Any) -> SimpleNamespace:
    """Attackers whose loss is a plane."""
    slope = np.random.default_rng(1).normal(size=adversary.layout.size).astype(np.float32)
    images, labels = np.zeros((9, 1, 1, 1), np.uint8), np.arange(9, dtype=np.int32)
    return SimpleNamespace(
        seed=adversary.seed,
        layout=adversary.layout,
        clients=adversary.clients,
        samples=lambda: (images, labels),
        gradient=lambda weights, images, labels: (float(weights @ slope), slope),
    )


def random_graph(nodes: int, seed: int) -> np.ndarray:
    upper = np.triu(np.random.default_rng(seed).random((nodes, nodes)), 1)
    return upper + upper.T


def test_adjacency_by_hand() -> None:
    features = np.array([[2.0, 0], [1, 1], [0, 3], [-1, 0], [0, 0]])
    half = np.sqrt(0.5)
    expected = np.zeros((5, 5))
    expected[0, 1] = expected[1, 0] = expected[1, 2] = expected[2, 1] = half
    np.testing.assert_allclose(cosine_adjacency(features, 0.5), expected, atol=1e-12)
    assert (cosine_adjacency(features, 0.8) == 0).all()


def test_basis_of_a_path_by_hand() -> None:
    # Laplacian of 0 - 1 - 2: eigenvalues 0, 1, 3.
    path = np.array([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]])
    expected = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]], float)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(fourier_basis(path).T, expected, atol=1e-9)


@settings(deadline=None)
@given(nodes=st.integers(1, 12), seed=st.integers(0, 10))
def test_basis_diagonalizes_the_laplacian(nodes: int, seed: int) -> None:
    adjacency = random_graph(nodes, seed)
    basis = fourier_basis(adjacency)
    np.testing.assert_allclose(basis.T @ basis, np.eye(nodes), atol=1e-9)
    laplacian = np.diag(adjacency.sum(axis=0)) - adjacency
    spectrum = basis.T @ laplacian @ basis
    np.testing.assert_allclose(spectrum, np.diag(np.diag(spectrum)), atol=1e-9)
    assert (np.diff(np.diag(spectrum)) >= -1e-9).all()
    largest = np.abs(basis).argmax(axis=0)
    assert (basis[largest, np.arange(nodes)] > 0).all()


def plain_autoencoder(
    adjacency: np.ndarray, features: np.ndarray, epochs: int, seed: int
) -> np.ndarray:
    """The same autoencoder with eager Keras variables and Keras' Adam."""
    import keras

    generator = np.random.default_rng(seed)
    shapes = [(features.shape[1], 32), (32, 16)]
    weights = [
        keras.Variable(
            generator.uniform(-(b := np.sqrt(6 / sum(shape))), b, shape), dtype="float32"
        )
        for shape in shapes
    ]
    loops = adjacency + np.eye(len(adjacency))
    degree = np.diag(loops.sum(axis=0) ** -0.5)
    step, labels = tf.constant(degree @ loops @ degree, tf.float32), tf.constant(loops, tf.float32)
    positive = (loops.size - loops.sum()) / loops.sum()
    optimizer = keras.optimizers.Adam(0.01)

    def logits() -> tf.Tensor:
        hidden = tf.nn.relu(step @ tf.constant(features, tf.float32) @ weights[0].value)
        latent = step @ hidden @ weights[1].value
        return latent @ tf.transpose(latent)

    for _ in range(epochs):
        with tf.GradientTape() as tape:
            # −log σ(x) and −log(1 − σ(x)), where σ itself would round to 1.
            edge, no_edge = tf.math.softplus(-logits()), tf.math.softplus(logits())
            loss = tf.reduce_mean(positive * labels * edge + (1 - labels) * no_edge)
        values = [weight.value for weight in weights]
        optimizer.apply(tape.gradient(loss, values), weights)
    result = 1 / (1 + np.exp(-logits().numpy().astype(np.float64)))
    np.fill_diagonal(result, 0)
    return result


@pytest.mark.parametrize("epochs", [1, 10])
def test_the_autoencoder_equals_one_of_plain_keras(epochs: int) -> None:
    features = np.random.default_rng(3).normal(size=(14, 5))
    adjacency = cosine_adjacency(features, 0.3)
    mine = decoded(adjacency, features, epochs, np.random.default_rng(8))
    np.testing.assert_allclose(mine, plain_autoencoder(adjacency, features, epochs, 8), atol=2e-5)
    np.testing.assert_array_equal(mine, mine.T)


def test_training_brings_the_decoded_graph_nearer() -> None:
    features = np.repeat(np.eye(3, 6), 5, axis=0)  # three groups of five equal columns
    adjacency = cosine_adjacency(features, 0.5)
    before = decoded(adjacency, features, 1, np.random.default_rng(0))
    after = decoded(adjacency, features, 200, np.random.default_rng(0))
    within = adjacency > 0
    assert after[within].mean() > before[within].mean() + 0.2
    assert after[within].mean() > after[~within].mean() + 0.4


def test_graphs_of_every_size_share_one_trace() -> None:
    for nodes, width, epochs in ((4, 2, 1), (9, 5, 3), (6, 5, 2)):
        features = np.random.default_rng(0).normal(size=(nodes, width))
        decoded(random_graph(nodes, 0), features, epochs, np.random.default_rng(0))
    assert graph._fit().experimental_get_tracing_count() == 1


@pytest.mark.parametrize("rows", [2, 5])
def test_rebuilding_moves_the_spectrum_to_the_decoded_graph(rows: int) -> None:
    features = np.random.default_rng(4).normal(size=(rows, 11))
    new = rebuilt(features, 0.5, 10, np.random.default_rng(1))
    adjacency = cosine_adjacency(features.T, 0.5)
    directions = features.T / np.linalg.norm(features.T, axis=1, keepdims=True)
    other = fourier_basis(decoded(adjacency, directions, 10, np.random.default_rng(1)))
    # The same signals, read on the other graph; rotations keep lengths.
    np.testing.assert_allclose(new @ other, features @ fourier_basis(adjacency), atol=1e-9)
    np.testing.assert_allclose(
        np.linalg.norm(new, axis=1), np.linalg.norm(features, axis=1), rtol=1e-9
    )
    assert np.abs(new - features).max() > 0.1


def test_knapsack_by_hand() -> None:
    values, weights = np.array([4.0, 4, 4, 4]), np.array([3.0, 1, 2, 9])
    assert knapsack(values, weights, 6.0).tolist() == [True, True, True, False]
    assert knapsack(values, weights, 5.9).tolist() == [False, True, True, False]
    assert knapsack(values, weights, 15.0).tolist() == [True] * 4
    assert knapsack(values, weights, 0.1).tolist() == [False, True, True, False]
    assert knapsack(np.array([27.0, 4, 4, 1]), weights, 5.0).tolist() == [True, True, False, False]
    assert knapsack(np.ones(1), np.zeros(1), 0.0).tolist() == [True]
    assert knapsack(np.ones(3), np.zeros(3), 0.0).tolist() == [True] * 3


def test_the_most_varied_columns(a_round, layout) -> None:
    updates = a_round().updates
    free = layout.trainable.copy()
    free[:6] = False
    variance = updates.matrix.astype(np.float64).var(axis=0)
    best = sorted(np.flatnonzero(free), key=lambda column: -variance[column])
    assert most_varied(updates, free, 5).tolist() == sorted(best[:5])
    assert most_varied(updates, free, 999).tolist() == sorted(best)


@pytest.mark.parametrize("ratio", [0.1, 0.6, 1.0])
@pytest.mark.parametrize("layer", ["final", "all"])
@pytest.mark.parametrize("seed", range(3))
def test_paper_keeps_the_distance_and_touches_its_columns_only(
    a_round, layout, ratio: float, layer: str, seed: int
) -> None:
    this = a_round(seed=seed)
    this = replace(this, adversary=colluders(this.adversary))
    attack = create(layer=layer, poisoning_ratio=ratio, overheard=6)
    sent, state = this.attacked(attack)
    assert state == {}
    selected = attack.selected(attack.seen(this.updates, this.malicious, this.adversary))
    assert 2 <= len(selected) <= 6
    center = selected.mean(selected.sample_counts / selected.sample_counts.sum())
    bound = distances_to(selected, center).max()
    free = attack.modifiable(layout, this.adversary.seed)
    own = (this.updates.matrix[this.malicious] - center)[:, layout.trainable & ~free]
    far = distances_to(sent.select(this.malicious), center)
    assert (far <= max(bound, np.linalg.norm(own, axis=1).max()) * (1 + 1e-6)).all()
    rows = sent.matrix[this.malicious]
    moved = (rows != center)[:, free].any(axis=0)
    final = attack.nodes(layout)[free]
    assert moved.sum() <= 12
    if layer == "final" and final.any():
        assert not moved[~final].any()
    np.testing.assert_array_equal(rows[:, ~free], this.updates.matrix[this.malicious][:, ~free])
    if ratio == 1:
        assert (rows == rows[0])[:, free].all()
        np.testing.assert_allclose(far, bound, rtol=0.25)
        assert moved.sum() == 12


def test_final_layer_nodes(layout) -> None:
    nodes = create().nodes(layout)
    assert nodes.sum() == 4 * 6 + 3
    assert nodes[layout["logits/kernel"]].all() and nodes[layout["logits/bias"]].all()
    assert create(layer="all").nodes(layout).all()


def test_the_climb_raises_the_loss(a_round, layout) -> None:
    this = a_round()
    this = replace(this, adversary=colluders(this.adversary))
    attack = create(budget=1.0, knows="all-benign")
    slope = this.adversary.gradient(np.zeros(layout.size, np.float32), None, None)[1]
    sent, _ = this.attacked(attack)
    row = sent.matrix[this.malicious][0]
    center = this.updates.select(~this.malicious).mean(
        np.where(this.malicious, 0, this.updates.sample_counts)[~this.malicious]
        / this.updates.sample_counts[~this.malicious].sum()
    )
    away = np.where(layout.trainable, row - center, 0)
    columns = np.flatnonzero(away)
    cosine = away[columns] @ slope[columns]
    cosine /= np.linalg.norm(away[columns]) * np.linalg.norm(slope[columns])
    assert cosine > 0.9


def test_repeats_and_depends_on_the_seed(a_round) -> None:
    def row(experiment: int, number: int = 1, **options: object) -> np.ndarray:
        this = a_round(experiment=experiment, number=number)
        return replace(this, adversary=colluders(this.adversary)).row(create(steps=1, **options))

    for variant in ("paper", "released"):
        first = row(5, variant=variant)
        np.testing.assert_array_equal(first, row(5, variant=variant))
        assert not np.array_equal(first, row(6, variant=variant))


def test_released_by_hand(a_round, layout) -> None:
    this = a_round()
    attack = create(variant="released", knows="all-benign")
    sent, state = this.attacked(attack)
    seen = this.updates.select(~this.malicious)
    row, graph_of = released_row(seen, this.adversary.seed, None)
    np.testing.assert_array_equal(state["graph"], graph_of)
    np.testing.assert_array_equal(
        sent.matrix[this.malicious][:, layout.trainable],
        np.broadcast_to(row[layout.trainable], (3, layout.trainable.sum())),
    )
    # Whatever the first graph was, the next round starts from this one.
    later = a_round(number=2)
    _, after = later.attacked(attack, state)
    seen = later.updates.select(~later.malicious)
    weights = seen.start.astype(np.float64) + seen.deltas
    mixed = fourier_basis(after["graph"]) @ fourier_basis(graph_of).T @ weights
    row, _ = released_row(seen, later.adversary.seed, graph_of)
    factors = (row + seen.start.astype(np.float64)) / mixed.mean(axis=0)
    assert np.abs(factors).max() < 1.001
    assert np.abs(factors).max() > 0.8
    assert factors.min() < -0.8
    assert not np.array_equal(row, released_row(seen, later.adversary.seed, None)[0])


def test_released_starts_afresh_with_another_number_of_clients(a_round) -> None:
    this = a_round(honest=4)
    attack = create(variant="released", knows="all-benign")
    _, state = this.attacked(attack, {"graph": np.zeros((9, 9))})
    _, fresh = this.attacked(attack, {})
    assert state["graph"].shape == (4, 4)
    np.testing.assert_array_equal(state["graph"], fresh["graph"])


def test_a_decoded_graph_is_symmetric_and_has_no_loops() -> None:
    adjacency = inner_product_graph(np.array([[9.0, 0, 2], [0, 9, -2], [2, -2, 9]]))
    chance = 1 / (1 + np.exp(-2))
    np.testing.assert_allclose(adjacency[0], [0, 0.5, chance])
    np.testing.assert_allclose(adjacency[1], [0.5, 0, 1 - chance])
    np.testing.assert_array_equal(adjacency, adjacency.T)


@pytest.mark.parametrize(
    ("option", "value"),
    [("columns", 1), ("threshold", 1), ("epochs", 0), ("budget", 0), ("variant", "mine")],
)
def test_refuses_options_out_of_range(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^attack\.{option} = .* is not allowed"):
        create(**{option: value})


def test_overhears_by_default(a_round) -> None:
    attack = attacks.create("graph-autoencoder", {})
    assert attack.declared_knowledge()[:2] == ("own data", "5 overheard updates")
    with pytest.raises(UsageError, match="overhear at least 2"):
        create(overheard=1).check_clients(2, 10)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_real_updates(variant: str, tmp_path) -> None:
    values = {
        "data": {"dataset": "digits", "train_limit": 200, "test_limit": 100},
        "federation": {"clients": 8, "malicious": 2, "rounds": 2},
        "model": {"name": "lenet5"},
        "attack": {"name": "graph-autoencoder", "variant": variant, "columns": 64, "steps": 5},
        "record": {"store_updates": "all", "export": False, "figures": False},
    }
    run = tffl.simulate(build(values), tmp_path / "run")
    for updates in RunDirectory.open(tmp_path / "run").updates():
        malicious = np.isin(updates.client_ids, run.summary["malicious_clients"])
        honest = updates.select(~malicious)
        far = distances_to(updates.select(malicious), honest.mean(np.full(6, 1 / 6)))
        spread = distances_to(honest, honest.mean(np.full(6, 1 / 6))).max()
        assert (far < 2 * spread).all() == (variant == "paper")
        assert np.isfinite(far).all()
