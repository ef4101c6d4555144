"""Colluders who are not clones against `shield`: whole runs on seeds on which nothing was tuned."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tffl.core.errors import require
from tffl.studies.benchmark_table import NONE, interval, percent, table
from tffl.studies.pages.builder import Page, by_key, distinct, read_json, read_table, records
from tffl.studies.pages.verdicts import Judged, compare, counts, judged, words_table

if TYPE_CHECKING:
    import pandas as pd

GRIDS = ("fashion_mnist", "elsewhere", "alarms", "adaptive", "reference")
"""Configs of `configs/coalition`, and the tables that come of them."""

EXACT = "exact"
"""Label of the defense that leaves out exactly the attackers, in runs that are only a reference."""

CLONES = ("LIE z 1.5", "min-max", "distance-constrained", "mpaf")
TRAINED = ("label flip", "patch-backdoor", "patch backdoor, scaled")
UNSCALED = ("label flip", "patch-backdoor")
HARM = 0.03
"""An attack is harmful if it costs undefended clients at least so much accuracy."""

COST = ": ResNet-18, 20 clients of 250 images, one epoch, on a CPU, while 5 attack"

TUNED = (
    "Limits were chosen on Fashion-MNIST (LeNet-5; IID, Dirichlet 0.5 and 0.1; Adam and SGD), "
    "MNIST and CIFAR-10 (ResNet-8) with seeds 4 and 11 to 17. Nothing was tuned on the seeds of "
    "this page, with one exception: an earlier version raised false alarms on seed 41 (SGD, "
    "Dirichlet 0.1), as it did on seeds 12 and 13. The limits of `shield`'s second line were "
    "widened then, and false alarms are measured on other seeds since. Recall of attackers who "
    "come and go counts the rounds in which they behave."
)


def collect(runs: Path) -> dict[str, Any]:
    """Returns the results of each benchmark, and the seconds of the runs below `cost`."""
    files = {f"{name}.csv": runs / name / "results.csv" for name in GRIDS}
    found: dict[str, Any] = {
        name: read_table(path) for name, path in files.items() if path.exists()
    }
    if seconds := [_seconds_of(path.parent) for path in sorted(runs.glob("cost/*/summary.json"))]:
        found["cost.json"] = dict(seconds)
    return found


def _seconds_of(run: Path) -> tuple[str, dict[str, float]]:
    """Returns a run's defense, and the seconds of its last round: the first ones compile."""
    last = records(read_table(run / "rounds.csv"))[-1]
    return run.name, {part: last[f"{part}_seconds"] for part in ("train", "defense")}


def results(folder: Path, *names: str) -> pd.DataFrame:
    """Returns the runs that went well of some grids, with what they lost.

    Columns beside those of a benchmark: `share` of attackers and `beta` of the setting, `kind` of
    the attack, `lost` against the run of the same setting and seed without the attackers, `harm`,
    what the attack costs undefended clients, a mean over seeds.
    """
    import pandas as pd

    tables = [read_table(folder / f"{name}.csv") for name in names]
    runs = pd.concat([table for table in tables if len(table)] or tables[:1])
    if runs.empty:
        return runs
    runs = runs[runs["error"].isna()]
    # A run that did not fail and has no accuracy ruined its model: all accuracy is lost.
    runs = runs.assign(accuracy=runs["accuracy"].fillna(0.0))
    exact = read_table(folder / "reference.csv")
    require(not exact.empty, f"there are no runs without the attackers in {folder}: reference.csv")
    exact = exact[(exact["defense"] == EXACT) & (exact["attack"] != NONE)]
    base = exact.set_index(["setting", "seed"])["accuracy"]
    keys = pd.MultiIndex.from_frame(runs[["setting", "seed"]])
    runs = runs.assign(lost=base.reindex(keys).to_numpy() - runs["accuracy"].to_numpy())
    undefended = runs[runs["defense"] == NONE].groupby(["setting", "attack"])["lost"].mean()
    keys = pd.MultiIndex.from_frame(runs[["setting", "attack"]])
    return runs.assign(
        harm=undefended.reindex(keys).to_numpy(),
        share=[share(setting) for setting in runs["setting"]],
        beta=[beta(setting) for setting in runs["setting"]],
        kind=[kind(attack) for attack in runs["attack"]],
    )


def share(setting: str) -> float:
    """Returns the share of attackers that a setting names.

    >>> share("Dirichlet 0.5, 5 of 20"), share("IID")
    (0.25, 0.0)
    """
    found = re.search(r"(\d+) of (\d+)", setting)
    return int(found[1]) / int(found[2]) if found else 0.0


def beta(setting: str) -> float:
    """Returns the Dirichlet parameter that a setting names; infinity for even data.

    >>> beta("MNIST, Dirichlet 0.1"), beta("IID")
    (0.1, inf)
    """
    found = re.search(r"Dirichlet ([\d.]+\d)", setting)
    return float(found[1]) if found else math.inf


def kind(attack: str) -> str:
    """Says how attackers differ: they send one row, rows of their own, or train on other data."""
    return "clones" if attack in CLONES else "trained" if attack in TRAINED else "spread"


