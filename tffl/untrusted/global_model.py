"""The user's own model, in whose terms a client's file is read."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tffl.core.errors import UsageError
from tffl.models.validation import check_classifier

if TYPE_CHECKING:
    import keras

INSIDE = ("global.keras", "export/global.keras")
"""Where the model is in the folder of an export, and in that of a run."""

ENDING = ".keras"
"""Keras takes it in lower case only."""


def find_global(path: Path) -> Path:
    """Returns the file of the global model; imports no TensorFlow.

    Args:
      path: A `.keras` file, a run directory, or its `export` folder.

    Raises:
      UsageError: There is none.
    """
    found = next((path / inner for inner in INSIDE if (path / inner).is_file()), path)
    if not found.exists():
        raise UsageError(f"there is no global model {path}: check the path")
    if not found.is_file() or found.suffix.lower() != ENDING:
        raise UsageError(f"{path} is no .keras file, and no run that has exported its model")
    return found


def load_global(path: Path) -> keras.Model:
    """Loads the global model in Keras' safe mode: no Lambda layers.

    Args:
      path: A `.keras` file, a run directory, or its `export` folder.

    Raises:
      UsageError: It is missing, damaged, holds code, or is no classifier of images.
    """
    found = find_global(path)
    from tffl.core.process import silence

    silence()
    import tffl.models.group_convolution  # noqa: F401 (registers its layer)

    try:
        model = _load(found)
    except Exception as error:  # Keras raises whatever its layers raise
        line = " ".join(str(error).split())[:300]
        raise UsageError(f"cannot load the global model {found}: {line}") from None
    check_classifier(model, f"the global model {found}")
    return model


def _load(path: Path) -> keras.Model:
    import keras

    if path.suffix == ENDING:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    with TemporaryDirectory(prefix="tffl-") as folder:
        copy = shutil.copy(path, Path(folder) / f"global{ENDING}")
        return keras.saving.load_model(copy, compile=False, safe_mode=True)
