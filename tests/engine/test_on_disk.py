"""Updates in a temporary file: the same numbers, and no file remains."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tffl
from tffl.config import override
from tffl.core.errors import TfflError
from tffl.engine import on_disk
from tffl.simulation.shared_resources import SharedResources

SETTING = {
    "data": {"train_limit": 200, "test_limit": 100},
    "federation": {"clients": 6, "malicious": 2, "rounds": 2},
    "model": {"name": "lenet5"},
    "attack": {"name": "min-max"},
}


def test_matrix_lies_in_an_unnamed_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    matrix = on_disk.zeros(3, 5000)
    matrix[1] = 2.5
    assert matrix.dtype == np.float32 and matrix.shape == (3, 5000)
    assert matrix.sum() == 12_500
    assert list(tmp_path.iterdir()) == []
    assert on_disk.zeros(1, 1).shape == (1, 1)


def test_full_disk_gives_a_one_line_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(on_disk, "_reserve", full)
    with pytest.raises(TfflError, match=r"cannot keep 1\.0 GiB of updates in .*No space left"):
        on_disk.zeros(1 << 14, 1 << 14)


@pytest.mark.parametrize("defense", ["trimmed-mean", "multi-krum", "median"])
def test_updates_on_disk_give_the_same_numbers(defense: str) -> None:
    shared = SharedResources()

    def clients(on_disk: bool) -> pd.DataFrame:
        changes = {"defense.name": defense, "runtime.updates_on_disk": on_disk}
        return tffl.simulate(override(SETTING, changes), shared=shared).clients

    pd.testing.assert_frame_equal(clients(True), clients(False))
