"""Finds poisoned, damaged and hostile models in a folder, with defenses but without a federation.

    files → checked weights → updates → verdict of each defense

A file is a suspect if it is refused or if any defense convicts it. Defenses compare clients with
each other, so every new file can change the verdicts on the others.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tffl.core.errors import UsageError, require
from tffl.core.layout import WeightLayout
from tffl.core.pixels import PixelRange
from tffl.core.verdict import Judgment
from tffl.data.samples import ROOT_DATA, Samples
from tffl.defenses.base import Defense, State
from tffl.defenses.server import Server
from tffl.scan.images import (
    IMAGES,
    ImageTests,
    check_image_model,
    prepare_tests,
    uses_images,
)
from tffl.scan.result import ScanResult
from tffl.untrusted.global_variables import GlobalVariables
from tffl.untrusted.model_folder import file_names, read_folder

if TYPE_CHECKING:
    import keras

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
      model: The user's own, trusted global model; or its variables, for defenses that judge updates
        alone.
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
        model: keras.Model | GlobalVariables,
        defenses: Mapping[str, Defense],
        samples: Samples | None = None,
        seed: int | None = None,
        pixels: PixelRange | None = None,
    ) -> None:
        for name, defense in defenses.items():
            check_defense(name, defense, samples)
        looking = [name for name, defense in defenses.items() if uses_images(defense)]
        known = model if isinstance(model, GlobalVariables) else GlobalVariables.of(model)
        self.expected, self._start = known.expected, known.start
        self.defenses = defenses
        self.seed = secrets.randbelow(1 << 32) if seed is None else seed
        self._tests: ImageTests | None = None
        if looking or samples is not None:
            image_model = check_image_model(model, looking[0] if looking else "a scan with samples")
            rules = defenses.values()
            self._tests = prepare_tests(image_model, rules, samples, self.seed, pixels)
        self.warnings = [*(self._tests.warnings if self._tests else ()), *self._check_statistics()]
        for defense in defenses.values():
            defense.check_server(self.server(0))

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
        layout, tests = self.expected.layout, self._tests
        if tests is None:
            return Server(None, layout, clients, self.seed)
        return Server(
            tests.model,
            layout,
            clients,
            self.seed,
            samples=tests.samples,
            explainer=tests.explainer,
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
        not defense.needs_history and defense.models == 1,
        f"{name} needs the history of a federation: a folder is one round of clients without names",
    )
    declared = defense.declared_knowledge()
    require(
        ROOT_DATA not in declared,
        f"{name} trains on samples of the server's own, and a scan trains nothing",
    )
    require(
        samples is not None or not IMAGES & {*declared},
        f"{name} needs images: give a dataset, such as the one that the clients train on",
    )


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
