"""Reads what run.sh has measured, and writes the CSV files, README.md and the picture.

    bash results/heat_maps/run.sh && python results/heat_maps/make.py

Every number and every verdict in README.md is computed here, none is typed. Without run.sh's
directories the CSV files that are here are read instead.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tffl.drawing.figures import save
from tffl.studies.benchmark_table import percent, table

HERE = Path(__file__).parent
RUNS = HERE.parents[1] / "runs" / "heat_maps"
BITES = 0.05
"""An attack bites if plain averaging loses this much accuracy in the one round."""
SHOWN = 5
"""Attackers in the tables of single settings."""
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


def collect(grid: str) -> pd.DataFrame:
    """Returns means over the rounds of every replay of a grid, and writes them down."""
    target = HERE / {"grid": "replay.csv", "ablation": "ablation.csv"}[grid]
    files = sorted(RUNS.glob(f"*/{grid}_*.csv"))
    if not files:
        return _table(target)
    parts = []
    for file in files:
        name, seed = re.fullmatch(r"(.+)_(\d+)", file.parent.name).groups()
        part = pd.read_csv(file, keep_default_na=False, na_values=[""])
        told = int(file.stem.rpartition("_")[2])
        parts.append(part.assign(setting=name, seed=int(seed), malicious=told))
    rows = pd.concat(parts)
    rows.loc[rows["attack"] == "none", "malicious"] = 0
    means = rows.groupby(KEYS, sort=False)[FIGURES].mean().round(4).reset_index()
    means = means.drop_duplicates(KEYS)  # "none" is in the replay of every number of attackers
    means.to_csv(target, index=False)
    return means


def alarms() -> pd.DataFrame:
    """Returns how many honest clients each defense blamed of how many, where nobody attacked."""
    target, parts = HERE / "alarms.csv", []
    for file in sorted([*RUNS.glob("*/alarms_*.csv"), *RUNS.glob("*/grid_*.csv")]):
        name, seed = re.fullmatch(r"(.+)_(\d+)", file.parent.name).groups()
        rows = pd.read_csv(file, keep_default_na=False, na_values=[""])
        rows = rows[rows["attack"] == "none"]
        parts.append(rows.assign(setting=name, seed=int(seed)))
    if parts:
        keys = ["setting", "seed", "defense"]
        # "none" is in the replay of every number of attackers.
        rows = pd.concat(parts).drop_duplicates([*keys, "round"])
        rows["honest"] = rows["false_positives"] + rows["true_negatives"]
        sums = rows.groupby(keys, sort=False)[["false_positives", "honest"]].sum()
        sums.rename(columns={"false_positives": "blamed"}).reset_index().to_csv(target, index=False)
    return _table(target)


def _table(file: Path) -> pd.DataFrame:
    """Returns a table, empty if it has not been recorded."""
    if not file.exists():
        return pd.DataFrame()
    return pd.read_csv(file, keep_default_na=False, na_values=[""])


def trajectories() -> pd.DataFrame:
    """Returns the whole runs, with the points `lost` against the attack-free undefended one."""
    target, source = HERE / "trajectories.csv", RUNS / "trajectories" / "results.csv"
    if source.exists():
        rows = pd.read_csv(source, keep_default_na=False, na_values=[""])
        columns = ["attack", "defense", "seed", "accuracy", "attack_success", *FIGURES[3:]]
        rows[columns].round(4).to_csv(target, index=False)
    rows = _table(target)
    if rows.empty:
        return rows
    honest = rows[(rows["attack"] == "none") & (rows["defense"] == "none")]
    base = rows["seed"].map(honest.set_index("seed")["accuracy"])
    return rows.assign(lost=base - rows["accuracy"])


def full_size() -> pd.DataFrame:
    """Returns the rounds of the runs on all of CIFAR-10."""
    target, parts = HERE / "full.csv", []
    for file in sorted((RUNS / "full").glob("*/rounds.csv")):
        defense, _, attack = file.parent.name.rpartition("_")
        rows = pd.read_csv(file, keep_default_na=False, na_values=[""])
        rows = rows[["round", "accuracy", "recall", "precision", "fpr", "auc"]].round(4)
        parts.append(rows.assign(defense=defense, attack=attack))
    if parts:
        pd.concat(parts).to_csv(target, index=False)
    return _table(target)


def full_table(rows: pd.DataFrame) -> str:
    """Verdicts from round 2 on, and accuracy in the end, in Markdown."""
    lines = []
    for (defense, attack), run in rows.groupby(["defense", "attack"], sort=False):
        later = run[run["round"] >= 2]
        rates = [percent(later[key].mean(), 0) for key in ("recall", "fpr")]
        lines.append([f"{defense}, {attack}", *rates, percent(run["accuracy"].iloc[-1])])
    return table(["defense, attack", "recall, %", "FPR, %", "final accuracy, %"], lines)


def whole_runs(rows: pd.DataFrame) -> str:
    """What ten rounds cost under each attack and defense, in Markdown."""
    means = rows.groupby(["attack", "defense"], sort=False)[["lost", "recall", "fpr"]].mean()
    defenses = list(dict.fromkeys(rows["defense"]))
    lines = []
    for attack in dict.fromkeys(rows["attack"]):
        line = ["*no attack*" if attack == "none" else attack]
        for defense in defenses:
            one = means.loc[(attack, defense)]
            rates = " · ".join(percent(one[key], 0) for key in ("recall", "fpr"))
            line.append(f"{100 * one['lost']:.1f}" + ("" if defense == "none" else f" ({rates})"))
        lines.append(line)
    header = ["undefended" if name == "none" else name for name in defenses]
    return table(["", *header], lines)


def biting(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of attacks that cost at least `BITES` undefended."""
    return rows[(rows["attack"] != "none") & (rows["undefended_lost"] >= BITES)]


