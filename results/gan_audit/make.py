"""Reads what run.sh has measured, and writes the CSV files, README.md and the pictures.

    bash results/gan_audit/run.sh && python results/gan_audit/make.py

Every number and every verdict in README.md is computed here, none is typed. Without run.sh's
directories the CSV files that are here are read instead.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tffl.benchmark_table import percent, table
from tffl.record.figures import save

HERE = Path(__file__).parent
RUNS = HERE.parents[1] / "runs" / "gan_audit"
PAPER = {
    ("mnist", "undefended"): (0.8033, 0.8854),
    ("mnist", "gan"): (0.9185, 0.0318),
    ("mnist", "model-inversion"): (0.7352, 0.7837),
    ("fashion_mnist", "undefended"): (0.7821, 0.8592),
    ("fashion_mnist", "gan"): (0.8937, 0.0465),
    ("fashion_mnist", "model-inversion"): (0.7487, 0.8039),
}
"""Table 1: overall and poisoning accuracy, `before-detection` being undefended."""
LAST = 5
"""Rounds at the end of a run that are averaged, for one round of poisoning accuracy is noisy."""
FIGURES = ["undefended_lost", "undefended_success", "lost", "attack_success"]
RATES = ["recall", "precision", "fpr", "auc"]
SEES = 0.9
"""A source sees an attack if its audit accuracies rank attackers with this AUC."""


def replays() -> pd.DataFrame:
    """Returns means over audited rounds of the replays, by setting, attackers, attack, source."""
    target, parts = HERE / "replay.csv", []
    for file in sorted(RUNS.glob("*/grid_*.csv")):
        name, seed = re.fullmatch(r"(.+)_(\d+)", file.parent.name).groups()
        told = int(file.stem.rpartition("_")[2])
        rows = pd.read_csv(file, keep_default_na=False, na_values=[""])
        rows = rows[rows["threshold"].notna()]  # earlier rounds are not audited
        parts.append(rows.assign(setting=name, seed=int(seed), told=told))
    if parts:
        keys = ["setting", "seed", "told", "attack", "defense"]
        means = pd.concat(parts).groupby(keys, sort=False)[FIGURES + RATES].mean().round(4)
        means.reset_index().to_csv(target, index=False)
    return pd.read_csv(target, keep_default_na=False, na_values=[""])


def experiments() -> pd.DataFrame:
    """Returns each whole run's accuracy and poisoning accuracy, and its auditor's rates."""
    target, rows = HERE / "experiments.csv", []
    for file in sorted((RUNS / "experiments").glob("*/rounds.csv")):
        dataset, source, seed = file.parent.name.split(".")
        rounds = pd.read_csv(file, keep_default_na=False, na_values=[""])
        audited = rounds[rounds["threshold"].notna()]
        row = {"dataset": dataset, "source": source, "seed": int(seed)}
        row |= rounds.tail(LAST)[["accuracy", "attack_success"]].mean().to_dict()
        row |= audited[[*RATES, "defense_seconds", "train_seconds"]].mean().to_dict()
        rows.append(row)
    if rows:
        pd.DataFrame(rows).round(4).to_csv(target, index=False)
    return pd.read_csv(target, keep_default_na=False, na_values=[""])


def table_1(runs: pd.DataFrame) -> str:
    """The paper's Table 1 next to tffl's runs, in Markdown."""
    means = runs.groupby(["dataset", "source"], sort=False)
    lines = []
    for (dataset, source), mine in means:
        paper = PAPER.get((dataset, source))
        cells = [percent(value) for value in paper] if paper else ["–", "–"]
        for key in ("accuracy", "attack_success", "recall", "fpr", "auc"):
            cells.append(percent(mine[key].mean()))
        lines.append([f"{dataset}, {source}", *cells, str(len(mine))])
    header = ["%", "paper: overall", "poisoning", "here: overall", "poisoning"]
    return table([*header, "recall", "FPR", "AUC", "seeds"], lines)


def sources(rows: pd.DataFrame, setting: str, told: int) -> str:
    """AUC, recall and FPR of each source under each attack, in Markdown."""
    mine = rows[(rows["setting"] == setting) & (rows["told"] == told)]
    means = mine.groupby(["defense", "attack"], sort=False)[RATES].mean()
    attacks = [name for name in dict.fromkeys(mine["attack"]) if name != "none"]
    lines = []
    for source in dict.fromkeys(mine["defense"]):
        line = [source, percent(means.loc[(source, "none"), "fpr"], 0)]
        for attack in attacks:
            one = means.loc[(source, attack)]
            line.append(
                f"{one['auc']:.2f} · {percent(one['recall'], 0)} · {percent(one['fpr'], 0)}"
            )
        lines.append(line)
    return table(["", "FPR without attack, %", *attacks], lines)


def figure_8(rows: pd.DataFrame) -> Figure:
    """Draws recall by scaling factor, a line per number of attackers, a panel per source."""
    factors = {"flip": 1, "flip x 3": 3, "flip x 10": 10}
    mine = rows[rows["attack"].isin(factors) & (rows["setting"] == "mnist_iid")]
    names = list(dict.fromkeys(mine["defense"]))
    figure = Figure(figsize=(2.6 * len(names), 3), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), sharey=True), names, strict=True):
        for told, part in mine[mine["defense"] == name].groupby("told"):
            means = part.groupby("attack")["recall"].mean()
            points = [(factor, means[attack]) for attack, factor in factors.items()]
            axis.plot(*zip(*points, strict=True), marker="o", label=f"{told} of 30")
        axis.set_title(name, fontsize=8)
        axis.set_xlabel("scaling factor")
        axis.set_ylim(-0.05, 1.05)
    figure.axes[0].set_ylabel("recall")
    figure.axes[-1].legend(fontsize=7)
    return figure


def claims(rows: pd.DataFrame, runs: pd.DataFrame) -> str:
    """What the paper claims, and what these numbers say, in Markdown."""
    means = runs.groupby(["dataset", "source"])[["accuracy", "attack_success", "auc"]].mean()
    few = rows[(rows["setting"] == "mnist_iid") & (rows["told"] == 3)]
    auc = few.groupby(["defense", "attack"])["auc"].mean()
    lines = []

    def claim(text: str, holds: bool, numbers: str) -> None:
        lines.append([text, "holds" if holds else "**fails**", numbers])

    for dataset in dict.fromkeys(runs["dataset"]):
        bare, gan = means.loc[(dataset, "undefended")], means.loc[(dataset, "gan")]
        claim(
            f"{dataset}: audited with the GAN, poisoning accuracy falls to a few percent",
            bool(gan["attack_success"] <= 0.05 < bare["attack_success"]),
            f"{percent(bare['attack_success'])} % undefended, {percent(gan['attack_success'])} %",
        )
        inverted = means.loc[(dataset, "model-inversion")]
        claim(
            f"{dataset}: model inversion audits worse than the GAN",
            bool(inverted["auc"] < gan["auc"]),
            f"AUC {inverted['auc']:.2f} against {gan['auc']:.2f}",
        )
    for source in dict.fromkeys(few["defense"]):
        claim(
            f"`{source}` sees the flip without scaling",
            bool(auc[(source, "flip")] >= SEES),
            f"AUC {auc[(source, 'flip')]:.2f}; scaled by 10 {auc[(source, 'flip x 10')]:.2f}",
        )
    return table(["claim", "", "measured"], lines)


def readme(rows: pd.DataFrame, runs: pd.DataFrame) -> str:
    """Returns the page."""
    settings = list(dict.fromkeys(rows["setting"]))
    parts = [
        f"### {setting.replace('_', ', ')}, {told} of 30\n\n{sources(rows, setting, told)}"
        for setting in settings
        for told in sorted(set(rows[rows["setting"] == setting]["told"]))
    ]
    share = float(np.nanmean(runs["defense_seconds"] / runs["train_seconds"]))
    return f"""# The GAN auditor, measured

Zhao et al.'s auditor and its rivals: what does an audit see, and with whose images? Smaller than
the paper (100 clients of 600 images, audits from round 400 on): 30 clients of 300 images, 10 of
whom take part in a round, `pdgan-cnn`, audits from round 9 on.

```sh
bash results/gan_audit/run.sh
python results/gan_audit/make.py
```

This page and the pictures are made by `make.py`; `replay.csv` and `experiments.csv` have every
mean.

## Claim by claim

{claims(rows, runs)}

## Table 1, whole runs

One attacker in every round flips one class into another and scales the update by 3. Means over the
last {LAST} of 24 rounds. In audited rounds the defense takes {share:.1f} times as long as training.

{table_1(runs)}

## Single rounds: attacks by sources

Replayed on the stored rounds of honest runs: AUC of the audit accuracies · recall, % · FPR, %.

{chr(10).join(part + chr(10) for part in parts)}
## Figure 8: scaling against the number of attackers

![Recall by scaling factor](figure_8.png)
"""


def main() -> None:
    """Writes all files."""
    rows, runs = replays(), experiments()
    (HERE / "README.md").write_text(readme(rows, runs), encoding="utf-8")
    save(figure_8(rows), HERE / "figure_8.png")


if __name__ == "__main__":
    main()
