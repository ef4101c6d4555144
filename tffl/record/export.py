"""The global model, as others load it: a SavedModel that serves, and a Keras file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tffl.record.atomic import replacing, tensorflow_writing

if TYPE_CHECKING:
    import keras


def export(model: keras.Model, folder: Path) -> None:
    """Writes `folder/global/` and `folder/global.keras`.

    The SavedModel needs nothing but TensorFlow. Its signature `serving_default` takes `images`,
    float32 `[batch, height, width, channels]` in 0 … 255, and returns `logits`, float32
    `[batch, classes]`.

    Raises:
      TfflError: The disk is full, or the folder is not writable.
    """
    with tensorflow_writing(folder):
        with replacing(folder / "global") as temporary:
            _saved_model(model, temporary)
        with replacing(folder / "global.keras") as temporary:
            model.save(temporary)


def _saved_model(model: keras.Model, folder: Path) -> None:
    import keras
    import tensorflow as tf

    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": tf.cast(model(images, training=False), tf.float32)}

    images = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="images")
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", serve, [images])
    archive.write_out(str(folder), verbose=False)
