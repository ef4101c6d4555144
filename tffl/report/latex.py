"""The tables of a report as LaTeX, for papers."""

from __future__ import annotations

from tffl.report.document import Report, Table
from tffl.untrusted.refusal import escape_controls

_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "→": r"$\to$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "–": "--",
    "…": r"\ldots{}",
}


def latex_tables(report: Report) -> str:
    """Returns every short table of a report as a float that uses the package booktabs."""
    head = [f"% {_comment(line)}" for line in [report.title, *report.about, *report.warnings]]
    head.append(r"% In the preamble: \usepackage{booktabs}")
    head.append("% Names in letters that are not Latin need XeLaTeX or LuaLaTeX, and a font.")
    tables = [
        _table(block.table, f"{section.title}: {block.table.title}")
        for section in report.sections
        for block in section.blocks
        if block.table.short
    ]
    return "\n\n".join(["\n".join(head), *tables]) + "\n"


def escape(text: str) -> str:
    r"""Returns a user's text, escaped so that LaTeX prints it literally.

    >>> print(escape("50 % of a_b"))
    50 \% of a\_b
    """
    line = escape_controls(text.replace("\n", " "))
    return "".join(_SPECIAL.get(letter, letter) for letter in line)


def _comment(text: str) -> str:
    """Returns text without line breaks, so that it stays inside a comment."""
    return escape_controls(" ".join(text.split()))


def _table(table: Table, caption: str) -> str:
    columns = "".join("l" if column in table.words else "r" for column in range(len(table.header)))
    # Without the braces, `\\` would take a cell that begins with a bracket as its option.
    rows = [" & ".join("{" + escape(cell) + "}" for cell in row) + r" \\" for row in table.rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(caption)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join("{" + escape(name) + "}" for name in table.header) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )
