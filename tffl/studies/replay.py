"""Replay: attacks and defenses tried on the stored honest updates of a run.

    stored round → the attack overwrites malicious rows → each defense judges → one evaluated step

Only the malicious clients are trained again, and only if the attack changes their data, so a grid
that would take hours of simulation takes minutes. A replay measures single rounds, not
trajectories: every round starts from the weights of the honest run, so damage does not accumulate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.config import ComponentConfig, Config, build, override
from tffl.core.atomic import write_text
from tffl.core.errors import FAILURES, reason, require
from tffl.core.metrics import detection
from tffl.core.updates import Updates
from tffl.defenses import Defense, Verdict, create_defense
from tffl.defenses.base import State, sample_shares
from tffl.engine.stopwatch import Stopwatch
from tffl.record.identity import resolved
from tffl.record.run_directory import RunDirectory
from tffl.record.tables import to_csv

if TYPE_CHECKING:
    import pandas as pd

    from tffl.engine.observer import Observer
    from tffl.simulation.experiment import Experiment

METRICS = ("recall", "precision", "fpr", "f1", "balanced_accuracy", "auc")


@dataclass(frozen=True)
class ReplayGrid:
    """The attacks and defenses of a replay.

    Attributes:
      attacks: Label → attack; `none` measures the false positives.
      defenses: Label → defense.
      malicious: The malicious clients, as a count or a fraction of all, also as text.
      draws: How many different sets of malicious clients are drawn; the first is the experiment's.
    """

    attacks: Mapping[str, ComponentConfig]
    defenses: Mapping[str, ComponentConfig]
    malicious: int | float | str = 0.2
    draws: int = 1


def replay(
    run: RunDirectory | Path | str,
    grid: ReplayGrid,
    observer: Observer | None = None,
    out: Path | None = None,
) -> pd.DataFrame:
    """Replays the stored rounds of an honest run with every attack against every defense.

    Args:
      run: A run with stored updates (`--store-updates`) and without malicious clients.
      grid: The attacks and defenses.
      observer: Receives progress and warnings.
      out: CSV file to write; nothing is written without it.

    Returns:
      One row per attack, draw, round and defense: `malicious`, the number of malicious
      participants; `accuracy` and `attack_success` after the defended step; `undefended_accuracy`
      and `undefended_success` after plain averaging; `honest_accuracy` after averaging the stored
      honest updates; `lost` and `undefended_lost`, the accuracy lost against that; the metrics of
      `tffl.core.metrics.detection`, the score's threshold, and `defense_seconds`. Rates of ruined
      models are NaN. An attack or a defense that does not work has a single row with the reason in
      `error`, which is empty elsewhere.

    Raises:
      UsageError: The run stores no updates or has attackers, or nothing in the grid works; then
        the message is the first reason.
      TfflError: A file is damaged, or cannot be written.
    """
    from tffl.core.process import silence
    from tffl.engine.observer import Observer
    from tffl.engine.runtime import configure

    directory = run if isinstance(run, RunDirectory) else RunDirectory.open(Path(run))
    _check_run(directory)
    silence()
    import pandas as pd

    # This must precede reading the dataset, which would start TensorFlow with its default threads.
    configure(directory.config.runtime.devices)
    rows = list(_replay(directory, grid, observer or Observer()))
    errors = [row["error"] for row in rows]
    require(not all(errors), next(iter(errors), "the grid is empty"))
    frame = pd.DataFrame(rows)
    frame = frame[[*(name for name in frame if name != "error"), "error"]]
    if out is not None:
        records: list[Any] = frame.to_dict("records")
        write_text(out, to_csv(list(frame.columns), records))
    return frame


def summarize(replayed: pd.DataFrame) -> pd.DataFrame:
    """Returns means over rounds and draws, one row per attack and defense, in their order.

    Accuracy and attack success have no mean if a model is ruined in any round; detection metrics
    are means over the rounds that define them. A row with an `error` has no means.

    Args:
      replayed: The result of `replay`.
    """
    import pandas as pd

    model_rates = ["lost", "undefended_lost", "accuracy", "attack_success"]
    defense_metrics = [*METRICS, "defense_seconds"]
    lines = []
    for (attack, defense), rows in replayed.groupby(["attack", "defense"], sort=False):
        error = next(filter(None, rows["error"]), "")
        means = {
            **rows[model_rates].astype(float).mean(skipna=False),
            **rows[defense_metrics].astype(float).mean(),
        }
        means = dict.fromkeys(means, math.nan) if error else means
        lines.append({"attack": attack, "defense": defense, **means, "error": error})
    return pd.DataFrame(lines)


def failures(means: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[str]]:
    """Returns (attack, error) → the defenses that could not be replayed for that reason.

    Args:
      means: The rows of `summarize`.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for row in means:
        if row["error"]:
            found.setdefault((row["attack"], row["error"]), []).append(row["defense"])
    return found


