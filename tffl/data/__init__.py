"""Datasets, and how they are split over clients."""

from tffl.core.lazy import lazy
from tffl.core.registry import Registry
from tffl.data.federation import ClientData, Dataset, Federation

datasets = Registry(
    "dataset",
    {
        "digits": "tffl.data.digits:Digits",
        "mnist": "tffl.data.tfds:Mnist",
        "fashion_mnist": "tffl.data.tfds:FashionMnist",
        "cifar10": "tffl.data.tfds:Cifar10",
        "cifar100": "tffl.data.tfds:Cifar100",
        "svhn_cropped": "tffl.data.tfds:SvhnCropped",
        "gtsrb": "tffl.data.tfds:Gtsrb",
    },
)

_HOMES = {
    **datasets.homes(),
    "build_federation": "tffl.data.build",
    "from_arrays": "tffl.data.arrays",
    "load_dataset": "tffl.data.build",
}

__all__ = [*sorted(_HOMES), "ClientData", "Dataset", "Federation", "datasets"]
__getattr__ = lazy(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
