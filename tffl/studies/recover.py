"""FedRecover: the global model rebuilt without convicted clients, mostly from stored updates.

The server repeats the run from its first weights ŵ_1 = w_1 without the convicted. In most rounds it
asks no client, and estimates what client i would send instead:

    Δ̂_i = Δ_i − Ĥ_i (ŵ − w)         Ĥ_i by L-BFGS from the last s rounds with an exact update
    ŵ ← ŵ + η_server · mean of Δ̂_i

Δ_i is the stored update and w the stored global model; the pairs of L-BFGS are ŵ − w and the exact
update less the stored one, negated. Clients compute exact updates in the first rounds (warm-up), in
every k-th round (correction), in the last rounds (final tuning), and wherever an estimate has a
coordinate above τ (abnormality fixing). A share `tolerance` of all coordinates of the stored
updates is above τ.

FedRecover: Recovering from Poisoning Attacks in Federated Learning using Historical Information
    Xiaoyu Cao, Jinyuan Jia, Zaixi Zhang, Neil Zhenqiang Gong. IEEE S&P 2023.

It needs the updates of all rounds, and clients that still have their data and answer; here, the
run's config makes the data again. It takes as given who is to be left out.

Deviations: the paper's full text and the authors' code could not be read. The steps follow its
abstract and other people's code; τ, and that rounds of correction are counted from the warm-up's
end, were found only there. Updates are averaged, whatever the run's defense was. Pairs of
negative curvature are skipped. A client that lacks pairs, as it took part too rarely, is asked for
an exact update, and every exact update makes a pair, also that of an abnormal estimate. Moving
statistics of BatchNorm are those that the client has sent. Attackers that were missed train on
their poisoned data in exact rounds, but send what they trained: if they craft updates, the exact
rounds are kinder than reality.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.config import build, override
from tffl.core.atomic import check_writable, write_text
from tffl.core.errors import UsageError, require
from tffl.core.jsonable import write_json
from tffl.core.updates import Updates
from tffl.defenses.base import sample_shares
from tffl.defenses.parts.lbfgs import hessian_product
from tffl.record.identity import resolved
from tffl.record.run_directory import UPDATES, RunDirectory, round_files
from tffl.record.tables import to_csv

if TYPE_CHECKING:
    from tffl.engine.observer import Observer
    from tffl.simulation.experiment import Experiment

Train = Callable[[int, np.ndarray, np.ndarray], Updates]
"""(round, client ids, global weights) → exact updates."""


@dataclass(frozen=True)
class Plan:
    """When clients are asked for exact updates.

    The defaults are those of another public implementation; the paper's could not be looked up.

    Attributes:
      warm_up: First rounds.
      correct_every: Every how many rounds between warm-up and final tuning.
      tuning: Last rounds.
      pairs: Of L-BFGS, for each client.
      tolerance: Share of the stored coordinates above τ.
    """

    warm_up: int = 20
    correct_every: int = 10
    tuning: int = 5
    pairs: int = 2
    tolerance: float = 1e-6

    def check(self, rounds: int) -> None:
        """Raises `UsageError` if nothing of a run is left to estimate."""
        require(
            self.warm_up + self.tuning < rounds,
            f"{self.warm_up} rounds of warm-up and {self.tuning} of final tuning leave none of the "
            f"run's {rounds} rounds to estimate: choose fewer, such as --warm-up "
            f"{max(1, rounds // 5)} --tuning 1",
        )

    def is_exact(self, round: int, rounds: int) -> bool:
        """Says whether all clients are asked in a round, 1-based."""
        if round <= self.warm_up or round > rounds - self.tuning:
            return True
        return (round - self.warm_up) % self.correct_every == 0


@dataclass
class Recovered:
    """A rebuilt model, and what it cost.

    Attributes:
      weights: float32 `[d]`.
      rows: One per round: `round`, `clients` left, `exact` updates, and `abnormal` estimates.
    """

    weights: np.ndarray
    rows: list[dict[str, int]] = field(default_factory=list)

    @property
    def saved(self) -> float:
        """Share of the remaining clients' trainings that the server has saved them."""
        clients = sum(row["clients"] for row in self.rows)
        return 1 - sum(row["exact"] for row in self.rows) / max(clients, 1)


