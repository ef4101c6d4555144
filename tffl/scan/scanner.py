"""Finds poisoned, damaged and hostile models in a folder, with defenses but without a federation.

    files → checked weights → updates → verdict of each defense

A file is a suspect if it is refused or if any defense convicts it. Defenses compare clients with
each other, so every new file can change the verdicts on the others.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tffl.core import seeds
from tffl.core.errors import UsageError, require
from tffl.core.layout import WeightLayout
from tffl.core.pixels import PixelRange, pixel_range
from tffl.core.verdict import Judgment
from tffl.data.samples import AUXILIARY_DATA, PROBE_DATA, ROOT_DATA, Samples
from tffl.defenses.base import Defense, State
from tffl.defenses.server import Server
from tffl.scan.result import ScanResult
from tffl.untrusted.expected import ExpectedVariables
from tffl.untrusted.model_folder import file_names, read_folder

if TYPE_CHECKING:
    import keras

SAMPLES = 2000
"""The largest number of images that defenses get."""

STATISTICS = "statistics-consensus"
WITH_SAMPLES, WITHOUT_SAMPLES = ("shield",), ("update-consensus", STATISTICS)
"""The default defenses with and without images."""

GRAPH_WARNING = (
    "SavedModels are judged by their variables alone: their graphs were not checked, and a program "
    "that loads one runs its graph, which can read and write files"
)
"""The warning if the folder holds SavedModels. Graphs cannot be checked against a list of harmless
operations, because every SavedModel contains operations that write files."""


class Scanner:
    """Judges folders of clients' models of one global model.

    Args:
      model: The user's own, trusted global model.
      defenses: Name → defense. It must name suspects, need no history and train nothing.
      samples: Labeled images for defenses that use some.
      seed: The seed that selects images. By default it is random, so attackers cannot know them.
      pixels: The model's values for the darkest and the brightest pixel; 0 and 255 if None, or the
        range of float images. If the model does not suit the default range, that is an error; a
        given range only warns.

    Attributes:
      warnings: Warnings about limits of the verdicts.

    Raises:
      UsageError: A defense cannot judge a folder, lacks images, or the model expects other images
        or classes.
    """

    def __init__(
        self,
        model: keras.Model,
        defenses: Mapping[str, Defense],
        samples: Samples | None = None,
        seed: int | None = None,
        pixels: PixelRange | None = None,
    ) -> None:
        from tffl.explain.maps import Explainer
        from tffl.explain.samples import check_samples
        from tffl.models.head import as_logits, final_activation
        from tffl.models.validation import check_classifier

        check_classifier(model, "the global model")
        if samples is not None:
            check_samples(model, "the global model", samples, None)
        for name, defense in defenses.items():
            check_defense(name, defense, samples)
        self.expected = ExpectedVariables.of(model)
        self.defenses = defenses
        self.seed = secrets.randbelow(1 << 32) if seed is None else seed
        knowledge = {word for each in defenses.values() for word in each.declared_knowledge()}
        end = final_activation(model) if PROBE_DATA in knowledge else ""
        self._model = as_logits(model) if end else model
        self._start = self.expected.layout.flatten(model.get_weights())
        self._samples = _limited(samples or _no_samples(model), self.seed)
        assumed = pixels or pixel_range(self._samples.images)
        self._explainer = Explainer(self._model, assumed)
        left_out = (
            [f"the global model ends in {end}: defenses see what goes into it"] if end else []
        )
        self.warnings = [*left_out, *self._check_images(pixels), *self._check_statistics()]
        for defense in defenses.values():
            defense.check_server(self.server(0))

    def _check_images(self, pixels: PixelRange | None) -> list[str]:
        """Checks that the model suits the images; returns a warning if that is not an error."""
        from tffl.explain.suitability import check_model, predictor

        declared = {
            word for defense in self.defenses.values() for word in defense.declared_knowledge()
        }
        if not declared & {PROBE_DATA, AUXILIARY_DATA}:
            return []
        try:
            predict = predictor(self._model)
            found = check_model(predict, self._samples, self._explainer.pixels, self.seed)
        except UsageError as error:
            if pixels is None:
                raise
            found = str(error)
        return [found] if found else []

    def _check_statistics(self) -> list[str]:
        """Returns a warning if the model has statistics that no defense judges."""
        judged = any(defense.judges_statistics for defense in self.defenses.values())
        if judged or not self.defenses or self.expected.layout.trainable.all():
            return []
        return [
            "BatchNorm statistics and other variables that no gradient trains were not judged: "
            f"{STATISTICS} does that"
        ]

    def server(self, clients: int) -> Server:
        """Returns the server that defenses get to judge this number of clients."""
        return Server(
            self._model,
            self.expected.layout,
            clients,
            self.seed,
            samples=self._samples,
            explainer=self._explainer,
        )

    def scan(self, folder: Path) -> ScanResult:
        """Reads and judges a folder.

        Args:
          folder: A folder with one file or SavedModel folder per client.

        Raises:
          UsageError: The folder does not exist.
        """
        models = read_folder(folder, self.expected, self._start)
        verdicts: dict[str, Judgment] = {}
        memories: dict[str, State] = {}
        unjudged: dict[str, str] = {}
        server = self.server(len(models.names))
        for name, defense in self.defenses.items():
            try:
                require(bool(models.names), f"{folder} holds no model that could be read")
                defense.check(len(models.names), self.expected.layout)
                state = defense.init(server)
                verdicts[name], memories[name] = defense.suspect(models.updates, server, state)
            except UsageError as error:
                unjudged[name] = str(error)
        graphs = [GRAPH_WARNING] if any((folder / name).is_dir() for name in models.names) else []
        return ScanResult(models, verdicts, memories, unjudged, [*self.warnings, *graphs])

    def watch(self, folder: Path, interval: float) -> Iterator[ScanResult]:
        """Scans a folder now, and again after each change once the folder is stable.

        Args:
          folder: As in `scan`.
          interval: Seconds between two checks; files that do not change in between are complete.
        """
        scanned: object = None
        before = _snapshot(folder)
        while True:
            time.sleep(interval)
            now = _snapshot(folder)
            if now == before and now != scanned:
                scanned = now
                yield self.scan(folder)
            before = now


def usual_defenses(samples: bool, layout: WeightLayout | None = None) -> tuple[str, ...]:
    """Returns the names of the default defenses.

    Args:
      samples: Whether there are images.
      layout: The layout of the global model, if it is loaded. Without BatchNorm statistics the
        defense that judges them is left out.
    """
    names = WITH_SAMPLES if samples else WITHOUT_SAMPLES
    no_statistics = layout is not None and bool(layout.trainable.all())
    return tuple(name for name in names if not (no_statistics and name == STATISTICS))


def check_defense(name: str, defense: Defense, samples: Samples | None) -> None:
    """Checks that a defense can judge a folder of files.

    Raises:
      UsageError: The defense cannot.
    """
    require(
        defense.convicts,
        f"{name} names no suspects: choose a detector, such as update-consensus",
    )
    require(
        not defense.tracks_clients and defense.models == 1,
        f"{name} needs the history of a federation: a folder is one round of clients without names",
    )
    declared = defense.declared_knowledge()
    require(
        ROOT_DATA not in declared,
        f"{name} trains on samples of the server's own, and a scan trains nothing",
    )
    require(
        samples is not None or not {PROBE_DATA, AUXILIARY_DATA} & set(declared),
        f"{name} needs images: give a dataset, such as the one that the clients train on",
    )


def load_samples(model: keras.Model, dataset: str, data_dir: Path | None) -> Samples:
    """Returns the test images of a dataset in the size that a model expects.

    Args:
      model: The model.
      dataset: The name of the dataset.
      data_dir: The folder of prepared datasets; None for the default.

    Raises:
      UsageError: The dataset does not exist or does not suit the model.
      TfflError: Its files are damaged.
    """
    from tffl.config import DataConfig
    from tffl.data.build import load_dataset

    require(
        len(model.input_shape) == 4,
        f"the global model takes feature vectors {model.input_shape[1:]}, and a scan looks at "
        f"images: leave out the dataset {dataset}, defenses without images judge such models",
    )
    height, width, channels = model.input_shape[1:]
    size = height if height == width else None
    found = load_dataset(DataConfig(dataset=dataset, data_dir=data_dir, image_size=size))
    wanted = (height or found.image_shape[0], width or found.image_shape[1], channels)
    require(
        found.image_shape == wanted and found.classes <= model.output_shape[-1],
        f"{dataset} has images of {found.image_shape} in {found.classes} classes, but the global "
        f"model takes {model.input_shape[1:]} and has {model.output_shape[-1]} outputs: choose "
        "the dataset that it was made for",
    )
    return Samples(found.test_images, found.test_labels, found.classes, found.class_names)


def _limited(samples: Samples, seed: int) -> Samples:
    draw = seeds.generator(seed, "samples").permutation(len(samples.labels))[:SAMPLES]
    rows = np.sort(draw)
    return replace(samples, images=samples.images[rows], labels=samples.labels[rows])


def _no_samples(model: keras.Model) -> Samples:
    """Returns an empty set of images with as many classes as the model has outputs."""
    shape = [side or 1 for side in model.input_shape[1:]]
    nothing = np.zeros((0, *shape), dtype=np.uint8)
    return Samples(nothing, np.zeros(0, dtype=np.int32), int(model.output_shape[-1]))


def _snapshot(folder: Path) -> dict[str, tuple[int, ...]]:
    """Returns a value that changes with any file in a folder, SavedModel folders included."""
    found: dict[str, tuple[int, ...]] = {}
    pending = [folder / name for name in file_names(folder)]
    while pending:
        path = pending.pop()
        try:
            status = path.lstat()
            if path.is_dir() and not path.is_symlink():
                pending.extend(path.iterdir())
        except OSError:  # removed meanwhile, or not readable, which the scan reports
            continue
        times = (status.st_mtime_ns, status.st_ctime_ns)
        found[str(path)] = (status.st_ino, status.st_size, *times)
    return found
