"""`FILE.csv` and `FILE.parquet`: a row per sample, one column of classes, the others features.

numbers       (x − mean) / standard deviation, both of the training part
categories    one 0/1 feature for each value of the training part
missing       a number: the training mean, hence 0; a category: none, hence all 0
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tffl.core.errors import TfflWarning, UsageError, first_line, require, unknown
from tffl.data.arrays import kept_for_testing, labeled
from tffl.data.federation import Dataset
from tffl.data.sources.base import OwnData

MOST_CATEGORIES = 100
"""Different values of a column of texts, at most: with more it is a name or a number of a row."""

SHOWN = 12
"""Columns, at most, that a message lists."""

TRAIN, TEST = "train", "test"


@dataclass(frozen=True)
class Table(OwnData):
    """Rows of a table as feature vectors."""

    def check_prepared(self, data_dir: Path | None) -> None:
        """Raises `UsageError` unless the columns that are named exist."""
        self._check_columns(self._read(rows=1))

    def load(self, data_dir: Path | None) -> Dataset:
        """Reads the table, and turns its columns into features."""
        table = self._read()
        self._check_columns(table)
        labels, class_names = self._classes(table)
        test = self._is_test(table, labels)
        client = self._column(table, "client")
        owners = None if client is None else client[~test].to_numpy(str)
        named = (self.config.label, self.config.split, self.config.client)
        features = table.drop(columns=[name for name in named if name])
        require(features.shape[1] > 0, f"{self.path} has no column of features")
        self._warn_of_missing(features)
        vectors = feature_vectors(features, ~test, str(self.path))
        ordered = np.concatenate([labels[~test], labels[test]])
        x, x_test = vectors[~test], vectors[test]
        return labeled(self.name, x, x_test, ordered, class_names, owners)

    def _read(self, rows: int | None = None) -> pd.DataFrame:
        """Returns the table, or the first rows of a CSV file."""
        try:
            if self.path.suffix.lower() == ".parquet":
                table = pd.read_parquet(self.path)
            else:
                table = pd.read_csv(self.path, low_memory=False, nrows=rows)
        except ImportError:
            raise UsageError(
                f"{self.path} needs pyarrow to be read: pip install 'tffl[parquet]', or give a .csv"
            ) from None
        except Exception as error:  # of parsers: OSError, ValueError, UnicodeError and their own
            raise UsageError(f"{self.path} cannot be read: {first_line(error)}") from None
        return table.rename(columns=str)

    def _check_columns(self, table: pd.DataFrame) -> None:
        """Raises `UsageError` unless there is a column of classes, and those that are named."""
        columns = list(table.columns)
        require(
            bool(self.config.label),
            f"{self.path}: which column holds the classes? Set data.label, such as "
            f"--set 'data.label={columns[-1]}'; there are {', '.join(columns[:SHOWN])}"
            f"{f' and {len(columns) - SHOWN} more' if len(columns) > SHOWN else ''}",
        )
        nameless = [name for name in columns if name.startswith("Unnamed: ")]
        require(
            not nameless,
            f"{self.path} has a column without a name, such as the row numbers that pandas "
            "writes: name it, or leave it out (to_csv(index=False))",
        )
        for key in ("label", "split", "client"):
            name = getattr(self.config, key)
            if name and name not in columns:
                raise unknown(f"column of {self.path} (data.{key})", name, columns)

    def _column(self, table: pd.DataFrame, key: str) -> pd.Series | None:
        """Returns the column that `data.KEY` names, if it names one; nothing in it is missing."""
        name = getattr(self.config, key)
        if not name:
            return None
        missing = int(table[name].isna().sum())
        require(
            missing == 0,
            f"{self.path}: {missing} of {len(table)} rows have no {name} (data.{key}): fill it in, "
            "or leave them out",
        )
        return table[name]

    def _classes(self, table: pd.DataFrame) -> tuple[np.ndarray, tuple[str, ...]]:
        """Returns the rows' classes, in the order of their names or numbers."""
        column = self._column(table, "label")
        assert column is not None  # `_check_columns` demands it
        # Texts and numbers in one column have no order: all of them count as texts.
        plain = column.to_numpy(str) if column.dtype.kind == "O" else column.to_numpy()
        values, numbers = np.unique(plain, return_inverse=True)
        require(
            column.dtype.kind != "f" or bool(np.isfinite(values).all()),
            f"{self.path}: column {self.config.label} holds infinite numbers, which are no classes",
        )
        whole = column.dtype.kind != "f" or bool((values == np.floor(values)).all())
        require(
            whole and len(values) <= max(2, len(table) // 2),
            f"{self.path}: column {self.config.label} has {len(values)} different values in "
            f"{len(table)} rows: it should hold a few classes, each in several rows",
        )
        names = values.astype(np.int64) if column.dtype.kind == "f" else values
        return numbers.astype(np.int32), tuple(map(str, names))

    def _is_test(self, table: pd.DataFrame, labels: np.ndarray) -> np.ndarray:
        """Returns which rows are for testing, bool `[rows]`."""
        column = self._column(table, "split")
        if column is None:
            return kept_for_testing(labels, self.config.test_share, self.name)
        parts = column.astype(str).str.strip().str.lower()
        strange = sorted(set(parts) - {TRAIN, TEST})
        require(
            not strange,
            f"{self.path}: column {self.config.split} says {', '.join(strange[:3])}: it should say "
            f"{TRAIN} or {TEST}",
        )
        test = (parts == TEST).to_numpy()
        require(
            bool(test.any()),
            f"{self.path}: no row says {TEST} in column {self.config.split}",
        )
        return test

    def _warn_of_missing(self, features: pd.DataFrame) -> None:
        counts = features.isna().sum()
        counts = counts[counts > 0]
        if len(counts):
            columns = ", ".join(f"{name} {count}" for name, count in counts.items())
            warnings.warn(
                f"{self.path}: {counts.sum()} values are missing ({columns}): numbers become the "
                "mean of the training part, categories none",
                TfflWarning,
                stacklevel=2,
            )


def feature_vectors(features: pd.DataFrame, train: np.ndarray, what: str) -> np.ndarray:
    """Returns columns as features float32 `[rows, features]`, fitted to the training rows.

    Args:
      features: Numbers, truth values and texts.
      train: bool `[rows]`, the training rows.
      what: For messages.

    Raises:
      UsageError: A column holds an infinite number, times, or too many different texts.

    >>> table = pd.DataFrame({"size": [1.0, 3.0, None], "color": ["red", "blue", None]})
    >>> feature_vectors(table, np.array([True, True, True]), "it")
    array([[-1.,  0.,  1.],
           [ 1.,  1.,  0.],
           [ 0.,  0.,  0.]], dtype=float32)
    """
    columns = features.items()
    parts = [_features(column, train, f"{what}: column {name}") for name, column in columns]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _features(column: pd.Series, train: np.ndarray, what: str) -> np.ndarray:
    if pd.api.types.is_numeric_dtype(column):
        return _standardized(column.to_numpy(np.float64, na_value=np.nan), train, what)
    require(
        not pd.api.types.is_datetime64_any_dtype(column),
        f"{what} holds times: turn them into numbers",
    )
    known = sorted(map(str, column[train].dropna().unique()))
    require(
        len(known) <= MOST_CATEGORIES,
        f"{what} has {len(known)} different texts: a column of categories has {MOST_CATEGORIES} at "
        "most; leave out names and numbers of rows",
    )
    texts = column.astype(object).map(str, na_action="ignore").to_numpy()
    return (texts[:, None] == np.array(known, dtype=object)[None]).astype(np.float64)


def _standardized(values: np.ndarray, train: np.ndarray, what: str) -> np.ndarray:
    require(not np.isinf(values).any(), f"{what} holds infinite numbers")
    known = values[train & ~np.isnan(values)]
    mean, deviation = (known.mean(), known.std()) if len(known) else (0.0, 0.0)
    return np.nan_to_num((values - mean) / (deviation if deviation > 0 else 1.0))[:, None]
