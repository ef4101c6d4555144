"""The parts of a report in any output format. Every chart has a table of its numbers."""

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
"""The palette of Okabe and Ito, which color-blind readers can distinguish, and a neutral gray."""

COLORS = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross")
DASHES = ("solid", "dash", "dot", "dashdot")
"""Symbols and dashes that distinguish series without color; longer lists start over."""

MAX_UNBROKEN = 24
"""The largest number of letters in a cell whose words are not broken."""


@dataclass(frozen=True)
class Series:
    """The points of a plot, which may be joined by a line.

    Attributes:
      name: The name in the legend.
      x: The positions.
      y: The values; NaN leaves a gap.
      color: The color, `#rrggbb`.
      symbol: One of `SYMBOLS`; empty draws no points.
      dash: One of `DASHES`; empty draws no line.
      hover: The text of each point, shown when the pointer is on it.
      rows: The row of the plot's table for each point.
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
    """A plot of lines and points.

    Attributes:
      title: The title.
      x_label: The label of the horizontal axis.
      y_label: The label of the vertical axis.
      series: The lines and points.
      rates: Whether the values are rates in 0 … 1, shown in percent.
      square: Whether both axes are rates.
      log: Whether the vertical axis is logarithmic at first.
      linear: The range ± in which a logarithmic axis is linear, to include 0; if it is 0, there is
        no logarithmic axis.
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
    """A chart of stacked bars.

    Attributes:
      title: The title.
      x_label: The label of the horizontal axis.
      y_label: The label of the vertical axis.
      x: The positions of the bars.
      stacks: Name of a part → its height in each bar.
    """

    title: str
    x_label: str
    y_label: str
    x: Sequence[int | str]
    stacks: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class MatrixChart:
    """A matrix of colored cells.

    Attributes:
      title: The title.
      x_label: The label of the horizontal axis.
      y_label: The label of the vertical axis.
      x: The names of the columns.
      y: The names of the rows.
      values: One sequence per row; NaN leaves a cell empty.
      text: The text in the cells; empty for none.
      unit: The unit of the colors.
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


Chart = Plot | Bars | MatrixChart


@dataclass(frozen=True)
class Table:
    """A table of text and formatted numbers.

    Attributes:
      title: The caption.
      header: The names of the columns.
      rows: The rows, one string per column.
      words: The columns that hold words, which are aligned left.
      short: Whether the table fits on a page; only short tables go into Markdown and LaTeX.
      keys: For each row, the client and the verdict words that the filter matches.
      flagged: The rows that are highlighted.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[int] = (0,)
    short: bool = False
    keys: Sequence[tuple[int, str]] = ()
    flagged: Collection[int] = ()

    def transposed(self) -> Table:
        """Returns the transposed table; all its columns but the first hold numbers."""
        (corner, *names), *rows = zip(self.header, *self.rows, strict=True)
        return Table(self.title, [corner, *names], rows)

    @property
    def long(self) -> set[int]:
        """The columns of words with a long cell: only there may a word be broken."""
        cells = [(column, row[column]) for row in self.rows for column in self.words]
        return {column for column, cell in cells if len(cell) > MAX_UNBROKEN}

    @property
    def clients(self) -> list[int]:
        """The clients in the filter's menu."""
        return sorted({client for client, _ in self.keys})


@dataclass(frozen=True)
class Gallery:
    """Heat maps of a round."""

    explanation: Explanation


@dataclass(frozen=True)
class Block:
    """A table with an optional chart, gallery and note."""

    table: Table
    chart: Chart | None = None
    gallery: Gallery | None = None
    note: str = ""


@dataclass(frozen=True)
class Section:
    """Blocks under a heading, after an optional text."""

    title: str
    blocks: Sequence[Block] = ()
    text: str = ""
    level: int = 2


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes:
      title: The title of the page.
      sections: The sections.
      about: The lines below the title.
      warnings: Warnings of unfinished or missing parts.
      headline: The names and values of the most important numbers.
    """

    title: str
    sections: Sequence[Section]
    about: Sequence[str] = ()
    warnings: Sequence[str] = ()
    headline: Sequence[tuple[str, str]] = field(default_factory=list)


def rows_of(names: Iterable[str], columns: Iterable[Sequence[str]]) -> list[list[str]]:
    """Returns the rows of a table from its columns.

    >>> rows_of(["1", "2"], [["x", "y"]])
    [['1', 'x'], ['2', 'y']]
    """
    return [[name, *cells] for name, *cells in zip(names, *columns, strict=True)]
