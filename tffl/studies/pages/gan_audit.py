"""The GAN auditor: what an audit sees, and with whose images. The page's claims are at the end."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tffl.core.errors import TfflError
from tffl.studies.benchmark_table import percent, table
from tffl.studies.pages.builder import Page, by_key, distinct, read_table, records
from tffl.studies.pages.verdicts import Judged, claim_table, compare, counts, judged

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PAPER = {
    ("mnist", "undefended"): (0.8033, 0.8854),
    ("mnist", "gan"): (0.9185, 0.0318),
    ("mnist", "model-inversion"): (0.7352, 0.7837),
    ("fashion_mnist", "undefended"): (0.7821, 0.8592),
    ("fashion_mnist", "gan"): (0.8937, 0.0465),
    ("fashion_mnist", "model-inversion"): (0.7487, 0.8039),
}
"""The paper's Table 1: overall and poisoning accuracy. "Before detection" is undefended here."""
TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
SETTINGS = {"mnist_iid": "MNIST, IID", "mnist_dirichlet0.1": "MNIST, Dirichlet 0.1"}
AUDITED = 9
"""The first audited round."""
CLASSES = 10
FIGURES = ["undefended_lost", "undefended_success", "lost", "attack_success"]
RATES = ["recall", "precision", "fpr", "auc"]
SEES = 0.9
"""A source sees an attack if its audit accuracies rank attackers with at least this AUC."""
FACTORS = {"flip": 1, "flip x 3": 3, "flip x 10": 10}

PICTURES = {
    "figure_5": ("mnist.gan", "audit_images", "Generated digits by round, next to real ones"),
    "figure_6": ("fashion_mnist.gan", "audit_images", "Generated clothes by round"),
    "figure_7": ("mnist.model-inversion", "audit_images", "Digits of model inversion by round"),
    "figure_9": ("mnist.gan", "audit_rounds", "MNIST: accuracy and poisoning accuracy by round"),
    "figure_10": ("fashion_mnist.gan", "audit_rounds", "The same of Fashion-MNIST"),
    "clients": ("mnist.gan", "audit_clients", "MNIST: audit accuracy per client, with θ"),
}


# --- what the runs have measured -----------------------------------------------------------------


def collect(runs: Path) -> Mapping[str, pd.DataFrame]:
    """Returns the tables that the runs give."""
    found = {
        "replay.csv": replays(runs),
        "whole.csv": whole_runs(runs / "whole"),
        "quality.csv": quality(runs / "whole"),
    }
    return {name: rows.round(4) for name, rows in found.items() if len(rows)}


def replays(runs: Path) -> pd.DataFrame:
    """Returns means over audited rounds of the replays, by setting, attackers, attack, source."""
    import pandas as pd

    parts = []
    for file in sorted([*runs.glob("*/grid_*.csv"), *runs.glob("*/beyond_*.csv")]):
        named = re.fullmatch(r"(.+)_(\d+)", file.parent.name)
        if named is None:
            raise TfflError(f"{file.parent} is not named SETTING_SEED")
        malicious = int(file.stem.rpartition("_")[2])
        rows = read_table(file)
        rows = rows[rows["threshold"].notna()]  # earlier rounds are not audited
        parts.append(rows.assign(setting=named[1], seed=int(named[2]), malicious=malicious))
    if not parts:
        return pd.DataFrame()
    keys = ["setting", "seed", "malicious", "attack", "defense"]
    return pd.concat(parts).groupby(keys, sort=False)[FIGURES + RATES].mean().reset_index()


def whole_runs(runs: Path) -> pd.DataFrame:
    """Returns each whole run's accuracies in audited rounds, and its auditor's rates."""
    import pandas as pd

    rows = []
    for file in sorted(runs.glob("*/summary.json")):
        dataset, source = file.parent.name.split(".")
        rounds = read_table(file.parent / "rounds.csv")
        after = rounds[rounds["round"] >= AUDITED]
        columns = ["accuracy", "attack_success", *RATES, "defense_seconds", "train_seconds"]
        rows.append({"dataset": dataset, "source": source, **after[columns].mean().to_dict()})
    return pd.DataFrame(rows)