def abnormality_threshold(history: Callable[[], Iterable[Updates]], tolerance: float) -> float:
    """Returns τ: at most a share `tolerance` of the trainable coordinates is larger.

    Args:
      history: Returns the stored updates of the remaining clients. Rows that are not finite are
        left out.
      tolerance: In 0 … 1.
    """
    total = sum(len(updates) * int(updates.layout.trainable.sum()) for updates in history())
    keep, largest = int(tolerance * total) + 1, np.zeros(0)
    for updates in history():
        for row in range(len(updates)):
            sent = np.abs(updates.row(row))[updates.layout.trainable]
            if np.isfinite(sent).all():
                largest = np.concatenate([largest, sent])
                largest = np.partition(largest, max(len(largest) - keep, 0))[-keep:]
    return float(largest.min(initial=np.inf))


def rebuild(
    history: Callable[[], Iterable[Updates]],
    rounds: int,
    train: Train,
    plan: Plan,
    step: float = 1.0,
) -> Recovered:
    """Repeats a run with the clients that are left.

    Args:
      history: Returns the stored rounds in order, without the convicted clients.
      rounds: How many they are.
      train: Computes exact updates.
      plan: When.
      step: The server's learning rate.
    """
    threshold = abnormality_threshold(history, plan.tolerance)
    pairs: dict[int, deque[tuple[np.ndarray, np.ndarray]]] = defaultdict(
        lambda: deque(maxlen=plan.pairs)
    )
    result: Recovered | None = None
    for stored in history():
        result = result or Recovered(stored.start.copy())
        distance, ids = result.weights - stored.start, stored.client_ids
        exact, abnormal = np.ones(len(ids), bool), np.zeros(len(ids), bool)
        matrix = np.empty((len(ids), stored.layout.size), np.float32)
        if not plan.is_exact(stored.round, rounds):
            matrix = _estimates(stored, distance, pairs)
            learned = matrix[:, stored.layout.trainable]
            # Without a distance, the stored update is what the client would send.
            exact = np.array([distance.any() and not pairs[int(client)] for client in ids], bool)
            abnormal = ~exact & ~(np.abs(learned) <= threshold).all(axis=1)
            exact |= abnormal
        if exact.any():
            matrix[exact] = train(stored.round, ids[exact], result.weights).matrix
        for row in np.flatnonzero(exact).tolist():
            _remember(pairs[int(ids[row])], distance, stored.row(row) - matrix[row])
        if len(ids):
            sent = replace(stored, matrix=matrix, rows=None)
            mean = sent.mean(sample_shares(sent, np.ones(len(ids), bool)))
            result.weights += (step * mean).astype(np.float32)
        counts = {"exact": int(exact.sum()), "abnormal": int(abnormal.sum())}
        result.rows.append({"round": stored.round, "clients": len(ids), **counts})
    assert result is not None
    return result


def _estimates(
    stored: Updates, distance: np.ndarray, pairs: dict[int, deque[tuple[np.ndarray, np.ndarray]]]
) -> np.ndarray:
    """Returns what the clients of a round would send now, float32 `[n, d]`."""
    matrix = np.array([stored.row(row) for row in range(len(stored))], np.float32)
    blocks, fixed = list(stored.columns(trainable=True)), ~stored.layout.trainable
    for row, client in enumerate(stored.client_ids):
        if pairs[int(client)]:
            steps, turns = (np.stack(each) for each in zip(*pairs[int(client)], strict=True))
            product = hessian_product(steps, turns, distance, blocks)
            matrix[row] -= np.where(fixed, 0, product).astype(np.float32)
        matrix[row, fixed] -= distance[fixed]  # what the client's statistics were
    return matrix


def _remember(
    known: deque[tuple[np.ndarray, np.ndarray]], step: np.ndarray, turn: np.ndarray
) -> None:
    """Keeps a pair; where the models are still the same, or a row is ruined, there is none."""
    if step.any() and np.isfinite(turn).all():
        known.append((step, turn))


