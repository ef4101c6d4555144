"""Randomly damaged files are refused or read as finite weights; nothing else happens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fuzzing.files import Damage, damages
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tffl.untrusted import ExpectedVariables, Refused, read_model

from .models import WRITERS

FILES = [name for name in WRITERS if "." in name]
PARTS = ("variables.index", "variables.data-00000-of-00001")


def check(path: Path, expected: ExpectedVariables) -> None:
    try:
        weights = read_model(path, expected)
    except Refused as refused:
        assert str(refused) and "\n" not in str(refused)
        return
    assert weights.shape == (expected.layout.size,) and weights.dtype == np.float32
    assert np.isfinite(weights).all()
    assert (weights[expected.layout["norm/moving_variance"]] >= 0).all()


shared = settings(
    deadline=10_000,
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize("name", FILES)
@given(how=damages)
@shared
def test_damaged_files(name: str, how: Damage, files: Path, expected, tmp_path):
    path = tmp_path / name
    path.write_bytes(how.of((files / name).read_bytes()))
    check(path, expected)


@pytest.mark.parametrize("part", PARTS)
@given(how=damages)
@settings(shared, max_examples=40)
def test_damaged_saved_models(part: str, how: Damage, files: Path, expected, tmp_path):
    variables = tmp_path / "m" / "variables"
    variables.mkdir(parents=True, exist_ok=True)
    for name in PARTS:
        content = (files / "saved_model" / "variables" / name).read_bytes()
        (variables / name).write_bytes(how.of(content) if name == part else content)
    check(tmp_path / "m", expected)


@pytest.mark.parametrize("name", FILES)
@given(content=st.binary(max_size=400))
@settings(shared, max_examples=40)
def test_noise(name: str, content: bytes, expected, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Refused):
        read_model(path, expected)
