"""Attacks against defenses, from a benchmark of `configs/opponents/fashion_mnist.toml`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tffl.config import read
from tffl.core import shipped
from tffl.studies.benchmark_table import NONE, percent, table
from tffl.studies.pages.builder import Page, distinct, read_table, records
from tffl.studies.pages.grid import draw_grids

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PLAN = "opponents/fashion_mnist.toml"
HARM = 0.05
"""An attack is harmful if it costs undefended clients at least this much accuracy."""
SUCCESS = 0.25
"""An attack with a target is also harmful if its success is at least this."""
HARMED = 0.1
"""A defense is harmed by an attack that costs at least so much more than its attack-free run."""
HOLDS = 0.5
"""A defense holds against an attack if at most this share of the damage is left."""
CELL = ["setting", "attack"]


def results(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the runs that went well, with their damage, and those that failed."""
    rows = read_table(folder / "results.csv")
    failed = rows["error"].notna()
    return damage(rows[~failed]), rows[failed]


def damage(runs: pd.DataFrame) -> pd.DataFrame:
    """Adds the accuracy `lost` against the attack-free, undefended run of the setting.

    And `gained`, the attack's success, from which what its images yield without an attack is not
    subtracted.
    """
    honest = runs[(runs["attack"] == NONE) & (runs["defense"] == NONE)]
    base = honest.set_index("setting")["accuracy"]
    # A run that did not fail and has no accuracy ruined its model: all accuracy is lost.
    accuracy = runs["accuracy"].mask(runs["accuracy"].isna() & runs["error"].isna(), 0.0)
    lost = runs["setting"].map(base) - accuracy
    return runs.assign(lost=lost, gained=runs["attack_success"].fillna(0.0))


