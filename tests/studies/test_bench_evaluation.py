"""`tffl bench evaluation`, and what the page of speed makes of it."""

from __future__ import annotations

import pytest

from tffl.config import Config, build
from tffl.core.errors import UsageError
from tffl.studies.bench import evaluation
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
    assert all(0 < share < 1 for share in shares.values())
    page = "\n".join(speed.evaluation(figures))
    assert f"| 4 | {figures['seconds']['every_4']:.2f} |" in page
    assert not list(speed.evaluation({}))


def test_figures_are_medians_of_runs_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {
        1: iter([(9.0, 9.0), (10.0, 2.0), (9.0, 1.8), (90.0, 1.9)]),
        5: iter([(8.0, 0.4)] * 3),
    }
    order: list[int] = []

    def run(config: Config, every: int, shared: object) -> tuple[float, float]:
        order.append(every)
        return next(measured[every])

    monkeypatch.setattr(evaluation, "_run", run)
    figures = bench_evaluation(build({}), every=5, repeats=3)
    assert order == [1, 1, 5, 1, 5, 1, 5]
    assert figures["seconds"] == {"every_1": 10, "every_5": 8}
    assert figures["evaluation"] == pytest.approx({"every_1": 0.19, "every_5": 0.05})
    assert figures["ratio"] == 1.25


def test_the_comparison_is_with_one() -> None:
    with pytest.raises(UsageError, match="--every 1 is not allowed"):
        bench_evaluation(build({}), every=1)
