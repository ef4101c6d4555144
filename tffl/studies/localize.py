"""Which variables of the clients' models give the attackers away.

For each variable, round and client, the deviation of the client's values w from a reference r is

    max_j |w_j − r_j|        or        sqrt(mean_j (w_j − r_j)²)

where r is the clients' mean, or the joint model that they started from. The area under the ROC
curve says how well it ranks malicious clients above benign ones: 1 gives them away, 0.5 is chance.

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

EARLY = 5
"""Rounds that count as early: the paper sees the anomaly there, and sees it fade."""

PICTURE = Path("figures") / "localize.png"
"""Where in the run directory the heat map is."""


def localize(
    run: RunDirectory | Path | str, reference: str = "clients", statistic: str = "max"
) -> pd.DataFrame:
    """Ranks the variables of a recorded run by how clearly they give the attackers away.

    Writes `localize.csv` (the ranking), `localize_rounds.csv` (every round, statistic and
    reference) and `figures/localize.png` into the run directory.

    Args:
      run: A run directory. Where it has no `deviations/`, its stored updates are used.
      reference: One of `REFERENCES`.
      statistic: One of `STATISTICS`.

    Returns:
      What `rank` returns.

    Raises:
      UsageError: There is no such run, or it lacks what it takes: malicious clients, deviations.
      TfflError: A file is damaged or cannot be written.
    """
    directory = run if isinstance(run, RunDirectory) else RunDirectory.open(Path(run))
    measured = measure(_deviations(directory), _malicious(directory))
    ranking = rank(measured, reference, statistic)
    _write(measured, directory.path / "localize_rounds.csv")
    _write(ranking, directory.path / "localize.csv")
    drawing.write(directory.path / PICTURE, picture, measured, reference, statistic)
    return ranking


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
    """Sums up the rounds of each variable, and puts the most telling variable first.

    Args:
      measured: What `measure` returned.
      reference: One of `REFERENCES`.
      statistic: One of `STATISTICS`.

    Returns:
      One row per variable: `rank` from 1; `auc` and `auc_early`, means over all and over the first
      `EARLY` rounds; medians over rounds of `separation`, `malicious` and `benign`. Ordered by
      `auc`, then by `separation`.
    """
    chosen = _choose(measured, reference, statistic)
    groups = chosen.groupby("variable", sort=False)
    early = chosen[chosen["round"] <= EARLY].groupby("variable")["auc"].mean()
    ranking = groups[["separation", "malicious", "benign"]].median()
    ranking.insert(0, "auc", groups["auc"].mean())
    ranking.insert(1, "auc_early", early)
    ranking = ranking.sort_values(["auc", "separation"], ascending=False, kind="stable")
    ranking = ranking.reset_index()
    ranking.insert(0, "rank", np.arange(1, len(ranking) + 1))
    return ranking


def picture(measured: pd.DataFrame, reference: str = "clients", statistic: str = "max") -> Figure:
    """Draws the AUC of each variable in each round as a heat map, in the model's order."""
    chosen = _choose(measured, reference, statistic)
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
    """Says in words what is measured, such as `"maximum deviation from the clients' mean"`."""
    what = {"max": "maximum deviation", "rms": "RMS deviation"}[statistic]
    where = {"clients": "the clients' mean", "joint": "the joint model"}[reference]
    return f"{what} from {where}"


def _deviations(run: RunDirectory) -> list[Deviations]:
    found = run.deviations() or [of_updates(updates) for updates in run.updates()]
    require(
        bool(found),
        f"{run.path} holds neither deviations nor client updates: it has no finished round, or "
        "was made without them; run it again, with --out and a new folder",
    )
    return found


def _malicious(run: RunDirectory) -> set[int]:
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

    guilty = np.isin(deviations.client_ids, list(malicious))
    values = deviations.values.astype(np.float64)
    columns = _compare(values[guilty], values[~guilty])
    index = pd.MultiIndex.from_product(
        [[deviations.round], deviations.names, STATISTICS, REFERENCES],
        names=["round", "variable", "statistic", "reference"],
    )
    data = {name: column.ravel() for name, column in columns.items()}
    return pd.DataFrame(data, index=index).reset_index()


def _compare(bad: np.ndarray, good: np.ndarray) -> dict[str, np.ndarray]:
    """Compares two groups of clients `[clients, …]`; NaN where one of them is empty."""
    names = ("auc", "separation", "malicious", "benign")
    if not (len(bad) and len(good)):
        return {name: np.full(bad.shape[1:], np.nan) for name in names}
    # The share of pairs in which the malicious client deviates more; ties count half.
    wins = [(row > good).mean(axis=0) + (row == good).mean(axis=0) / 2 for row in bad]
    upper, lower = np.median(bad, axis=0), np.median(good, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return dict(zip(names, (np.mean(wins, axis=0), upper / lower, upper, lower), strict=True))


def _choose(measured: pd.DataFrame, reference: str, statistic: str) -> pd.DataFrame:
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
