"""Attacks crafted on, and defenses that judge, the stored honest updates of a run.

    stored round → malicious rows are overwritten → each defense judges → one step, evaluated

Nothing is trained again but the malicious clients, and those only if the attack changes their data.
So a grid that would take hours of simulation takes minutes. It measures single rounds, not
trajectories: every round starts from the weights that the honest run had, however much damage the
round before would have done, and what a defense lets through does not add up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.config import ComponentConfig, Config, build, override
from tffl.core.errors import FAILURES, reason, require
from tffl.core.metrics import detection
from tffl.core.updates import Updates
from tffl.defenses import Defense, Verdict, create_defense
from tffl.defenses.base import State, sample_shares
from tffl.engine.stopwatch import Stopwatch
from tffl.record.identity import resolved
from tffl.record.run_directory import RunDirectory

if TYPE_CHECKING:
    import pandas as pd

    from tffl.engine.observer import Observer
    from tffl.simulation.experiment import Experiment

METRICS = ("recall", "precision", "fpr", "f1", "balanced_accuracy", "auc")


@dataclass(frozen=True)
class Grid:
    """What to replay.

    Attributes:
      attacks: Label → attack; `none` is the false alarms.
      defenses: Label → defense.
      malicious: Malicious clients, a count or a fraction of all, also as text.
      draws: How often the malicious clients are drawn anew; draw 0 is the experiment's own.
    """

    attacks: Mapping[str, ComponentConfig]
    defenses: Mapping[str, ComponentConfig]
    malicious: int | float | str = 0.2
    draws: int = 1


def replay(
    run: RunDirectory | Path | str, grid: Grid, observer: Observer | None = None
) -> pd.DataFrame:
    """Replays the stored rounds of an honest run with every attack against every defense.

    Args:
      run: A run with stored updates (`--store-updates`) and without malicious clients.
      grid: Attacks and defenses.
      observer: Hears what is being done, and warnings.

    Returns:
      One row per attack, draw, round and defense: `malicious`, how many took part; `accuracy` and
      `attack_success` after the step that the defense allows; `undefended_accuracy` and
      `undefended_success` after plain averaging; `honest_accuracy` after averaging what was really
      trained; `lost` and `undefended_lost`, points of accuracy below that; the metrics of
      `tffl.core.metrics.detection`, the score's threshold, and `defense_seconds`. NaN where a
      model is ruined. An attack or a defense that cannot work has one row instead, with the reason
      in `error`, which is empty elsewhere.

    Raises:
      UsageError: The run stores no updates or has attackers; or nothing of the grid can work, and
        then it is the first reason.
      TfflError: A file is damaged.
    """
    from tffl.core.process import silence
    from tffl.engine.observer import Observer
    from tffl.engine.runtime import configure

    directory = run if isinstance(run, RunDirectory) else RunDirectory.open(Path(run))
    _check_run(directory)
    silence()
    import pandas as pd

    # Before the dataset is read: that would start TensorFlow with several threads in an operation.
    configure(directory.config.runtime.devices)
    rows = list(_replay(directory, grid, observer or Observer()))
    errors = [row["error"] for row in rows]
    require(not all(errors), next(iter(errors), "the grid is empty"))
    frame = pd.DataFrame(rows)
    return frame[[*(name for name in frame if name != "error"), "error"]]


def summarize(replayed: pd.DataFrame) -> pd.DataFrame:
    """Returns means over rounds and draws, one row per attack and defense, in their order.

    What a ruined model leaves undefined in one round has no mean; detection metrics are means over
    the rounds that define them. `error` is the first reason why something could not be replayed;
    what has one has no means.
    """
    import pandas as pd

    of_model = ["lost", "undefended_lost", "accuracy", "attack_success"]
    figures = [*METRICS, "defense_seconds"]
    lines = []
    for (attack, defense), rows in replayed.groupby(["attack", "defense"], sort=False):
        error = next(filter(None, rows["error"]), "")
        means = {
            **rows[of_model].astype(float).mean(skipna=False),
            **rows[figures].astype(float).mean(),
        }
        means = dict.fromkeys(means, math.nan) if error else means
        lines.append({"attack": attack, "defense": defense, **means, "error": error})
    return pd.DataFrame(lines)


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


def _replay(directory: RunDirectory, grid: Grid, observer: Observer) -> Iterator[dict[str, Any]]:
    """Yields the rows of all attacks and draws; what cannot work is a row that says so."""
    from tffl.simulation.experiment import Experiment
    from tffl.simulation.shared_resources import SharedResources

    config, shared = directory.config, SharedResources()
    reserved = _reserved(config, shared)
    for (label, attack), draw in product(grid.attacks.items(), range(grid.draws)):
        try:
            changed = _with_attack(config, attack, grid.malicious)
            stage = Experiment(changed, observer, shared, draw)
            _check_reserved(label, stage, reserved, shared)
            observer.phase(f"{label}, draw {draw}" if grid.draws > 1 else label)
            rows = _play(stage, directory.updates(), grid.defenses)
        except FAILURES as failure:
            rows = [_failed(defense, failure) for defense in grid.defenses]
        for row in rows:
            yield {"attack": label, "draw": draw, "round": None, **row}


def _failed(defense: str, failure: Exception) -> dict[str, Any]:
    return {"defense": defense, "error": reason(failure)}


def _with_attack(config: Config, attack: ComponentConfig, malicious: int | float | str) -> Config:
    """Returns the stored run's experiment, undefended, but under attack."""
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


