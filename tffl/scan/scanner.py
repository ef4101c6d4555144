"""Which of the models in a folder are poisoned, damaged or hostile: defenses without a federation.

    files → checked weights → updates → verdict of each defense

A file that is refused is a suspect, and so is one that any defense convicts. Defenses judge clients
by each other, so that every file that arrives can change the verdict on the others.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core import seeds
from tffl.core.errors import UsageError, require
from tffl.core.layout import WeightLayout
from tffl.core.pixels import BYTES, PixelRange
from tffl.core.verdict import Judgment
from tffl.data.samples import AUXILIARY_DATA, PROBE_DATA, ROOT_DATA, Samples
from tffl.defenses.base import Defense, State
from tffl.defenses.server import Server
from tffl.untrusted.expected import ExpectedVariables
from tffl.untrusted.model_folder import ModelFolder, file_names, read_folder
from tffl.untrusted.refusal import printable

if TYPE_CHECKING:
    import keras

SAMPLES = 2000
"""The most images to look at models with."""

STATISTICS = "statistics-consensus"
WITH_SAMPLES, WITHOUT_SAMPLES = ("shield",), ("update-consensus", STATISTICS)
"""Defenses that judge where none is named."""

GRAPHS = (
    "SavedModels are judged by their variables alone: their graphs were not looked at, and a "
    "program that loads one runs its graph, which can read and write files"
)
"""What is said where there are some; no list of harmless operations would do, as saving is one."""


@dataclass(frozen=True)
class Opinion:
    """What one defense says of one file; `defense` is empty where the file was refused.

    `score` and `threshold` are NaN where there are none.
    """

    defense: str
    suspect: bool
    score: float
    threshold: float
    reason: str


@dataclass(frozen=True)
class ScanResult:
    """What a scan of a folder found.

    Attributes:
      folder: The files, and the updates of those that could be read.
      verdicts: Defense → its judgment of `folder.updates`, with what it saw.
      memories: Defense → what it would remember, such as what it fitted.
      unjudged: Defense → why it could not judge, such as too few files.
      warnings: What makes the verdicts worth less.
    """

    folder: ModelFolder
    verdicts: Mapping[str, Judgment]
    memories: Mapping[str, State]
    unjudged: Mapping[str, str]
    warnings: Sequence[str] = ()

    def opinions(self, name: str) -> list[Opinion]:
        """Returns what is said of a file, by each defense; of a refused one, why it is refused."""
        if name in self.folder.refused:
            return [Opinion("", True, math.nan, math.nan, self.folder.refused[name])]
        row = self.folder.names.index(name)
        return [
            Opinion(
                defense,
                bool(verdict.convicted[row]),
                float(verdict.scores[row]),
                float(verdict.threshold),
                verdict.reasons[row],
            )
            for defense, verdict in self.verdicts.items()
        ]

    @cached_property
    def files(self) -> dict[str, list[Opinion]]:
        """Name → what is said of it, for every file, by name."""
        names = sorted([*self.folder.names, *self.folder.refused])
        return {name: self.opinions(name) for name in names}

    @cached_property
    def suspects(self) -> list[str]:
        """Names of the files that are refused, or convicted by any defense."""
        return [
            name
            for name, opinions in self.files.items()
            if any(opinion.suspect for opinion in opinions)
        ]

    def check_judged(self) -> None:
        """Raises `UsageError` if nothing is suspect, but a defense could not judge."""
        for name, reason in self.unjudged.items():
            require(bool(self.suspects), f"{name} could not judge: {reason}")

    def report(self) -> dict[str, Any]:
        """Returns all of it, for JSON; names are made safe to print."""
        return {
            "files": [
                {
                    "file": printable(name, 255),
                    "suspect": name in self.suspects,
                    "readable": name not in self.folder.refused,
                    "opinions": [vars(opinion) for opinion in opinions],
                }
                for name, opinions in self.files.items()
            ],
            "suspects": [printable(name, 255) for name in self.suspects],
            "unjudged": dict(self.unjudged),
            "warnings": list(self.warnings),
        }


class Scanner:
    """Judges folders of clients' models of one global model.

    Args:
      model: The user's own, trusted one.
      defenses: Name → defense; any that need no history, name suspects, and train nothing.
      samples: Images to look at models with, if there are any.
      seed: Decides which; drawn at random if None, so that nobody can prepare for them.
      pixels: What the model takes for the darkest pixel and the brightest; 0 to 255 if None. A
        range that does not suit is an error where it is not given, and else a warning.

    Attributes:
      warnings: What makes its verdicts worth less.

    Raises:
      UsageError: A defense cannot judge a folder, needs images and there are none, or the model
        takes other images or classes.
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
        looks = any(PROBE_DATA in defense.declared_knowledge() for defense in defenses.values())
        end = final_activation(model) if looks else ""
        self._model = as_logits(model) if end else model
        self._start = self.expected.layout.flatten(model.get_weights())
        self._samples = _limited(samples or _no_samples(model), self.seed)
        self._explainer = Explainer(self._model, pixels or BYTES)
        left_out = (
            [f"the global model ends in {end}: defenses see what goes into it"] if end else []
        )
        self.warnings = [*left_out, *self._check_images(pixels), *self._check_statistics()]
        for defense in defenses.values():
            defense.check_server(self.server(0))

    def _check_images(self, pixels: PixelRange | None) -> list[str]:
        """Returns what is wrong with the images, if that is to be tolerated."""
        from tffl.explain.suitability import check_model, predictor

        declared = {
            word for defense in self.defenses.values() for word in defense.declared_knowledge()
        }
        if not declared & {PROBE_DATA, AUXILIARY_DATA}:
            return []
        require(
            AUXILIARY_DATA not in declared or pixels in (None, BYTES),
            "defenses that make images take models of pixels from 0 to 255 only: build the scaling "
            "into the global model",
        )
        try:
            predict = predictor(self._model)
            found = check_model(predict, self._samples, pixels or BYTES, self.seed)
        except UsageError as error:
            if pixels is None:
                raise
            found = str(error)
        return [found] if found else []

    def _check_statistics(self) -> list[str]:
        """Returns a warning if the model has statistics that nobody looks at."""
        judged = any(defense.judges_statistics for defense in self.defenses.values())
        if judged or not self.defenses or self.expected.layout.trainable.all():
            return []
        return [
            "statistics of BatchNorm and other variables that no gradient trains were not looked "
            f"at: {STATISTICS} does that"
        ]

    def server(self, clients: int) -> Server:
        """Returns what the defenses are given to judge so many clients."""
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

        Raises:
          UsageError: There is no such folder.
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
        graphs = [GRAPHS] if any((folder / name).is_dir() for name in models.names) else []
        return ScanResult(models, verdicts, memories, unjudged, [*self.warnings, *graphs])

    def watch(self, folder: Path, interval: float) -> Iterator[ScanResult]:
        """Scans a folder now, and again whenever it has changed and then rested for a while.

        Args:
          folder: As in `scan`.
          interval: Seconds between two looks; what has not changed in between is complete.
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
    """Returns the names of the defenses that judge where none is named.

    Args:
      samples: Whether there are images.
      layout: Of the global model, if it is loaded: without statistics, nobody looks at them.
    """
    names = WITH_SAMPLES if samples else WITHOUT_SAMPLES
    bare = layout is not None and bool(layout.trainable.all())
    return tuple(name for name in names if not (bare and name == STATISTICS))


def check_defense(name: str, defense: Defense, samples: Samples | None) -> None:
    """Raises `UsageError` unless a defense can judge a folder of files."""
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
        f"{name} looks at images: give a dataset, such as the one that the clients train on",
    )


def load_samples(model: keras.Model, dataset: str, data_dir: Path | None) -> Samples:
    """Returns the test images of a dataset, in the size that a model takes.

    Raises:
      UsageError: There is no such dataset, or it does not suit the model.
      TfflError: Its files are damaged.
    """
    from tffl.config import DataConfig
    from tffl.data.build import load_dataset

    height, width, channels = model.input_shape[1:]
    size = height if height == width else None
    found = load_dataset(DataConfig(dataset=dataset, data_dir=data_dir, image_size=size))
    wanted = (height or found.image_shape[0], width or found.image_shape[1], channels)
    require(
        found.image_shape == wanted and found.classes <= model.output_shape[-1],
        f"{dataset} has images of {found.image_shape} in {found.classes} classes, and the global "
        f"model takes {model.input_shape[1:]} and tells {model.output_shape[-1]} apart: choose "
        "the dataset that it was made for",
    )
    return Samples(found.test_images, found.test_labels, found.classes, found.class_names)


def _limited(samples: Samples, seed: int) -> Samples:
    draw = seeds.generator(seed, "samples").permutation(len(samples.labels))[:SAMPLES]
    rows = np.sort(draw)
    return replace(samples, images=samples.images[rows], labels=samples.labels[rows])


def _no_samples(model: keras.Model) -> Samples:
    """Returns no images, of as many classes as the model tells apart."""
    shape = [side or 1 for side in model.input_shape[1:]]
    nothing = np.zeros((0, *shape), dtype=np.uint8)
    return Samples(nothing, np.zeros(0, dtype=np.int32), int(model.output_shape[-1]))


def _snapshot(folder: Path) -> dict[str, tuple[int, ...]]:
    """Returns what would change if anything in a folder did, SavedModel folders included."""
    found: dict[str, tuple[int, ...]] = {}
    waiting = [folder / name for name in file_names(folder)]
    while waiting:
        path = waiting.pop()
        try:
            what = path.lstat()
            if path.is_dir() and not path.is_symlink():
                waiting.extend(path.iterdir())
        except OSError:  # gone again, or not ours to look into: the scan will say so
            continue
        found[str(path)] = (what.st_ino, what.st_size, what.st_mtime_ns, what.st_ctime_ns)
    return found
