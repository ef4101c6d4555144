"""`rounds.csv` and `clients.csv`: what their columns are, and text that is the same every time."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core.atomic import write_text
from tffl.core.errors import TfflError
from tffl.core.rounding import nine_digits

if TYPE_CHECKING:
    import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet takes for a formula."""

ROUND_COLUMNS = (
    "round",
    "accuracy",
    "loss",
    "attack_success",
    "attack_loss",
    "participants",
    "accepted",
    "rejected",
    "true_positives",
    "false_positives",
    "true_negatives",
    "false_negatives",
    "recall",
    "precision",
    "fpr",
    "detection_accuracy",
    "f1",
    "mcc",
    "balanced_accuracy",
    "auc",
    "threshold",
    "train_seconds",
    "attack_seconds",
    "defense_seconds",
    "evaluate_seconds",
)

CLIENT_COLUMNS = (
    "round",
    "client",
    "samples",
    "malicious",
    "score",
    "flagged",
    "accepted",
    "weight",
    "update_norm",
    "reason",
)


def to_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    r"""Returns a table as CSV text.

    Floats have nine significant digits, which is more than a float32 holds; None and NaN are empty;
    booleans are 1 and 0; strings stay as they are, but for those that a spreadsheet would take for
    a formula: they get an apostrophe in front, which `read_rows` takes away.

    Raises:
      ValueError: A row has a key that is not a column.

    >>> to_csv(("round", "loss", "auc"), [{"round": 1, "loss": 0.25, "auc": None}])
    'round,loss,auc\n1,0.25,\n'
    """
    return _lines(columns, [dict(zip(columns, columns, strict=True)), *rows])


def as_written(value: Any) -> Any:
    """Returns a cell's value with as many digits as `to_csv` writes.

    A resumed run knows its rounds from the tables: what depends on them has to see the same.
    """
    return nine_digits(value) if isinstance(value, float | np.floating) else value


