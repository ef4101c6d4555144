"""tffl's defenses in a Flower server, from the runs of `examples/flower/loopback.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tffl.core.errors import TfflError
from tffl.studies.benchmark_table import percent, table
from tffl.studies.pages.builder import (
    ABOUT_CONSENSUS_TESTS,
    CONSENSUS_TESTS,
    Page,
    read_table,
    records,
)

if TYPE_CHECKING:
    import pandas as pd

ATTACKS = {
    "label-flip": "flipped labels",
    "sign-flip": "the update times −4",
    "nan": "a model of NaN",
}
DEFENSES = {
    "flower-fedavg": "none: Flower's FedAvg",
    "flower-multi-krum": "Flower's Multi-Krum, which is given f",
    "update-consensus": "tffl's update-consensus",
    CONSENSUS_TESTS: f"tffl's {CONSENSUS_TESTS}",
    "shield": "tffl's shield",
}
PLACES = {"simulation": "Simulation", "deployment": "SuperLink and SuperNodes"}


def collect(runs: Path) -> Mapping[str, pd.DataFrame]:
    """Returns a row for each run: its last accuracy, and whom its strategy left out."""
    import pandas as pd

    finished = [file.parent for file in sorted(runs.glob("*/accuracy.csv"))]
    if not finished:
        return {}
    rows = pd.DataFrame([summarize(run) for run in finished])
    order = {name: place for place, name in enumerate([*PLACES, *ATTACKS, *DEFENSES])}
    keys = ["where", "attack", "defense"]
    return {"runs.csv": rows.sort_values(keys, key=lambda column: column.map(order))}


def summarize(run: Path) -> dict[str, Any]:
    """Returns the row of a run."""
    kind, defense = run.name.split("_", 1)
    accuracy, truth = read_table(run / "accuracy.csv"), read_table(run / "truth.csv")
    deployed = kind == "deployment"
    row = {
        "attack": "label-flip" if deployed else kind,
        "defense": defense,
        "where": "deployment" if deployed else "simulation",
        "nodes": len(truth),
        "malicious": int(truth["malicious"].sum()),
        "rounds": int(accuracy["round"].max()),
        "accuracy": round(float(accuracy["accuracy"].iloc[-1]), 4),
    }
    if not (run / "clients.csv").exists():
        return row  # a strategy that judges nobody
    found = decisions(run)
    rejected, malicious = ~found["accepted"], found["malicious"] == 1
    return row | {
        "caught": int((rejected & malicious).sum()),
        "attacks": int(malicious.sum()),
        "blamed": int((rejected & ~malicious).sum()),
        "honest": int((~malicious).sum()),
    }


def decisions(run: Path) -> pd.DataFrame:
    """Returns round, node, accepted and malicious of every verdict.

    Raises:
      TfflError: A verdict is about a node that is not in `truth.csv`.
    """
    import pandas as pd

    rows = pd.read_csv(run / "clients.csv")
    if "node" not in rows:
        rows = rows.merge(pd.read_csv(run / "nodes.csv", dtype={"node": "uint64"}), on="client")
    truth = pd.read_csv(run / "truth.csv", dtype={"node": "uint64"})
    rows["node"] = rows["node"].astype("uint64")
    merged = rows[["round", "node", "accepted"]].merge(truth, on="node", how="left", validate="m:1")
    if merged["malicious"].isna().any():
        raise TfflError(f"{run / 'clients.csv'} has nodes that truth.csv does not have")
    merged["accepted"] = merged["accepted"].astype(str).isin({"1", "True"})
    return merged


def intro(folder: Path) -> str:
    """Says what is in the tables."""
    return (
        "A Flower app with malicious nodes, under strategies of Flower and of tffl. Accuracy is "
        "the global model's after the last round, in percent. Caught and blamed are replies that "
        "were left out of the average, over all rounds."
    )


def body(folder: Path) -> Iterator[str]:
    """Yields a section for each kind of deployment."""
    rows = read_table(folder / "runs.csv")
    if CONSENSUS_TESTS in set(rows["defense"]):
        yield ABOUT_CONSENSUS_TESTS
    header = ["malicious nodes send", "strategy", "accuracy", "attackers caught", "honest blamed"]
    for place, title in PLACES.items():
        part = records(rows[rows["where"] == place])
        if not part:
            continue
        first = part[0]
        secured = ", TLS and node authentication" if place == "deployment" else ""
        yield f"## {title}"
        yield (
            f"`examples/flower`: digits, LeNet-5, {first['nodes']} nodes, {first['malicious']} of "
            f"them malicious, {first['rounds']} rounds{secured}."
        )
        yield table(header, list(map(_line, part)))


def _line(row: Mapping[str, Any]) -> list[str]:
    judges = row["attacks"] == row["attacks"]  # NaN where the strategy judges nobody
    return [
        ATTACKS[row["attack"]],
        DEFENSES[row["defense"]],
        percent(row["accuracy"]),
        f"{int(row['caught'])} of {int(row['attacks'])}" if judges else "–",
        f"{int(row['blamed'])} of {int(row['honest'])}" if judges else "–",
    ]


PAGE = Page(
    "flower",
    "tffl's defenses in Flower",
    intro,
    body,
    collect,
    packages=("flwr", "tffl", "tensorflow", "keras", "numpy"),
)
