"""Attacks crafted on, and defenses that judge, the stored honest updates of a run.

    stored round → malicious rows are overwritten → each defense judges → one step, evaluated

Nothing is trained again but the malicious clients, and those only if the attack changes their data.
So a grid that would take hours of simulation takes minutes. It measures single rounds, not
trajectories: every round starts from the weights that the honest run had, however much damage the
round before would have done, and what a defense lets through does not add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.config import Config, Named, build, override
from tffl.core.errors import require
from tffl.core.metrics import detection
from tffl.core.updates import Updates
from tffl.defenses import Defense, Verdict, create_defense
from tffl.defenses.base import State, sample_shares
from tffl.engine.stopwatch import Stopwatch
from tffl.record.identity import resolved
from tffl.record.run_directory import RunDirectory

if TYPE_CHECKING:
    import pandas as pd

    from tffl.simulation.simulation import Experiment

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

    attacks: Mapping[str, Named]
    defenses: Mapping[str, Named]
    malicious: int | float | str = 0.2
    draws: int = 1


def replay(
    run: RunDirectory | Path | str,
    grid: Grid,
    progress: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """Replays the stored rounds of an honest run with every attack against every defense.

    Args:
      run: A run with stored updates (`--store-updates`) and without malicious clients.
      grid: Attacks and defenses.
      progress: Hears what is being done.

    Returns:
      One row per attack, draw, round and defense: `malicious`, how many took part; `accuracy` and
      `attack_success` after the step that the defense allows; `undefended_accuracy` and
      `undefended_success` after plain averaging; `honest_accuracy` after averaging what was really
      trained; `lost` and `undefended_lost`, points of accuracy below that; the metrics of
      `tffl.core.metrics.detection`, the score's threshold, and `defense_seconds`.

    Raises:
      UsageError: The run stores no updates, has attackers, or an attack or defense cannot work.
      TfflError: A file is damaged.
    """
    from tffl.core.process import silence

    silence()
    import pandas as pd

    directory = run if isinstance(run, RunDirectory) else RunDirectory.resume(Path(run))
    _check_run(directory)
    rows: list[dict[str, Any]] = []
    for label, draw, stage in _stages(directory.config, grid):
        progress(f"{label}, draw {draw}" if grid.draws > 1 else label)
        for row in _play(stage, directory.updates(), grid.defenses):
            rows.append({"attack": label, "draw": draw, **row})
    return pd.DataFrame(rows)


def summarize(replayed: pd.DataFrame) -> pd.DataFrame:
    """Returns means over rounds and draws, one row per attack and defense, in their order."""
    figures = ["lost", "undefended_lost", "accuracy", "attack_success", *METRICS, "defense_seconds"]
    groups = replayed.groupby(["attack", "defense"], sort=False)
    return groups[figures].mean().reset_index()


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


def _stages(config: Config, grid: Grid) -> Iterator[tuple[str, int, Experiment]]:
    """Yields attack label, draw and an undefended experiment for each attack and draw."""
    from tffl.engine.observer import Observer
    from tffl.simulation.simulation import Experiment
    from tffl.simulation.workshop import Workshop

    workshop = Workshop()
    reserved = _reserved(config, workshop)
    for label, attack in grid.attacks.items():
        changed = _with_attack(config, attack, grid.malicious)
        for draw in range(grid.draws):
            stage = Experiment(changed, Observer(), workshop, draw)
            _check_reserved(label, stage, reserved, workshop)
            yield label, draw, stage


def _with_attack(config: Config, attack: Named, malicious: int | float | str) -> Config:
    """Returns the stored run's experiment, undefended, but under attack."""
    changes = {
        "attack": attack.model_dump(),
        "defense": {"name": "none"},
        "federation.malicious": malicious,
        "record.store_updates": "",
    }
    return resolved(build(override(config.model_dump(), changes)))


def _reserved(config: Config, workshop: Any) -> np.ndarray:
    from tffl.attacks import create_attack

    attack = create_attack(config.attack.name, config.attack.options)
    return attack.reserve(workshop.dataset(config.data))


def _check_reserved(label: str, stage: Experiment, reserved: np.ndarray, workshop: Any) -> None:
    mine = stage.attack.reserve(workshop.dataset(stage.config.data))
    require(
        len(mine) == 0 or np.array_equal(np.sort(mine), np.sort(reserved)),
        f"{label} keeps {len(mine)} images from honest clients, but the stored run's clients "
        f"trained on them: store a run with --attack {stage.config.attack.name} --malicious 0",
    )


def _play(
    stage: Experiment, stored: Iterator[Updates], defenses: Mapping[str, Named]
) -> Iterator[dict[str, Any]]:
    """Yields a row per round and defense."""
    judges = {label: create_defense(d.name, d.options) for label, d in defenses.items()}
    for label, judge in judges.items():
        _check_defense(label, judge, stage)
    states: dict[str, State] = {label: d.init(stage.server) for label, d in judges.items()}
    memory: State = stage.attack.init(stage.adversary)
    for honest in stored:
        updates = _with_poisoned_training(stage, honest)
        malicious, memory = stage.attack_updates(updates, memory)
        after = _Steps(stage, honest.start)
        common = {
            "round": honest.round,
            "malicious": int(malicious.sum()),
            **_undefended(stage, after, honest, updates),
        }
        for label, judge in judges.items():
            clock = Stopwatch()
            with clock.measure("defense"):
                verdict, states[label] = stage.judge(updates, states[label], judge)
            scores = after(verdict.aggregate)
            yield {
                **common,
                "defense": label,
                "accuracy": scores["accuracy"],
                "attack_success": scores["attack_success"],
                "lost": common["honest_accuracy"] - scores["accuracy"],
                **_judged(verdict, malicious),
                **clock.seconds,
            }


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
    return replace(honest, matrix=matrix, sample_counts=honest.sample_counts.copy())


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