def quality(runs: Path) -> pd.DataFrame:
    """Returns how many classes the voted audit sets cover, and how often a judge agrees."""
    import pandas as pd
    from safetensors.numpy import load_file

    rows = []
    judges: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    for run in sorted(runs.glob("*.*")):
        dataset, source = run.name.split(".")
        files = [file for file in sorted(run.glob("heat_maps/*")) if _round(file) >= AUDITED]
        if source == "undefended" or not files or not (run / "summary.json").exists():
            continue
        judge = judges.get(dataset) or judges.setdefault(dataset, train_judge(dataset))
        agree, covered = [], []
        for one in map(load_file, files):
            labels, counted = one["audit_labels"], one["label_counts"][:CLASSES]
            agree.append(float(np.mean(judge(one["audit_images"]) == labels)))
            covered.append(int((counted >= 0.01 * counted.sum()).sum()))
        row = {"dataset": dataset, "source": source, "agreement": np.mean(agree)}
        rows.append(row | {"classes": np.mean(covered), "rounds": len(files)})
    return pd.DataFrame(rows)


def _round(file: Path) -> int:
    return int(file.stem.rpartition("-")[2])


def train_judge(dataset: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a classifier that is trained on its own: two epochs of 20,000 real images."""
    import keras

    from tffl.config import build
    from tffl.data.build import load_dataset
    from tffl.models.lenet import lenet5

    keras.utils.set_random_seed(1)
    loaded = load_dataset(build({"data": {"dataset": dataset, "image_size": 32}}).data)
    model = lenet5(loaded.train_images.shape[1:], CLASSES, seed=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    # The experiment's clients have 9,000 images that its seed draws: some may be among these.
    model.fit(loaded.train_images[:20_000], loaded.train_labels[:20_000], epochs=2, verbose=0)
    return lambda images: model.predict(images, verbose=0).argmax(axis=1)


# --- the page ------------------------------------------------------------------------------------


def intro(folder: Path) -> str:
    """Says what was run."""
    return (
        "Zhao et al. let clients audit each other's models with images that a GAN generates. What "
        "does an audit see, and with whose images? The runs are smaller than the paper's (100 "
        "clients of 600 images, audits from round 400 on): 30 clients of 300 images, 10 of whom "
        f"take part in a round, `pdgan-cnn`, 24 rounds, audits from round {AUDITED} on, 100 steps "
        "of the GAN in a round, seed 1. [results/pdgan](../pdgan) has the paper's Table 1 and "
        "Figure 8 with 100 clients of 60 images and three attackers in a round; the auditor does "
        "much worse there."
    )


def body(folder: Path) -> Iterator[str]:
    """Yields the paragraphs."""
    rows, runs, images = (
        read_table(folder / f"{name}.csv") for name in ("replay", "whole", "quality")
    )
    found = list(claims(rows, runs))
    yield "## Claim by claim"
    yield f"{counts(found)}."
    yield claim_table(found)
    yield "## Table 1, whole runs"
    audited = runs[runs["source"] == "gan"]
    share = float((audited["defense_seconds"] / audited["train_seconds"]).mean())
    yield (
        "One attacker in every round flips one class into another and scales its update by 10. "
        f"Means over rounds {AUDITED} to 24. In audited rounds the GAN auditor takes {share:.1f} "
        "times as long as training the clients."
    )
    yield table_1(runs)
    yield "## What the audit images are"
    yield (
        "The columns say how many classes at least 1 % of an audit set's images are voted to be, "
        "and how often a classifier that was trained on its own, with real images, agrees with the "
        "vote. Means over audited rounds. The auxiliary images are of 2 classes (MNIST) and 3 "
        "(Fashion-MNIST)."
    )
    yield audit_images(images)
    yield from pictures(folder)
    yield "## Single rounds: attacks by sources"
    yield (
        "Replayed on the stored rounds of honest runs of 16 rounds: AUC of the audit accuracies · "
        "recall, % · FPR, %. With 18 of 30, attackers are the majority of a round, and of the vote."
    )
    places = list(SETTINGS)
    pairs = {(row["setting"], row["malicious"]) for row in records(rows)}
    for setting, malicious in sorted(pairs, key=lambda pair: (places.index(pair[0]), pair[1])):
        yield f"### {SETTINGS[setting]}, {malicious} of 30 malicious"
        yield sources(rows, setting, malicious)
    yield "## The scaling factor"
    yield "![AUC by scaling factor](scaling.png)"


def table_1(runs: pd.DataFrame) -> str:
    """The paper's Table 1 next to tffl's runs."""
    lines = []
    for run in records(runs):
        paper = PAPER.get((run["dataset"], run["source"]), (math.nan, math.nan))
        judges = run["source"] != "undefended"
        rates = (run["recall"], run["fpr"]) if judges else (math.nan, math.nan)
        cells = (*paper, run["accuracy"], run["attack_success"], *rates)
        lines.append([f"{TITLES[run['dataset']]}, {run['source']}", *map(percent, cells)])
    header = ["%", "paper: overall", "poisoning", "here: overall", "poisoning"]
    return table([*header, "recall", "FPR"], lines)


def audit_images(images: pd.DataFrame) -> str:
    """How many classes audit images have, and whether a judge agrees with their labels."""
    lines = [
        [
            f"{TITLES[row['dataset']]}, {row['source']}",
            f"{row['classes']:.1f} of {CLASSES}",
            percent(row["agreement"], 0),
        ]
        for row in records(images)
    ]
    return table(["", "classes", "agreement, %"], lines)


def pictures(folder: Path) -> Iterator[str]:
    """Yields the pictures of the runs, as far as they are recorded."""
    for name, (_, _, title) in PICTURES.items():
        if (folder / f"{name}.png").exists():
            number = name.removeprefix("figure_")
            yield f"Figure {number}. {title}." if number.isdecimal() else f"{title}."
            yield f"![{title}]({name}.png)"


def sources(rows: pd.DataFrame, setting: str, malicious: int) -> str:
    """AUC, recall and FPR of each source under each attack."""
    mine = rows[(rows["setting"] == setting) & (rows["malicious"] == malicious)]
    means = by_key(mine.groupby(["defense", "attack"], sort=False)[RATES].mean())
    attacks = [name for name in distinct(mine, "attack") if name != "none"]
    lines = []
    for source in distinct(mine, "defense"):
        line = [source, percent(means[source, "none"]["fpr"], 0)]
        for attack in attacks:
            one = means[source, attack]
            rates = (f"{one['auc']:.2f}", percent(one["recall"], 0), percent(one["fpr"], 0))
            line.append(" · ".join(rates))
        lines.append(line)
    return table(["", "FPR without attack, %", *attacks], lines)


def figures(folder: Path) -> Mapping[str, Figure]:
    """Draws the AUC of each source by scaling factor, as the paper's Figure 8 does."""
    from matplotlib.figure import Figure

    rows = read_table(folder / "replay.csv")
    mine = rows[rows["attack"].isin(FACTORS) & (rows["setting"] == "mnist_iid")]
    mine = mine[mine["malicious"] == mine["malicious"].min()]
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axis = figure.subplots()
    for number, name in enumerate(distinct(mine, "defense")):
        means = mine[mine["defense"] == name].groupby("attack")["auc"].mean()
        heights = [float(means[attack]) for attack in FACTORS]
        marker, stroke = "osv^D*Xp"[number % 8], ("-", "--")[number % 2]
        axis.plot(list(FACTORS.values()), heights, label=name, marker=marker, linestyle=stroke)
    axis.axhline(0.5, color="gray", linewidth=0.8)
    axis.set(xlabel="scaling factor of the flip", ylabel="AUC of audit accuracies")
    axis.set_xticks(list(FACTORS.values()))
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return {"scaling.png": figure}


# --- its claims ----------------------------------------------------------------------------------

Rates = Mapping[str, Mapping[str, float]]
"""Source → overall and poisoning accuracy, means over audited rounds."""


def claims(rows: pd.DataFrame, runs: pd.DataFrame) -> Iterator[Judged]:
    """Yields what the paper claims, and what these numbers say."""
    for dataset in distinct(runs, "dataset"):
        mine = runs[runs["dataset"] == dataset].set_index("source")
        columns = ["accuracy", "attack_success"]
        sources = ["undefended", "gan", "model-inversion"]
        of = by_key(mine[columns].reindex(sources).astype(float))
        yield success_falls(TITLES[dataset], of)
        yield accuracy_rises(TITLES[dataset], of)
        yield inversion_does_not_help(TITLES[dataset], of)
    few = rows[(rows["setting"] == "mnist_iid") & (rows["malicious"] == 3)]
    means = by_key(few.groupby(["defense", "attack"])[["auc"]].mean())
    auc = {key: float(row["auc"]) for key, row in means.items()}
    yield noise_does_not_see(auc)
    for source in distinct(few, "defense"):
        yield sees_unscaled(source, auc)


def success_falls(title: str, of: Rates) -> Judged:
    """Poisoning accuracy falls to a few percent."""
    bare, gan = (of[name]["attack_success"] for name in ("undefended", "gan"))
    return judged(
        f"{title}: audited with the GAN, poisoning accuracy falls to a few percent",
        f"{percent(bare)} % undefended, {percent(gan)} %",
        compare(gan, "<=", 0.05),
        compare(bare, ">", 0.05),
    )


def accuracy_rises(title: str, of: Rates) -> Judged:
    """Overall accuracy rises by a tenth."""
    bare, gan = (of[name]["accuracy"] for name in ("undefended", "gan"))
    return judged(
        f"{title}: and overall accuracy rises by a tenth",
        f"{percent(bare)} % undefended, {percent(gan)} %",
        compare(gan, ">=", bare + 0.1),
    )


def inversion_does_not_help(title: str, of: Rates) -> Judged:
    """Model inversion is no substitute."""
    overall, success = of["model-inversion"].values()
    return judged(
        f"{title}: model inversion does not help, poisoning accuracy stays above 70 %",
        f"{percent(success)} %, overall {percent(overall)} %",
        compare(success, ">=", 0.7),
    )


def noise_does_not_see(auc: Mapping[tuple[str, str], float]) -> Judged:
    """Generated images are needed."""
    noise, gan = (auc.get((name, "flip x 10"), math.nan) for name in ("noise", "gan"))
    return judged(
        "Generated images are needed: pure noise does not see the scaled flip",
        f"AUC {noise:.2f}, GAN {gan:.2f}",
        compare(noise, "<", SEES),
    )


def sees_unscaled(source: str, auc: Mapping[tuple[str, str], float]) -> Judged:
    """A source sees the flip that is not scaled; the paper does not say so."""
    plain, scaled = (auc.get((source, name), math.nan) for name in ("flip", "flip x 10"))
    return judged(
        f"`{source}` sees the flip without scaling (not in the paper; AUC ≥ {SEES:g})",
        f"AUC {plain:.2f}; scaled by 10 {scaled:.2f}",
        compare(plain, ">=", SEES),
    )


PAGE = Page(
    "gan_audit",
    "The GAN auditor, measured",
    intro,
    body,
    collect,
    figures,
    {f"{name}.png": f"whole/{run}/figures/{kind}.png" for name, (run, kind, _) in PICTURES.items()},
)
