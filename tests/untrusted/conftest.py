"""Fixtures: the tiny model, a client's model, and its files."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tffl.untrusted import ExpectedVariables

from .models import WRITERS, build, trained


@pytest.fixture(scope="session")
def client() -> keras.Model:
    return trained()


@pytest.fixture(scope="session")
def expected() -> ExpectedVariables:
    return ExpectedVariables.of(build())


@pytest.fixture(scope="session")
def vector(client: keras.Model, expected: ExpectedVariables) -> np.ndarray:
    return expected.layout.flatten(client.get_weights())


@pytest.fixture(scope="session")
def files(client: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client's model in every format; tests must not change it."""
    folder = tmp_path_factory.mktemp("files")
    for name, write in WRITERS.items():
        write(client, folder / name)
    return folder
