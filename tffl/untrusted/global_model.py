"""The global model: the user's own, trusted model that clients' files must match."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tffl.core.errors import UsageError
from tffl.models.file import SUFFIX, load_model_file
from tffl.models.validation import check_built
from tffl.untrusted.global_variables import GlobalVariables, is_saved_model, read_global

if TYPE_CHECKING:
    import keras

LOCATIONS = ("global.keras", "export/global.keras")
"""Where the model is in the folder of an export, and in a run directory."""


def find_global(path: Path) -> Path:
    """Returns the file of the global model, without importing TensorFlow.

    Args:
      path: A `.keras` file, a SavedModel, a run directory, or its `export` folder.

    Returns:
      The `.keras` file, or the folder of the SavedModel.

    Raises:
      UsageError: There is no global model.
    """
    found = next((path / inner for inner in LOCATIONS if (path / inner).is_file()), path)
    if not found.exists():
        raise UsageError(f"there is no global model {path}: check the path")
    if not is_saved_model(found) and (not found.is_file() or found.suffix.lower() != SUFFIX):
        raise UsageError(
            f"{path} is neither a .keras file nor a SavedModel, nor a run that has exported its "
            "model"
        )
    return found


def load_global(path: Path) -> keras.Model | GlobalVariables:
    """Loads the global model in Keras' safe mode, which refuses Lambda layers.

    Args:
      path: As `find_global` takes it.

    Returns:
      The model; of a SavedModel, only the variables.

    Raises:
      UsageError: The model is missing, is damaged, contains code, or is not built.
    """
    found = find_global(path)
    from tffl.core.process import silence

    silence()
    if found.is_dir():
        return read_global(found)
    model = load_model_file(found, f"the global model {found}")
    check_built(model, f"the global model {found}")
    return model
