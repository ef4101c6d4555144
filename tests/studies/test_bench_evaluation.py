"""`tffl bench evaluation`, and what the page of speed makes of it."""

from __future__ import annotations

import pytest

from tffl.config import build
from tffl.core.errors import UsageError
from tffl.studies.bench.evaluation import bench_evaluation
from tffl.studies.pages import speed


def test_an_experiment_is_timed_with_and_without_most_evaluations() -> None:
    config = build(
        {
            "data": {"train_limit": 60},
            "federation": {"clients": 3, "malicious": 0, "rounds": 4},
            "model": {"name": "logistic"},
            "record": {"tensorboard": False, "export": False, "figures": False},
        }
    )
    figures = bench_evaluation(config, every=4, repeats=1)
    shares = figures["evaluation"]
    assert {*figures["seconds"]} == {"every_1", "every_4"}
    assert 0 < shares["every_4"] < shares["every_1"] < 1
    assert figures["ratio"] == figures["seconds"]["every_1"] / figures["seconds"]["every_4"]
    page = "\n".join(speed.evaluation(figures))
    assert f"| 4 | {figures['seconds']['every_4']:.2f} |" in page
    assert not list(speed.evaluation({}))


def test_the_comparison_is_with_one() -> None:
    with pytest.raises(UsageError, match="--every 1 is not allowed"):
        bench_evaluation(build({}), every=1)
