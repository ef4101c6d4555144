"""The global model, as others load it: a SavedModel that serves, and a Keras file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tffl.core.atomic import replacing, tensorflow_writing

if TYPE_CHECKING:
    import keras

    from tffl.defenses.exports import DetectorExport


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


def export_detector(detector: DetectorExport, folder: Path) -> None:
    """Writes a trained detector for servers that have TensorFlow but not tffl.

    `folder/saved_model/` has the detector's signatures. One that looks at heat maps has
    `serving_default`, which takes `maps`, raw heat maps float32 `[clients, probes, height,
    width]`, and returns `reconstruction` and `score` `[clients]`. Next to it are the networks as
    `.keras` files, arrays such as the images to make maps of, `probes.npy`, and `detector.json`:
    layer, method, classes and threshold, or what else the detector goes by.

    Raises:
      TfflError: The disk is full, or the folder is not writable.
    """
    from tffl.core.jsonable import write_json

    with tensorflow_writing(folder):
        with replacing(folder / "saved_model") as temporary:
            _saved_detector(detector, temporary)
        for name, network in detector.networks.items():
            with replacing(folder / f"{name}.keras") as temporary:
                network.save(temporary)
        for name, array in detector.arrays.items():
            with replacing(folder / f"{name}.npy") as temporary, open(temporary, "wb") as file:
                np.save(file, array)
    write_json(folder / "detector.json", detector.about)


def _saved_detector(detector: DetectorExport, folder: Path) -> None:
    import keras
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    for network in detector.networks.values():
        archive.track(network)
    for name, endpoint in detector.endpoints.items():
        inputs = [tf.TensorSpec(*each, name=key) for key, each in endpoint.inputs.items()]
        archive.add_endpoint(name, endpoint.function, inputs)
    archive.write_out(str(folder), verbose=False)


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