def read_rows(path: Path) -> list[dict[str, str]]:
    """Reads a CSV file as text; `to_csv` turns the rows back into the same bytes.

    Raises:
      TfflError: The file is missing, unreadable, or not CSV.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                {key: _without_apostrophe(value) for key, value in row.items()}
                for row in csv.DictReader(file, strict=True)
            ]
    except OSError as error:
        raise TfflError(f"cannot read {path}: {error.strerror or error}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise TfflError(f"{path} is not a table: {error}") from None


class Table:
    """A table that grows by the rows of one round at a time, kept as CSV text.

    Because rows are kept as text, what a file already holds stays byte-identical on resuming.
    Callbacks may add columns behind the others; rounds that lack one have an empty cell.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._rounds: dict[int, str] = {}

    @classmethod
    def read(cls, path: Path, columns: Sequence[str]) -> Table:
        """Reads a table, empty if there is no such file.

        Raises:
          TfflError: The file is unreadable, does not begin with these columns, or has cells that
            are no numbers.
        """
        by_round: dict[int, list[dict[str, str]]] = {}
        rows = read_rows(path) if path.exists() else []
        header = _header(path) or tuple(columns)
        table = cls(header)
        odd = TfflError(f"{path} is not a table with columns {','.join(columns)}")
        if header[: len(columns)] != tuple(columns) or len({*header}) < len(header):
            raise odd
        for row in rows:
            if tuple(row) != table.columns or not str(row["round"]).isdigit():
                raise odd
            _check_numbers(row, path)
            by_round.setdefault(int(row["round"]), []).append(row)
        for round, lines in by_round.items():
            table.append(round, lines)
        return table

    @property
    def rounds(self) -> list[int]:
        """The rounds that have rows, in the order of writing."""
        return list(self._rounds)

    def append(self, round: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds the rows of a round, with values for some of the columns.

        Raises:
          ValueError: A row has a key that is not a column.
        """
        self._rounds[round] = _lines(self.columns, rows)

    def widen(self, columns: Iterable[str]) -> None:
        """Adds those columns that it lacks, with empty cells in the rows that it has."""
        more = tuple(column for column in columns if column not in self.columns)
        if not more:
            return
        before, self.columns = self.columns, self.columns + more
        for round, text in self._rounds.items():
            rows = csv.DictReader(io.StringIO(text, newline=""), before, strict=True)
            self._rounds[round] = _lines(self.columns, rows)

    def keep(self, last: int) -> None:
        """Drops the rows after round `last`."""
        self._rounds = {round: text for round, text in self._rounds.items() if round <= last}

    def text(self) -> str:
        """Returns the whole table as CSV."""
        return to_csv(self.columns, []) + "".join(self._rounds.values())

    def frame(self, first: int = 1) -> pd.DataFrame:
        """Returns the table as pandas reads it; undefined numbers are NaN, reasons empty.

        Args:
          first: Rounds before it are left out, and cost nothing.
        """
        import pandas as pd

        rows = [text for round, text in self._rounds.items() if round >= first]
        undefined = {column: [""] for column in self.columns if column != "reason"}
        return pd.read_csv(
            io.StringIO(to_csv(self.columns, []) + "".join(rows)),
            keep_default_na=False,
            na_values=undefined,
            dtype={"reason": str},
        )


class RunTables:
    """The tables of one run: `rounds.csv` and `clients.csv`."""

    def __init__(self) -> None:
        self.rounds = Table(ROUND_COLUMNS)
        self.clients = Table(CLIENT_COLUMNS)

    @classmethod
    def read(cls, folder: Path) -> RunTables:
        """Reads both tables; one that has no file is empty.

        Raises:
          TfflError: A file is damaged.
        """
        tables = cls()
        tables.rounds = Table.read(folder / "rounds.csv", ROUND_COLUMNS)
        tables.clients = Table.read(folder / "clients.csv", CLIENT_COLUMNS)
        return tables

    def write(self, folder: Path) -> None:
        """Writes both tables.

        Raises:
          TfflError: A file cannot be written; the older one stays as it was.
        """
        write_text(folder / "clients.csv", self.clients.text())
        write_text(folder / "rounds.csv", self.rounds.text())

    def append(
        self, round_row: Mapping[str, Any], client_rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Adds a round: its row, and one for each client.

        They have the columns of `ROUND_COLUMNS` and `CLIENT_COLUMNS`; a table gets those that it
        lacks.
        """
        round = int(round_row["round"])
        self.rounds.widen(round_row)
        self.clients.widen(key for row in client_rows[:1] for key in row)
        self.rounds.append(round, [round_row])
        self.clients.append(round, client_rows)

    def skipped(self) -> set[int]:
        """Returns the rounds that were skipped, of which `clients.csv` has no rows."""
        rounds = self.rounds.frame()
        return set(rounds.loc[rounds["participants"] == 0, "round"].tolist())

    def keep(self, last: int) -> None:
        """Drops the rows after round `last` from both tables."""
        self.rounds.keep(last)
        self.clients.keep(last)

    def frames(self, first: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Returns `rounds.csv` and `clients.csv` as pandas reads them, from round `first` on.

        A round must not become slower with every round before it: parse what is new only.
        """
        return self.rounds.frame(first), self.clients.frame(first)


def _lines(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    for row in rows:
        writer.writerow({key: _text(value) for key, value in row.items()})
    return buffer.getvalue()


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else repr(nine_digits(value))
    text = str(value)
    return f"'{text}" if _is_formula(text) else text


def _header(path: Path) -> tuple[str, ...]:
    """Returns the columns of a CSV file; nothing if it is empty or missing."""
    if not path.exists():
        return ()
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(next(csv.reader(file), ()))


def _is_formula(text: str) -> bool:
    """Says whether a spreadsheet would calculate with a text that is no number."""
    if not text.startswith(FORMULA):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def _check_numbers(row: Mapping[str, Any], path: Path) -> None:
    """Raises `TfflError` unless all cells of a row but the reason are numbers, or empty."""
    for column, cell in row.items():
        if column != "reason" and not _is_number(cell):
            raise TfflError(
                f"{path} is damaged: in round {row['round']}, {column} is {cell or 'missing'}, "
                "which is no number"
            )


def _is_number(text: str | None) -> bool:
    """Says whether a cell holds a number, or is empty; None is a cell that its line lacks."""
    try:
        return text == "" or not math.isnan(float("nan" if text is None else text))
    except ValueError:
        return False


def _without_apostrophe(text: Any) -> Any:
    quoted = isinstance(text, str) and text.startswith("'") and _is_formula(text[1:])
    return text[1:] if quoted else text
