"""Folders written by hand, so that every number of a report is known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tffl.config import build
from tffl.core.tensors import write_tensors
from tffl.record.tables import CLIENT_COLUMNS, ROUND_COLUMNS, to_csv
from tffl.report.document import Report
from tffl.studies import benchmark


def write_run(
    path: Path, rounds: int = 3, clients: int = 4, planned: int | None = None, **sections: Any
) -> Path:
    """Writes a run whose first client is malicious, and flagged in every round but the first."""
    path.mkdir(parents=True)
    config = build(
        {
            "federation": {"clients": clients, "malicious": 1, "rounds": planned or rounds},
            "attack": {"name": "sign-flip"},
            "defense": {"name": "bias-anomaly"},
            **sections,
        }
    )
    (path / "config.toml").write_text(config.to_toml())
    numbers = range(1, rounds + 1)
    rows = [
        {
            **dict.fromkeys(ROUND_COLUMNS),
            **{"round": r, "accuracy": 0.5 + 0.4 * r / rounds, "loss": 1 / r, "threshold": 2.5},
            **{"attack_success": 0.1 * (r == 1), "recall": float(r > 1), "fpr": 0.0, "auc": 1.0},
            **{f"{phase}_seconds": 0.25 for phase in ("train", "attack", "defense", "evaluate")},
        }
        for r in numbers
    ]
    judged = [
        {
            **{"round": r, "client": c, "samples": 10 + c, "malicious": c == 0, "weight": 0.25},
            **{"score": 3.0 - 1.0 * (r == 1) if c == 0 else 1.0 + c / clients},
            **{"flagged": c == 0 and r > 1, "accepted": not (c == 0 and r > 1)},
            **{"update_norm": 1.0, "reason": "far, <b>or</b> not" if c == 0 and r > 1 else ""},
        }
        for r in numbers
        for c in range(clients)
    ]
    (path / "rounds.csv").write_text(to_csv(ROUND_COLUMNS, rows))
    (path / "clients.csv").write_text(to_csv(CLIENT_COLUMNS, judged))
    split = [
        {"client": c, "class": name, "samples": 5 + c, "trained": 5 + c - (c == 0)}
        for c in range(clients)
        for name in ("cat", "dog")
    ]
    (path / "split.csv").write_text(to_csv(("client", "class", "samples", "trained"), split))
    (path / "environment.json").write_text(json.dumps({"command": ["tffl", "a_b"], "cores": 2}))
    if planned in (None, rounds):
        (path / "summary.json").write_text(json.dumps({"accuracy": 0.9}))
    return path


def write_maps(path: Path, clients: int, size: int = 28, channels: int = 1) -> None:
    """Adds heat maps of the last round, with reconstructions."""
    draw = np.random.default_rng(0)
    maps = draw.random((clients, 4, 7, 7), dtype=np.float32)
    write_tensors(
        path / "heat_maps" / "round-000003.safetensors",
        {
            "client_ids": np.arange(clients),
            "maps": maps,
            "inputs": maps,
            "rebuilt": maps * 0.9,
            "probes": draw.integers(0, 256, (1, size, size, channels), dtype=np.uint8),
        },
        {"round": "3"},
    )


ATTACKS, DEFENSES = ("none", "lie", "sign-flip"), ("none", "median")
ACCURACIES = {("none", "none"): 0.9, ("lie", "none"): 0.4, ("sign-flip", "none"): 0.1} | {
    ("none", "median"): 0.8,
    ("lie", "median"): 0.5,
    ("sign-flip", "median"): 0.7,
}


def benchmark_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            **dict.fromkeys(benchmark.COLUMNS),
            **{"setting": "iid & small", "attack": a, "defense": d, "seed": seed, "error": ""},
            **{"accuracy": ACCURACIES[a, d] + 0.01 * seed, "fpr": 0.125, "seconds": 2.0},
            **{"attack_success": 0.25 if a == "lie" else None, "defense_seconds": 0.5},
        }
        for seed in (0, 1)
        for a in ATTACKS
        for d in DEFENSES
    ]
    rows[-1] |= {"error": "it_broke", "accuracy": None}
    return rows


def scan_of(names: Sequence[str], refused: Mapping[str, str] | None = None) -> Report:
    """Returns what is told of a scan in which every second file is a suspect."""
    from tffl.core.verdict import Verdict
    from tffl.scan.output import ScanOutput, build_report
    from tffl.scan.result import ScanResult
    from tffl.untrusted.model_folder import ModelFolder

    guilty = np.arange(len(names)) % 2 == 1
    reason = "far from the median update: distance 12.9, median 0.1261, z = 337.5"
    verdict = Verdict(
        flagged=guilty,
        convicted=guilty,
        accepted=~guilty,
        weights=np.zeros(len(names)),
        scores=np.where(guilty, 9.0, 1.0) + np.arange(len(names)) / 100,
        threshold=5.0,
        aggregate=np.zeros(1, np.float32),
        reasons=tuple(reason if bad else "" for bad in guilty),
    )
    folder = ModelFolder(tuple(names), None, refused or {})  # type: ignore[arg-type]
    found = ScanResult(folder, {"krum": verdict}, {}, {})
    place = ScanOutput(Path("out"), Path("clients"), Path("global.keras"))
    return build_report(found, place, 1, {"krum": []})
