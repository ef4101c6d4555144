"""What users set Keras to: changed where tffl comes first, refused in one line where Keras did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest

from tffl.core import keras_settings, process
from tffl.core.errors import UsageError

TINY = """
import tffl
run = tffl.simulate({
    "data": {"train_limit": 40, "test_limit": 20},
    "federation": {"clients": 2, "rounds": 1},
    "model": {"name": "lenet5"},
    "runtime": {"devices": 1},
})
print(len(run.rounds), {str(v.dtype) for v in run.model.variables}, run.model.output_shape)
"""

FIRST = """
import sys, types
sys.modules["keras.src.backend.config"] = types.ModuleType("config")
import tffl
sys.exit(3 if tffl.core.keras_settings._imported_first else 0)
"""


@pytest.fixture
def settings() -> Iterator[None]:
    before = keras.config.dtype_policy()
    yield
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy(before)


def run(code: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    strange = {"floatx": "float16", "image_data_format": "channels_first", "backend": "torch"}
    (home / "keras.json").write_text(json.dumps(strange))
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KERAS_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_a_run_does_not_depend_on_what_keras_is_set_to(tmp_path: Path) -> None:
    found = run(TINY, tmp_path, KERAS_BACKEND="jax")
    assert found.stdout == "1 {'float32'} (None, 10)\n", found.stderr


def test_tffl_knows_that_keras_was_there_first(tmp_path: Path) -> None:
    """Parts of Keras stay imported where the rest, such as its backend, could not be."""
    assert run(FIRST, tmp_path).returncode == 3


@pytest.mark.parametrize(
    ("name", "value", "needed"),
    [
        ("floatx", "float16", "float32"),
        ("floatx", "float64", "float32"),
        ("image_data_format", "channels_first", "channels_last"),
        ("dtype_policy", "float64", "float32"),
    ],
)
def test_settings_are_changed_only_if_they_are_not_the_user_s(
    settings: None, monkeypatch: pytest.MonkeyPatch, name: str, value: str, needed: str
) -> None:
    getattr(keras.config, f"set_{name}")(value)
    monkeypatch.setattr(keras_settings, "_imported_first", True)
    with pytest.raises(UsageError, match=rf"{name} {value}.* call keras.config.set_{name}\("):
        keras_settings.settle()
    monkeypatch.setattr(keras_settings, "_imported_first", False)
    keras_settings.settle()
    now = getattr(keras.config, name)()
    assert getattr(now, "name", now) == needed


def test_a_mixed_policy_stays(settings: None) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras_settings.settle()
    assert keras.config.dtype_policy().name == "mixed_bfloat16"


def test_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(UsageError, match="with the backend jax, and tffl needs tensorflow"):
        keras_settings.settle()


def test_a_keras_that_cannot_be_imported_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(UsageError, match=r"Keras cannot be imported .*KERAS_BACKEND=tensorflow"):
        keras_settings.settle()


def test_what_tensorflow_does_not_take_of_keras_json_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(name: str) -> None:
        raise AssertionError  # as TensorFlow does where floatx is bfloat16

    monkeypatch.delitem(sys.modules, "tensorflow")
    monkeypatch.setattr(process, "import_module", refuse)
    with pytest.raises(UsageError, match=r"keras\.json"):
        process.silence()


def test_the_user_s_own_choice_of_a_backend_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(keras_settings, "_imported_first", True)
    keras_settings.choose_backend()
    assert os.environ["KERAS_BACKEND"] == "jax"
    monkeypatch.setattr(keras_settings, "_imported_first", False)
    keras_settings.choose_backend()
    assert os.environ["KERAS_BACKEND"] == "tensorflow"
