"""Networks: functions `(image_shape, classes) → keras.Model` that end in logits.

Every model takes float images in 0 … 255 and rescales them itself, so that an exported model
takes raw images. `logistic` and `mlp` take feature vectors too, as they are.
"""

from tffl.core.lazy import lazy
from tffl.core.registry import Registry

models = Registry(
    "model",
    {
        "cnn": "tffl.models.small_cnn:cnn",
        "lenet5": "tffl.models.lenet:lenet5",
        "logistic": "tffl.models.perceptron:logistic",
        "mlp": "tffl.models.perceptron:mlp",
        "mobilenet-v2": "tffl.models.applications:mobilenet_v2",
        "mobilenet-v3-large": "tffl.models.applications:mobilenet_v3_large",
        "pdgan-cnn": "tffl.models.pdgan:pdgan_cnn",
        "regnet-y-800mf": "tffl.models.regnet:regnet_y_800mf",
        "resnet18": "tffl.models.resnet:resnet18",
        "resnet18-7x7": "tffl.models.resnet:resnet18_7x7",
        "resnet50": "tffl.models.applications:resnet50",
        "resnet8": "tffl.models.resnet:resnet8",
        "vgg11": "tffl.models.vgg:vgg11",
    },
)

_HOMES = {**models.homes(), "build_network": "tffl.models.build"}

__all__ = [*sorted(_HOMES), "models"]
__getattr__ = lazy(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
