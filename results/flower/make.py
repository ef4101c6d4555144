"""Reads the runs of run.sh, and writes runs.csv, README.md and environment.json.

    bash results/flower/run.sh && python results/flower/make.py

Every number in README.md is computed here, none is typed. Without run.sh's directories the CSV file
that is here is read instead.
"""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from tffl.core.jsonable import write_json
from tffl.studies.benchmark_table import percent, table

HERE = Path(__file__).parent
RUNS = HERE.parents[1] / "runs" / "flower"
ATTACKS = {
    "label-flip": "flipped labels",
    "sign-flip": "the update times −4",
    "nan": "a model of NaN",
}
DEFENSES = {
    "flower-fedavg": "none: Flower's FedAvg",
    "flower-multi-krum": "Flower's Multi-Krum, told f",
    "update-consensus": "tffl's update-consensus",
    "shield": "tffl's shield",
}


def decisions(run: Path) -> pd.DataFrame | None:
    """Returns round, node, accepted and malicious of every verdict; None if there are none."""
    if not (run / "clients.csv").exists():
        return None
    rows = pd.read_csv(run / "clients.csv")
    if "node" not in rows:
        rows = rows.merge(pd.read_csv(run / "nodes.csv", dtype={"node": "uint64"}), on="client")
    truth = pd.read_csv(run / "truth.csv", dtype={"node": "uint64"})
    rows["node"] = rows["node"].astype("uint64")
    merged = rows[["round", "node", "accepted"]].merge(truth, on="node", how="left", validate="m:1")
    assert merged["malicious"].notna().all(), f"{run} has nodes that nobody knows"
    merged["accepted"] = merged["accepted"].astype(str).isin({"1", "True"})
    return merged


def summarize(run: Path) -> dict[str, Any]:
    """Returns one run's row: its last accuracy, and whom its strategy left out."""
    kind, defense = run.name.split("_", 1)
    accuracy, found = pd.read_csv(run / "accuracy.csv"), decisions(run)
    row = {
        "attack": "label-flip" if kind == "deployment" else kind,
        "defense": defense,
        "where": "deployment" if kind == "deployment" else "simulation",
        "nodes": len(pd.read_csv(run / "truth.csv")),
        "malicious": int(pd.read_csv(run / "truth.csv")["malicious"].sum()),
        "rounds": int(accuracy["round"].max()),
        "accuracy": round(float(accuracy["accuracy"].iloc[-1]), 4),
    }
    if found is None:
        return row
    rejected, malicious = ~found["accepted"], found["malicious"] == 1
    return row | {
        "caught": int((rejected & malicious).sum()),
        "attacks": int(malicious.sum()),
        "blamed": int((rejected & ~malicious).sum()),
        "honest": int((~malicious).sum()),
    }


def collect() -> pd.DataFrame:
    """Returns all runs, and writes them down."""
    finished = [f.parent for f in sorted(RUNS.glob("*/accuracy.csv"))]
    if not finished:
        return pd.read_csv(HERE / "runs.csv")
    rows = pd.DataFrame([summarize(run) for run in finished])
    order = {name: number for number, name in enumerate([*ATTACKS, *DEFENSES])}
    rows = rows.sort_values(
        ["where", "attack", "defense"],
        key=lambda column: column.map(order) if column.name != "where" else column != "simulation",
    )
    rows.to_csv(HERE / "runs.csv", index=False)
    packages = ("flwr", "tffl", "tensorflow", "keras", "numpy")
    environment = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: version(name) for name in packages},
    }
    write_json(HERE / "environment.json", environment)
    return rows


def lines(rows: pd.DataFrame) -> list[list[str]]:
    """Returns the table's lines."""
    result = []
    for row in rows.itertuples():
        known = row.attacks == row.attacks  # NaN where the strategy judges nobody
        result.append(
            [
                ATTACKS[row.attack],
                DEFENSES[row.defense],
                percent(row.accuracy),
                f"{int(row.caught)} of {int(row.attacks)}" if known else "–",
                f"{int(row.blamed)} of {int(row.honest)}" if known else "–",
            ]
        )
    return result


def main() -> int:
    """Writes README.md."""
    rows = collect()
    header = ["malicious nodes send", "strategy", "accuracy", "attackers caught", "honest blamed"]
    simulated, deployed = (rows[rows["where"] == kind] for kind in ("simulation", "deployment"))
    text = [
        "# tffl's defenses in Flower",
        "",
        "Written by make.py from runs.csv; `bash results/flower/run.sh` plays the runs. Accuracy",
        "is the global model's after the last round, in percent. Caught and blamed are replies",
        "that were left out of the average, over all rounds.",
        "",
    ]
    for kind, part in (("Simulation", simulated), ("SuperLink and SuperNodes", deployed)):
        if part.empty:
            continue
        first = part.iloc[0]
        text += [f"## {kind}", ""]
        text += [
            f"`examples/flower`: digits, LeNet-5, {first.nodes} nodes, {first.malicious} of them "
            f"malicious, {first.rounds} rounds"
            + (", TLS and node authentication." if kind != "Simulation" else "."),
            "",
            table(header, lines(part)),
            "",
        ]
    (HERE / "README.md").write_text("\n".join(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