def false_alarms(rows: pd.DataFrame) -> str:
    """Honest clients that each defense blames without any attacker, in Markdown."""
    settings = [name for name in SETTINGS if name in set(rows["setting"])]
    sums = rows.groupby(["defense", "setting"])[["blamed", "honest"]].sum()
    shares = sums["blamed"] / sums["honest"]
    lines = [
        [defense, *(percent(shares.get((defense, setting), np.nan), 1) for setting in settings)]
        for defense in dict.fromkeys(rows["defense"])
    ]
    counts = sums["honest"].groupby("setting").max()
    lines.append(["*client-rounds, at most*", *(str(counts[setting]) for setting in settings)])
    return table(["% of honest clients", *(SETTINGS[name] for name in settings)], lines)


def overview(rows: pd.DataFrame) -> str:
    """Recall and false positives on attacks that bite, by share of attackers, in Markdown."""
    bites = biting(rows)
    counts = sorted(set(bites["malicious"]))
    lines = []
    for defense in dict.fromkeys(bites["defense"]):
        mine = bites[bites["defense"] == defense]
        line = [defense]
        for count in counts:
            part = mine[mine["malicious"] == count]
            line.append(" · ".join(percent(part[key].mean(), 0) for key in ("recall", "fpr")))
            line.append(f"{100 * part['lost'].mean():.1f}")
        lines.append(line)
    header = [""]
    for count in counts:
        header += [f"{count} of {CLIENTS}: recall · FPR", "points lost"]
    return table(header, lines)


def by_attack(rows: pd.DataFrame, setting: str, malicious: int) -> str:
    """Recall and false positives of each defense under each attack, in Markdown."""
    mine = rows[(rows["setting"] == setting) & (rows["malicious"] == malicious)]
    means = mine.groupby(["attack", "defense"], sort=False)[FIGURES].mean()
    defenses = list(dict.fromkeys(mine["defense"]))
    lines = []
    for attack in dict.fromkeys(mine["attack"]):
        lost = means.loc[attack]["undefended_lost"].iloc[0]
        line = [f"**{attack}**" if lost >= BITES else attack, f"{100 * lost:.1f}"]
        for defense in defenses:
            one = means.loc[(attack, defense)]
            line.append(f"{percent(one['recall'], 0)} · {percent(one['fpr'], 0)}")
        lines.append(line)
    return table(["", "points lost", *defenses], lines)


def as_in_the_papers(rows: pd.DataFrame, setting: str, malicious: int, attack: str) -> str:
    """The papers' columns for one attack, in Markdown."""
    chosen = (rows["setting"] == setting) & (rows["malicious"] == malicious)
    mine = rows[chosen & (rows["attack"] == attack)]
    means = mine.groupby("defense", sort=False)[FIGURES].mean()
    lines = []
    for defense, one in means.iterrows():
        positive = malicious / CLIENTS
        right = positive * one["recall"] + (1 - positive) * (1 - one["fpr"])
        cells = [one["recall"], one["precision"], one["fpr"], right, one["f1"], one["auc"]]
        lines.append([defense, *(percent(cell, 0) for cell in cells), f"{100 * one['lost']:.1f}"])
    names = ["recall", "precision", "FPR", "accuracy", "F1", "AUC of scores", "points lost"]
    return table(["%", *names], lines)


