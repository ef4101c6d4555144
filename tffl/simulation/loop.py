"""The federated loop, as Algorithm 1 of the papers has it.

for each round:
train the participants → attack → judge and average → evaluate → record
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import keras
import numpy as np

from tffl.callbacks.base import Callback, Group, Round, Start
from tffl.callbacks.several import Callbacks
from tffl.core import states
from tffl.core.errors import TfflError
from tffl.engine.stopwatch import Stopwatch
from tffl.engine.voting import majority_model
from tffl.models.layers import set_weights
from tffl.models.own import has_weights
from tffl.record.recorder import Recorder
from tffl.record.rounds import client_rows, judged
from tffl.record.tables import as_written
from tffl.simulation.evaluation import SCORES
from tffl.simulation.experiment import Experiment
from tffl.simulation.memory import Memory
from tffl.simulation.participants import draw_stragglers
from tffl.simulation.run import Run
from tffl.simulation.summary import summarize


def play(experiment: Experiment, recorder: Recorder, listening: Sequence[Callback]) -> Run:
    """Plays the rounds that are missing.

    Args:
      experiment: What is played.
      recorder: Keeps it, and knows what was played before.
      listening: Hear of it after the recorder.

    Raises:
      TfflError: A file cannot be written, or a callback has failed.
    """
    callbacks = Callbacks([*recorder.callbacks, *listening])
    if split := experiment.split():
        recorder.write_table("split.csv", split)
    last, weights, memory = begin(experiment, recorder, callbacks)
    experiment.follow_attack(states.part(memory.attack, 0))
    given = _given_accuracy(experiment)
    stop = _start(experiment, recorder, callbacks, last, given)
    rounds = experiment.config.federation.rounds
    while last < rounds and not stop:
        last += 1
        weights, memory, stop = play_round(experiment, last, weights, memory, recorder, callbacks)
    stopped = {}
    if last < rounds:
        stopped = {"stopped_after": last, "stopped_because": stop}
        _evaluate_last(experiment, last, weights, recorder, callbacks)
    about = stopped if given is None else {"start_accuracy": given, **stopped}
    run = finish(experiment, weights, memory, recorder, about)
    callbacks.end(run)
    return run


def begin(
    experiment: Experiment, recorder: Recorder, callbacks: Callbacks
) -> tuple[int, np.ndarray, Memory]:
    """Returns the last finished round, its global weights `[models, d]`, and the memories."""
    checkpoint = recorder.load_checkpoint(callbacks.warning)
    if checkpoint is None:
        models = experiment.defense.models
        start = np.repeat(_start_weights(experiment, callbacks)[None], models, axis=0)
        defense = experiment.defense.init(experiment.server)
        return 0, start, Memory(experiment.attackers.init(models), defense)
    round, weights, tensors = checkpoint
    expected = (experiment.defense.models, experiment.layout.size)
    if weights.shape != expected:
        raise TfflError(
            f"the checkpoint of round {round} holds weights {weights.shape}, but those of "
            f"{experiment.config.model.name} are {expected}: config.toml has been changed, or "
            "the model is another one"
        )
    return round, weights, Memory.of(tensors)


def play_round(
    experiment: Experiment,
    round: int,
    weights: np.ndarray,
    memory: Memory,
    recorder: Recorder,
    callbacks: Callbacks,
) -> tuple[np.ndarray, Memory, str | None]:
    """Plays one round and passes it to the callbacks.

    Args:
      experiment: What is played.
      round: 1-based.
      weights: Global weights, float32 `[models, d]`.
      memory: What attackers and defense remember.
      recorder: Keeps the checkpoint, after the callbacks have received the round.
      callbacks: The recorder is the first of them.

    Returns:
      The new weights and memory, and why this is the last round, if a callback says so.
    """
    clock, groups = Stopwatch(), []
    weights = weights.copy()
    answering = experiment.participants(round)
    for model, clients in _judged_clients(experiment, round, answering, callbacks):
        with clock.measure("train"):
            updates = experiment.train(round, clients, weights[model])
        with clock.measure("attack"):
            known = states.part(memory.attack, model)
            updates, malicious, known = experiment.attackers.send(updates, known)
        with clock.measure("defense"):
            verdict, state = experiment.judge(updates, memory.defense)
            step = experiment.config.federation.server_learning_rate * verdict.aggregate
            weights[model] += step.astype(np.float32)
        memory = Memory(states.replaced(memory.attack, model, known), state)
        groups.append(Group(model, updates, verdict, malicious))
    experiment.follow_attack(states.part(memory.attack, 0))
    scores = _scores(experiment, round, weights, clock)
    row = {"round": round, **scores, **judged(groups), **clock.seconds}
    if experiment.config.federation.dropout:
        dropped = experiment.config.federation.participant_count - len(answering)
        row |= {"dropped": dropped, "skipped": not groups}
    if _is_evaluated(experiment, round):
        experiment.evaluation.warn_of_ruin(round, row, callbacks)
    stop = callbacks.round(callbacks.with_columns(_played_round(experiment, groups, weights, row)))
    config = experiment.config
    due = round % config.record.checkpoint_every == 0 or round == config.federation.rounds
    if due or stop or callbacks.failed:
        recorder.save_checkpoint(round, weights, memory.tensors())
    callbacks.raise_failure()
    return weights, memory, stop


def finish(
    experiment: Experiment,
    weights: np.ndarray,
    memory: Memory,
    recorder: Recorder,
    about: Mapping[str, Any],
) -> Run:
    """Writes what comes after the last round, and returns the run.

    Args:
      experiment: What was played.
      weights: Global weights, float32 `[models, d]`.
      memory: What attackers and defense remember.
      recorder: Has the rounds.
      about: What the summary says besides, of its start and of why it ended early.
    """
    config, attackers, evaluation = experiment.config, experiment.attackers, experiment.evaluation
    rounds, clients = recorder.frames()
    who = {"malicious_clients": attackers.ids.tolist(), "acting_clients": attackers.acting()}
    summary = summarize(config, rounds, experiment.layout.size, who, evaluation.success)
    summary |= about
    if len(weights) > 1:
        certificates = evaluation.certificates(weights)
        summary |= {"certified_accuracy": certificates.accuracy()}
        recorder.write_table("certificates.csv", certificates.rows())
    model = _global_model(experiment, weights)
    detectors = experiment.defense.exports(experiment.server, memory.defense)
    recorder.finish(model, summary, detectors)
    return Run(config, rounds, clients, summary, model, recorder.path)


def _judged_clients(
    experiment: Experiment, round: int, answering: np.ndarray, callbacks: Callbacks
) -> list[tuple[int, np.ndarray]]:
    """Returns each global model and the clients that train it; none if the round is skipped."""
    expected = experiment.config.federation.participant_count
    reason = experiment.lacking(len(answering)) if len(answering) < expected else ""
    if reason:
        callbacks.warning(
            f"round {round} is skipped: {len(answering)} of {expected} participants answered, and "
            f"{reason}"
        )
        return []
    return experiment.by_model(answering)


def _client_rows(
    experiment: Experiment, round: int, groups: Sequence[Group]
) -> list[dict[str, Any]]:
    """Returns the rows of `clients.csv`; they tell stragglers if the config has any."""
    rows = client_rows(round, groups)
    if experiment.config.federation.stragglers:
        ids = np.array([row["client"] for row in rows], dtype=np.int64)
        late = draw_stragglers(experiment.config, round, ids)
        rows = [{**row, "straggler": bool(one)} for row, one in zip(rows, late, strict=True)]
    return rows


def _is_evaluated(experiment: Experiment, round: int) -> bool:
    config = experiment.config
    return config.record.evaluates(round, config.federation.rounds)


def _scores(
    experiment: Experiment, round: int, weights: np.ndarray, clock: Stopwatch
) -> dict[str, float | None]:
    """Evaluates a round as the config says: on all samples after the last one; maybe not at all."""
    if not _is_evaluated(experiment, round):
        return dict.fromkeys(SCORES)
    with clock.measure("evaluate"):
        return experiment.evaluation.scores(weights, _is_last(experiment, round))


def _is_last(experiment: Experiment, round: int) -> bool:
    return round == experiment.config.federation.rounds


def _evaluate_last(
    experiment: Experiment,
    round: int,
    weights: np.ndarray,
    recorder: Recorder,
    callbacks: Callbacks,
) -> None:
    """Evaluates, on all samples, a round that has become the last because a callback said so."""
    if _is_evaluated(experiment, round) and experiment.config.record.evaluate_samples is None:
        return
    clock = Stopwatch()
    with clock.measure("evaluate"):
        scores = experiment.evaluation.scores(weights)
    rows: Any = recorder.frames(round)[0].to_dict("records")
    found = _played_round(
        experiment, [], weights, {**rows[0], **scores, **clock.seconds}, whole=True
    )
    recorder.change_round(callbacks.with_metrics(found))


def _start_weights(experiment: Experiment, callbacks: Callbacks) -> np.ndarray:
    """Returns the weights float32 `[d]` before round 1, which the server may have trained."""
    config, start = experiment.config, experiment.first_weights
    if not config.federation.server_epochs:
        return start
    callbacks.phase("training the server's first model")
    epochs, rate = config.federation.server_epochs, config.training.learning_rate
    data = experiment.federation.server
    assert data is not None  # the config demands it
    return start + experiment.training.server(data, start, 0, epochs, rate)


def _given_accuracy(experiment: Experiment) -> float | None:
    """Returns the accuracy of first weights that are not random; None if they are."""
    if not has_weights(experiment.config.model):
        return None
    return experiment.evaluation.scores(experiment.first_weights[None])["accuracy"]


def _start(
    experiment: Experiment,
    recorder: Recorder,
    callbacks: Callbacks,
    last: int,
    given: float | None,
) -> str | None:
    """Tells callbacks that rounds are about to be played; returns why none should be, if so."""
    rows: Any = recorder.frames()[0].to_dict("records") if last else []
    stop = callbacks.start(Start(experiment.config, last + 1, rows, recorder.path, given))
    if stop and last == 0:
        raise TfflError(f"a callback ends the run before its first round: {stop}")
    return stop


def _played_round(
    experiment: Experiment,
    groups: Sequence[Group],
    weights: np.ndarray,
    row: Mapping[str, Any],
    whole: bool = False,
) -> Round:
    """Returns a round as callbacks receive it; `whole` if it is evaluated on all test samples."""
    seen = weights.view()
    seen.flags.writeable = False
    evaluation, number = experiment.evaluation, row["round"]
    whole = whole or _is_last(experiment, number)
    return Round(
        number=number,
        groups=groups,
        weights=seen,
        row={name: as_written(value) for name, value in row.items()},
        client_rows=_client_rows(experiment, number, groups),
        labels=evaluation.labels(whole),
        predict=cache(lambda: evaluation.logits(seen, whole)),
        evaluated=whole or _is_evaluated(experiment, number),
    )


def _global_model(experiment: Experiment, weights: np.ndarray) -> keras.Model:
    model, layout = experiment.model, experiment.layout
    set_weights(model, layout.unflatten(weights[0]))
    if len(weights) == 1:
        return model
    return majority_model(model, [layout.unflatten(row) for row in weights])
