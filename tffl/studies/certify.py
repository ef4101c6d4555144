"""What a finished run of `crfl` proves about its test predictions.

Many noisy copies of the last global model vote, and the theorem in `tffl.engine.smoothing` turns
votes into radii. It holds only for a training that keeps its assumptions, which few do: so all that
fail are named, and without `anyway` no radius is computed then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.config import build, override
from tffl.core import seeds
from tffl.core.atomic import check_writable, write_text
from tffl.core.errors import require
from tffl.core.jsonable import write_json
from tffl.core.tensors import read_tensors
from tffl.record.identity import resolved
from tffl.record.run_directory import CHECKPOINTS, RunDirectory, round_files
from tffl.record.tables import to_csv
from tffl.studies.certificate import Facts, Question, unmet

if TYPE_CHECKING:
    from tffl.engine.observer import Observer
    from tffl.engine.smoothing import SmoothedCertificates
    from tffl.simulation.experiment import Experiment

BATCH = 10
"""How many copies are in memory at a time."""

COLUMNS = ("input", "label", "predicted", "votes", "runner_up", "radius")
"""Of `certificates.csv`."""

RELABELED = math.sqrt(2)
"""‖δ‖ of a sample that gets another label and keeps its input."""


def certify(
    run: RunDirectory | Path | str,
    question: Question | None = None,
    radii: Sequence[float] = (),
    anyway: bool = False,
    observer: Observer | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Certifies the votes of noisy copies of a run's model on its test samples.

    Writes `certificates.csv`, a row per input, and `certificate.json`, what is returned.

    Args:
      run: A finished run with the defense `crfl`.
      question: Against what, and how.
      radii: Where certified accuracies are computed; by default from 0 to the largest radius.
      anyway: Whether to compute radii although an assumption fails; they prove nothing then.
      observer: Receives progress and warnings.
      out: Folder to write, by default `RUN/certified`.

    Returns:
      `unmet`, the assumptions that fail; `smoothed_accuracy` of the votes; `error`, the probability
      with which a radius is wrong at most, as votes are a sample; `certified`, for each
      `radius` its `accuracy` and `rate`, and the `largest` radius, both None where an assumption
      fails and not `anyway`; the `question` and the `facts` of the training; `folder`.

    Raises:
      UsageError: The run has not ended as planned, has another defense, or a value does not fit.
      TfflError: A file is damaged or cannot be written.
    """
    from tffl.core.process import silence
    from tffl.engine.observer import Observer
    from tffl.engine.runtime import configure

    directory = run if isinstance(run, RunDirectory) else RunDirectory.open(Path(run))
    asked = (question or Question()).resolved(directory.config)
    weights, first = _last_model(directory, asked)
    folder, observer = out or directory.path / "certified", observer or Observer()
    check_writable(folder / "certificates.csv")
    silence()
    configure(directory.config.runtime.devices)
    from tffl.engine.smoothing import SmoothedCertificates
    from tffl.simulation.experiment import Experiment

    changes = {"record.store_updates": "", "record.evaluate_samples": None}
    config = resolved(build(override(directory.config.model_dump(), changes)))
    experiment = Experiment(config, observer)
    facts = Facts.of(experiment, asked, first, directory.tables.skipped())
    failing = unmet(config, asked, facts.smoothness, facts.lipschitz)
    votes, labels = _votes(experiment, weights, asked, observer)
    known = (anyway or not failing) and facts.lipschitz is not None
    found = facts.radii(votes, asked) if known else np.full(len(labels), np.nan)
    certificates = SmoothedCertificates(votes, labels, found)
    write_text(folder / "certificates.csv", to_csv(COLUMNS, certificates.rows()))
    result = {
        "unmet": failing,
        "smoothed_accuracy": certificates.smoothed_accuracy,
        "error": min(1.0, 2 * votes.shape[1] * asked.alpha),
        "largest": certificates.largest if known else None,
        "certified": _certified(certificates, radii) if known else None,
        "question": asdict(asked),
        "facts": asdict(facts),
        "folder": str(folder),
    }
    write_json(folder / "certificate.json", result)
    return result


def _last_model(run: RunDirectory, asked: Question) -> tuple[np.ndarray, float]:
    """Returns the global weights float32 `[d]` after the last round, and ρ_0's model norm."""
    files, rounds = round_files(run.path / CHECKPOINTS), run.config.federation.rounds
    require(
        max(files, default=0) == rounds,
        f"{run.path} has not ended as planned: there is no checkpoint of its last round, {rounds}, "
        "which alone has no noise",
    )
    for round in (rounds, asked.round):
        require(
            round not in run.tables.skipped(),
            f"round {round} of {run.path} was skipped: nothing can be certified of it",
        )
    tensors, _ = read_tensors(files[rounds])
    return tensors["weights"][0], float(tensors["defense/norm"][0])


def _votes(
    experiment: Experiment, weights: np.ndarray, asked: Question, observer: Observer
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the votes of noisy copies int64 `[m, classes]`, and the labels of the inputs."""
    assert asked.noise is not None
    columns, seed = np.flatnonzero(experiment.layout.trainable), experiment.config.seed
    total: np.ndarray | int = 0
    for begin in range(0, asked.copies, BATCH):
        observer.phase(f"{begin} of {asked.copies} copies have voted")
        copies = np.repeat(weights[None], min(BATCH, asked.copies - begin), axis=0)
        for number, copy in enumerate(copies, begin):
            generator = seeds.generator(seed, "crfl-copies", client=number)
            copy[columns] += asked.noise * generator.standard_normal(len(columns))
        total = total + experiment.evaluation.certificates(copies).votes
    return np.asarray(total), experiment.evaluation.labels()


def _certified(
    certificates: SmoothedCertificates, radii: Sequence[float]
) -> list[dict[str, float]]:
    """Returns accuracy and rate at some radii, by default up to the largest one."""
    largest = certificates.largest
    usual = [*(part / 4 * largest for part in range(5)), RELABELED]
    return [
        {"radius": r, "accuracy": certificates.accuracy(r), "rate": certificates.rate(r)}
        for r in sorted({*(radii or usual)})
    ]