def missed(rows: pd.DataFrame) -> str:
    """Biting attacks at up to a quarter of attackers that `shield` misses part of, in Markdown."""
    mine = biting(rows)
    mine = mine[(mine["defense"] == "shield") & (mine["malicious"] / CLIENTS <= 0.25)]
    mine = mine[(mine["recall"] < 0.95) | (mine["fpr"] > 0.05)]
    lines = [
        [
            f"{SETTINGS[row.setting]}, seed {row.seed}, {row.malicious} of {CLIENTS}: {row.attack}",
            *(percent(value, 0) for value in (row.recall, row.fpr)),
            *(percent(value, 1) for value in (row.undefended_lost, row.lost)),
        ]
        for row in mine.itertuples()
    ]
    header = ["", "recall, %", "FPR, %", "points lost undefended", "with shield"]
    return table(header, lines) if lines else "Nothing."


def reasons(rows: pd.DataFrame) -> str:
    """Why many attackers and uneven data are hard, with numbers, as a list."""
    bites = biting(rows)

    def share(frame: pd.DataFrame, defense: str) -> str:
        mine = frame[frame["defense"] == defense]
        return f"recall {percent(mine['recall'].mean(), 0)} %, FPR {percent(mine['fpr'].mean(), 0)}"

    many, uneven = bites[bites["malicious"] == 8], bites[bites["setting"].str.endswith("t0.1")]
    shield = uneven[uneven["defense"] == "shield"]
    exact = shield[(shield["recall"] == 1) & (shield["fpr"] == 0)]["lost"]
    return "\n".join(
        [
            "- 8 of 20: attackers who agree pull the median update, and the clients' median map, "
            f"towards themselves: {share(many, 'shield')} %. With the server's own update instead "
            f"of the median: {share(many, 'shield, root data')} %.",
            "- Dirichlet 0.1: most clients have two or three classes, so that honest updates "
            f"differ from each other as much as some attacks do: {share(uneven, 'shield')} %; with "
            f"root data {share(uneven, 'shield, root data')} %. And whoever is left out takes "
            "classes away that hardly anybody else has: where `shield` leaves out the attackers "
            f"and nobody else, the round still loses {100 * exact.mean():.1f} points.",
        ]
    )


def claims(rows: pd.DataFrame, blamed: pd.DataFrame, runs: pd.DataFrame) -> str:
    """What the papers and tffl's own design claim, and what these numbers say, in Markdown."""
    bites = biting(rows)
    share = bites["malicious"] / CLIENTS

    def of(frame: pd.DataFrame, defense: str, column: str) -> float:
        return float(frame[frame["defense"] == defense][column].mean())

    few = bites[(share <= 0.25) & ~bites["setting"].str.contains("0.1", regex=False)]
    many = bites[share > 0.25]
    lines = []

    def claim(text: str, holds: bool, numbers: str) -> None:
        lines.append([text, "holds" if holds else "**fails**", numbers])

    for name, target in (("gradcam-ae", 0.9), ("layercam-ae", 0.9), ("gradcam-krum", 0.9)):
        recall, fpr = of(bites, name, "recall"), of(bites, name, "fpr")
        claim(
            f"`{name}` as published finds most attackers that hurt, at few false positives",
            recall >= target and fpr <= 0.05,
            f"recall {percent(recall, 0)} %, FPR {percent(fpr, 0)} %",
        )
    for name in ("cam-consensus", "update-consensus", "probe-loss", "shield"):
        mine = blamed[blamed["defense"] == name]
        count, honest = mine["blamed"].sum(), mine["honest"].sum()
        claim(
            f"`{name}` blames at most 1 % of honest clients without an attacker",
            count <= 0.01 * honest,
            f"{percent(count / honest, 1)} %: {count} of {honest:,} client-rounds",
        )
    published = max(of(bites, name, "auc") for name in ("gradcam-ae", "layercam-ae"))
    claim(
        "comparing maps with the clients' consensus ranks attackers better than the published "
        "autoencoders do",
        of(bites, "cam-consensus", "auc") > published,
        f"AUC {of(bites, 'cam-consensus', 'auc'):.2f} against {published:.2f}",
    )
    for frame, defense, text in (
        (few, "shield", "with up to 25 % attackers and Dirichlet ≥ 0.5"),
        (few, "shield, doubles allowed", "the same without the test for doubles"),
        (many, "shield", "with 40 % attackers"),
        (many, "shield, root data", "with 40 % attackers and trusted root data"),
    ):
        if frame.empty:
            continue
        recall, fpr = of(frame, defense, "recall"), of(frame, defense, "fpr")
        claim(
            f"`shield`: recall ≥ 95 %, FPR ≤ 2 %, {text}",
            recall >= 0.95 and fpr <= 0.02,
            f"recall {percent(recall, 1)} %, FPR {percent(fpr, 1)} %",
        )
    lost = of(few, "shield", "lost")
    claim(
        "with up to 25 % attackers `shield` keeps a round within 1.5 points of the honest one",
        lost <= 0.015,
        f"{100 * lost:.1f} points lost on average",
    )
    if runs.empty:
        return table(["claim", "", "measured"], lines)
    worst = runs[runs["defense"] == "shield"].groupby("attack")["lost"].mean()
    claim(
        "with 25 % attackers accuracy under `shield` ends within 1.5 points of the attack-free "
        "run, whatever the attack",
        bool(worst.max() <= 0.015),
        f"at worst {100 * worst.max():.1f} points lost ({worst.idxmax()}), on average "
        f"{100 * worst.mean():.1f}",
    )
    return table(["claim", "", "measured"], lines)


