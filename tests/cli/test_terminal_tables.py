"""Names of classes and files in terminal tables are printed as they are, and move nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tffl.core.errors import TfflWarning, UsageError
from tffl.report.document import Table
from tffl.studies.split import Split
from tffl_cli.console import console, print_entries, print_report_tables
from tffl_cli.data import MAX_COLUMNS, _table
from tffl_cli.main import _show_warning, print_error
from tffl_cli.progress import Warnings

NAMES = ("[red]sign[/red]", "a\nb", "x\u202eeman", "\x1b[2Jgone", ":warning:", "=1+1", "[/]")
SHOWN = ("[red]sign[/red]", "a\\nb", "x\\u202eeman", "\\x1b[2Jgone", ":warning:", "=1+1", "[/]")


def check(printed: str) -> None:
    assert not {"\x1b", "\u202e"} & set(printed)
    assert all(name in printed for name in SHOWN), printed


def test_classes_of_a_split(capsys: pytest.CaptureFixture[str]) -> None:
    counts = np.eye(len(NAMES), dtype=int)
    holders = [f"client {index}" for index in range(len(NAMES))]
    few = Split(holders, counts, NAMES, "", len(NAMES), 0, False)
    console().print(_table(few))
    check(capsys.readouterr().out)
    unused = [str(number) for number in range(MAX_COLUMNS)]
    padded = np.pad(counts, ((0, 0), (0, MAX_COLUMNS)))
    console().print(_table(replace(few, counts=padded, class_names=(*NAMES, *unused))))
    check(capsys.readouterr().out)


def test_entries_and_reports(capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"summary": "[b]", "needs": ["[/b]"], "reference": ""}
    print_entries([{"name": name, **entry} for name in NAMES], "needs")
    check(capsys.readouterr().out)
    print_report_tables(
        [Table("[i]title", ("[i]", "[/]"), tuple(zip(NAMES, NAMES, strict=True)))], []
    )
    check(capsys.readouterr().out)
    print_report_tables([], NAMES)
    check(capsys.readouterr().out)


def test_warnings_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    Warnings().warning(" ".join(NAMES))
    check(capsys.readouterr().err)
    assert print_error(UsageError(" ".join(NAMES)), verbose=False) == 2
    check(capsys.readouterr().err)
    _show_warning(" ".join(NAMES), TfflWarning, "file", 1)
    check(capsys.readouterr().err)
