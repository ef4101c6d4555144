"""What an exported GAN audit serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tffl.defenses.exports import Endpoint
from tffl.gan.serving import AuditGraph

if TYPE_CHECKING:
    import tensorflow as tf


def audit_endpoints(
    auditor: AuditGraph, networks: Mapping[str, Any], shape: tuple[int, int, int]
) -> dict[str, Endpoint]:
    """Returns `audit`, and with a GAN `generate` and `discriminate`; see `GanAudit.exports`.

    Args:
      auditor: Judges logits.
      networks: Keras models, `generator` and `discriminator`; empty without a GAN.
      shape: Of an image, height × width × channels.
    """
    import tensorflow as tf

    logits = {"logits": ((None, None, auditor.outputs), "float32")}
    if "discriminator" not in networks:
        return {"audit": Endpoint(auditor, logits)}
    generator, discriminator = networks["generator"], networks["discriminator"]
    images = {"images": ((None, *shape), "float32")}

    def discriminate(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = tf.cast(discriminator(images, training=False), tf.float32)
        return {"real": 1 - tf.nn.softmax(logits)[:, -1], "logits": logits}

    def generate(z: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"images": generator(z, training=False)}

    def judge(images: tf.Tensor, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        return {**auditor(logits), "real": discriminate(images)["real"]}

    return {
        "generate": Endpoint(generate, {"z": ((None, generator.input_shape[-1]), "float32")}),
        "discriminate": Endpoint(discriminate, images),
        "audit": Endpoint(judge, {**images, **logits}),
    }