def intro(folder: Path) -> str:
    """Says what was run."""
    runs = results(folder, "fashion_mnist", "elsewhere")
    require(not runs.empty, f"there are no runs in {folder}")
    seeds = runs.groupby("setting")["seed"].nunique()
    few, many = int(seeds.min()), int(seeds.max())
    how_many = f"{many} seeds" if few == many else f"{few} to {many} seeds"
    return (
        f"{len(set(runs['attack']) - {NONE})} attacks against `shield` in "
        f"{runs['setting'].nunique()} settings, whole runs, {how_many}. "
        "Colluders send one identical row, as published, or hide the common shift in updates of "
        'their own (`spread = "own"`). What a run loses is measured against the same run in which '
        "exactly the attackers are left out, which no server can know."
    )


def body(folder: Path) -> Iterator[str]:
    """Yields the paragraphs."""
    yield TUNED
    order = ("fails", "undecided", "holds")
    goals = sorted(claims(folder), key=lambda goal: order.index(goal.verdict))
    yield "## Goal by goal"
    yield (
        f"{counts(goals)}. Recall and false positives are means over all rounds of attacks that "
        f"cost undefended clients at least {100 * HARM:.0f} points; ± is a 95 % interval over "
        "seeds."
    )
    yield words_table(
        ["goal", "", "measured"], [[one.text, f"**{one.verdict}**", one.numbers] for one in goals]
    )
    yield "## What escapes"
    yield escaping(folder)
    yield "## The adaptive attacker"
    yield (
        "`adaptive-coalition` knows the detector and its limits, and plays every round with it in "
        "advance, on images of its own or on those of the server. [BOUND.md](BOUND.md) derives how "
        "much harm can be left to any attacker who is not convicted."
    )
    yield adaptive(folder)
    for name in ("fashion_mnist", "elsewhere"):
        runs = results(folder, name)
        for setting in distinct(runs, "setting") if len(runs) else []:
            yield f"## {setting}" if name == "elsewhere" else f"## Fashion-MNIST, {setting}"
            yield setting_table(runs[runs["setting"] == setting])
    yield "## False alarms, setting by setting"
    yield alarms_table(folder)


def claims(folder: Path) -> Iterator[Judged]:
    """Yields the goals, with what was reached."""
    runs = results(folder, "fashion_mnist", "elsewhere")
    harmful = runs[(runs["harm"] >= HARM) & (runs["defense"] == "shield")]
    harmful = harmful[harmful["attack"] != NONE]
    few, even = harmful["share"] <= 0.25, harmful["beta"] >= 0.5
    spread, clones = harmful["kind"] == "spread", harmful["kind"] == "clones"
    yield _detection("Clones, up to 25 %, Dirichlet ≥ 0.5", harmful[few & even & clones], 98, 1)
    yield _detection("Spread, up to 25 %, Dirichlet ≥ 0.5", harmful[few & even & spread], 95, 1)
    yield _detection("Clones and spread, 40 %", harmful[~few & even & (clones | spread)], 95, 2)
    yield _detection(
        "Clones and spread, up to 25 %, Dirichlet 0.1",
        harmful[few & ~even & (clones | spread)],
        90,
        3,
    )
    defended = runs[(runs["defense"] == "shield") & (runs["beta"] >= 0.5)]
    for attack in UNSCALED:
        mine = defended[defended["attack"] == attack]
        cost = 100 * mine["harm"].mean()
        text = f"{attack}, unscaled, Dirichlet ≥ 0.5 (costs {cost:.1f} points on average)"
        center, half = _over_seeds(mine, "recall")
        yield judged(
            f"{text}: recall ≥ 90 %", _with_interval(center, half), compare(center, ">=", 0.9)
        )
    free = results(folder, "alarms")
    free = free[free["defense"] == "shield"] if len(free) else free
    if len(free):
        center, half = _over_seeds(free, "fpr")
        yield judged(
            "False alarms without attackers ≤ 0.5 % of client-rounds",
            _with_interval(center, half),
            compare(center, "<=", 0.005),
        )
    yield _worst(defended[defended["attack"] != NONE])
    yield _seconds(folder)


def _detection(text: str, runs: pd.DataFrame, recall: int, fpr: int) -> Judged:
    found, wrong = _over_seeds(runs, "recall"), _over_seeds(runs, "fpr")
    cells = runs.groupby(["setting", "attack"]).ngroups
    return judged(
        f"{text}: recall ≥ {recall} %, FPR ≤ {fpr} %",
        f"recall {_with_interval(*found)}, FPR {_with_interval(*wrong)}; {cells} cells",
        compare(found[0], ">=", recall / 100),
        compare(wrong[0], "<=", fpr / 100),
    )


