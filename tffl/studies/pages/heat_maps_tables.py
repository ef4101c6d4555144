"""The tables on the page of heat-map detectors, in Markdown."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tffl.studies.benchmark_table import NONE, percent, table
from tffl.studies.pages.builder import CONSENSUS_TESTS as TESTS
from tffl.studies.pages.builder import by_key, distinct, records

if TYPE_CHECKING:
    import pandas as pd

HARM = 0.05
"""An attack is harmful if plain averaging loses at least this much accuracy in the one round."""
KEYS = ["setting", "seed", "malicious", "attack", "defense"]
CLIENTS = 20
FIGURES = ["undefended_lost", "lost", "attack_success", "recall", "precision", "fpr", "f1", "auc"]
SETTINGS = {
    "cifar10_iid": "CIFAR-10, IID",
    "cifar10_dirichlet0.5": "CIFAR-10, Dirichlet 0.5",
    "fashion_dirichlet0.5": "Fashion-MNIST, Dirichlet 0.5",
    "fashion_dirichlet0.1": "Fashion-MNIST, Dirichlet 0.1",
    "fashion_sgd_dirichlet0.9": "Fashion-MNIST, SGD, Dirichlet 0.9",
    "gtsrb_dirichlet0.5": "GTSRB, Dirichlet 0.5",
}


def harmful(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of harmful attacks."""
    return rows[(rows["attack"] != NONE) & (rows["undefended_lost"] >= HARM)]


def with_loss(runs: pd.DataFrame) -> pd.DataFrame:
    """Adds the accuracy `lost` of whole runs against the attack-free undefended one."""
    if runs.empty:
        return runs
    honest = runs[(runs["attack"] == NONE) & (runs["defense"] == NONE)]
    base = runs["seed"].map(honest.set_index("seed")["accuracy"])
    return runs.assign(lost=base - runs["accuracy"])


def false_alarms(rows: pd.DataFrame) -> str:
    """Honest clients that each defense blames without any attacker."""
    present = set(rows["setting"])
    settings = [name for name in SETTINGS if name in present]
    sums = rows.groupby(["defense", "setting"])[["blamed", "honest"]].sum()
    shares = (sums["blamed"] / sums["honest"]).to_dict()
    lines = [
        [defense, *(percent(shares.get((defense, setting), math.nan), 1) for setting in settings)]
        for defense in distinct(rows, "defense")
    ]
    totals = sums["honest"].groupby("setting").max()
    lines.append(["*client-rounds, at most*", *(str(totals[setting]) for setting in settings)])
    return table(["% of honest clients", *(SETTINGS[name] for name in settings)], lines)


def overview(rows: pd.DataFrame) -> str:
    """Recall and false positives on harmful attacks, by number of attackers."""
    found = harmful(rows)
    numbers = sorted(set(found["malicious"]))
    lines = []
    for defense in distinct(found, "defense"):
        mine = found[found["defense"] == defense]
        line = [defense]
        for number in numbers:
            part = mine[mine["malicious"] == number]
            line.append(_rates(part["recall"].mean(), part["fpr"].mean()))
            line.append(f"{100 * part['lost'].mean():.1f}")
        lines.append(line)
    header = [""]
    for number in numbers:
        header += [f"{number} of {CLIENTS}: recall · FPR", "points lost"]
    return table(header, lines)


def by_attack(rows: pd.DataFrame, setting: str, malicious: int) -> str:
    """Recall and false positives of each defense under each attack."""
    mine = rows[(rows["setting"] == setting) & (rows["malicious"] == malicious)]
    means = by_key(mine.groupby(["attack", "defense"], sort=False)[FIGURES].mean())
    defenses = distinct(mine, "defense")
    lines = []
    for attack in distinct(mine, "attack"):
        lost = means[attack, defenses[0]]["undefended_lost"]
        line = [f"**{attack}**" if lost >= HARM else attack, f"{100 * lost:.1f}"]
        for defense in defenses:
            one = means[attack, defense]
            line.append(_rates(one["recall"], one["fpr"]))
        lines.append(line)
    return table(["", "points lost", *defenses], lines)


def as_in_the_papers(rows: pd.DataFrame, setting: str, malicious: int, attack: str) -> str:
    """The papers' columns for one attack."""
    chosen = (rows["setting"] == setting) & (rows["malicious"] == malicious)
    mine = rows[chosen & (rows["attack"] == attack)]
    means = mine.groupby("defense", sort=False)[FIGURES].mean().reset_index()
    lines = []
    for one in records(means):
        positive = malicious / CLIENTS
        right = positive * one["recall"] + (1 - positive) * (1 - one["fpr"])
        cells = [one["recall"], one["precision"], one["fpr"], right, one["f1"], one["auc"]]
        rates = (percent(cell, 0) for cell in cells)
        lines.append([one["defense"], *rates, f"{100 * one['lost']:.1f}"])
    names = ["recall", "precision", "FPR", "accuracy", "F1", "AUC of scores", "points lost"]
    return table(["%", *names], lines)


