"""What can be reproduced at a scale, and what is said of the rest."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest

from tffl.core.errors import UsageError
from tffl.studies.reproduce import request
from tffl.studies.reproduce.plan import SCALES
from tffl.studies.reproduce.request import check_entries, check_scale, read_plans, run_entries

PLANS = read_plans(Path(__file__).parents[3] / "configs")


def test_scales_are_named() -> None:
    for scale in SCALES:
        check_scale(scale)
    with pytest.raises(UsageError, match="did you mean 'small'"):
        check_scale("smal")


def test_what_has_commands_of_its_own_names_them() -> None:
    (entry,) = PLANS.of("pdgan", "figure-5")
    assert entry.elsewhere is not None
    with pytest.raises(UsageError, match="pdgan figure-5 has commands of its own: "):
        check_entries([entry], "smoke")


def test_a_scale_that_an_item_lacks_is_refused() -> None:
    lacking = [entry for entry in PLANS.entries if entry.scales and "small" not in entry.scales]
    for entry in (entry for entry in lacking if entry.elsewhere is None):
        with pytest.raises(UsageError, match="does not exist at scale small: there is "):
            check_entries([entry], "small")
    check_entries(PLANS.of("pdgan"), "smoke")


def test_each_experiment_runs_once_for_all_of_its_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = PLANS.of("gradcam-ae")
    calls: list[Path] = []

    def record(experiment, items, scale, out, runs, command, progress) -> int:
        calls.append(experiment.path)
        assert len({item.name for item in items}) == len(items) and scale == "smoke"
        progress(0, None, "")
        return 1

    @contextmanager
    def show(total: int):
        assert total > 0
        yield lambda done, cell, error: None

    monkeypatch.setattr(request, "missing_data", lambda entries, scale: [])
    monkeypatch.setattr(request, "reproduce", record)
    assert run_entries(entries, "smoke", tmp_path, tmp_path, (), show) == len(calls)
    assert len(calls) == len(set(calls)) > 1
    monkeypatch.setattr(request, "missing_data", lambda entries, scale: ["gtsrb", "mnist"])
    with pytest.raises(UsageError, match="tffl data prepare gtsrb mnist"):
        run_entries(entries, "smoke", tmp_path, tmp_path, (), show)
