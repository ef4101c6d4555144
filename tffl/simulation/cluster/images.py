"""The images that workers train on: each loads them itself, and proves that they are the chief's.

A chief sends its experiment and the fingerprint of its images. The worker does what the chief has
done with them: it loads the dataset, splits it, and poisons what the attack poisons. Everything
follows from the config and its seed, so equal datasets give equal pools.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tffl.attacks import create_attack
from tffl.config import Config
from tffl.core.errors import TfflError
from tffl.data.build import build_federation
from tffl.data.federation import Dataset
from tffl.simulation.participants import draw_malicious

MARK = "[[refused]]"
"""Around the one line of a refusal, among what TensorFlow writes around it."""


def fingerprint(images: np.ndarray) -> str:
    """Returns the SHA-256 of images uint8 `[P, height, width, channels]`, shape included."""
    digest = hashlib.sha256(repr(images.shape).encode())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def arithmetic() -> str:
    """Returns the SHA-256 of a small convolution's gradients: processor and threads change it.

    Equal ones prove little, but unequal ones show that a run would not repeat to the last bit.
    """
    import tensorflow as tf

    rng = np.random.default_rng(0)
    images = tf.constant(rng.normal(size=(16, 28, 28, 3)).astype(np.float32))
    kernel = tf.constant(rng.normal(size=(5, 5, 3, 16)).astype(np.float32))
    dense = tf.constant(rng.normal(size=(24 * 24 * 16, 10)).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch([kernel, dense])
        maps = tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "VALID"))
        loss = tf.reduce_mean(tf.nn.softmax(tf.reshape(maps, (16, -1)) @ dense) ** 2)
    digest = hashlib.sha256()
    for gradient in tape.gradient(loss, [kernel, dense]):
        digest.update(gradient.numpy())
    return digest.hexdigest()


def training_images(config: Config, dataset: Dataset) -> np.ndarray:
    """Returns the training images of an experiment, uint8 `[P, height, width, channels]`."""
    attack = create_attack(config.attack.name, config.attack.options)
    attack.check(dataset)
    honest = build_federation(config, dataset, attack.reserve(dataset))
    return attack.poison(honest, draw_malicious(config), config.seed).images


def request(config: Config, images: np.ndarray) -> str:
    """Returns what a chief sends: experiment, fingerprint of the images, TensorFlow's version."""
    import tensorflow as tf

    experiment = config.model_dump(mode="json", exclude={"runtime": True, "record": True})
    experiment["data"].pop("data_dir")
    return json.dumps(
        {
            "config": experiment,
            "fingerprint": fingerprint(images),
            "images": len(images),
            "tensorflow": tf.__version__,
            "arithmetic": arithmetic(),
        }
    )


def answer(
    text: bytes, name: str, data_dir: Path | None, load: Callable[[Config], Dataset]
) -> np.ndarray:
    """Returns the images that a request is about, on a worker.

    Args:
      text: What `request` returned.
      name: Of this worker, for the message.
      data_dir: Where this worker has its datasets.
      load: Returns the dataset of a config.

    Raises:
      ValueError: They are not the chief's, or cannot be loaded; one line between two `MARK`.
    """
    import tensorflow as tf

    asked = json.loads(text)
    try:
        if asked["tensorflow"] != tf.__version__:
            raise TfflError(f"has TensorFlow {tf.__version__}, the chief {asked['tensorflow']}")
        if asked["arithmetic"] != arithmetic():
            raise TfflError(
                "computes other last bits than the chief, as another kind of processor does, or "
                "a GPU next to a CPU: results would depend on who trains whom"
            )
        config = Config.model_validate(asked["config"])
        data = config.data.model_copy(update={"data_dir": data_dir})
        config = config.model_copy(update={"data": data})
        images = training_images(config, load(config))
        mine = fingerprint(images)
        if mine != asked["fingerprint"]:
            raise TfflError(
                f"has another {config.data.dataset}: {len(images)} images with fingerprint "
                f"{mine[:16]}, the chief's {asked['images']} have {asked['fingerprint'][:16]}"
            )
    except Exception as error:  # whatever it is, the chief receives one line
        line = " ".join(str(error).split()) or type(error).__name__
        told = line if isinstance(error, TfflError) else f"{type(error).__name__}: {line}"
        raise ValueError(f"{MARK}worker {name}: {told}{MARK}") from None
    return images


def refusal(error: Exception) -> str | None:
    """Returns the line of a refusal that came through TensorFlow; None if it is another error."""
    found = re.search(f"{re.escape(MARK)}(.*?){re.escape(MARK)}", str(error))
    return found[1] if found else None
