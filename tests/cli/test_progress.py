"""Progress without a terminal is a few lines, never a flood."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tffl.callbacks.base import Round, Start
from tffl.config import build
from tffl_cli.console import rate
from tffl_cli.progress import LINES, Watch, figures


def start(rounds):
    return Start(build({"federation": {"rounds": rounds}}), first=1)


def played(number, **row):
    row = {"round": number, **row}
    return Round(number, [], np.zeros((1, 0), np.float32), row, [], np.zeros(0, np.int32), dict)


@pytest.mark.parametrize("rounds", [1, 7, 10, 100, 1000])
def test_at_most_a_few_lines_and_always_the_last(capsys, rounds):
    with Watch() as watch:
        watch.phase("preparing digits")
        watch.start(start(rounds))
        for done in range(1, rounds + 1):
            watch.round(played(done, accuracy=0.5, attack_success=None))
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert 1 <= len(lines) <= LINES + 1
    assert lines[-1] == f"round {rounds}/{rounds} · accuracy 50.0%"


def test_a_round_without_evaluation_has_no_figures(capsys):
    with Watch() as watch:
        watch.start(start(2))
        watch.round(replace(played(1, accuracy=None), evaluated=False))
        watch.round(played(2, accuracy=0.5))
    assert capsys.readouterr().err.splitlines() == ["round 1/2", "round 2/2 · accuracy 50.0%"]


def test_titles_and_warnings(capsys):
    with Watch() as watch:
        watch.titled("undefended").start(start(1))
        watch.warning("checkpoint 3 is damaged: using 2")
        watch.round(played(1, accuracy=0.25, attack_success=1.0))
    assert capsys.readouterr().err.splitlines() == [
        "Warning: checkpoint 3 is damaged: using 2",
        "undefended: round 1/1 · accuracy 25.0% · attack success 100.0%",
    ]


def test_figures_that_are_not_measured_are_left_out():
    assert figures({"accuracy": 0.5, "attack_success": None}) == "accuracy 50.0%"
    assert figures({"accuracy": math.nan, "attack_success": None}) == "accuracy –"
    assert figures({"accuracy": "0.5", "attack_success": ""}) == "accuracy 50.0%"
    assert rate(None) == rate("") == rate(math.nan) == "–"
