"""Anomaly localization: the variables of clients' models that reveal the attackers.

For each variable, round and client, the deviation of the client's values w from a reference r is

    max_j |w_j − r_j|        or        sqrt(mean_j (w_j − r_j)²)

where r is the mean of the clients, or the global model that they started from. The area under the
ROC curve measures how well the deviation ranks malicious clients above benign ones: 1 separates
them completely, 0.5 is chance.

Anomaly Localization in Model Gradients Under Backdoor Attacks Against Federated Learning
    Zeki Bilgin. 2021. Section 5.4.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core.atomic import write_text
from tffl.core.deviations import REFERENCES, STATISTICS, Deviations, of_updates
from tffl.core.errors import require
from tffl.drawing import figures
from tffl.drawing import guard as drawing
from tffl.record.run_directory import RunDirectory
from tffl.record.tables import to_csv

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from tffl.config import Config

EARLY = 5
"""The number of early rounds: there the paper observes the anomaly, which fades later."""

PICTURE = Path("figures") / "localize.png"
"""The path of the heat map in the run directory."""


def localize(
    run: RunDirectory | Path | str, reference: str = "clients", statistic: str = "max"
) -> pd.DataFrame:
    """Ranks the variables of a recorded run by how clearly they reveal the attackers.

    Writes `localize.csv` (the ranking), `localize_rounds.csv` (every round, statistic and
    reference) and `figures/localize.png` into the run directory.

    Args:
      run: A run directory. Without `deviations/`, its stored updates are used.
      reference: One of `REFERENCES`.
      statistic: One of `STATISTICS`.

    Returns:
      The ranking, as `rank` returns it.

    Raises:
      UsageError: The run does not exist, or has no malicious clients, deviations or updates.
      TfflError: A file is damaged or cannot be written.
    """
    directory = run if isinstance(run, RunDirectory) else RunDirectory.open(Path(run))
    measured = measure(_deviations(directory), _malicious_clients(directory))
    ranking = rank(measured, reference, statistic)
    _write(measured, directory.path / "localize_rounds.csv")
    _write(ranking, directory.path / "localize.csv")
    drawing.write(directory.path / PICTURE, auc_heat_map, measured, reference, statistic)
    return ranking


def check_attacked(config: Config) -> None:
    """Checks that an experiment has attackers.

    Raises:
      UsageError: It has none.
    """
    require(
        config.attack.name != "none" and config.federation.malicious_count > 0,
        "there are no attackers to localize: choose an --attack, and --malicious above 0",
    )


def report(ranking: pd.DataFrame, run: Path, reference: str, statistic: str) -> dict[str, Any]:
    """Returns a ranking, how it was made and where its picture is, for JSON."""
    return {
        "run": run,
        "reference": reference,
        "statistic": statistic,
        "variables": ranking.to_dict("records"),
        "picture": run / PICTURE,
    }


def measure(rounds: Iterable[Deviations], malicious: Collection[int]) -> pd.DataFrame:
    """Compares the deviations of malicious and benign clients.

    Args:
      rounds: The deviations of each round.
      malicious: Ids of the malicious clients.

    Returns:
      One row per round, variable, statistic and reference: `auc` in 0 … 1; `malicious` and
      `benign`, the median deviations; `separation`, their ratio. All four are NaN in rounds that
      lack one of the two groups. Variables are in the model's order.

    Raises:
      UsageError: No round has both malicious and benign clients.
    """
    import pandas as pd

    parts = [_measure_round(deviations, malicious) for deviations in rounds]
    measured = pd.concat(parts, ignore_index=True)
    require(
        bool(measured["auc"].notna().any()),
        "no round has both malicious and benign clients, so there is nobody to tell apart: "
        "localize a run with an attack and federation.malicious above 0",
    )
    return measured


def rank(
    measured: pd.DataFrame, reference: str = "clients", statistic: str = "max"
) -> pd.DataFrame:
    """Averages over the rounds, and ranks the variables by their AUC.

    Args:
      measured: The result of `measure`.
      reference: One of `REFERENCES`.
      statistic: One of `STATISTICS`.

    Returns:
      One row per variable: `rank` from 1; `auc` and `auc_early`, means over all and over the first
      `EARLY` rounds; medians over rounds of `separation`, `malicious` and `benign`. Ordered by
      `auc`, then by `separation`.
    """
    chosen = _select(measured, reference, statistic)
    groups = chosen.groupby("variable", sort=False)
    early = chosen[chosen["round"] <= EARLY].groupby("variable")["auc"].mean()
    ranking = groups[["separation", "malicious", "benign"]].median()
    ranking.insert(0, "auc", groups["auc"].mean())
    ranking.insert(1, "auc_early", early)
    ranking = ranking.sort_values(["auc", "separation"], ascending=False, kind="stable")
    ranking = ranking.reset_index()
    ranking.insert(0, "rank", np.arange(1, len(ranking) + 1))
    return ranking


def auc_heat_map(
    measured: pd.DataFrame, reference: str = "clients", statistic: str = "max"
) -> Figure:
    """Draws a heat map of the AUC of each variable (in the model's order) in each round.

    Args:
      measured: The result of `measure`.
      reference: One of `REFERENCES`.
      statistic: One of `STATISTICS`.
    """
    chosen = _select(measured, reference, statistic)
    table = chosen.pivot(index="variable", columns="round", values="auc")
    names = list(dict.fromkeys(chosen["variable"]))
    return figures.heat_map(
        table.loc[names].to_numpy(),
        names,
        [int(round) for round in table.columns],
        f"Which variables give the attackers away\n{describe(reference, statistic)}",
        "ROC-AUC",
    )


def describe(reference: str, statistic: str) -> str:
    """Returns the measure in words, such as `"maximum deviation from the clients' mean"`."""
    what = {"max": "maximum deviation", "rms": "RMS deviation"}[statistic]
    where = {"clients": "the clients' mean", "joint": "the joint model"}[reference]
    return f"{what} from {where}"


def _deviations(run: RunDirectory) -> list[Deviations]:
    found = run.deviations() or [of_updates(updates) for updates in run.updates()]
    require(
        bool(found),
        f"{run.path} holds neither deviations nor client updates: it has no finished round, or "
        "did not record them; run it again, with --out and a new folder",
    )
    return found


def _malicious_clients(run: RunDirectory) -> set[int]:
    _, clients = run.frames()
    malicious = set(clients.loc[clients["malicious"] == 1, "client"].astype(int))
    require(
        bool(malicious),
        f"{run.path} has no malicious clients, so there is nobody to localize: choose a run with "
        "an attack",
    )
    return malicious


def _measure_round(deviations: Deviations, malicious: Collection[int]) -> pd.DataFrame:
    import pandas as pd

    is_malicious = np.isin(deviations.client_ids, list(malicious))
    values = deviations.values.astype(np.float64)
    columns = _compare_groups(values[is_malicious], values[~is_malicious])
    index = pd.MultiIndex.from_product(
        [[deviations.round], deviations.names, STATISTICS, REFERENCES],
        names=["round", "variable", "statistic", "reference"],
    )
    data = {name: column.ravel() for name, column in columns.items()}
    return pd.DataFrame(data, index=index).reset_index()


def _compare_groups(malicious: np.ndarray, benign: np.ndarray) -> dict[str, np.ndarray]:
    """Compares the deviations `[clients, …]` of two groups; NaN if one of them is empty."""
    names = ("auc", "separation", "malicious", "benign")
    if not (len(malicious) and len(benign)):
        return {name: np.full(malicious.shape[1:], np.nan) for name in names}
    # The share of pairs in which the malicious client deviates more; ties count half.
    wins = [(row > benign).mean(axis=0) + (row == benign).mean(axis=0) / 2 for row in malicious]
    upper, lower = np.median(malicious, axis=0), np.median(benign, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return dict(zip(names, (np.mean(wins, axis=0), upper / lower, upper, lower), strict=True))


def _select(measured: pd.DataFrame, reference: str, statistic: str) -> pd.DataFrame:
    for name, value, allowed in (
        ("reference", reference, REFERENCES),
        ("statistic", statistic, STATISTICS),
    ):
        require(value in allowed, f"{name} is {value!r}: choose one of {', '.join(allowed)}")
    same = (measured["reference"] == reference) & (measured["statistic"] == statistic)
    return measured[same & measured["auc"].notna()]


def _write(table: pd.DataFrame, path: Path) -> None:
    rows: list[Any] = table.to_dict("records")
    write_text(path, to_csv(list(table.columns), rows))
