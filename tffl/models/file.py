"""Loads whole models from `.keras` files of the user's own."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tffl.core.errors import UsageError, require

if TYPE_CHECKING:
    import keras

SUFFIX = ".keras"
"""Keras accepts it only in lower case."""

CONFIG = "config.json"
"""What every such file holds."""


def check_model_file(path: Path, what: str) -> None:
    """Checks, without TensorFlow, that a file may be a Keras model.

    Args:
      path: The file.
      what: What the message calls it.

    Raises:
      UsageError: There is no such file, or it is something else.
    """
    require(path.exists(), f"there is no file {path}: check the path of {what}")
    is_model = path.is_file() and zipfile.is_zipfile(path)
    if is_model:
        with zipfile.ZipFile(path) as archive:
            is_model = CONFIG in archive.namelist()
    require(
        is_model, f"{what} is no Keras model: give a file that model.save(…{SUFFIX}) has written"
    )


def load_model_file(path: Path, what: str) -> keras.Model:
    """Loads a model in Keras' safe mode, which refuses Lambda layers.

    Args:
      path: The file.
      what: What the message calls it, such as `"the global model my.keras"`.

    Raises:
      UsageError: The file is damaged, or has a layer that Keras does not know or refuses.
    """
    import tffl.models.group_convolution  # noqa: F401 (registers its layer)

    try:
        return _load(path)
    except Exception as error:  # a layer can raise anything while Keras loads it
        raise UsageError(f"cannot load {what}: {_reason(str(error))}") from error


def _reason(message: str) -> str:
    """Returns in one line why Keras could not load a model, and what to do."""
    if unknown := re.search(r"Could not locate (class|function) '([^']+)'", message):
        return (
            f"Keras does not know its {unknown[1]} {unknown[2]}: decorate it with "
            "@keras.saving.register_keras_serializable(), and name its module: --import MODULE"
        )
    if "Lambda" in message and "safe_mode" in message:
        return "it has a Lambda layer, which is code, and code in a file is never run"
    return " ".join(message.split())[:300]


def _load(path: Path) -> keras.Model:
    import keras

    if path.suffix == SUFFIX:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    with TemporaryDirectory(prefix="tffl-") as folder:
        copy = shutil.copy(path, Path(folder) / f"model{SUFFIX}")
        return keras.saving.load_model(copy, compile=False, safe_mode=True)
