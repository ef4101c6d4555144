"""The public names are there, imported when they are first used, and their examples run."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module

import pytest

PACKAGES = ("callbacks", "data", "models")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_and_listed(package: str) -> None:
    module = import_module(f"tffl.{package}")
    assert len({*module.__all__}) == len(module.__all__) and {*module.__all__} <= {*dir(module)}
    for name in module.__all__:
        assert not inspect.ismodule(getattr(module, name)), name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_class_and_function_has_an_example(package: str) -> None:
    module = import_module(f"tffl.{package}")
    plain = {"build_federation", "build_network", "load_dataset"}
    lacking = [
        name
        for name in {*module.__all__} - plain
        if callable(getattr(module, name)) and ">>>" not in (getattr(module, name).__doc__ or "")
    ]
    assert not lacking


def test_they_import_nothing_heavy_before_they_are_used() -> None:
    code = (
        "import sys, tffl; tffl.callbacks.EarlyStopping(); tffl.models.lenet5; tffl.data.Digits();"
        "print([name for name in ('tensorflow', 'keras', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
