"""Reads results.csv and writes README.md and the picture from it.

    tffl benchmark configs/opponents/fashion_mnist.toml --out results/opponents
    python results/opponents/make.py

Every number and every verdict in README.md is computed here, none is typed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tffl.config import read
from tffl.drawing.figures import save
from tffl.studies.benchmark_table import percent, table

HERE = Path(__file__).parent
PLAN = HERE.parents[1] / "configs" / "opponents" / "fashion_mnist.toml"
BITES = 0.05
"""An attack bites if it costs undefended clients this much accuracy, or raises its success so."""
SUCCESS = 0.25
HARMED = 0.1
"""A defense is hurt by an attack that costs it so much more than its attack-free run."""
DARK = 30
"""Points lost from which on a cell of the picture is so dark that its number is white."""
HOLDS = 0.5
"""A defense holds against an attack if at most this share of the damage is left."""


def damage(results: pd.DataFrame) -> pd.DataFrame:
    """Adds accuracy `lost` against the attack-free, undefended run of the setting.

    And `gained`, the attack's success; what its images yield by themselves is not subtracted.
    """
    honest = results[(results["attack"] == "none") & (results["defense"] == "none")]
    base = honest.set_index("setting")["accuracy"]
    # A ruined model, without an accuracy though the run did not fail, has lost all of it.
    accuracy = results["accuracy"].mask(results["accuracy"].isna() & results["error"].isna(), 0.0)
    lost = results["setting"].map(base) - accuracy
    return results.assign(lost=lost, gained=results["attack_success"].fillna(0.0))


def biting(results: pd.DataFrame) -> pd.DataFrame:
    """Returns the undefended runs of attacks that bite, by setting and attack."""
    bare = results[(results["defense"] == "none") & (results["attack"] != "none")]
    return bare[(bare["lost"] >= BITES) | (bare["gained"] >= SUCCESS)]


def verdicts(results: pd.DataFrame) -> pd.DataFrame:
    """Returns, for each biting attack, setting and defense, whether the defense holds."""
    keys = ["setting", "attack"]
    bare = biting(results)[[*keys, "lost", "gained"]]
    defended = results[~results["defense"].isin(["none"]) & (results["attack"] != "none")]
    pairs = defended.merge(bare, on=keys, suffixes=("", "_undefended"))
    targeted = pairs["gained_undefended"] >= SUCCESS
    untargeted = pairs["lost_undefended"] >= BITES
    allowed = np.where(untargeted, HOLDS * pairs["lost_undefended"], BITES)
    accurate = pairs["lost"] <= allowed
    stopped = ~targeted | (pairs["gained"] <= HOLDS * pairs["gained_undefended"])
    return pairs.assign(holds=accurate & stopped)


def attacks_table(results: pd.DataFrame) -> str:
    """What attacks do to undefended clients, in Markdown."""
    settings = list(dict.fromkeys(results["setting"]))
    bare = results[(results["defense"] == "none") & (results["attack"] != "none")]
    rows = []
    for attack in dict.fromkeys(bare["attack"]):
        row = [attack]
        for setting in settings:
            one = bare[(bare["attack"] == attack) & (bare["setting"] == setting)]
            if one.empty or pd.isna(one["accuracy"].iloc[0]):
                row.append("–")
                continue
            lost, success = one["lost"].iloc[0], one["attack_success"].iloc[0]
            text = f"{100 * lost:.1f}"
            text += "" if pd.isna(success) else f" · {percent(success, 0)}"
            bites = lost >= BITES or (not pd.isna(success) and success >= SUCCESS)
            row.append(f"**{text}**" if bites else text)
        rows.append(row)
    return table(["", *settings], rows)


def defenses_table(results: pd.DataFrame) -> str:
    """How many biting attacks each defense stops, in Markdown."""
    judged = verdicts(results)
    free = results[results["attack"] == "none"].groupby("defense")
    false_alarms, cost = free["fpr"].mean(), free["lost"].mean()
    rows = []
    for defense in dict.fromkeys(judged["defense"]):
        mine = judged[judged["defense"] == defense]
        few, many = (mine[mine["setting"].str.contains(text)] for text in ("2 of", "6 of"))
        worst = mine.loc[mine["lost"].idxmax()]
        rows.append(
            [
                defense,
                f"{few['holds'].sum()} of {len(few)}",
                f"{many['holds'].sum()} of {len(many)}",
                percent(mine["recall"].mean(), 0),
                percent(false_alarms[defense], 0),
                f"{100 * cost[defense]:.1f}",
                f"{100 * worst['lost']:.0f} ({worst['attack']}; {worst['setting']})",
            ]
        )
    rows.sort(key=lambda row: -sum(int(cell.split(" ")[0]) for cell in row[1:3]))
    header = [
        "",
        "holds, 2 of 20",
        "holds, 6 of 20",
        "recall, %",
        "FPR without attack, %",
        "lost without attack, points",
        "worst loss, points",
    ]
    return table(header, rows)


def failures(results: pd.DataFrame) -> str:
    """Who stops each biting attack, and who does not."""
    judged = verdicts(results)
    lines = []
    for attack in dict.fromkeys(judged["attack"]):
        mine = judged[judged["attack"] == attack]
        share = mine.groupby("defense", sort=False)["holds"].mean()
        always = share.index[share == 1].tolist()
        never = share.index[share == 0].tolist()
        settings = mine["setting"].nunique()
        where = "in one setting" if settings == 1 else f"in {settings} settings"
        lines.append(
            f"- **{attack}** bites {where}. It is stopped in all of them by "
            f"{_names(always)}; in none of them by {_names(never)}."
        )
    return "\n".join(lines)


def _names(names: list[str]) -> str:
    return ", ".join(names) if names else "nobody"


def picture(results: pd.DataFrame) -> Figure:
    """Draws accuracy lost, attacks by defenses, one panel per setting."""
    settings = list(dict.fromkeys(results["setting"]))
    figure = Figure(figsize=(15, 6.5 * ((len(settings) + 1) // 2)), layout="constrained")
    axes = figure.subplots((len(settings) + 1) // 2, 2, squeeze=False).ravel()
    for axis, setting in zip(axes, settings, strict=False):
        mine = results[results["setting"] == setting]
        order = list(dict.fromkeys(mine["attack"])), list(dict.fromkeys(mine["defense"]))
        grid = mine.pivot(index="attack", columns="defense", values="lost")
        grid = 100 * grid.reindex(index=order[0], columns=order[1])
        image = axis.imshow(grid, cmap="YlOrBr", vmin=-5, vmax=50, aspect="auto")
        axis.set_title(f"{setting}: points of accuracy lost")
        columns = ["undefended" if name == "none" else name for name in grid.columns]
        rows = ["no attack" if name == "none" else name for name in grid.index]
        axis.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
        axis.set_yticks(range(len(rows)), rows, fontsize=8)
        for (row, column), value in np.ndenumerate(grid.to_numpy()):
            text = "–" if np.isnan(value) else f"{value:.0f}".replace("-0", "0")
            color = "white" if value > DARK else "black"
            axis.text(column, row, text, ha="center", va="center", fontsize=6, color=color)
    figure.colorbar(image, ax=axes.tolist(), shrink=0.4)
    return figure


def readme(results: pd.DataFrame, plan: dict, failed: pd.DataFrame) -> str:
    """Returns the page."""
    experiment = plan["experiment"]
    data, federation = experiment["data"], experiment["federation"]
    attacks = [name for name in dict.fromkeys(results["attack"]) if name != "none"]
    defenses = [name for name in dict.fromkeys(results["defense"]) if name != "none"]
    bites = biting(results)
    everywhere = bites.groupby("attack")["setting"].nunique()
    harmless = [name for name in attacks if name not in everywhere.index]
    seeds, seconds = plan["seeds"], results["seconds"].median()
    only = (
        "one seed, so that a few points either way mean nothing"
        if len(seeds) == 1
        else f"means over {len(seeds)} seeds"
    )
    return f"""# Attacks against defenses, measured

