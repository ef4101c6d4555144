"""Reads what run.sh has measured, and writes the CSV files, README.md and the pictures.

    bash results/gan_audit/run.sh && python results/gan_audit/make.py

Every number and every verdict in README.md is computed here, none is typed. Without run.sh's
directories the CSV files that are here are read instead.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from safetensors.numpy import load_file

from tffl.drawing.figures import save
from tffl.studies.benchmark_table import percent, table

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
"""Table 1, overall and poisoning accuracy; its "before detection" stands as undefended."""
TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
SETTINGS = {
    "mnist_iid": "MNIST, IID",
    "mnist_dirichlet0.1": "MNIST, Dirichlet 0.1",
}
AUDITED = 9
"""The first audited round."""
CLASSES = 10
FIGURES = ["undefended_lost", "undefended_success", "lost", "attack_success"]
RATES = ["recall", "precision", "fpr", "auc"]
SEES = 0.9
"""A source sees an attack if its audit accuracies rank attackers with this AUC."""


def replays() -> pd.DataFrame:
    """Returns means over audited rounds of the replays, by setting, attackers, attack, source."""
    target, parts = HERE / "replay.csv", []
    for file in sorted([*RUNS.glob("*/grid_*.csv"), *RUNS.glob("*/beyond_*.csv")]):
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


def whole_runs() -> pd.DataFrame:
    """Returns each whole run's accuracies from d_iter on, and its auditor's rates."""
    target, rows = HERE / "whole.csv", []
    for file in sorted((RUNS / "whole").glob("*/summary.json")):
        dataset, source = file.parent.name.split(".")
        rounds = pd.read_csv(file.parent / "rounds.csv", keep_default_na=False, na_values=[""])
        after = rounds[rounds["round"] >= AUDITED]
        row = {"dataset": dataset, "source": source}
        row |= after[["accuracy", "attack_success"]].mean().to_dict()
        row |= after[[*RATES, "defense_seconds", "train_seconds"]].mean().to_dict()
        rows.append(row)
    if rows:
        pd.DataFrame(rows).round(4).to_csv(target, index=False)
    return pd.read_csv(target, keep_default_na=False, na_values=[""])


def quality() -> pd.DataFrame:
    """Returns how many classes the voted audit sets cover, and how often a judge agrees."""
    target, rows = HERE / "quality.csv", []
    for run in sorted((RUNS / "whole").glob("*.*")):
        dataset, source = run.name.split(".")
        files = [file for file in sorted(run.glob("heat_maps/*")) if _round(file) >= AUDITED]
        if source == "undefended" or not files or not (run / "summary.json").exists():
            continue
        sets = [load_file(file) for file in files]
        judge = _judge(dataset)
        agree, covered = [], []
        for one in sets:
            labels, counts = one["audit_labels"], one["label_counts"][:CLASSES]
            agree.append(float(np.mean(judge(one["audit_images"]) == labels)))
            covered.append(int((counts >= 0.01 * counts.sum()).sum()))
        row = {"dataset": dataset, "source": source, "agreement": np.mean(agree)}
        rows.append(row | {"classes": np.mean(covered), "rounds": len(sets)})
    if rows:
        pd.DataFrame(rows).round(4).to_csv(target, index=False)
    return pd.read_csv(target)


def _round(file: Path) -> int:
    return int(file.stem.rpartition("-")[2])


@lru_cache(maxsize=2)
def _judge(dataset: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a classifier that was trained on its own, on 20,000 real images for two epochs."""
    import keras

    from tffl.config import build
    from tffl.data.build import load_dataset
    from tffl.models.lenet5 import lenet5

    keras.utils.set_random_seed(1)
    loaded = load_dataset(build({"data": {"dataset": dataset, "image_size": 32}}).data)
    model = lenet5(loaded.train_images.shape[1:], CLASSES, seed=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    # The experiment's clients have the first 9,000 that its seed draws: these may overlap.
    model.fit(loaded.train_images[:20_000], loaded.train_labels[:20_000], epochs=2, verbose=0)
    right = model.evaluate(loaded.test_images, loaded.test_labels, verbose=0)[1]
    print(f"judge of {dataset}: accuracy {right:.3f}")
    return lambda images: model.predict(images, verbose=0).argmax(axis=1)


def table_1(runs: pd.DataFrame) -> str:
    """The paper's Table 1 next to tffl's runs, in Markdown."""
    lines = []
    for run in runs.itertuples():
        paper = PAPER.get((run.dataset, run.source))
        cells = [percent(value) for value in paper] if paper else ["–", "–"]
        figures = (run.accuracy, run.attack_success)
        rates = (run.recall, run.fpr) if run.source != "undefended" else (np.nan, np.nan)
        cells += [percent(value) for value in (*figures, *rates)]
        lines.append([f"{TITLES[run.dataset]}, {run.source}", *cells])
    header = ["%", "paper: overall", "poisoning", "here: overall", "poisoning"]
    return table([*header, "recall", "FPR"], lines)


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
    """Draws the AUC of each source by scaling factor."""
    factors = {"flip": 1, "flip x 3": 3, "flip x 10": 10}
    mine = rows[rows["attack"].isin(factors) & (rows["setting"] == "mnist_iid")]
    mine = mine[mine["told"] == mine["told"].min()]
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axis = figure.subplots()
    for number, name in enumerate(dict.fromkeys(mine["defense"])):
        means = mine[mine["defense"] == name].groupby("attack")["auc"].mean()
        points = [(factor, means[attack]) for attack, factor in factors.items()]
        style = {"marker": "osv^D*Xp"[number % 8], "linestyle": ["-", "--"][number % 2]}
        axis.plot(*zip(*points, strict=True), label=name, **style)
    axis.axhline(0.5, color="gray", linewidth=0.8)
    axis.set(xlabel="scaling factor of the flip", ylabel="AUC of audit accuracies")
    axis.set_xticks(list(factors.values()))
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure


def claims(rows: pd.DataFrame, runs: pd.DataFrame) -> str:
    """What the paper claims, and what these numbers say, in Markdown."""
    of = runs.set_index(["dataset", "source"])
    lines = []

    def claim(text: str, holds: bool, numbers: str) -> None:
        lines.append([text, "holds" if holds else "**fails**", numbers])

    for dataset in dict.fromkeys(runs["dataset"]):
        title = TITLES[dataset]
        bare, gan, inverted = (
            of.loc[(dataset, source)] for source in ("undefended", "gan", "model-inversion")
        )
        success = "attack_success"
        claim(
            f"{title}: audited with the GAN, poisoning accuracy falls to a few percent",
            bool(gan[success] <= 0.05 < bare[success]),
            f"{percent(bare[success])} % undefended, {percent(gan[success])} %",
        )
        claim(
            f"{title}: and overall accuracy rises by a tenth",
            bool(gan["accuracy"] >= bare["accuracy"] + 0.1),
            f"{percent(bare['accuracy'])} % undefended, {percent(gan['accuracy'])} %",
        )
        claim(
            f"{title}: model inversion does not help, poisoning accuracy stays above 70 %",
            bool(inverted[success] >= 0.7),
            f"{percent(inverted[success])} %, overall {percent(inverted['accuracy'])} %",
        )
    few = rows[(rows["setting"] == "mnist_iid") & (rows["told"] == 3)]
    auc = few.groupby(["defense", "attack"])["auc"].mean()
    claim(
        "Generated images are needed: pure noise does not see the scaled flip",
        bool(auc[("noise", "flip x 10")] < SEES),
        f"AUC {auc[('noise', 'flip x 10')]:.2f}, GAN {auc[('gan', 'flip x 10')]:.2f}",
    )
    for source in dict.fromkeys(few["defense"]):
        claim(
            f"`{source}` sees the flip without scaling (not in the paper; AUC ≥ {SEES:g})",
            bool(auc[(source, "flip")] >= SEES),
            f"AUC {auc[(source, 'flip')]:.2f}; scaled by 10 {auc[(source, 'flip x 10')]:.2f}",
        )
    return table(["claim", "", "measured"], lines)


PICTURES = {
    "figure_5": ("mnist.gan", "audit_images", "Generated digits by round, next to real ones"),
    "figure_6": ("fashion_mnist.gan", "audit_images", "Generated clothes by round"),
    "figure_7": ("mnist.model-inversion", "audit_images", "Digits of model inversion by round"),
    "figure_9": ("mnist.gan", "audit_rounds", "MNIST: accuracy and poisoning accuracy by round"),
    "figure_10": ("fashion_mnist.gan", "audit_rounds", "The same of Fashion-MNIST"),
    "clients": ("mnist.gan", "audit_clients", "MNIST: audit accuracy per client, with θ"),
}


def pictures() -> str:
    """Copies the runs' own pictures, and returns them in Markdown."""
    parts = []
    for name, (run, kind, title) in PICTURES.items():
        source, target = RUNS / "whole" / run / "figures" / f"{kind}.png", HERE / f"{name}.png"
        if source.exists():
            shutil.copyfile(source, target)
        if target.exists():
            number = name.removeprefix("figure_")
            about = f"Figure {number}. {title}" if number.isdecimal() else title
            parts.append(f"{about}.\n\n![{title}]({target.name})")
    return "\n\n".join(parts)


def readme(rows: pd.DataFrame, runs: pd.DataFrame, images: pd.DataFrame) -> str:
    """Returns the page."""
    recorded = sorted(
        set(zip(rows["setting"], rows["told"], strict=True)),
        key=lambda pair: (list(SETTINGS).index(pair[0]), pair[1]),
    )
    parts = [
        f"### {SETTINGS[setting]}, {told} of 30 malicious\n\n{sources(rows, setting, told)}"
        for setting, told in recorded
    ]
    audited = runs[runs["source"] == "gan"]
    share = float((audited["defense_seconds"] / audited["train_seconds"]).mean())
    drawn = [
        [
            f"{TITLES[row.dataset]}, {row.source}",
            f"{row.classes:.1f} of {CLASSES}",
            percent(row.agreement, 0),
        ]
        for row in images.itertuples()
    ]
    return f"""# The GAN auditor, measured

Zhao et al.'s auditor and its rivals: what does an audit see, and with whose images? Smaller than
the paper (100 clients of 600 images, audits from round 400 on): 30 clients of 300 images, 10 of
whom take part in a round, `pdgan-cnn`, 24 rounds, audits from round {AUDITED} on, 100 steps of the
GAN a round, seed 1. `results/pdgan` has the paper's Table 1 and Figure 8 with 100 clients of 60
images and three attackers in a round, where the auditor does much worse.

```sh
bash results/gan_audit/run.sh
python results/gan_audit/make.py
```

This page and the pictures are made by `make.py`; the CSV files have every mean.

## Claim by claim

{claims(rows, runs)}

## Table 1, whole runs

One attacker in every round flips one class into another and scales the update by 10. Means over
rounds {AUDITED} to 24. In audited rounds the GAN auditor takes {share:.1f} times as long as
training the clients.

{table_1(runs)}

## What the audit images are

Classes that at least 1 % of an audit set is voted to be, and how often a classifier that was
trained on its own, with real images, agrees with the vote, in %; means over audited rounds. The
auxiliary images are of 2 classes (MNIST) and 3 (Fashion-MNIST).

{table(["", "classes", "agreement, %"], drawn)}

{pictures()}

## Single rounds: attacks by sources

Replayed on the stored rounds of honest runs of 16 rounds: AUC of the audit accuracies · recall, % ·
FPR, %. With 18 of 30, attackers are the majority of a round, and of the vote.

{chr(10).join(part + chr(10) for part in parts)}
## The scaling factor

![AUC by scaling factor](scaling.png)
"""


def main() -> None:
    """Writes all files."""
    rows, runs, images = replays(), whole_runs(), quality()
    (HERE / "README.md").write_text(readme(rows, runs, images), encoding="utf-8")
    save(figure_8(rows), HERE / "scaling.png")


if __name__ == "__main__":
    main()
