"""Heat-map detectors: attacks by defenses, replayed on honest runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tffl.core.errors import TfflError
from tffl.studies.pages import heat_maps_tables as tables
from tffl.studies.pages.builder import ABOUT_CONSENSUS_TESTS, Page, distinct, read_table
from tffl.studies.pages.grid import draw_grids
from tffl.studies.pages.heat_maps_claims import claims
from tffl.studies.pages.heat_maps_tables import (
    CLIENTS,
    FIGURES,
    HARM,
    KEYS,
    SETTINGS,
    harmful,
)
from tffl.studies.pages.verdicts import claim_table, counts

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SHOWN = 5
"""Attackers in the tables of single settings."""

PICTURES = {
    ("gradcam-ae", "errors"): "Reconstruction errors (the paper's Figure 8). The attackers' maps "
    "are the easiest to rebuild, because the two are alike.",
    ("gradcam-ae", "heat_maps"): "Heat maps, reconstructions and errors (Figure 9).",
    ("cam-consensus", "consensus"): "Distance of each client's maps to the clients' median map, "
    "`cam-consensus`.",
}


# --- what the runs have measured -----------------------------------------------------------------


def collect(runs: Path) -> Mapping[str, pd.DataFrame]:
    """Returns the tables that the runs give."""
    found = {
        "replay.csv": replays(runs, "grid"),
        "ablation.csv": replays(runs, "ablation"),
        "alarms.csv": alarms(runs),
        "trajectories.csv": trajectories(runs / "trajectories"),
        "full.csv": full_size(runs / "full"),
    }
    return {name: rows for name, rows in found.items() if len(rows)}


def replays(runs: Path, grid: str) -> pd.DataFrame:
    """Returns means over the rounds of every replay of a grid."""
    parts = []
    for file in sorted(runs.glob(f"*/{grid}_*.csv")):
        rows = _read_replay(file)
        malicious = rows["attack"].ne("none") * int(file.stem.rpartition("_")[2])
        parts.append(rows.assign(malicious=malicious))
    rows = _stack(parts)
    if rows.empty:
        return rows
    means = rows.groupby(KEYS, sort=False)[FIGURES].mean().round(4).reset_index()
    return means.drop_duplicates(KEYS)


def alarms(runs: Path) -> pd.DataFrame:
    """Returns how many honest clients each defense blamed of how many, where nobody attacked."""
    files = sorted([*runs.glob("*/alarms_*.csv"), *runs.glob("*/grid_*.csv")])
    rows = _stack([_read_replay(file) for file in files])
    if rows.empty:
        return rows
    keys = ["setting", "seed", "defense"]
    # The replay of every number of attackers has the rounds without an attack.
    rows = rows[rows["attack"] == "none"].drop_duplicates([*keys, "round"])
    rows = rows.assign(honest=rows["false_positives"] + rows["true_negatives"])
    sums = rows.groupby(keys, sort=False)[["false_positives", "honest"]].sum()
    return sums.rename(columns={"false_positives": "blamed"}).reset_index()


def trajectories(benchmark: Path) -> pd.DataFrame:
    """Returns the whole runs of a benchmark."""
    rows = read_table(benchmark / "results.csv")
    columns = ["attack", "defense", "seed", "accuracy", "attack_success", *FIGURES[3:]]
    return rows if rows.empty else rows[columns].round(4)


def full_size(runs: Path) -> pd.DataFrame:
    """Returns the rounds of the runs on all of CIFAR-10."""
    parts = []
    for file in sorted(runs.glob("*/rounds.csv")):
        defense, _, attack = file.parent.name.rpartition("_")
        rows = read_table(file)[["round", "accuracy", "recall", "precision", "fpr", "auc"]]
        parts.append(rows.round(4).assign(defense=defense, attack=attack))
    return _stack(parts)


def _read_replay(file: Path) -> pd.DataFrame:
    """Reads the table of a replay, whose folder is named after its setting and seed."""
    named = re.fullmatch(r"(.+)_(\d+)", file.parent.name)
    if named is None:
        raise TfflError(f"{file.parent} is not named SETTING_SEED")
    return read_table(file).assign(setting=named[1], seed=int(named[2]))


def _stack(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(parts) if parts else pd.DataFrame()


# --- the page ------------------------------------------------------------------------------------


def intro(folder: Path) -> str:
    """Says what was run."""
    rows = read_table(folder / "replay.csv")
    present = set(rows["setting"])
    settings = [SETTINGS[name] for name in SETTINGS if name in present]
    honest = len(rows[["setting", "seed"]].drop_duplicates())
    attacks, defenses = len(set(rows["attack"])) - 1, len(set(rows["defense"]))
    return (
        f"{attacks} attacks against {defenses} defenses, replayed on stored rounds (3 and 6) of "
        f"{honest} honest runs, on whose seeds nothing was tuned: {'; '.join(settings)}. "
        "Fashion-MNIST with `lenet5`, the others with `resnet8`, 20 clients, 6,000 images (300 "
        "each), Adam unless the setting says otherwise. A replay measures single rounds: what an "
        "attack costs and what a defense lets through in one step from an honest model, not what "
        "adds up over rounds."
    )


def body(folder: Path) -> Iterator[str]:
    """Yields the paragraphs."""
    rows, blamed, parts, full = (
        read_table(folder / f"{name}.csv") for name in ("replay", "alarms", "ablation", "full")
    )
    runs = tables.with_loss(read_table(folder / "trajectories.csv"))
    found = list(claims(rows, blamed, runs))
    yield (
        "The thresholds of `cam-consensus`, `update-consensus` and `probe-loss` were chosen on "
        "other runs: Fashion-MNIST with LeNet-5, IID and Dirichlet 0.5, Adam and SGD, and CIFAR-10 "
        "with ResNet-8, Adam, with seeds 101 to 106. `replay.csv` has every mean over rounds."
    )
    yield ABOUT_CONSENSUS_TESTS
    yield "## Claim by claim"
    yield f"{counts(found)}."
    yield claim_table(found)
    yield (
        f"An attack is harmful if plain averaging loses at least {100 * HARM:.0f} points of "
        "accuracy in that one round; recall and FPR above are means over harmful attacks."
    )
    yield "## False alarms without an attacker"
    yield tables.false_alarms(blamed)
    yield "## Harmful attacks, by share of attackers"
    yield "![Recall](recall.png)"
    yield tables.overview(rows)
    yield from single_settings(rows)
    yield from whole_runs(runs, full, folder)
    yield (
        "## Where the consensus tests have recall below 95 % or FPR above 5 %, with at most a "
        "quarter of attackers"
    )
    yield tables.missed(rows)
    yield tables.reasons(rows)
    if len(parts):
        yield "## What the parts contribute"
        yield f"CIFAR-10, IID, 5 of {CLIENTS}."
        yield tables.ablation(parts)


def single_settings(rows: pd.DataFrame) -> Iterator[str]:
    """Yields the tables of single settings, as far as they are recorded."""
    recorded = sorted(set(zip(rows["setting"], rows["malicious"], strict=True)))
    for setting, malicious in recorded:
        if malicious == SHOWN:
            yield f"## Attack by attack: {SETTINGS[setting]}, {malicious} of {CLIENTS}"
            yield "Recall · false-positive rate, in %. Harmful attacks are in bold."
            yield tables.by_attack(rows, setting, malicious)
    attack = "distance-constrained"
    for setting, malicious in recorded:
        if setting == "cifar10_iid" and malicious:
            yield (
                f"## In the papers' columns: {attack}, {malicious} of {CLIENTS}, "
                f"{SETTINGS[setting]}"
            )
            yield tables.as_in_the_papers(rows, setting, malicious, attack)


def whole_runs(runs: pd.DataFrame, full: pd.DataFrame, folder: Path) -> Iterator[str]:
    """Yields the tables and pictures of whole runs, as far as they are recorded."""
    if len(runs):
        seeds = sorted(set(runs["seed"]))
        yield "## Whole runs"
        yield (
            f"Fashion-MNIST, Dirichlet 0.5, 5 of {CLIENTS} malicious, ten rounds, "
            f"seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}: points of "
            "accuracy lost against the attack-free undefended run, and (recall · FPR, in %)."
        )
        yield tables.whole_runs(runs)
    if len(full):
        yield "## All of CIFAR-10"
        yield (
            f"`resnet8`, {CLIENTS} clients, 2 malicious, 8 rounds, seed 3; recall and FPR are "
            "means over rounds 2 to 8."
        )
        yield tables.full_size(full)
        for (defense, kind), title in PICTURES.items():
            if (folder / f"{defense}_{kind}.png").exists():
                yield title
                yield f"![{title}]({defense}_{kind}.png)"


def figures(folder: Path) -> Mapping[str, Figure]:
    """Draws recall on harmful attacks, one panel per number of attackers."""
    chosen = harmful(read_table(folder / "replay.csv"))
    panels = {}
    for count in sorted(set(chosen["malicious"])):
        mine = chosen[chosen["malicious"] == count]
        grid = 100 * mine.pivot_table(index="attack", columns="defense", values="recall")
        panels[f"recall, %, {count} of {CLIENTS} malicious"] = grid.reindex(
            index=distinct(chosen, "attack"), columns=distinct(chosen, "defense")
        )
    drawn = draw_grids(panels, colors="cividis", limits=(0, 100), columns=len(panels) or 1)
    return {"recall.png": drawn}


PAGE = Page(
    "heat_maps",
    "Heat-map detectors, measured",
    intro,
    body,
    collect,
    figures,
    {
        f"{defense}_{kind}.png": (
            f"full/{defense}_distance-constrained/figures/{kind}_round_0008.png"
        )
        for defense, kind in PICTURES
    },
)
