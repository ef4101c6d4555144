"""The user's own model, in whose terms a client's file is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tffl.core.errors import UsageError

if TYPE_CHECKING:
    import keras

INSIDE = ("global.keras", "export/global.keras")
"""Where the model is in the folder of an export, and in that of a run."""


def load_global(path: Path) -> keras.Model:
    """Loads the global model in Keras' safe mode: no Lambda layers.

    Args:
      path: A `.keras` file, a run directory, or its `export` folder.

    Raises:
      UsageError: It is missing, damaged, holds code, or is no classifier of images.
    """
    from tffl.core.process import silence

    silence()
    import keras

    import tffl.models.group_convolution  # noqa: F401 (registers its layer)

    found = next((path / inner for inner in INSIDE if (path / inner).is_file()), path)
    if not found.is_file() or found.suffix != ".keras":
        raise UsageError(f"{path} is no .keras file, and no run that has exported its model")
    try:
        model = keras.saving.load_model(found, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever its layers raise
        line = " ".join(str(error).split())[:300]
        raise UsageError(f"cannot load the global model {found}: {line}") from None
    shapes = (getattr(model, "input_shape", None), getattr(model, "output_shape", None))
    if [len(s) if isinstance(s, tuple) else 0 for s in shapes] != [4, 2]:
        raise UsageError(f"{found} is no model from images to the logits of classes")
    return model