def _worst(runs: pd.DataFrame) -> Judged:
    text = "Whole runs, Dirichlet ≥ 0.5, worst attack: within 2 points of leaving the attackers out"
    if runs.empty:
        return judged(text, "not measured", None)
    means = by_key(runs.groupby(["setting", "attack"])[["lost"]].mean())
    lost = {key: float(row["lost"]) for key, row in means.items()}
    setting, attack = most = max(lost, key=lost.__getitem__)
    inside = sum(value <= 0.02 for value in lost.values())
    return judged(
        text,
        f"{100 * lost[most]:.1f} points ({attack}; {setting}); {inside} of {len(lost)} cells are "
        "within 2",
        compare(lost[most], "<=", 0.02),
    )


def _seconds(folder: Path) -> Judged:
    text = "Time beside training at most 2 %"
    shares = {
        name: seconds["defense"] / seconds["train"]
        for name, seconds in read_json(folder / "cost.json").items()
    }
    if not shares:
        return judged(text, "not measured", None)
    numbers = ", ".join(f"`{name}` {100 * value:.1f} %" for name, value in shares.items())
    return judged(f"{text}{COST}", numbers, compare(max(shares.values()), "<=", 0.02))


def _over_seeds(runs: pd.DataFrame, column: str) -> tuple[float, float]:
    """Returns the mean over cells, and the half width of its interval over seeds."""
    if runs.empty:
        return math.nan, math.nan
    return interval([float(value) for value in runs.groupby("seed")[column].mean()])


def _with_interval(center: float, half: float) -> str:
    if math.isnan(center):
        return "not measured"
    return f"{100 * center:.1f} %" + ("" if math.isnan(half) else f" ± {100 * half:.1f}")


def escaping(folder: Path) -> str:
    """Lists the harmful attacks that are found less than nine times in ten."""
    runs = results(folder, "fashion_mnist", "elsewhere")
    mine = runs[(runs["harm"] >= HARM) & (runs["defense"] == "shield")]
    mine = mine[mine["attack"] != NONE]
    means = by_key(mine.groupby(["setting", "attack"])[["harm", "lost", "recall"]].mean())
    missed = {key: row for key, row in means.items() if row["recall"] < 0.9}
    lines = [
        f"- {attack}, {setting}: recall {100 * row['recall']:.0f} %; it costs "
        f"{100 * row['harm']:.1f} points undefended and {100 * row['lost']:.1f} under `shield`"
        for (setting, attack), row in sorted(missed.items(), key=lambda item: item[1]["recall"])
    ]
    return "\n".join(lines) if lines else "No harmful attack is found less than nine times in ten."


def adaptive(folder: Path) -> str:
    """What an attacker who knows the detector still costs."""
    runs = read_table(folder / "adaptive.csv")
    if runs.empty:
        return "Not measured."
    runs = results(folder, "adaptive")
    runs = runs[runs["attack"] != NONE]
    columns = ["lost", "recall", "fpr"]
    means = by_key(runs.groupby(["setting", "attack", "defense"], sort=False)[columns].mean())
    rows = [
        [setting, attack, "undefended" if defense == NONE else f"`{defense}`", *_figures(row)]
        for (setting, attack, defense), row in means.items()
    ]
    return table(["", "attack", "defense", "lost, points", "recall, %", "FPR, %"], rows)


def _figures(row: Mapping[str, float]) -> list[str]:
    rates = [percent(row[name], 1) for name in ("recall", "fpr")]
    return [f"{100 * row['lost']:.1f}", *rates]


def setting_table(runs: pd.DataFrame) -> str:
    """What each attack does without a defense, and with `shield`."""
    columns = ["lost", "recall", "fpr", "attack_success"]
    means = by_key(runs.groupby(["attack", "defense"])[columns].mean())
    unknown = dict.fromkeys(columns, math.nan)
    rows = []
    for attack in distinct(runs, "attack"):
        bare, mine = (means.get((attack, defense), unknown) for defense in (NONE, "shield"))
        success = " → ".join(percent(cell["attack_success"], 0) for cell in (bare, mine))
        lost = f"{100 * bare['lost']:.1f}"
        rows.append(
            [
                "no attack" if attack == NONE else attack,
                f"**{lost}**" if bare["lost"] >= HARM else lost,
                *_figures(mine),
                "" if math.isnan(bare["attack_success"]) else success,
            ]
        )
    header = ["", "lost undefended, points", "lost, points", "recall, %", "FPR, %"]
    return table([*header, "attack success, %"], rows)


def alarms_table(folder: Path) -> str:
    """The share of honest clients that are rejected, and what that costs."""
    runs = read_table(folder / "alarms.csv")
    if runs.empty:
        return "Not measured."
    runs = runs[runs["error"].isna()]
    rows = []
    for setting in distinct(runs, "setting"):
        mine = runs[runs["setting"] == setting].groupby("defense")[["fpr", "accuracy"]].mean()
        means = by_key(mine)
        if {NONE, "shield"} <= {*means}:
            lost = 100 * (means[NONE]["accuracy"] - means["shield"]["accuracy"])
            rows.append([setting, percent(means["shield"]["fpr"], 2), f"{lost:.1f}"])
    return table(["", "rejected, % of client-rounds", "accuracy lost, points"], rows)


PAGE = Page(
    "coalition",
    "Colluders who are not clones, measured",
    intro,
    body,
    collect,
    keys=("setting", "attack", "defense", "seed"),
)