def recover(
    run: RunDirectory | Path | str,
    excluded: Collection[int],
    plan: Plan | None = None,
    retrain: bool = False,
    observer: Observer | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Rebuilds the global model of a run without some of its clients.

    Writes `global.keras`, `global/` (a SavedModel), `rounds.csv` and `recovery.json`.

    Args:
      run: A run that stored the updates of all its rounds.
      excluded: Ids of the clients to leave out.
      plan: When clients are asked for exact updates.
      retrain: Whether to train without them from scratch too, to compare.
      observer: Receives progress and warnings.
      out: Folder to write, by default `RUN/recovered`.

    Returns:
      `models`: name → accuracy and attack success of the `poisoned`, the `recovered`, and maybe the
      `retrained` model; `saved`, the share of client trainings that were saved; `abnormal`, the
      number of estimates that were not used; `excluded`; `missed`, the malicious clients that
      were not left out; `plan`; `folder`.

    Raises:
      UsageError: The run lacks updates, the clients do not exist, or nothing would be estimated.
      TfflError: A file is damaged or cannot be written.
    """
    from tffl.core.process import silence
    from tffl.engine.observer import Observer
    from tffl.engine.runtime import configure

    directory = run if isinstance(run, RunDirectory) else RunDirectory.open(Path(run))
    plan, observer = plan or Plan(), observer or Observer()
    rounds, folder = _check_rounds(directory), out or directory.path / "recovered"
    plan.check(rounds)
    _check_clients(directory, excluded)
    check_writable(folder / "rounds.csv")
    silence()
    configure(directory.config.runtime.devices)
    from tffl.models.layers import set_weights
    from tffl.record.export import export
    from tffl.simulation.experiment import Experiment

    changes = {"defense": {"name": "none"}, "record.store_updates": ""}
    config = resolved(build(override(directory.config.model_dump(), changes)))
    experiment, step = Experiment(config, observer), config.federation.server_learning_rate

    def history() -> Iterable[Updates]:
        for updates in directory.updates():
            left = experiment.received(updates).select(~np.isin(updates.client_ids, list(excluded)))
            observer.phase(f"round {updates.round} of {rounds}")
            yield left

    recovered = rebuild(history, rounds, experiment.train, plan, step)
    models = {"poisoned": _poisoned(directory)}
    models["recovered"] = _rates(experiment, recovered.weights)
    if retrain:
        everything = replace(plan, warm_up=rounds, tuning=0)
        scratch = rebuild(history, rounds, experiment.train, everything, step)
        models["retrained"] = _rates(experiment, scratch.weights)
    missed = sorted(set(experiment.attackers.ids.tolist()) - set(excluded))
    if config.attack.name == "none":
        missed = []
    set_weights(experiment.model, experiment.layout.unflatten(recovered.weights))
    export(experiment.model, folder)
    write_text(folder / "rounds.csv", to_csv(list(recovered.rows[0]), recovered.rows))
    found = {
        "models": models,
        "saved": recovered.saved,
        "abnormal": sum(row["abnormal"] for row in recovered.rows),
        "excluded": sorted(excluded),
        "missed": missed,
        "plan": asdict(plan),
        "folder": str(folder),
    }
    write_json(folder / "recovery.json", found)
    return found


def convicted(run: RunDirectory) -> list[int]:
    """Returns the clients that the run's defense flagged in most of their rounds.

    Raises:
      UsageError: There are none.
    """
    _, clients = run.frames()
    share = clients.groupby("client")["flagged"].mean()
    found = sorted(int(client) for client in share.index[share > 0.5])
    require(
        bool(found),
        f"{run.path}: {run.config.defense.name} flagged no client in most of its rounds: name "
        "those to leave out with --clients",
    )
    return found


def parse_clients(text: str) -> list[int]:
    """Returns client ids from a text such as `3,7`.

    Raises:
      UsageError: They are no numbers.
    """
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise UsageError(f"--clients {text} is not allowed: give ids such as 3,7") from None


def _check_rounds(run: RunDirectory) -> int:
    """Returns the number of rounds, all of which must be stored but those that were skipped."""
    stored, played = list(round_files(run.path / UPDATES)), len(run.frames()[0])
    skipped = run.tables.skipped()
    require(len(skipped) < played, f"all rounds of {run.path} were skipped: there is no update")
    missing = sorted(set(range(1, played + 1)) - set(stored) - skipped)
    require(
        bool(stored) and not missing,
        f"{run.path} lacks the updates of "
        + (f"round {missing[0]}" if stored and missing else "all rounds")
        + ": recovery needs every round, so run it again with --store-updates all",
    )
    return played


def _check_clients(run: RunDirectory, excluded: Collection[int]) -> None:
    count = run.config.federation.clients
    wrong = [client for client in excluded if not 0 <= client < count]
    require(
        not wrong,
        f"client {wrong[0] if wrong else ''} does not exist: the run's clients are 0 … {count - 1}",
    )
    seen = set(run.frames()[1]["client"].astype(int))
    require(bool(seen - set(excluded)), "no client would be left: leave out fewer")


def _rates(experiment: Experiment, weights: np.ndarray) -> dict[str, float | None]:
    scores = experiment.evaluation.scores(weights[None])
    return {name: scores[name] for name in ("accuracy", "attack_success")}


def _poisoned(run: RunDirectory) -> dict[str, float | None]:
    """Returns what the run itself measured after its last round."""
    last: Sequence[Any] = run.frames()[0].to_dict("records")[-1:]
    found = {name: last[0][name] for name in ("accuracy", "attack_success")}
    return {name: None if value != value else float(value) for name, value in found.items()}