def ablation(rows: pd.DataFrame) -> str:
    """What parts contribute, in Markdown."""
    attacks = [name for name in dict.fromkeys(rows["attack"]) if name != "none"]
    lines = []
    for defense in dict.fromkeys(rows["defense"]):
        mine = rows[rows["defense"] == defense].groupby("attack")[["recall", "fpr", "auc"]].mean()
        line = [defense, percent(mine.loc["none", "fpr"], 1)]
        for attack in attacks:
            one = mine.loc[attack]
            line.append(f"{percent(one['recall'], 0)} · {one['auc']:.2f}")
        lines.append(line)
    return table(["", "FPR without attack, %", *(f"{a}: recall · AUC" for a in attacks)], lines)


def picture(rows: pd.DataFrame) -> Figure:
    """Draws recall on attacks that bite, one panel per share of attackers."""
    bites = biting(rows)
    counts = sorted(set(bites["malicious"]))
    figure = Figure(figsize=(5 * len(counts) + 1, 6), layout="constrained")
    axes = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    names = list(dict.fromkeys(bites["defense"]))
    attacks = list(dict.fromkeys(bites["attack"]))
    for axis, count in zip(axes, counts, strict=True):
        mine = bites[bites["malicious"] == count]
        grid = mine.pivot_table(index="attack", columns="defense", values="recall")
        grid = 100 * grid.reindex(index=attacks, columns=names)
        image = axis.imshow(grid, cmap="cividis", vmin=0, vmax=100, aspect="auto")
        axis.set_title(f"recall, %, {count} of {CLIENTS} malicious")
        axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
        axis.set_yticks(range(len(attacks)), attacks, fontsize=8)
        for (row, column), value in np.ndenumerate(grid.to_numpy()):
            text, color = (
                ("", "k") if np.isnan(value) else (f"{value:.0f}", "k" if value > 60 else "w")
            )
            axis.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    figure.colorbar(image, ax=axes.tolist(), shrink=0.6)
    return figure