def _check_run(directory: RunDirectory) -> None:
    config = directory.config
    rounds = config.record.stored_rounds(config.federation.rounds)
    require(
        bool(rounds),
        f"{directory.path} stores no updates: run it again with --store-updates, such as "
        "--store-updates 1,5,10",
    )
    honest = config.attack.name == "none" or config.federation.malicious_count == 0
    require(
        honest,
        f"{directory.path} has malicious clients (attack = {config.attack.name}), and a replay "
        "needs honest updates: run it with --attack none, or with --malicious 0",
    )


def _replay(
    directory: RunDirectory, grid: ReplayGrid, observer: Observer
) -> Iterator[dict[str, Any]]:
    """Yields the rows of all attacks and draws; a failure is a row with its reason."""
    from tffl.simulation.experiment import Experiment
    from tffl.simulation.shared_resources import SharedResources

    config, shared = directory.config, SharedResources()
    reserved = _reserved(config, shared)
    for (label, attack), draw in product(grid.attacks.items(), range(grid.draws)):
        try:
            changed = _attacked_config(config, attack, grid.malicious)
            experiment = Experiment(changed, observer, shared, draw)
            _check_reserved(label, experiment, reserved, shared)
            observer.phase(f"{label}, draw {draw}" if grid.draws > 1 else label)
            rows = _play(experiment, directory.updates(), grid.defenses)
        except FAILURES as failure:
            rows = [_error_row(defense, failure) for defense in grid.defenses]
        for row in rows:
            yield {"attack": label, "draw": draw, "round": None, **row}


def _error_row(defense: str, failure: Exception) -> dict[str, Any]:
    return {"defense": defense, "error": reason(failure)}


def _attacked_config(
    config: Config, attack: ComponentConfig, malicious: int | float | str
) -> Config:
    """Returns the config of the stored run with an attack and without a defense."""
    changes = {
        "attack": attack.model_dump(),
        "defense": {"name": "none"},
        "federation.malicious": malicious,
        "record.store_updates": "",
    }
    return resolved(build(override(config.model_dump(), changes)))


def _reserved(config: Config, shared: Any) -> np.ndarray:
    from tffl.attacks import create_attack

    attack = create_attack(config.attack.name, config.attack.options)
    return attack.reserve(shared.dataset(config.data))


def _check_reserved(label: str, experiment: Experiment, reserved: np.ndarray, shared: Any) -> None:
    own = experiment.attack.reserve(shared.dataset(experiment.config.data))
    require(
        len(own) == 0 or np.array_equal(np.sort(own), np.sort(reserved)),
        f"{label} keeps {len(own)} images from honest clients, but the stored run's clients "
        f"trained on them: store a run with --attack {experiment.config.attack.name} --malicious 0",
    )


