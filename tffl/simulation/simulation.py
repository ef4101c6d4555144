"""The federated loop: what a server and its clients, honest and malicious, do round by round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from tffl.attacks import Attack
from tffl.config import Config, as_config
from tffl.core.errors import require
from tffl.data.federation import Dataset
from tffl.defenses import Defense
from tffl.engine.observer import Observer
from tffl.record.identity import resolved
from tffl.record.lock import locked
from tffl.record.recorder import MemoryRecorder, Recorder
from tffl.record.writer import RunWriter, make_folder, refuse_occupied
from tffl.simulation.experiment import Experiment
from tffl.simulation.objects import Arrays, described
from tffl.simulation.run import Run
from tffl.simulation.shared_resources import SharedResources
from tffl.simulation.unused import unused_settings


def simulate(
    config: Config | Mapping[str, Any] | Path | str,
    out: Path | str | None = None,
    *,
    resume: bool = False,
    observer: Observer | None = None,
    command: Sequence[str] = (),
    shared: SharedResources | None = None,
    attack: Attack | str | None = None,
    defense: Defense | str | None = None,
    model: keras.Model | Callable[..., keras.Model] | str | None = None,
    dataset: Dataset | Arrays | str | None = None,
) -> Run:
    """Runs one experiment.

    Args:
      config: A `Config`, nested values for one, or the path of a TOML file.
      out: Run directory to write; nothing is written without it.
      resume: Continue the run in `out` after its last checkpoint; with another number of rounds
        than it began with, it ends there.
      observer: Hears about progress and warnings.
      command: The command line, for `environment.json`.
      shared: Shares images and compiled functions with other calls. A later call with the same
        one also overwrites the weights of the returned model.
      attack: An attack, or the name of one, in the place of the config's.
      defense: A defense, or the name of one.
      model: A Keras model, whose weights are the first ones; a function (image_shape, classes) →
        model; or the name of one.
      dataset: A `Dataset`; `(x_train, y_train, x_test, y_test)`, images uint8 `[N, height, width,
        channels]` and labels from 0 on; or the name of one.

    Raises:
      UsageError: The experiment is impossible; before round 1.
      TfflError: It failed, for instance because a file cannot be written.
    """
    config = described(as_config(config), attack, defense, model, dataset)
    observer = observer or Observer()
    if not resume:
        for line in unused_settings(config):
            observer.warning(line)
    return carry_out(config, out, resume, observer, command, shared)


def carry_out(
    config: Config,
    out: Path | str | None,
    resume: bool,
    observer: Observer,
    command: Sequence[str],
    shared: SharedResources | None = None,
) -> Run:
    """Does what `simulate` does, without a word on settings that change nothing."""
    config = resolved(config)
    if out is None:
        require(not resume, "resume needs the run directory")
        experiment = Experiment(config, observer, shared, trains=True)
        return _play(experiment, MemoryRecorder(), observer)
    out = Path(out)
    if resume:
        RunWriter.resume(out, config)
        with locked(out, observer.warning):
            experiment = Experiment(config, observer, shared, trains=True)
            writer = RunWriter.resume(out, config)
            writer.write_config()
            return _play(experiment, writer, observer)
    refuse_occupied(out, config)
    experiment = Experiment(config, observer, shared, trains=True)
    make_folder(out)
    with locked(out, observer.warning):
        writer = RunWriter.create(out, config, command, experiment.granted())
        return _play(experiment, writer, observer)


def _play(experiment: Experiment, recorder: Recorder, observer: Observer) -> Run:
    """Plays the rounds that are missing, as in Algorithm 1 of the papers."""
    config = experiment.config
    if split := experiment.split():
        recorder.write_table("split.csv", split)
    last, weights, memory = experiment.begin(recorder, observer)
    observer.start(config.federation.rounds, last + 1)
    for round in range(last + 1, config.federation.rounds + 1):
        weights, memory = experiment.play_round(round, weights, memory, recorder, observer)
    return experiment.finish(weights, memory, recorder)
