"""What a report is made of, whatever it is written as: every chart comes with its numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tffl.drawing.explanation import Explanation

BLUE, RED, GREEN, ORANGE, SKY, PURPLE, GRAY = (
    *("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"),
    "#888888",
)
"""The palette of Okabe and Ito, which color-blind readers tell apart, and a neutral gray."""

COLORS = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross")
DASHES = ("solid", "dash", "dot", "dashdot")
"""Shapes repeat what colors say; lists begin anew where they end."""


WORD = 24
"""Letters, at most, of what a table does not break."""


@dataclass(frozen=True)
class Series:
    """Points of a plot, joined by lines or not.

    Attributes:
      name: For the legend.
      x: Positions.
      y: Values; NaN leaves a gap.
      color: As `#rrggbb`.
      symbol: One of `SYMBOLS`; empty draws no points.
      dash: One of `DASHES`; empty draws no line.
      hover: What a point says of itself, with newlines between lines.
      rows: For each point, the row of the plot's table that it stands for.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str = BLUE
    symbol: str = "circle"
    dash: str = "solid"
    hover: Sequence[str] = ()
    rows: Sequence[int] = ()


@dataclass(frozen=True)
class Plot:
    """Lines and points.

    Attributes:
      rates: Values are rates in 0 … 1, shown in percent.
      square: Both axes are rates.
      log: The vertical axis is logarithmic at first.
      linear: Within ± this value a logarithmic axis is linear, so that it has room for 0; without
        it there is no logarithmic axis.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    rates: bool = False
    square: bool = False
    log: bool = False
    linear: float = 0.0


@dataclass(frozen=True)
class Bars:
    """Stacked bars: `stacks` are names with one value for each of `x`."""

    title: str
    x_label: str
    y_label: str
    x: Sequence[int | str]
    stacks: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Grid:
    """A matrix of colored cells.

    Attributes:
      values: One sequence per row; NaN leaves a cell empty.
      text: What is written in the cells; empty writes nothing.
      unit: What the colors mean.
      low: The value of the darkest color.
      high: The value of the brightest color; None takes the largest value.
    """

    title: str
    x_label: str
    y_label: str
    x: Sequence[str]
    y: Sequence[str]
    values: Sequence[Sequence[float]]
    text: Sequence[Sequence[str]] = ()
    unit: str = ""
    low: float = 0.0
    high: float | None = None


Chart = Plot | Bars | Grid


@dataclass(frozen=True)
class Table:
    """Numbers as text.

    Attributes:
      title: A caption.
      header: Names of the columns.
      rows: One string per column.
      words: Columns that hold words, which are set flush left.
      short: Fits a page: papers and Markdown show it too.
      keys: For each row, the client and the verdicts that a filter finds it by.
      flagged: Rows that stand out.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[int] = (0,)
    short: bool = False
    keys: Sequence[tuple[int, str]] = ()
    flagged: Collection[int] = ()

    def transposed(self) -> Table:
        """Returns the same table with a column for each row, all of them numbers."""
        (corner, *names), *rows = zip(self.header, *self.rows, strict=True)
        return Table(self.title, [corner, *names], rows)

    @property
    def long(self) -> set[int]:
        """Columns of words in which something is long: they alone may break within a word."""
        cells = [(column, row[column]) for row in self.rows for column in self.words]
        return {column for column, cell in cells if len(cell) > WORD}

    @property
    def clients(self) -> list[int]:
        """The clients that a filter offers."""
        return sorted({client for client, _ in self.keys})


@dataclass(frozen=True)
class Gallery:
    """Heat maps of a round."""

    look: Explanation


@dataclass(frozen=True)
class Block:
    """A chart, pictures, or neither; the numbers behind it; and what there is to say about it."""

    table: Table
    chart: Chart | None = None
    gallery: Gallery | None = None
    note: str = ""


@dataclass(frozen=True)
class Section:
    """Blocks under a heading; a section without blocks has only its text."""

    title: str
    blocks: Sequence[Block] = ()
    text: str = ""
    level: int = 2


@dataclass(frozen=True)
class Report:
    """Everything that is told.

    Attributes:
      title: Of the page.
      about: Lines below it.
      warnings: What is unfinished or missing.
      figures: The few numbers that matter most, with their names.
    """

    title: str
    sections: Sequence[Section]
    about: Sequence[str] = ()
    warnings: Sequence[str] = ()
    figures: Sequence[tuple[str, str]] = field(default_factory=list)


def paired(first: str, names: Iterable[str], columns: Iterable[Sequence[str]]) -> list[list[str]]:
    """Returns the rows of a table whose columns are given, below `names`.

    >>> paired("a", ["1", "2"], [["x", "y"]])
    [['1', 'x'], ['2', 'y']]
    """
    return [[name, *cells] for name, *cells in zip(names, *columns, strict=True)]