def whole_runs(rows: pd.DataFrame) -> str:
    """What ten rounds cost under each attack and defense."""
    columns = ["lost", "recall", "fpr"]
    means = by_key(rows.groupby(["attack", "defense"], sort=False)[columns].mean())
    defenses = distinct(rows, "defense")
    lines = []
    for attack in distinct(rows, "attack"):
        line = ["*no attack*" if attack == NONE else attack]
        for defense in defenses:
            one = means[attack, defense]
            rates = "" if defense == NONE else f" ({_rates(one['recall'], one['fpr'])})"
            line.append(f"{100 * one['lost']:.1f}{rates}")
        lines.append(line)
    return table(["", *("undefended" if name == NONE else name for name in defenses)], lines)


def full_size(rows: pd.DataFrame) -> str:
    """Verdicts from round 2 on, and accuracy in the end, on all of CIFAR-10."""
    lines = []
    for (defense, attack), run in rows.groupby(["defense", "attack"], sort=False):
        later = run[run["round"] >= 2]
        rates = [percent(later[name].mean(), 0) for name in ("recall", "fpr")]
        lines.append([f"{defense}, {attack}", *rates, percent(run["accuracy"].iloc[-1])])
    return table(["defense, attack", "recall, %", "FPR, %", "final accuracy, %"], lines)


def missed(rows: pd.DataFrame) -> str:
    """Harmful attacks of at most a quarter of attackers that the consensus tests miss part of."""
    mine = harmful(rows)
    mine = mine[(mine["defense"] == TESTS) & (mine["malicious"] / CLIENTS <= 0.25)]
    mine = mine[(mine["recall"] < 0.95) | (mine["fpr"] > 0.05)]
    lines = [
        [
            f"{SETTINGS[row['setting']]}, seed {row['seed']}, {row['malicious']} of {CLIENTS}: "
            f"{row['attack']}",
            *(percent(row[name], 0) for name in ("recall", "fpr")),
            *(percent(row[name], 1) for name in ("undefended_lost", "lost")),
        ]
        for row in records(mine)
    ]
    header = ["", "recall, %", "FPR, %", "points lost undefended", f"with {TESTS}"]
    return table(header, lines) if lines else "Nowhere."


def reasons(rows: pd.DataFrame) -> str:
    """Why many attackers and uneven data are hard, with numbers, as a list."""
    found, root = harmful(rows), f"{TESTS}, root data"

    def rates(frame: pd.DataFrame, defense: str) -> str:
        mine = frame[frame["defense"] == defense]
        recall, fpr = (percent(mine[name].mean(), 0) for name in ("recall", "fpr"))
        return f"recall {recall} %, FPR {fpr} %"

    many, uneven = (
        found[found["malicious"] == 8],
        found[found["setting"].str.endswith("t0.1")],
    )
    judged = uneven[uneven["defense"] == TESTS]
    exact = judged[(judged["recall"] == 1) & (judged["fpr"] == 0)]["lost"]
    return (
        "- 8 of 20: attackers who agree pull the median update, and the clients' median map, "
        f"towards themselves: {rates(many, TESTS)}. With the server's own update instead of the "
        f"median: {rates(many, root)}.\n"
        "- Dirichlet 0.1: most clients have two or three classes, so that honest updates differ "
        f"from each other as much as some attacks do: {rates(uneven, TESTS)}; with root data "
        f"{rates(uneven, root)}. Leaving a client out also takes away classes that hardly any "
        "other client has: where the consensus tests leave out all attackers and nobody else, the "
        f"round still loses {100 * exact.mean():.1f} points."
    )


def ablation(rows: pd.DataFrame) -> str:
    """What the parts of detectors contribute."""
    attacks = [name for name in distinct(rows, "attack") if name != NONE]
    means = by_key(rows.groupby(["defense", "attack"])[["recall", "fpr", "auc"]].mean())
    lines = []
    for defense in distinct(rows, "defense"):
        line = [defense, percent(means[defense, NONE]["fpr"], 1)]
        for attack in attacks:
            one = means[defense, attack]
            line.append(f"{percent(one['recall'], 0)} · {one['auc']:.2f}")
        lines.append(line)
    return table(["", "FPR without attack, %", *(f"{a}: recall · AUC" for a in attacks)], lines)


def _rates(recall: float, fpr: float) -> str:
    return f"{percent(recall, 0)} · {percent(fpr, 0)}"