def _play(
    experiment: Experiment, stored: Iterator[Updates], defenses: Mapping[str, ComponentConfig]
) -> list[dict[str, Any]]:
    """Returns a row per round and defense, or a single row for a defense that fails."""
    working: dict[str, Defense] = {}
    states: dict[str, State] = {}
    failed: dict[str, dict[str, Any]] = {}
    for label, named in defenses.items():
        try:
            working[label] = _defense(label, named, experiment)
            states[label] = working[label].init(experiment.server)
        except FAILURES as failure:
            failed[label] = _error_row(label, failure)
    memory: State = experiment.attack.init(experiment.attackers.adversary)
    rows: list[dict[str, Any]] = []
    for honest in stored:
        updates = _with_poisoned_training(experiment, honest)
        updates, malicious, memory = experiment.attackers.send(updates, memory)
        experiment.follow_attack(memory)
        steps = _StepEvaluator(experiment, honest.start)
        common = {
            "round": honest.round,
            "malicious": int(malicious.sum()),
            **_undefended(experiment, steps, honest, updates),
        }
        for label in [label for label in working if label not in failed]:
            try:
                columns, states[label] = _judge(
                    experiment, working[label], updates, states[label], malicious, steps
                )
            except FAILURES as failure:
                failed[label] = _error_row(label, failure)
                continue
            lost = common["honest_accuracy"] - columns["accuracy"]
            rows.append({**common, "defense": label, "lost": lost, **columns, "error": ""})
    rows = [row for row in rows if row["defense"] not in failed]
    return [*rows, *failed.values()]


def _judge(
    experiment: Experiment,
    defense: Defense,
    updates: Updates,
    state: State,
    malicious: np.ndarray,
    steps: _StepEvaluator,
) -> tuple[dict[str, Any], State]:
    """Returns the columns that a defense fills for a round, and its new state."""
    clock = Stopwatch()
    with clock.measure("defense"):
        verdict, state = experiment.judge(updates, state, defense)
    evaluated = steps.evaluate(verdict.aggregate)
    rates = {name: evaluated[name] for name in ("accuracy", "attack_success")}
    return {**rates, **_verdict_columns(verdict, malicious), **clock.seconds}, state


def _defense(label: str, named: ComponentConfig, experiment: Experiment) -> Defense:
    """Creates a defense and checks that it works in the experiment."""
    defense = create_defense(named.name, named.options)
    _check_defense(label, defense, experiment)
    return defense


def _check_defense(label: str, defense: Defense, experiment: Experiment) -> None:
    require(
        defense.models == 1,
        f"{label} keeps {defense.models} global models, and the stored updates belong to one",
    )
    experiment.check_defense(defense, label)


def _with_poisoned_training(experiment: Experiment, honest: Updates) -> Updates:
    """Returns a copy of a stored round, in which clients with poisoned data trained on it."""
    matrix = honest.matrix.copy()
    if experiment.attack.active(honest.round):
        poisoned = np.array(experiment.attackers.with_poisoned_data(), dtype=np.int64)
        rows = np.flatnonzero(np.isin(honest.client_ids, poisoned))
        if len(rows):
            ids = honest.client_ids[rows]
            matrix[rows] = experiment.train(honest.round, ids, honest.start).matrix
    return replace(honest, matrix=matrix)


class _StepEvaluator:
    """Evaluates steps from one model; equal steps of several defenses only once."""

    def __init__(self, experiment: Experiment, start: np.ndarray) -> None:
        self.experiment, self.start = experiment, start
        self._known: dict[bytes, dict[str, Any]] = {}

    def evaluate(self, aggregate: np.ndarray) -> dict[str, Any]:
        """Returns the result of `Evaluation.scores` after a step along an aggregate `[d]`."""
        step = self.experiment.config.federation.server_learning_rate * aggregate
        weights = self.start + step.astype(np.float32)
        key = sha256(weights.tobytes()).digest()
        if key not in self._known:
            self._known[key] = self.experiment.evaluation.scores(weights[None])
        return self._known[key]


def _undefended(
    experiment: Experiment, steps: _StepEvaluator, honest: Updates, updates: Updates
) -> dict[str, Any]:
    trained, averaged = (
        steps.evaluate(received.mean(sample_shares(received, np.ones(len(received), bool))))
        for received in (experiment.received(honest), experiment.received(updates))
    )
    return {
        "honest_accuracy": trained["accuracy"],
        "honest_success": trained["attack_success"],
        "undefended_accuracy": averaged["accuracy"],
        "undefended_success": averaged["attack_success"],
        "undefended_lost": trained["accuracy"] - averaged["accuracy"],
    }


def _verdict_columns(verdict: Verdict, malicious: np.ndarray) -> dict[str, Any]:
    return {
        "accepted": int(verdict.accepted.sum()),
        "threshold": verdict.threshold,
        **detection(malicious, verdict.convicted, verdict.scores),
    }