def readme(
    rows: pd.DataFrame,
    blamed: pd.DataFrame,
    parts: pd.DataFrame,
    runs: pd.DataFrame,
    full: pd.DataFrame,
) -> str:
    """Returns the page."""
    settings = [SETTINGS[name] for name in SETTINGS if name in set(rows["setting"])]
    honest = len(rows[["setting", "seed"]].drop_duplicates())
    return f"""# Heat-map detectors, measured

{len(set(rows["attack"])) - 1} attacks against {len(set(rows["defense"]))} defenses, replayed on
stored rounds (3 and 6) of {honest} honest runs, on whose seeds nothing was tuned:
{"; ".join(settings)}. Fashion-MNIST with `lenet5`, the others with `resnet8`, 20 clients, 6,000
images (300 each), Adam, unless said otherwise. A replay measures single rounds: what an
attack costs and a defense lets through in one step from an honest model, not what adds up.

```sh
bash results/heat_maps/run.sh
python results/heat_maps/make.py
```

The thresholds of `cam-consensus`, `update-consensus` and `probe-loss` were chosen on other runs:
Fashion-MNIST with LeNet-5, IID and Dirichlet 0.5, Adam and SGD, and CIFAR-10 with ResNet-8, Adam,
with seeds 101 to 106. `replay.csv` has every mean over rounds. This page is written by `make.py`.

## Claim by claim

{claims(rows, blamed, runs)}

An attack bites if plain averaging loses at least {100 * BITES:.0f} points of accuracy in that one
round; recall and FPR above are means over biting attacks.

## False alarms without an attacker

{false_alarms(blamed)}

## Attacks that bite, by share of attackers

![Recall](recall.png)

{overview(rows)}

{details(rows)}

{wholes(runs, full)}

## Where `shield` has recall below 95 % or FPR above 5 %, with at most a quarter of attackers

{missed(rows)}

{reasons(rows)}
{parts_of(parts)}"""


def details(rows: pd.DataFrame) -> str:
    """The tables of single settings, as far as they are recorded."""
    recorded = sorted(set(zip(rows["setting"], rows["malicious"], strict=True)))
    shown = [pair for pair in recorded if pair[1] == SHOWN]
    sections = [
        f"## Attack by attack: {SETTINGS[setting]}, {told} of {CLIENTS}\n\n"
        "Recall · false-positive rate, in %. Bold attacks bite.\n\n"
        + by_attack(rows, setting, told)
        for setting, told in shown
    ]
    sections += [
        f"## In the papers' columns: distance-constrained, {told} of {CLIENTS}, CIFAR-10, IID\n\n"
        + as_in_the_papers(rows, setting, told, "distance-constrained")
        for setting, told in recorded
        if setting == "cifar10_iid" and told
    ]
    return "\n\n".join(sections)


def wholes(runs: pd.DataFrame, full: pd.DataFrame) -> str:
    """The tables of whole runs, as far as they are recorded."""
    sections = []
    if not runs.empty:
        sections.append(
            f"## Whole runs\n\nFashion-MNIST, Dirichlet 0.5, 5 of {CLIENTS} malicious, ten rounds, "
            f"seeds {', '.join(map(str, sorted(set(runs['seed']))))}: points of accuracy lost "
            "against the attack-free undefended run, and (recall · FPR, in %).\n\n"
            + whole_runs(runs)
        )
    if not full.empty:
        sections.append(
            f"## All of CIFAR-10\n\n`resnet8`, {CLIENTS} clients, 2 malicious, 8 rounds, seed 3; "
            "recall and FPR are means over rounds 2 to 8.\n\n"
            + full_table(full)
            + "\n\n"
            + pictures()
        )
    return "\n\n".join(sections)


def pictures() -> str:
    """What the two detectors saw in the last of those rounds, as far as it is recorded."""
    texts = {
        ("gradcam-ae", "errors"): "Reconstruction errors (the paper's Figure 8): the attackers' "
        "maps are the easiest to rebuild, for the two are alike.",
        ("gradcam-ae", "heat_maps"): "Heat maps, reconstructions and errors (Figure 9).",
        ("cam-consensus", "consensus"): "Distance of each client's maps to the clients' median "
        "map, `cam-consensus`.",
    }
    sections = []
    for (defense, kind), text in texts.items():
        figures = RUNS / "full" / f"{defense}_distance-constrained" / "figures"
        target, source = HERE / f"{defense}_{kind}.png", figures / f"{kind}_round_0008.png"
        if source.exists():
            shutil.copyfile(source, target)
        if target.exists():
            sections.append(f"{text}\n\n![{text}]({target.name})")
    return "\n\n".join(sections)


def parts_of(parts: pd.DataFrame) -> str:
    """The ablation, if it is recorded."""
    if parts.empty:
        return ""
    return (
        f"\n## What the parts contribute\n\nCIFAR-10, IID, 5 of {CLIENTS}.\n\n{ablation(parts)}\n"
    )


def main() -> None:
    """Writes all files."""
    rows, parts = collect("grid"), collect("ablation")
    page = readme(rows, alarms(), parts, trajectories(), full_size())
    (HERE / "README.md").write_text(page, encoding="utf-8")
    save(picture(rows), HERE / "recall.png")


if __name__ == "__main__":
    main()
