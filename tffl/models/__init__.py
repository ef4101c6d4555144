"""Networks: functions `(image_shape, classes) → keras.Model`, all ending in logits.

Every model takes float images in 0 … 255 and rescales them itself, so that an exported model
serves raw images.
"""

from tffl.registry import Registry

models = Registry(
    "model",
    {
        "cnn": "tffl.models.cnn:cnn",
        "lenet5": "tffl.models.lenet5:lenet5",
        "resnet18": "tffl.models.resnet:resnet18",
    },
)

__all__ = ["models"]
