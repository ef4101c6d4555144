"""Where the images of a scan come from: a dataset's test part, or a folder of images per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tffl.config import DataConfig, build, part_options
from tffl.core.errors import UsageError, require, unknown
from tffl.data.build import check_prepared, load_dataset
from tffl.data.samples import Samples
from tffl.scan.images import OTHERS, check_image_model
from tffl.untrusted.global_variables import GlobalVariables

if TYPE_CHECKING:
    import keras

    from tffl.data.sources.folder import ImageFolder

TABLES = (".csv", ".parquet")
KEYS = ("skip_broken", "test_share")
"""Keys of the section `[data]` that decide which images a scan uses."""


@dataclass(frozen=True)
class ImageSource:
    """Labeled images that show what clients' models look at.

    Attributes:
      config: The dataset and how it is read.
      probes: Whether it is a folder of which all images are used, not only a test part.
      classes: The classes of the global model in the order of its outputs; if empty, the order is
        that of the dataset, or of the names of the folders.
    """

    config: DataConfig
    probes: bool = False
    classes: tuple[str, ...] = ()

    def check(self) -> None:
        """Checks, without TensorFlow, that the images are there.

        Raises:
          UsageError: They are not, or they are something else.
        """
        name = self.config.dataset
        require(
            len(set(self.classes)) == len(self.classes),
            f"--class-order {','.join(self.classes)} is not allowed: a class occurs more than once",
        )
        if self.probes:
            self._folder(None).files()
            return
        require(
            not name.lower().endswith(TABLES),
            f"a scan looks at images, and {name} is a table: leave out --dataset; {OTHERS}",
        )
        check_prepared(self.config)

    def load(self, model: keras.Model | GlobalVariables) -> Samples:
        """Returns the images in the size that a model expects.

        Raises:
          UsageError: They do not suit the model, or the model takes no images.
          TfflError: Files are damaged.
        """
        name = self.config.dataset
        model = check_image_model(model, f"a scan with the images of {name}")
        require(
            len(model.input_shape) == 4,
            f"the global model takes feature vectors {model.input_shape[1:]}, and a scan looks at "
            f"images: leave out {name}; {OTHERS}",
        )
        height, width, channels = model.input_shape[1:]
        size = height if height == width else None
        samples = self._probes(size) if self.probes else self._test_part(size)
        samples = self._in_order(samples, int(model.output_shape[-1]))
        shape, classes = samples.images.shape[1:], samples.classes
        wanted = (height or shape[0], width or shape[1], channels)
        require(
            shape == wanted and classes <= model.output_shape[-1],
            f"{name} has images of {shape} in {classes} classes, but the global model takes "
            f"{model.input_shape[1:]} and has {model.output_shape[-1]} outputs: choose the dataset "
            "that it was made for",
        )
        return samples

    def _test_part(self, size: int | None) -> Samples:
        found = load_dataset(self.config.model_copy(update={"image_size": size}))
        return Samples(found.test_images, found.test_labels, found.classes, found.class_names)

    def _probes(self, size: int | None) -> Samples:
        folder = self._folder(size)
        train, test = folder.files()
        files = [*train, *test]
        rows, images = folder.read(files)
        names, labels = np.unique([files[row].label for row in rows], return_inverse=True)
        return Samples(images, labels.astype(np.int32), len(names), tuple(map(str, names)))

    def _folder(self, size: int | None) -> ImageFolder:
        from tffl.data.sources.folder import ImageFolder

        path = Path(self.config.dataset).expanduser()
        if not path.is_dir():
            raise UsageError(f"--probes {path} is no folder: give one with a folder per class")
        return ImageFolder(path, self.config.model_copy(update={"image_size": size}))

    def _in_order(self, samples: Samples, outputs: int) -> Samples:
        """Returns samples whose labels are the numbers of a model's outputs."""
        classes = self.classes
        if self.probes and not classes:
            classes = _usual_order(samples.names, outputs, self.config.dataset)
        if not classes:
            return samples
        require(
            len(classes) <= outputs,
            f"--class-order names {len(classes)} classes, and the global model has only {outputs} "
            "outputs: name one class for each output",
        )
        for name in samples.names:
            if name not in classes:
                raise unknown(f"class of {self.config.dataset}", name, classes)
        numbers = np.array([classes.index(name) for name in samples.names], np.int32)
        return replace(samples, labels=numbers[samples.labels], classes=len(classes), names=classes)


def image_source(
    dataset: str | None,
    probes: Path | None = None,
    settings: Sequence[str] = (),
    *,
    data_dir: Path | None = None,
    classes: Sequence[str] = (),
) -> ImageSource | None:
    """Returns where the images of a scan come from; None if it has none.

    Args:
      dataset: The name or path of a dataset.
      probes: A folder of images per class.
      settings: Such as `"data.skip_broken=true"`.
      data_dir: The folder of prepared datasets; None for the default.
      classes: As in `ImageSource`.

    Raises:
      UsageError: A setting does not exist, changes nothing here, or is out of range.
    """
    options = part_options(settings, "data")["data"]
    for key in options:
        require(
            key in KEYS, f"--set data.{key} changes nothing here: set data.{' or data.'.join(KEYS)}"
        )
    if dataset is None and probes is None:
        require(not options, "--set data.KEY belongs to --dataset or --probes: give one")
        return None
    place = {"dataset": str(dataset or probes), "data_dir": data_dir}
    return ImageSource(build({"data": options | place}).data, dataset is None, tuple(classes))


def split_settings(settings: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the settings that begin with `data.`, and the others."""
    data = tuple(setting for setting in settings if setting.startswith("data."))
    return data, tuple(setting for setting in settings if setting not in data)


def _usual_order(names: Sequence[str], outputs: int, folder: str) -> tuple[str, ...]:
    """Returns the classes that folders stand for: numbers, or all classes by name.

    Raises:
      UsageError: Some classes have no folder, so that nothing says which output is which.
    """
    if all(name.isdecimal() and int(name) < outputs for name in names):
        numbered = {int(name): name for name in names}
        require(
            len(numbered) == len(names), f"{folder} has several folders of one number: rename them"
        )
        return tuple(numbered.get(number, str(number)) for number in range(outputs))
    require(
        len(names) == outputs,
        f"{folder} has images of {len(names)} classes, and the global model has {outputs} outputs: "
        "name its classes in order with --class-order, separated by commas",
    )
    return tuple(names)
