"""Runs and benchmarks written by hand, as fixtures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_data import benchmark_rows, write_run

from tffl.record.tables import to_csv
from tffl.studies import benchmark


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str = "run", **options: Any) -> Path:
        return write_run(tmp_path / name, **options)

    return make


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    path = tmp_path / "bench"
    path.mkdir()
    (path / "results.csv").write_text(to_csv(benchmark.COLUMNS, benchmark_rows()))
    return path
