"""The Keras settings that tffl needs, whatever the user's `keras.json` and environment say.

The backend can be chosen only before Keras is imported, hence in `import tffl`; the other settings
only afterwards. If the user imported Keras first, tffl does not change its settings, and raises an
error if they do not suit.
"""

from __future__ import annotations

import os
import sys

from tffl.core.errors import UsageError, require

NEEDED = {"floatx": "float32", "image_data_format": "channels_last"}
"""Setting of `keras.config` → the value that the compiled functions need."""

_imported_first = any(name.partition(".")[0] == "keras" for name in sys.modules)


def choose_backend() -> None:
    """Chooses TensorFlow as the backend of Keras, unless Keras is imported already."""
    if not _imported_first:
        os.environ["KERAS_BACKEND"] = "tensorflow"


def settle() -> None:
    """Imports Keras, and sets what tffl needs if the user has not imported Keras before tffl.

    Raises:
      UsageError: Keras cannot be imported, or was imported before tffl with other settings.
    """
    try:
        import keras
    except (
        ImportError,
        ValueError,
    ) as error:  # of its backend, or of keras.json
        line = str(error).strip().splitlines()[0]
        raise UsageError(
            f"Keras cannot be imported ({line}): look at ~/.keras/keras.json, and import tffl "
            "before Keras and TensorFlow, or with KERAS_BACKEND=tensorflow"
        ) from error
    backend = keras.config.backend()
    require(
        backend == "tensorflow",
        f"Keras was imported before tffl, with the backend {backend}, and tffl needs tensorflow: "
        "import tffl first, or set KERAS_BACKEND=tensorflow",
    )
    for name, needed in NEEDED.items():
        _set(name, getattr(keras.config, name)(), needed)
    # Keras may have taken the policy from floatx. Mixed policies keep their weights in float32.
    _set("dtype_policy", keras.config.dtype_policy().variable_dtype, "float32")


def _set(name: str, value: str, needed: str) -> None:
    import keras

    if value == needed:
        return
    require(
        not _imported_first,
        f"Keras was imported before tffl, with {name} {value}, and tffl needs {needed}: import "
        f"tffl first, or call keras.config.set_{name}('{needed}')",
    )
    getattr(keras.config, f"set_{name}")(needed)
