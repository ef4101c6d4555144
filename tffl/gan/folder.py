"""The audit of a folder of clients' models: accuracy, verdict, and what each takes for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl import states
from tffl.explain.maps import Probes
from tffl.gan import audit
from tffl.scan import Scan, Scanner

if TYPE_CHECKING:
    import keras

    from tffl.defenses.base import Samples
    from tffl.defenses.gan_audit import GanAudit

DEFENSE = "gan-audit"


@dataclass(frozen=True)
class FolderAudit:
    """What an audit of a folder found.

    Attributes:
      scan: The files and the verdict; a score is 1 − audit accuracy.
      classes: Names of the model's outputs.
      label_counts: int64 `[outputs]`, audit images that count, by voted label.
      confusions: int64 `[n, outputs, outputs]`: voted label × what the model sees; of the models
        that could be read, in the order of `scan.inbox.names`.
    """

    scan: Scan
    classes: tuple[str, ...]
    label_counts: np.ndarray
    confusions: np.ndarray

    def rows(self) -> list[dict[str, Any]]:
        """Returns a row per file: `accuracy`, `threshold`, `suspect`, `reason`, `confusion`."""
        found = dict(zip(self.scan.inbox.names, self.confusions, strict=True))
        suspects = set(self.scan.suspects)
        return [
            {
                "file": name,
                "suspect": name in suspects,
                "accuracy": 1 - opinions[0].score if opinions else np.nan,
                "threshold": 1 - opinions[0].threshold if opinions else np.nan,
                "reason": opinions[0].reason if opinions else "",
                "confusion": found.get(name),
            }
            for name, opinions in self.scan.files.items()
        ]


def audit_folder(
    model: keras.Model,
    folder: Path,
    defense: GanAudit,
    samples: Samples | None = None,
    seed: int | None = None,
) -> FolderAudit:
    """Audits the models in a folder as the defense `gan-audit` does the clients of one round.

    Args:
      model: The user's own, trusted global one.
      folder: One file or SavedModel folder per client.
      defense: With `from_round = 1`.
      samples: Images that the sources `gan`, `auxiliary` and `held-out` start from.
      seed: Of all random choices; drawn at random if None.

    Raises:
      UsageError: There is no such folder, or its source needs images that there are not.
    """
    scanner = Scanner(model, {DEFENSE: defense}, samples, seed)
    found = scanner.scan(folder)
    outputs = int(model.output_shape[-1])
    names = samples.names if samples is not None else ()
    classes = tuple(names[i] if i < len(names) else str(i) for i in range(outputs))
    images = states.part(found.memories.get(DEFENSE, {}), "last").get("images")
    if images is None:
        nothing = np.zeros((len(found.inbox.names), outputs, outputs), dtype=np.int64)
        return FolderAudit(found, classes, np.zeros(outputs, dtype=np.int64), nothing)
    result = _vote(scanner, found, defense, images)
    counts = np.bincount(result.labels[result.kept], minlength=outputs)
    return FolderAudit(
        found,
        classes,
        counts,
        audit.confusion(result.predictions, result.labels, result.kept, outputs),
    )


def mistakes(confusion: np.ndarray, classes: Sequence[str], most: int) -> str:
    """Says in words which labels a model takes for which others most often.

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


def _vote(scanner: Scanner, found: Scan, defense: GanAudit, images: np.ndarray) -> audit.Audit:
    """Lets the models vote on the defense's images once more, and says what each saw."""
    updates = found.inbox.updates
    server = scanner.server(len(updates))
    assert server.explainer is not None and server.samples is not None
    probes = Probes(images, np.zeros(len(images), dtype=np.int32))
    with np.errstate(over="ignore", invalid="ignore"):
        logits = server.explainer.logits(updates, probes)
    return audit.audit(
        logits, server.samples.classes, agreement=defense.agreement, balance=defense.balance
    )
