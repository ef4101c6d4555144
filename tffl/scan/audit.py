"""GAN audits of existing models: files in a folder, or the stored updates of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.config import override
from tffl.core.errors import require
from tffl.core.verdict import AuditImages, Judgment
from tffl.record.identity import resolved
from tffl.scan.images import check_image_model
from tffl.scan.result import Opinion
from tffl.scan.scanner import Scanner
from tffl.untrusted.global_variables import GlobalVariables
from tffl.untrusted.refusal import printable

if TYPE_CHECKING:
    import keras

    from tffl.config import Config
    from tffl.core.pixels import PixelRange
    from tffl.data.samples import Samples
    from tffl.defenses.gan_audit import GanAudit
    from tffl.record.run_directory import RunDirectory

DEFENSE = "gan-audit"


@dataclass(frozen=True)
class AuditResult:
    """The result of an audit.

    Attributes:
      opinions: Name of a file or client → the opinion on it; its score is 1 − audit accuracy.
      unjudged: The reason why nothing could be judged; empty if everything was.
      classes: Names of the model's outputs.
      label_counts: int64 `[outputs]`, the number of counted audit images by voted label.
      confusions: Name → int64 `[outputs, outputs]`, voted label × predicted label, for each model
        that could be read.
    """

    opinions: Mapping[str, Opinion]
    unjudged: str
    classes: tuple[str, ...]
    label_counts: np.ndarray
    confusions: Mapping[str, np.ndarray]

    @property
    def suspects(self) -> list[str]:
        """The names of the suspects."""
        return [name for name, opinion in self.opinions.items() if opinion.suspect]

    def check_judged(self) -> None:
        """Checks that the absence of suspects is not just the absence of verdicts.

        Raises:
          UsageError: There are no suspects because nothing could be judged.
        """
        require(
            bool(self.suspects) or not self.unjudged, f"nothing could be judged: {self.unjudged}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns the result for JSON, with names that are safe to print."""
        return {
            "models": [{**row, "name": printable(row["name"], 255)} for row in self.rows()],
            "suspects": [printable(name, 255) for name in self.suspects],
            "unjudged": self.unjudged,
            "classes": self.classes,
            "label_counts": self.label_counts,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Returns a row per name: `accuracy`, `threshold`, `suspect`, `reason`, `confusion`."""
        return [
            {
                "name": name,
                "suspect": opinion.suspect,
                "accuracy": 1 - opinion.score,
                "threshold": 1 - opinion.threshold,
                "reason": opinion.reason,
                "confusion": self.confusions.get(name),
            }
            for name, opinion in self.opinions.items()
        ]


def audit_folder(
    model: keras.Model | GlobalVariables,
    folder: Path,
    defense: GanAudit,
    samples: Samples | None = None,
    seed: int | None = None,
    pixels: PixelRange | None = None,
) -> AuditResult:
    """Audits the models in a folder in the way that `gan-audit` audits the clients of a round.

    Args:
      model: The user's own, trusted global model.
      folder: A folder with one file or SavedModel folder per client.
      defense: The defense, with `from_round = 1`.
      samples: Images for the sources `gan`, `auxiliary` and `held-out`.
      seed: The seed of all random choices; drawn at random if None.
      pixels: As `Scanner` takes it; audit images are made in this range.

    Raises:
      UsageError: The folder does not exist, or the source needs images and there are none.
    """
    model = check_image_model(model, DEFENSE)
    scan = Scanner(model, {DEFENSE: defense}, samples, seed, pixels).scan(folder)
    names = samples.names if samples is not None else ()
    unjudged = scan.unjudged.get(DEFENSE, "")
    unknown = Opinion("", False, np.nan, np.nan, "")
    opinions = {name: next(iter(said), unknown) for name, said in scan.files.items()}
    judgment = scan.verdicts.get(DEFENSE)
    return _audit_result(model, opinions, unjudged, scan.folder.names, judgment, names)


def audit_run(directory: RunDirectory, round: int, defense: GanAudit) -> AuditResult:
    """Audits the stored updates of a round with the server's data.

    Args:
      directory: A run with stored updates.
      round: The round, 1-based.
      defense: The defense, with `from_round = 1`. A GAN is trained on this round's model only.

    Raises:
      UsageError: The round is not stored, or the defense cannot judge it.
      TfflError: A file is damaged.
    """
    from tffl.config import build
    from tffl.engine.observer import Observer
    from tffl.simulation.experiment import Experiment

    updates = directory.stored(round)
    changes: dict[str, Any] = {"defense": {"name": "none"}, "record.store_updates": ""}
    config: Config = build(override(directory.config.model_dump(), changes))
    experiment = Experiment(resolved(config), Observer())
    defense.check(len(updates), updates.layout)
    experiment.check_defense(defense, DEFENSE)
    verdict, _ = experiment.judge(updates, defense.init(experiment.server), defense)
    names = [f"client {client}" for client in updates.client_ids.tolist()]
    opinions = {
        name: Opinion(
            DEFENSE,
            bool(verdict.convicted[row]),
            float(verdict.scores[row]),
            float(verdict.threshold),
            verdict.reasons[row],
        )
        for row, name in enumerate(names)
    }
    samples = experiment.server.samples
    assert samples is not None
    return _audit_result(experiment.model, opinions, "", names, verdict, samples.names)


def _audit_result(
    model: keras.Model,
    opinions: Mapping[str, Opinion],
    unjudged: str,
    judged: Sequence[str],
    judgment: Judgment | None,
    class_names: Sequence[str],
) -> AuditResult:
    outputs = int(model.output_shape[-1])
    classes = tuple(class_names[i] if i < len(class_names) else str(i) for i in range(outputs))
    for shown in judgment.shown if judgment else ():
        if isinstance(shown, AuditImages):
            confusions = dict(zip(judged, shown.confusions, strict=True))
            return AuditResult(opinions, unjudged, classes, shown.label_counts, confusions)
    return AuditResult(opinions, unjudged, classes, np.zeros(outputs, dtype=np.int64), {})


def mistakes(confusion: np.ndarray, classes: Sequence[str], most: int) -> str:
    """Returns the most frequent mistakes of a model in words.

    Args:
      confusion: int64 `[outputs, outputs]`, voted label × predicted label.
      classes: Names of the outputs.
      most: The largest number of mistakes.

    >>> mistakes(np.array([[5, 0], [3, 1]]), ("cat", "dog"), most=2)
    'dog → cat: 3 of 4'
    """
    wrong = confusion * (1 - np.eye(len(confusion), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(confusion)) for place in order]
    return ", ".join(
        f"{classes[label]} → {classes[seen]}: {wrong[label, seen]} of {confusion[label].sum()}"
        for label, seen in pairs
        if wrong[label, seen]
    )