{len(attacks)} attacks against {len(defenses)} defenses on Fashion-MNIST: {federation["clients"]}
clients, {data["train_limit"] - data["server_samples"]} training images in all,
{federation["rounds"]} rounds, `{experiment["model"]["name"]}`; {only}.
{len(results)} runs of {seconds:.0f} s (median), each on one core of a machine with other work, so
that seconds here compare nothing: [results/speed](../speed) does.

```sh
tffl benchmark configs/opponents/fashion_mnist.toml --out results/opponents
python results/opponents/make.py
```

`results.csv` has every run, `results.md` all tables (accuracy, attack success, recall and false
positives, AUC, precision, F1, worst cases). This page and the picture are made by `make.py`. Rules
that take f are told nothing; `fltrust` has {data["server_samples"]} images of its own. Attackers
know every honest update, where their attack can use it.

![Accuracy lost](accuracy_lost.png)

## Which attacks bite

Points of accuracy lost without a defense, and the attack's success where it has a target. Bold:
at least {100 * BITES:.0f} points lost, or success of at least {percent(SUCCESS, 0)} %.

{attacks_table(results)}

In no setting bites: {_names(harmless)}.

## Which defense fails where

Counted are attacks that bite undefended, by setting. A defense holds if at most half of the lost
accuracy stays lost (at most {100 * BITES:.0f} points, where it is the attack's success that bites),
and at most half of the attack's success is left.

{defenses_table(results)}

{failures(results)}

## Attacks that defenses are hurt by, and plain averaging is not

Crafted to stay where a rule does not look, they cost undefended clients less than
{100 * BITES:.0f} points. Listed is who loses at least {100 * HARMED:.0f} points more than it does
without an attacker, and how many more.

{harmed(results)}

## What failed to run

{failed_runs(failed)}
"""


def harmed(results: pd.DataFrame) -> str:
    """Defenses that lose accuracy to attacks that do not bite undefended, as a list."""
    keys = ["setting", "defense"]
    free = results[results["attack"] == "none"].set_index(keys)["lost"]
    mine = results[(results["attack"] != "none") & (results["defense"] != "none")]
    bites = biting(results).set_index(["setting", "attack"]).index
    mine = mine[~mine.set_index(["setting", "attack"]).index.isin(bites)]
    mine = mine.assign(extra=mine["lost"] - free.reindex(mine.set_index(keys).index).to_numpy())
    lines = [
        f"- {attack}, {setting}: "
        + ", ".join(f"{row.defense} ({100 * row.extra:.0f})" for row in group.itertuples())
        for (attack, setting), group in mine[mine["extra"] >= HARMED].groupby(
            ["attack", "setting"], sort=False
        )
    ]
    return "\n".join(lines) if lines else "Nobody."


def failed_runs(failed: pd.DataFrame) -> str:
    """Lists what was refused or broke, alike messages together."""
    lines = [
        f"- {attack}, {setting}, {len(runs)} runs: {error}"
        for (attack, setting, error), runs in failed.groupby(
            ["attack", "setting", "error"], sort=False
        )
    ]
    return "\n".join(lines) if lines else "Nothing."


def main() -> None:
    """Writes both files."""
    table_ = pd.read_csv(HERE / "results.csv", keep_default_na=False, na_values=[""])
    failed = table_[table_["error"].notna()]
    results = damage(table_[table_["error"].isna()])
    plan = read(PLAN)
    (HERE / "README.md").write_text(readme(results, plan, failed), encoding="utf-8")
    save(picture(results), HERE / "accuracy_lost.png")


if __name__ == "__main__":
    main()
