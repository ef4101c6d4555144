"""The client updates of one round: one matrix, a row per client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from tffl.core.errors import UsageError, require
from tffl.core.layout import Entry, WeightLayout

LARGEST_CLAIM = 1 << 40
"""Most samples that a client may claim: more than any has; sums of millions fit an int64."""

BLOCK = 1 << 15
"""Columns in one block of a pass over the matrix: few enough for the cache of a core."""

NARROW = 1 << 12
"""The same for passes that copy a block to float64, of up to 100 clients."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Updates:
    """What a server receives in a round.

    The matrix holds differences, not weights: rules and attacks are defined on them, and
    `start + deltas[i]` gives the weights back where heat maps or audits need a whole model.

    The matrix may be larger than all else together, so rules read it block by block, through
    `columns` and `block`; `select`, `mixed` and `with_rows` return other updates without copying
    it. Attacks and defenses receive `read_only()` updates, whose arrays cannot be written to.

    Attributes:
      round: 1-based.
      client_ids: int64 `[n]`, ascending.
      sample_counts: int64 `[n]`, as the clients claim them, from 0 to `LARGEST_CLAIM`.
      start: float32 `[d]`, the global weights that the clients started from.
      matrix: float32 `[m, d]`, trained weights minus `start`; one row per client, unless `rows` or
        `mixing` is set.
      layout: What the columns are.
      rows: int64 `[r]`, the rows of `matrix` in use; all if None.
      mixing: float32 `[n, r]`, the factors that combine those rows into the n updates; if None,
        each row is an update.
      overrides: Row of `matrix` → float32 `[d]` that takes its place.

    Raises:
      UsageError: A sample count is not a whole number from 0 to `LARGEST_CLAIM`. A negative count
        would make a weight of the average negative.
    """

    round: int
    client_ids: np.ndarray
    sample_counts: np.ndarray
    start: np.ndarray
    matrix: np.ndarray
    layout: WeightLayout
    rows: np.ndarray | None = None
    mixing: np.ndarray | None = None
    overrides: Mapping[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks the sample counts."""
        counts = self.sample_counts
        whole = counts.dtype.kind in "iu"
        odd = counts[(counts < 0) | (counts > LARGEST_CLAIM)] if whole else counts
        if len(odd):
            raise UsageError(
                f"a client claims {odd.item(0)!r} samples: it must be a whole number from 0 to "
                f"{LARGEST_CLAIM:,}"
            )

    @classmethod
    def of_rows(
        cls,
        rows: np.ndarray,
        *,
        counts: np.ndarray | None = None,
        layout: WeightLayout | None = None,
        ids: np.ndarray | None = None,
        start: np.ndarray | None = None,
        round: int = 1,
    ) -> Updates:
        """Makes a read-only round from a plain matrix.

        Args:
          rows: Client updates, numbers `[n, d]`, `n >= 1`; copied unless they are float32.
          counts: Sample counts int64 `[n]`; one each if None.
          layout: What the columns are; one trainable variable if None.
          ids: Client ids int64 `[n]`, ascending; 0 … n − 1 if None.
          start: float32 `[d]`; zeros if None.
          round: 1-based.

        Raises:
          UsageError: The rows are not a matrix of numbers, or another argument does not fit them.

        >>> len(Updates.of_rows(np.zeros((3, 5), np.float32)))
        3
        """
        try:
            array = np.asarray(rows)
        except ValueError:  # NumPy makes no array of them
            raise UsageError("rows differ in length: give a matrix, a row per client") from None
        require(
            array.ndim == 2 and array.size > 0 and array.dtype.kind in "fiu",
            f"rows of shape {array.shape} and dtype {array.dtype} are not allowed: give a matrix "
            "of numbers, a row per client",
        )
        n, d = array.shape
        layout = layout or WeightLayout((Entry("weights", (d,), trainable=True),))
        require(
            isinstance(layout, WeightLayout),
            f"layout is a {type(layout).__name__}: give a WeightLayout, such as "
            "tffl.layout_of(model)",
        )
        require(layout.size == d, f"layout has {layout.size} columns, and rows have {d}")
        clients = np.arange(n) if ids is None else np.asarray(ids)
        require(
            clients.shape == (n,)
            and clients.dtype.kind in "iu"
            and bool((np.diff(clients.astype(np.int64)) > 0).all() and clients[0] >= 0),
            f"ids are not allowed: give {n} whole numbers from 0 on, ascending, one per row",
        )
        claimed = np.ones(n, np.int64) if counts is None else np.asarray(counts)
        require(claimed.shape == (n,), f"counts are not allowed: give {n} of them, one per row")
        begin = np.zeros(d, np.float32) if start is None else np.asarray(start, np.float32)
        require(begin.shape == (d,), f"start of shape {begin.shape} is not allowed: give ({d},)")
        matrix = array.astype(np.float32, copy=False)
        return cls(round, clients.astype(np.int64), claimed, begin, matrix, layout).read_only()

    def __len__(self) -> int:
        """Number of clients, n."""
        return len(self.client_ids)

    @property
    def deltas(self) -> np.ndarray:
        """The updates, float32 `[n, d]`: `matrix` itself if each of its rows is an update."""
        return self.block(slice(None))

    def block(self, columns: slice | np.ndarray) -> np.ndarray:
        """Returns the updates in a slice of columns, or at some columns, float32 `[n, width]`.

        The result may be a view of `matrix`: do not write to it.
        """
        part = self.matrix[:, columns]
        if self.rows is not None:
            part = part[self.rows]
        if self.overrides:
            part = np.array(part)
            for row, place in enumerate(range(len(part)) if self.rows is None else self.rows):
                if place in self.overrides:
                    part[row] = self.overrides[place][columns]
        return part if self.mixing is None else self.mixing @ part

    def row(self, row: int) -> np.ndarray:
        """Returns one client's update, float32 `[d]`, which may be a view of `matrix`."""
        if self.mixing is not None:
            return replace(self, mixing=self.mixing[row : row + 1]).block(slice(None))[0]
        place = row if self.rows is None else int(self.rows[row])
        return self.overrides.get(place, self.matrix[place])

    def weights(self, row: int) -> np.ndarray:
        """Returns the full weights `[d]` of the client in `row`."""
        return self.start + self.row(row)

    def read_only(self) -> Updates:
        """Returns the same updates in arrays that raise `ValueError` when they are written to.

        They are views: whoever owns the arrays can still write to them.
        """
        names = ("client_ids", "sample_counts", "start", "matrix")
        views = {name: getattr(self, name).view() for name in names}
        for view in views.values():
            view.flags.writeable = False
        return replace(self, **views)

    def with_rows(self, chosen: np.ndarray, rows: np.ndarray) -> Updates:
        """Returns updates in which some clients send other rows, without copying the matrix.

        Args:
          chosen: bool `[n]`, the clients.
          rows: float32 `[k, d]`, a row for each of them in their order; or `[1, d]` for all.

        >>> updates = Updates.of_rows(np.array([[1.0], [2.0], [3.0]]))
        >>> updates.with_rows(np.array([True, False, True]), np.array([[9.0]])).deltas.ravel()
        array([9., 2., 9.], dtype=float32)
        """
        assert self.mixing is None  # a combination of clients is nobody's own row
        places = np.flatnonzero(chosen) if self.rows is None else self.rows[chosen]
        spread = np.broadcast_to(rows, (len(places), self.layout.size))
        new = dict(zip(places.tolist(), spread, strict=True))
        return replace(self, overrides={**self.overrides, **new})

    def select(self, chosen: np.ndarray) -> Updates:
        """Returns the updates of some clients, bool `[n]` or positions, without copying them."""
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        if len(chosen) == len(self) and (chosen == np.arange(len(self))).all():
            return self
        ids, counts = self.client_ids[chosen], self.sample_counts[chosen]
        part = replace(self, client_ids=ids, sample_counts=counts)
        if self.mixing is not None:
            return replace(part, mixing=self.mixing[chosen])
        return replace(part, rows=chosen if self.rows is None else self.rows[chosen])

    def mixed(
        self,
        mixing: np.ndarray,
        client_ids: np.ndarray | None = None,
        sample_counts: np.ndarray | None = None,
    ) -> Updates:
        """Returns updates that are combinations of these; `block` computes them when it is called.

        Args:
          mixing: `[k, n]`, a row of factors for each new update.
          client_ids: int64 `[k]`, the ids of the new updates; if None, the present ones, `k = n`.
          sample_counts: int64 `[k]`; if None, the present ones, `k = n`.
        """
        factors = mixing if self.mixing is None else mixing @ self.mixing.astype(np.float64)
        return replace(
            self,
            client_ids=self.client_ids if client_ids is None else client_ids,
            sample_counts=self.sample_counts if sample_counts is None else sample_counts,
            mixing=factors.astype(np.float32),
        )

    def columns(self, trainable: bool = False, size: int | None = None) -> Iterator[slice]:
        """Yields column blocks, so that passes over the matrix need no copy of it.

        Args:
          trainable: Leave out columns that no gradient trains, such as BatchNorm statistics.
          size: Most columns in a block; `BLOCK` if None.
        """
        size = size or BLOCK
        whole = [slice(0, self.layout.size)]
        for span in self.layout.trainable_spans if trainable else whole:
            for begin in range(span.start, span.stop, size):
                yield slice(begin, min(begin + size, span.stop))

    def map_columns(
        self, function: Callable[[slice], Result], trainable: bool = False, size: int | None = None
    ) -> Iterator[Result]:
        """Yields `function(columns)` for every block, in order, computed on all cores.

        This is faster where NumPy releases Python's lock and is not parallel itself, as in sorting.
        Results come in order, so that their sum does not depend on the number of cores.
        """
        from tffl.core.process import cores

        with ThreadPoolExecutor(cores(), thread_name_prefix="tffl-columns") as pool:
            yield from pool.map(function, self.columns(trainable, size))

    def map_rows(self, function: Callable[[int], Result]) -> Iterator[Result]:
        """Yields `function(row)` for every position 0 … n − 1, as `map_columns` does for blocks."""
        from tffl.core.process import cores

        with ThreadPoolExecutor(cores(), thread_name_prefix="tffl-rows") as pool:
            yield from pool.map(function, range(len(self)))

    def norms(self, trainable: bool = False) -> np.ndarray:
        """Returns the Euclidean norm of each row, float64 `[n]`; inf or NaN where not finite."""

        def squares(columns: slice) -> np.ndarray:
            with np.errstate(over="ignore", invalid="ignore"):
                part = self.block(columns).astype(np.float64)
                return np.einsum("ij,ij->i", part, part)

        return np.sqrt(sum(self.map_columns(squares, trainable, NARROW), np.zeros(len(self))))

    def finite(self) -> np.ndarray:
        """Returns bool `[n]`: the rows that hold neither NaN nor infinity."""
        result = np.ones(len(self), dtype=bool)
        for part in self.map_columns(lambda columns: np.isfinite(self.block(columns)).all(axis=1)):
            result &= part
        return result

    def mean(self, weights: np.ndarray) -> np.ndarray:
        """Returns the weighted mean update, float32 `[d]`.

        Rows of weight zero are left out, so that their NaN cannot reach the mean.

        Args:
          weights: float64 `[n]`, which sum to 1 for a mean; they are not normalized.
        """
        if self.mixing is not None:  # a mean of means
            return replace(self, mixing=None).mean(weights @ self.mixing)
        chosen = np.flatnonzero(weights)
        factors = weights[chosen]
        result = np.empty_like(self.start)

        def block(columns: slice) -> None:
            # Row by row in float64: accurate, and, unlike a matrix product, the same bits for any
            # number of threads.
            part = self.block(columns)
            total = np.zeros(columns.stop - columns.start)
            term = np.empty_like(total)
            with np.errstate(over="ignore", invalid="ignore"):
                for row, factor in zip(chosen, factors, strict=True):
                    total += np.multiply(part[row], factor, out=term)
                result[columns] = total

        for _ in self.map_columns(block):
            pass
        return result
