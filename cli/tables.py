"""Tables on a terminal, whose cells may be a stranger's words."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from tffl.untrusted.refusal import escape_controls


def words(text: str) -> Text:
    r"""Returns a text that is printed as it is: in one line, and without markup.

    >>> words("[red]a\nb").plain
    '[red]a\\nb'
    """
    return Text(escape_controls(text))


class PlainTable(Table):
    """A table whose strings are printed as they are: names of classes and files are no markup."""

    def __init__(
        self,
        *headers: str,
        right: Collection[int] | None = None,
        unbroken: Collection[int] = (),
        folded: Collection[int] = (),
        title: str = "",
    ) -> None:
        """Makes a table without rows.

        Args:
          headers: One per column.
          right: Columns of numbers, which are aligned to the right; all but the first if None.
          unbroken: Columns that stay on one line.
          folded: Columns whose text breaks anywhere, so that nothing of it is cut off.
          title: Stands above it, on the left.
        """
        above = words(title) if title else None
        super().__init__(box=box.SIMPLE_HEAD, pad_edge=False, title=above, title_justify="left")
        numbers = range(1, len(headers)) if right is None else right
        for index, header in enumerate(headers):
            self.add_column(
                words(header),
                justify="right" if index in numbers else "left",
                no_wrap=index in unbroken,
                overflow="fold" if index in folded else "ellipsis",
            )

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Adds a row; control characters, markup and line breaks of strings have no effect."""
        super().add_row(*(words(c) if isinstance(c, str) else c for c in cells), **options)
