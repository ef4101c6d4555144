"""One experiment, from a config or from objects: `tffl.simulate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from tffl.attacks import Attack
from tffl.callbacks.base import Callback
from tffl.callbacks.metric import Function, named_metrics
from tffl.callbacks.several import Callbacks
from tffl.config import Config, as_config
from tffl.core.errors import require
from tffl.data.federation import Dataset
from tffl.defenses import Defense
from tffl.record.identity import resolved
from tffl.record.lock import locked
from tffl.record.recorder import Recorder
from tffl.record.writer import RunWriter, make_folder, refuse_occupied
from tffl.simulation.experiment import Experiment
from tffl.simulation.loop import play
from tffl.simulation.objects import Arrays, described
from tffl.simulation.run import Run
from tffl.simulation.shared_resources import SharedResources
from tffl.simulation.unused import unused_settings


def simulate(
    config: Config | Mapping[str, Any] | Path | str,
    out: Path | str | None = None,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    metrics: Mapping[str, Function] | Sequence[str] = (),
    command: Sequence[str] = (),
    shared: SharedResources | None = None,
    attack: Attack | str | None = None,
    defense: Defense | str | None = None,
    model: keras.Model | Callable[..., keras.Model] | Path | str | None = None,
    dataset: Dataset | Arrays | Path | str | None = None,
) -> Run:
    """Runs one experiment.

    Args:
      config: A `Config`, nested values for one, or the path of a TOML file.
      out: Run directory to write; nothing is written without it.
      resume: Continue the run in `out` after its last checkpoint; with another number of rounds
        than it began with, it ends there.
      callbacks: Hear of the run, in this order; see `tffl.callbacks.Callback`.
      metrics: Further columns of `rounds.csv`: names → functions (labels int32 `[N]`, logits
        float32 `[N, classes]`) → number, which get their names for this session; or names.
      command: The command line, for `environment.json`.
      shared: Shares images and compiled functions with other calls. A later call with the same
        one also overwrites the weights of the returned model.
      attack: An attack, or the name of one, in the place of the config's.
      defense: A defense, or the name of one.
      model: A Keras model, whose weights are the first ones; a function (image_shape, classes) →
        model, whose further parameters are options in the config's `model`; or the name of one, or
        a `.keras` file.
      dataset: A `Dataset`; `(x_train, y_train, x_test, y_test)`, images or feature vectors, and
        labels from 0 on or names; a `tf.data.Dataset`, or a pair for training and testing; or the
        name or the path of one.

    Raises:
      UsageError: The experiment is impossible; before round 1.
      TfflError: It failed, for instance because a file cannot be written, or a callback did.
    """
    config = described(as_config(config), attack, defense, model, dataset, metrics)
    if not resume:
        watching = Callbacks(callbacks)
        for line in unused_settings(config):
            watching.warning(line)
    return carry_out(config, out, resume, callbacks, command, shared)


def carry_out(
    config: Config,
    out: Path | str | None,
    resume: bool,
    callbacks: Sequence[Callback],
    command: Sequence[str],
    shared: SharedResources | None = None,
) -> Run:
    """Does what `simulate` does, without a word on settings that change nothing."""
    config = resolved(config)
    listening = [*named_metrics(config.record.metrics), *callbacks]
    observer = Callbacks(listening)
    if out is None:
        require(not resume, "resume needs the run directory")
        experiment = Experiment(config, observer, shared, trains=True)
        return play(experiment, Recorder(), listening)
    out = Path(out)
    if resume:
        RunWriter.resume(out, config)
        with locked(out, observer.warning):
            experiment = Experiment(config, observer, shared, trains=True)
            writer = RunWriter.resume(out, config)
            writer.check_data(experiment.data_fingerprint)
            writer.write_config()
            return play(experiment, writer, listening)
    refuse_occupied(out, config)
    experiment = Experiment(config, observer, shared, trains=True)
    make_folder(out)
    with locked(out, observer.warning):
        known, data = experiment.declared_knowledge(), experiment.data_fingerprint
        writer = RunWriter.create(out, config, command, known, data)
        return play(experiment, writer, listening)
