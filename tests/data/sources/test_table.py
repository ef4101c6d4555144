"""Tables: features from columns, classes, missing values, and what a column must not be."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tffl.config import build
from tffl.core.errors import TfflWarning, UsageError
from tffl.data.build import build_federation
from tffl.data.sources.table import feature_vectors

ROWS = 40


def frame(**columns: Any) -> pd.DataFrame:
    number = np.arange(ROWS)
    base = {"size": number * 1.5, "color": np.array(["red", "blue"])[number % 2]}
    kind = np.array(["apple", "pear"])[number // 2 % 2]
    return pd.DataFrame({**base, "kind": kind, **columns})


def write(path: Path, table: pd.DataFrame) -> Path:
    table.to_csv(path / "fruit.csv", index=False)
    return path / "fruit.csv"


def test_numbers_are_standardized_on_the_training_part_and_categories_one_hot(
    tmp_path: Path, load
) -> None:
    found = load(write(tmp_path, frame()), label="kind")
    assert found.name == "fruit.csv" and found.class_names == ("apple", "pear")
    assert found.sample_shape == (3,) and not found.is_images
    size, blue, red = found.train_images.T
    assert abs(size.mean()) < 1e-6 and abs(size.std() - 1) < 1e-6
    assert (blue + red == 1).all() and set(blue) == {0, 1}
    assert np.bincount(found.test_labels).tolist() == [4, 4]


def test_the_test_part_decides_nothing() -> None:
    table = pd.DataFrame({"size": [0.0, 2.0, 50.0], "color": ["red", "red", "green"]})
    found = feature_vectors(table, np.array([True, True, False]), "it")
    assert found.tolist() == [[-1, 1], [1, 1], [49, 0]]


def test_a_constant_column_is_zero_and_truth_values_are_numbers() -> None:
    table = pd.DataFrame({"same": [3, 3], "flag": [True, False]})
    assert feature_vectors(table, np.array([True, True]), "it").tolist() == [[0, 1], [0, -1]]


def test_missing_values_are_the_mean_or_no_category_and_said(tmp_path: Path, load) -> None:
    table = frame()
    table.loc[:4, "size"], table.loc[7, "color"] = None, None
    with pytest.warns(
        TfflWarning, match=r"6 values are missing \(size 5, color 1\): numbers become"
    ):
        found = load(write(tmp_path, table), label="kind")
    rows = np.concatenate([found.train_images, found.test_images])
    assert (rows[:, 0] == 0).sum() == 5 and (rows[:, 1:].sum(axis=1) == 0).sum() == 1


def test_columns_may_name_the_part_and_the_client(tmp_path: Path, load) -> None:
    part = ["train"] * 30 + ["Test"] * 10
    path = write(tmp_path, frame(part=part, farm=np.arange(ROWS) % 3))
    found = load(path, label="kind", split="part", client="farm")
    assert len(found.test_labels) == 10 and found.sample_shape == (3,)
    assert found.client_names == ("0", "1", "2")
    config = build({"data": {"partition": "natural"}, "federation": {"clients": 3}})
    clients = build_federation(config, found, np.empty(0, np.int64)).clients
    assert clients[1].indices.tolist() == list(range(1, 30, 3))


def test_texts_and_numbers_may_be_classes_together(tmp_path: Path, load) -> None:
    found = load(write(tmp_path, frame(kind=[1, "one"] * 20)), label="kind")
    assert found.class_names == ("1", "one")


def test_parquet_holds_the_same(tmp_path: Path, load) -> None:
    pytest.importorskip("pyarrow")
    frame().to_parquet(tmp_path / "fruit.parquet")
    found = load(tmp_path / "fruit.parquet", label="kind")
    same = load(write(tmp_path, frame()), label="kind")
    np.testing.assert_array_equal(found.train_images, same.train_images)


@pytest.mark.parametrize(
    ("table", "settings", "message"),
    [
        (
            frame(),
            {},
            r"which column holds the classes\? Set data\.label, such as .*data\.label=kind",
        ),
        (
            frame(),
            {"label": "kin"},
            r"unknown column of .*\(data\.label\) 'kin': did you mean 'kind'",
        ),
        (frame(), {"label": "size"}, "column size has 40 different values in 40 rows"),
        (frame(kind=np.arange(ROWS) // 9 + 0.5), {"label": "kind"}, "column kind has 5 different"),
        (frame(kind="apple"), {"label": "kind"}, "training samples of one class only, apple"),
        (frame(kind=["a"] * 39 + [None]), {"label": "kind"}, "1 of 40 rows have no kind"),
        (frame()[:2], {"label": "color"}, "has 2 samples, no two of a class: too few to keep some"),
        (frame()[["kind"]], {"label": "kind"}, "has no column of features"),
        (frame(part="maybe"), {"label": "kind", "split": "part"}, "part says maybe: it should say"),
        (
            frame(part="train"),
            {"label": "kind", "split": "part"},
            "no row says test in column part",
        ),
        (frame().reset_index(names=""), {"label": "kind"}, "has a column without a name, such as"),
        (frame(size=np.inf), {"label": "kind"}, "column size holds infinite numbers"),
        (frame(kind=[1.0, np.inf] * 20), {"label": "kind"}, "kind holds infinite numbers, which"),
        (
            frame(kind=["a", "b"] * 19 + ["c"] * 2, part=["train"] * 38 + ["test"] * 2),
            {"label": "kind", "split": "part"},
            "only the test part has samples of class c",
        ),
    ],
)
def test_every_fault_is_one_line(tmp_path: Path, load, table, settings, message) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load(write(tmp_path, table), **settings)
    assert "\n" not in str(caught.value) and "fruit.csv" in str(caught.value)


def test_names_of_rows_are_no_categories() -> None:
    table = pd.DataFrame({"name": [f"row {number}" for number in range(300)]})
    with pytest.raises(UsageError, match="column name has 300 different texts"):
        feature_vectors(table, np.ones(300, bool), "it")


def test_what_is_no_table_is_one_line(tmp_path: Path, load) -> None:
    (tmp_path / "odd.csv").write_bytes(b"\xff\xfe\x00,\x00")
    with pytest.raises(UsageError, match=r"odd\.csv cannot be read: "):
        load(tmp_path / "odd.csv", label="kind")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(UsageError, match=r"empty\.csv cannot be read: EmptyDataError"):
        load(tmp_path / "empty.csv", label="kind")
