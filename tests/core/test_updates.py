"""The weight layout and the update matrix against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tffl.core import updates as updates_module
from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import LARGEST_CLAIM, Updates
from tffl.defenses.base import sample_shares
from tffl.defenses.parts.scope import within

LAYOUT = WeightLayout(
    (
        Entry("conv/kernel", (2, 3), True),
        Entry("norm/moving_mean", (3,), False),
        Entry("logits/kernel", (3, 2), True),
        Entry("logits/bias", (2,), True),
    )
)


def make_updates(deltas: np.ndarray, counts: np.ndarray | None = None) -> Updates:
    n, d = deltas.shape
    counts = np.ones(n, dtype=np.int64) if counts is None else counts
    layout = LAYOUT if d == LAYOUT.size else WeightLayout((Entry("w", (d,), True),))
    return Updates(1, np.arange(n), counts, np.zeros(d, np.float32), deltas, layout)


def test_layout_names_columns_in_the_models_order() -> None:
    assert LAYOUT.size == 17
    assert LAYOUT["norm/moving_mean"] == slice(6, 9)
    assert LAYOUT.final_layer == "logits"
    assert LAYOUT.final_bias == slice(15, 17)
    assert LAYOUT.trainable.sum() == 14
    assert not LAYOUT.trainable[6:9].any()


def test_layout_round_trip() -> None:
    arrays = [np.full(entry.shape, k, np.float32) for k, entry in enumerate(LAYOUT.entries)]
    flat = LAYOUT.flatten(arrays)
    for original, back in zip(arrays, LAYOUT.unflatten(flat), strict=True):
        np.testing.assert_array_equal(original, back)


def test_unknown_variable_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'logits/bias'"):
        LAYOUT["logit/bias"]


def test_no_final_bias() -> None:
    with pytest.raises(UsageError, match="has no bias"):
        _ = WeightLayout((Entry("logits/kernel", (3, 2), True),)).final_bias


@given(
    n=st.integers(1, 6),
    seed=st.integers(0, 100),
    block=st.integers(1, 20),
)
def test_blocked_passes_equal_plain_numpy(n: int, seed: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    deltas = rng.normal(size=(n, 17)).astype(np.float32)
    counts = rng.integers(1, 50, n)
    updates = make_updates(deltas, counts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updates_module, "BLOCK", block)
        shares = sample_shares(updates, np.ones(n, dtype=bool))
        np.testing.assert_allclose(
            updates.mean(shares), np.average(deltas, axis=0, weights=counts), rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(updates.norms(), np.linalg.norm(deltas, axis=1), rtol=1e-6)
        assert updates.finite().all()


def test_fedavg_of_weights_equals_start_plus_mean_update() -> None:
    rng = np.random.default_rng(0)
    start = rng.normal(size=17).astype(np.float32)
    weights = rng.normal(size=(3, 17)).astype(np.float32)
    updates = Updates(1, np.arange(3), np.array([1, 2, 7]), start, weights - start, LAYOUT)
    shares = sample_shares(updates, np.ones(3, dtype=bool))
    expected = np.average(weights, axis=0, weights=[1, 2, 7])
    np.testing.assert_allclose(start + updates.mean(shares), expected, rtol=1e-5, atol=1e-6)


def test_rows_without_weight_cannot_spoil_the_mean() -> None:
    deltas = np.ones((3, 17), dtype=np.float32)
    deltas[1] = np.nan
    updates = make_updates(deltas)
    shares = sample_shares(updates, np.array([True, False, True]))
    np.testing.assert_array_equal(updates.mean(shares), np.ones(17, np.float32))
    np.testing.assert_array_equal(updates.finite(), [True, False, True])


def test_nobody_accepted_gives_no_update() -> None:
    updates = make_updates(np.ones((2, 17), dtype=np.float32))
    shares = sample_shares(updates, np.zeros(2, dtype=bool))
    np.testing.assert_array_equal(shares, [0, 0])
    np.testing.assert_array_equal(updates.mean(shares), np.zeros(17))


def test_a_huge_finite_row_has_a_norm() -> None:
    deltas = np.full((1, 17), 1e38, dtype=np.float32)
    assert make_updates(deltas).norms()[0] == pytest.approx(1e38 * np.sqrt(17), rel=1e-6)


@given(n=st.integers(1, 6), seed=st.integers(0, 100), block=st.integers(1, 20))
def test_selected_and_mixed_views_equal_plain_numpy(n: int, seed: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    deltas = rng.normal(size=(n, 17)).astype(np.float32)
    updates = make_updates(deltas, rng.integers(1, 50, n))
    first = np.sort(rng.choice(n, rng.integers(1, n + 1), replace=False))
    mixing = rng.normal(size=(3, len(first)))
    second = np.array([2, 0])
    again = rng.normal(size=(2, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updates_module, "BLOCK", block)
        chosen = updates.select(first)
        np.testing.assert_array_equal(chosen.client_ids, first)
        np.testing.assert_array_equal(chosen.deltas, deltas[first])
        np.testing.assert_array_equal(chosen.sample_counts, updates.sample_counts[first])
        mixed = chosen.mixed(mixing, np.arange(3), np.ones(3, np.int64))
        expected = mixing @ deltas[first]
        np.testing.assert_allclose(mixed.deltas, expected, rtol=1e-4, atol=1e-5)
        view = mixed.select(second).mixed(again)
        np.testing.assert_allclose(view.deltas, again @ expected[second], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(view.row(1), view.deltas[1], rtol=1e-5, atol=1e-6)
        norms = np.linalg.norm(view.deltas.astype(np.float64), axis=1)
        np.testing.assert_allclose(view.norms(), norms, rtol=1e-5)
        plain = view.deltas.astype(np.float64)
        mean = view.mean(np.array([0.25, 0.75]))
        np.testing.assert_allclose(mean, [0.25, 0.75] @ plain, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(updates.deltas, deltas)


def test_a_selection_of_everything_is_the_same_object() -> None:
    updates = make_updates(np.ones((3, 17), np.float32))
    assert updates.select(np.ones(3, dtype=bool)) is updates
    assert updates.select(np.array([2, 1, 0])).client_ids.tolist() == [2, 1, 0]


@pytest.mark.parametrize("size", [1, 4, 5, 100])
def test_column_blocks_cover_what_is_asked_for(size: int) -> None:
    updates = make_updates(np.zeros((2, 17), np.float32))
    every = np.concatenate([np.arange(17)[block] for block in updates.columns(size=size)])
    trained = [np.arange(17)[block] for block in updates.columns(trainable=True, size=size)]
    assert every.tolist() == list(range(17))
    assert np.concatenate(trained).tolist() == np.flatnonzero(LAYOUT.trainable).tolist()
    assert max(map(len, trained)) <= size
    mapped = list(updates.map_columns(lambda columns: columns.start, trainable=True, size=size))
    assert mapped == [block.start for block in updates.columns(trainable=True, size=size)]


def test_norms_of_trained_columns() -> None:
    deltas = np.zeros((1, 17), np.float32)
    deltas[0, [0, 7, 16]] = (3, 100, 4)
    updates = make_updates(deltas)
    assert updates.norms(trainable=True).tolist() == [5.0]
    assert LAYOUT.trainable_spans == [slice(0, 6), slice(9, 17)]


@pytest.mark.parametrize(
    "claim", [-1, -(2**63), LARGEST_CLAIM + 1, 2**64 - 1, 2**70, 0.5, np.nan, np.inf, "9"]
)
def test_claims_that_are_no_number_of_samples_are_refused(claim: object) -> None:
    layout = WeightLayout((Entry("logits/bias", (2,), True),))
    rows = np.ones((2, 2), np.float32)
    counts = np.array([claim, claim if not isinstance(claim, int) else 1])
    with pytest.raises(UsageError, match=r"a client claims .* samples") as error:
        Updates(1, np.arange(2), counts, np.zeros(2, np.float32), rows, layout)
    assert "\n" not in str(error.value)
    most = np.array([0, LARGEST_CLAIM])
    largest = Updates(1, np.arange(2), most, np.zeros(2, np.float32), rows, layout)
    assert sample_shares(largest, np.ones(2, bool)).tolist() == [0, 1]


def test_the_mean_of_a_hundred_thousand_rows_is_that_of_float64() -> None:
    rng = np.random.default_rng(0)
    n = 100_000
    # A large common part and small differences: float32 sums would lose the latter.
    deltas = (1000 + rng.normal(size=(n, 17))).astype(np.float32)
    counts = rng.integers(1, 1000, n)
    updates = make_updates(deltas, counts)
    expected = np.average(deltas.astype(np.float64), axis=0, weights=counts)
    shares = sample_shares(updates, np.ones(n, dtype=bool))
    np.testing.assert_allclose(updates.mean(shares), expected, rtol=2e-7)


def test_read_only_updates_share_memory_and_refuse_to_be_written_to() -> None:
    mine = make_updates(np.arange(34, dtype=np.float32).reshape(2, 17))
    updates = mine.read_only()
    assert np.shares_memory(updates.matrix, mine.matrix)
    writable = np.array([True, False])
    for array in (
        updates.matrix,
        updates.deltas,
        updates.block(slice(0, 3)),
        updates.row(0),
        updates.start,
        updates.client_ids,
        updates.sample_counts,
        updates.select(writable).matrix,
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1
    mine.matrix[0] = 5  # the owner still can
    assert (updates.row(0) == 5).all()


def test_a_plain_matrix_is_read_only_in_a_round_and_stays_as_it_was() -> None:
    rows = np.ones((3, 5), np.float32)
    with pytest.raises(ValueError, match="read-only"):
        Updates.of_rows(rows).matrix[0] = 2
    rows[0] = 2
    assert rows[0].tolist() == [2] * 5


@given(data=st.data())
def test_other_rows_of_some_clients_are_those_of_a_copied_matrix(data: st.DataObject) -> None:
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    whole = make_updates(generator.normal(size=(6, 17)).astype(np.float32))
    part = whole.select(np.array(data.draw(st.lists(st.integers(0, 5), min_size=1, unique=True))))
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=len(part), max_size=len(part))))
    count = data.draw(st.sampled_from([1, int(chosen.sum())]))
    rows = generator.normal(size=(count, 17)).astype(np.float32)
    expected = np.array(part.deltas)
    expected[chosen] = rows
    changed = part.with_rows(chosen, rows)
    assert changed.matrix is whole.matrix
    np.testing.assert_array_equal(changed.deltas, expected)
    np.testing.assert_array_equal(changed.block(np.array([3, 1])), expected[:, [3, 1]])
    for row in range(len(part)):
        np.testing.assert_array_equal(changed.row(row), expected[row])
    np.testing.assert_array_equal(changed.select(chosen).deltas, expected[chosen])
    twice = changed.with_rows(~chosen, np.zeros((1, 17), np.float32))
    np.testing.assert_array_equal(twice.deltas, np.where(chosen[:, None], expected, 0))
    np.testing.assert_array_equal(part.deltas, whole.deltas[part.client_ids])
    if chosen.any():
        bias = within(changed, "final")
        np.testing.assert_array_equal(bias.deltas, expected[:, 9:])