def harmful(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns the undefended runs of harmful attacks, by setting and attack."""
    bare = runs[(runs["defense"] == NONE) & (runs["attack"] != NONE)]
    return bare[(bare["lost"] >= HARM) | (bare["gained"] >= SUCCESS)]


def held(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns, for each harmful attack, setting and defense, whether the defense `holds`."""
    bare = harmful(runs)[[*CELL, "lost", "gained"]]
    defended = runs[(runs["defense"] != NONE) & (runs["attack"] != NONE)]
    pairs = defended.merge(bare, on=CELL, suffixes=("", "_undefended"))
    targeted = pairs["gained_undefended"] >= SUCCESS
    untargeted = pairs["lost_undefended"] >= HARM
    allowed = (HOLDS * pairs["lost_undefended"]).where(untargeted, HARM)
    accurate = pairs["lost"] <= allowed
    stopped = ~targeted | (pairs["gained"] <= HOLDS * pairs["gained_undefended"])
    return pairs.assign(holds=accurate & stopped)


def intro(folder: Path) -> str:
    """Says what was run."""
    runs, _ = results(folder)
    plan = read(shipped.folder() / PLAN)
    data, federation = plan["experiment"]["data"], plan["experiment"]["federation"]
    attacks, defenses = (set(runs[column]) - {NONE} for column in ("attack", "defense"))
    seeds = plan["seeds"]
    only = (
        "one seed, so that a difference of a few points means nothing"
        if len(seeds) == 1
        else f"means over {len(seeds)} seeds"
    )
    images = data["train_limit"] - data["server_samples"]
    return (
        f"{len(attacks)} attacks against {len(defenses)} defenses on Fashion-MNIST: "
        f"{federation['clients']} clients, {images:,} training images in all, "
        f"{federation['rounds']} rounds, `{plan['experiment']['model']['name']}`; {only}. "
        f"{len(runs)} runs of {runs['seconds'].median():.0f} s (median), each on one core of a "
        "machine that had other work: compare no seconds here, [results/speed](../speed) does that."
    )


def body(folder: Path) -> Iterator[str]:
    """Yields the paragraphs."""
    runs, failed = results(folder)
    images = read(shipped.folder() / PLAN)["experiment"]["data"]["server_samples"]
    yield (
        "`results.csv` has every run, and `results.md` all tables: accuracy, attack success, "
        "recall and false positives, AUC, precision, F1, worst cases. Rules that take the number "
        f"of attackers f are not given it. `fltrust` has {images} images of its own. "
        "Attackers know every honest update, if their attack can use it."
    )
    yield "![Accuracy lost](accuracy_lost.png)"
    yield "## Which attacks are harmful"
    yield (
        "Points of accuracy lost without a defense, and the attack's success if it has a target. "
        f"Harmful ones are in bold: at least {100 * HARM:.0f} points lost, or a success of at "
        f"least {percent(SUCCESS, 0)} %."
    )
    yield attacks_table(runs)
    names = harmless(runs)
    yield f"These are harmful in no setting: {_names(names) if names else 'none'}."
    yield "## Which defense fails where"
    yield (
        "Counted are the attacks that are harmful without a defense, in each setting. A defense "
        "holds if at most half of the lost accuracy stays lost and at most half of the attack's "
        "success is left. "
        f"If only the attack's success is harmful, the defense may lose {100 * HARM:.0f} points."
    )
    yield defenses_table(runs)
    yield who_stops(runs)
    yield "## Attacks that harm defenses, and not plain averaging"
    yield (
        "These attacks are made to hide where a rule does not look. They cost undefended clients "
        f"less than {100 * HARM:.0f} points. The list names the defenses that lose at least "
        f"{100 * HARMED:.0f} points more than they do without an attacker, and how many more."
    )
    yield harmed(runs)
    yield "## What failed to run"
    yield failures(failed)


def attacks_table(runs: pd.DataFrame) -> str:
    """What attacks do to undefended clients."""
    settings = distinct(runs, "setting")
    bare = runs[(runs["defense"] == NONE) & (runs["attack"] != NONE)]
    rows = []
    for attack in distinct(bare, "attack"):
        cells = [
            _attack_cell(bare[(bare["attack"] == attack) & (bare["setting"] == setting)])
            for setting in settings
        ]
        rows.append([attack, *cells])
    return table(["", *settings], rows)


def _attack_cell(rows: pd.DataFrame) -> str:
    if rows.empty or rows["accuracy"].isna().iloc[0]:
        return "–"
    run = records(rows)[0]
    targeted = run["attack_success"] == run["attack_success"]  # NaN without a target
    text = f"{100 * run['lost']:.1f}"
    text += f" · {percent(run['attack_success'], 0)}" if targeted else ""
    return f"**{text}**" if run["lost"] >= HARM or run["gained"] >= SUCCESS else text


def harmless(runs: pd.DataFrame) -> list[str]:
    """Returns the attacks that are harmful in no setting."""
    names = {NONE, *harmful(runs)["attack"]}
    return [attack for attack in distinct(runs, "attack") if attack not in names]


def defenses_table(runs: pd.DataFrame) -> str:
    """How many harmful attacks each defense stops."""
    pairs = held(runs)
    free = runs[runs["attack"] == NONE].groupby("defense")
    false_alarms, cost = free["fpr"].mean(), free["lost"].mean()
    rows = []
    for defense in distinct(pairs, "defense"):
        mine = pairs[pairs["defense"] == defense]
        few, many = (mine[mine["setting"].str.contains(text)] for text in ("2 of", "6 of"))
        worst = records(mine.loc[[mine["lost"].idxmax()]])[0]
        cells = [
            f"{few['holds'].sum()} of {len(few)}",
            f"{many['holds'].sum()} of {len(many)}",
            percent(mine["recall"].mean(), 0),
            percent(float(false_alarms[defense]), 0),
            f"{100 * float(cost[defense]):.1f}",
            f"{100 * worst['lost']:.0f} ({worst['attack']}; {worst['setting']})",
        ]
        rows.append((int(mine["holds"].sum()), [defense, *cells]))
    rows.sort(key=lambda row: -row[0])
    header = ["", "holds, 2 of 20", "holds, 6 of 20", "recall, %", "FPR without attack, %"]
    header += ["lost without attack, points", "worst loss, points"]
    return table(header, [row for _, row in rows])


def who_stops(runs: pd.DataFrame) -> str:
    """Who stops each harmful attack, and who does not."""
    pairs = held(runs)
    lines = []
    for attack in distinct(pairs, "attack"):
        mine = pairs[pairs["attack"] == attack]
        share = mine.groupby("defense", sort=False)["holds"].mean()
        always, never = (share.index[share == border].tolist() for border in (1, 0))
        settings = mine["setting"].nunique()
        if settings == 1:
            text = f"one setting. Stopped by: {_names(always)}. Not stopped by: {_names(never)}."
        else:
            text = (
                f"{settings} settings. Stopped in all of them by: {_names(always)}. Stopped in "
                f"none of them by: {_names(never)}."
            )
        lines.append(f"- **{attack}** is harmful in {text}")
    return "\n".join(lines)


def harmed(runs: pd.DataFrame) -> str:
    """Defenses that lose accuracy to attacks that are harmless without a defense, as a list."""
    keys = ["setting", "defense"]
    free = runs[runs["attack"] == NONE].set_index(keys)["lost"]
    mine = runs[(runs["attack"] != NONE) & (runs["defense"] != NONE)]
    cells = harmful(runs).set_index(CELL).index
    mine = mine[~mine.set_index(CELL).index.isin(cells)]
    mine = mine.assign(extra=mine["lost"] - free.reindex(mine.set_index(keys).index).to_numpy())
    mine = mine[mine["extra"] >= HARMED]
    lines = []
    for (attack, setting), group in mine.groupby(["attack", "setting"], sort=False):
        losers = (f"{row['defense']} ({100 * row['extra']:.0f})" for row in records(group))
        lines.append(f"- {attack}, {setting}: {', '.join(losers)}")
    return "\n".join(lines) if lines else "None does."


def failures(failed: pd.DataFrame) -> str:
    """Lists what was refused or broke, equal messages together."""
    lines = [
        f"- {attack}, {setting}, {len(runs)} runs: {error}"
        for (attack, setting, error), runs in failed.groupby(
            ["attack", "setting", "error"], sort=False
        )
    ]
    return "\n".join(lines) if lines else "Nothing."


def figures(folder: Path) -> Mapping[str, Figure]:
    """Draws the accuracy lost, attacks by defenses, one panel per setting."""
    runs, _ = results(folder)
    panels = {}
    for setting in distinct(runs, "setting"):
        mine = runs[runs["setting"] == setting]
        grid = 100 * mine.pivot(index="attack", columns="defense", values="lost")
        grid = grid.reindex(index=distinct(mine, "attack"), columns=distinct(mine, "defense"))
        panels[f"{setting}: points of accuracy lost"] = grid.rename(
            index={NONE: "no attack"}, columns={NONE: "undefended"}
        )
    drawn = draw_grids(panels, colors="YlOrBr", limits=(-5, 50), columns=2)
    return {"accuracy_lost.png": drawn}


def _names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) if names else "no defense"


PAGE = Page("opponents", "Attacks against defenses, measured", intro, body, figures=figures)