def _check_reserved(label: str, stage: Experiment, reserved: np.ndarray, shared: Any) -> None:
    mine = stage.attack.reserve(shared.dataset(stage.config.data))
    require(
        len(mine) == 0 or np.array_equal(np.sort(mine), np.sort(reserved)),
        f"{label} keeps {len(mine)} images from honest clients, but the stored run's clients "
        f"trained on them: store a run with --attack {stage.config.attack.name} --malicious 0",
    )


def _play(
    stage: Experiment, stored: Iterator[Updates], defenses: Mapping[str, ComponentConfig]
) -> list[dict[str, Any]]:
    """Returns a row per round and defense, or one of a defense that cannot work."""
    judges: dict[str, Defense] = {}
    states: dict[str, State] = {}
    failed: dict[str, dict[str, Any]] = {}
    for label, named in defenses.items():
        try:
            judges[label] = _defense(label, named, stage)
            states[label] = judges[label].init(stage.server)
        except FAILURES as failure:
            failed[label] = _failed(label, failure)
    memory: State = stage.attack.init(stage.adversary)
    rows: list[dict[str, Any]] = []
    for honest in stored:
        updates = _with_poisoned_training(stage, honest)
        updates, malicious, memory = stage.attack_updates(updates, memory)
        after = _Steps(stage, honest.start)
        common = {
            "round": honest.round,
            "malicious": int(malicious.sum()),
            **_undefended(stage, after, honest, updates),
        }
        for label in [label for label in judges if label not in failed]:
            try:
                judged, states[label] = _judge(
                    stage, judges[label], updates, states[label], malicious, after
                )
            except FAILURES as failure:
                failed[label] = _failed(label, failure)
                continue
            lost = common["honest_accuracy"] - judged["accuracy"]
            rows.append({**common, "defense": label, "lost": lost, **judged, "error": ""})
    rows = [row for row in rows if row["defense"] not in failed]
    return [*rows, *failed.values()]


def _judge(
    stage: Experiment,
    defense: Defense,
    updates: Updates,
    state: State,
    malicious: np.ndarray,
    after: _Steps,
) -> tuple[dict[str, Any], State]:
    """Returns what a defense makes of a round, and what it remembers."""
    clock = Stopwatch()
    with clock.measure("defense"):
        verdict, state = stage.judge(updates, state, defense)
    scores = after(verdict.aggregate)
    figures = {name: scores[name] for name in ("accuracy", "attack_success")}
    return {**figures, **_judged(verdict, malicious), **clock.seconds}, state


def _defense(label: str, named: ComponentConfig, stage: Experiment) -> Defense:
    """Makes a defense, if it can work in an experiment."""
    defense = create_defense(named.name, named.options)
    _check_defense(label, defense, stage)
    return defense


def _check_defense(label: str, defense: Defense, stage: Experiment) -> None:
    require(
        defense.models == 1,
        f"{label} keeps {defense.models} global models, and the stored updates belong to one",
    )
    stage.check_defense(defense, label)


def _with_poisoned_training(stage: Experiment, honest: Updates) -> Updates:
    """Returns a copy of a stored round, in which clients with poisoned data trained on it."""
    matrix = honest.matrix.copy()
    if stage.attack.active(honest.round):
        poisoned = np.array(stage.poisoned_clients(), dtype=np.int64)
        rows = np.flatnonzero(np.isin(honest.client_ids, poisoned))
        if len(rows):
            ids = honest.client_ids[rows]
            matrix[rows] = stage.train_round(honest.round, ids, honest.start).matrix
    return replace(honest, matrix=matrix)


class _Steps:
    """Evaluates steps from one model; equal ones, of defenses that agree, only once."""

    def __init__(self, stage: Experiment, start: np.ndarray) -> None:
        self.stage, self.start = stage, start
        self._known: dict[bytes, dict[str, Any]] = {}

    def __call__(self, aggregate: np.ndarray) -> dict[str, Any]:
        """Returns what `Experiment.evaluate` says after the step along an aggregate `[d]`."""
        step = self.stage.config.federation.server_learning_rate * aggregate
        weights = self.start + step.astype(np.float32)
        key = sha256(weights.tobytes()).digest()
        if key not in self._known:
            self._known[key] = self.stage.evaluate(weights[None])
        return self._known[key]


def _undefended(
    stage: Experiment, after: _Steps, honest: Updates, updates: Updates
) -> dict[str, Any]:
    trained, averaged = (
        after(received.mean(sample_shares(received, np.ones(len(received), bool))))
        for received in (stage.received(honest), stage.received(updates))
    )
    return {
        "honest_accuracy": trained["accuracy"],
        "honest_success": trained["attack_success"],
        "undefended_accuracy": averaged["accuracy"],
        "undefended_success": averaged["attack_success"],
        "undefended_lost": trained["accuracy"] - averaged["accuracy"],
    }


def _judged(verdict: Verdict, malicious: np.ndarray) -> dict[str, Any]:
    return {
        "accepted": int(verdict.accepted.sum()),
        "threshold": verdict.threshold,
        **detection(malicious, verdict.convicted, verdict.scores),
    }
