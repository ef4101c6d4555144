"""The global model: the user's own, trusted model that clients' files must match."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tffl.core.errors import UsageError
from tffl.models.validation import check_classifier

if TYPE_CHECKING:
    import keras

LOCATIONS = ("global.keras", "export/global.keras")
"""Where the model is in the folder of an export, and in a run directory."""

SUFFIX = ".keras"
"""Keras accepts it only in lower case."""


def find_global(path: Path) -> Path:
    """Returns the file of the global model, without importing TensorFlow.

    Args:
      path: A `.keras` file, a run directory, or its `export` folder.

    Raises:
      UsageError: There is no global model.
    """
    found = next((path / inner for inner in LOCATIONS if (path / inner).is_file()), path)
    if not found.exists():
        raise UsageError(f"there is no global model {path}: check the path")
    if not found.is_file() or found.suffix.lower() != SUFFIX:
        raise UsageError(f"{path} is neither a .keras file nor a run that has exported its model")
    return found


def load_global(path: Path) -> keras.Model:
    """Loads the global model in Keras' safe mode, which refuses Lambda layers.

    Args:
      path: A `.keras` file, a run directory, or its `export` folder.

    Raises:
      UsageError: The model is missing, is damaged, contains code, or is not an image classifier.
    """
    found = find_global(path)
    from tffl.core.process import silence

    silence()
    import tffl.models.group_convolution  # noqa: F401 (registers its layer)

    try:
        model = _load(found)
    except Exception as error:  # a layer can raise anything while Keras loads it
        line = " ".join(str(error).split())[:300]
        raise UsageError(f"cannot load the global model {found}: {line}") from None
    check_classifier(model, f"the global model {found}")
    return model


def _load(path: Path) -> keras.Model:
    import keras

    if path.suffix == SUFFIX:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    with TemporaryDirectory(prefix="tffl-") as folder:
        copy = shutil.copy(path, Path(folder) / f"global{SUFFIX}")
        return keras.saving.load_model(copy, compile=False, safe_mode=True)
