"""Adds the runs of run.sh to the tables of this folder; writes pictures and README.md from them.

    python results/bias_anomaly/make.py [RUNS]

Every number and every verdict in README.md is computed here, none is typed. Curves that have not
been run are named as missing. The tables keep what other runs left in them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from tffl.core.deviations import STATISTICS
from tffl.core.metrics import detection, roc_auc
from tffl.core.thresholds import mean_std, median_mad
from tffl.drawing.figures import BLUE, RED, save
from tffl.record.run_directory import RunDirectory
from tffl.studies.localize import EARLY, auc_heat_map, measure, rank

HERE = Path(__file__).parent
CURVES = {
    "4a": "1 malicious of 10",
    "4b": "2 malicious of 10",
    "4c": "5 malicious of 10",
    "5a": "learning rate 0.1",
    "5b": "learning rate 0.01",
    "5c": "learning rate 0.001",
    "6a": "data rate 1/1",
    "6b": "data rate 1/10",
    "6c": "data rate 1/50",
}
SAME = {"5b": "4a"}
"""Curves that are one experiment."""
SEEDS = {"4a": (0, 1, 2), "4b": (0, 1, 2), "4c": (0, 1, 2)}
ROUNDS = 25
BIAS = "logits/bias"
REFERENCES = ("clients", "joint")
CHANCE = 0.2
"""An AUC within this of 0.5 is called chance."""


def collect(runs: Path) -> dict[tuple[str, int], RunDirectory]:
    """Returns (figure, seed) → finished run."""
    found = {}
    for figure in CURVES:
        for seed in SEEDS.get(figure, (0,)):
            path = runs / f"figure_{SAME.get(figure, figure)}_seed{seed}"
            if (path / "summary.json").exists():
                found[figure, seed] = RunDirectory.open(path)
    return found


def curves(runs: dict[tuple[str, int], RunDirectory]) -> pd.DataFrame:
    """Accuracy and loss of the joint model, main task and backdoor, by round."""
    names = {"attack_success": "backdoor_accuracy", "attack_loss": "backdoor_loss"}
    columns = ["round", "accuracy", "loss", *names]
    return _stack(runs, lambda run: run.frames()[0][columns].rename(columns=names))


def deviations(runs: dict[tuple[str, int], RunDirectory]) -> pd.DataFrame:
    """Maximum deviation of the final bias, by round and client."""

    def table(run: RunDirectory) -> pd.DataFrame:
        guilty = _malicious(run)
        rows = [
            {
                "round": part.round,
                "client": int(client),
                "malicious": int(client in guilty),
                **dict(zip(REFERENCES, values[part.names.index(BIAS), 0], strict=True)),
            }
            for part in run.deviations()
            for client, values in zip(part.client_ids, part.values.astype(float), strict=True)
        ]
        return pd.DataFrame(rows)

    return _stack(runs, table)


def variables(runs: dict[tuple[str, int], RunDirectory]) -> pd.DataFrame:
    """Ranking of all variables, for every statistic and reference."""

    def table(run: RunDirectory) -> pd.DataFrame:
        measured = measure(run.deviations(), _malicious(run))
        parts = [
            rank(measured, reference, statistic).assign(statistic=statistic, reference=reference)
            for statistic in STATISTICS
            for reference in REFERENCES
        ]
        early = measured[measured["round"] <= 3]
        keys = ["variable", "statistic", "reference"]
        separation = early.groupby(keys)["separation"].mean().rename("separation_early")
        return pd.concat(parts).merge(separation, on=keys)

    return _stack(runs, table)


def detections(table: pd.DataFrame) -> pd.DataFrame:
    """What a defense built on the deviation would have decided, for four such defenses."""
    rows = []
    for (figure, seed, round), part in table.groupby(["figure", "seed", "round"]):
        guilty = part["malicious"].to_numpy(bool)
        for reference in REFERENCES:
            scores = part[reference].to_numpy(float)
            thresholds = {"median-mad": median_mad(scores, 3.5), "mean-std": mean_std(scores, 1.5)}
            for rule, threshold in thresholds.items():
                figures = detection(guilty, scores > threshold, scores)
                kept = ("recall", "precision", "fpr", "auc")
                rows.append(
                    {"figure": figure, "seed": seed, "round": round, "reference": reference,
                     "rule": rule, **{name: figures[name] for name in kept}}
                )  # fmt: skip
    return pd.DataFrame(rows).astype({"precision": float})


def draw(figure: str, table: pd.DataFrame, joint: pd.DataFrame) -> Figure:
    """Draws Figure 4, 5 or 6 in the paper's layout, seed 0."""
    names = [name for name in CURVES if name.startswith(figure)]
    sheet = Figure(figsize=(12, 8), layout="constrained")
    grid = sheet.subplots(3, 3, sharex=True)
    for column, name in enumerate(names):
        top, middle, bottom = grid[:, column]
        top.set_title(f"({name[1]}) {CURVES[name]}")
        mine = table[(table["figure"] == name) & (table["seed"] == 0)]
        for _, line in mine.groupby("client"):
            bad = bool(line["malicious"].iloc[0])
            top.plot(
                line["round"], line["clients"], color=RED if bad else BLUE,
                lw=1.6 if bad else 0.8, ls="--" if bad else "-", zorder=2 + bad,
                label="malicious" if bad else "benign",
            )  # fmt: skip
        model = joint[(joint["figure"] == name) & (joint["seed"] == 0)]
        for axes, quantity in ((middle, "loss"), (bottom, "accuracy")):
            axes.plot(model["round"], model[quantity], color=BLUE, label="main task")
            axes.plot(model["round"], model[f"backdoor_{quantity}"], color=RED, ls="--",
                      label="backdoor")  # fmt: skip
        bottom.set_ylim(-0.03, 1.03)
        bottom.set_xlabel("round")
        if mine.empty:
            top.text(0.5, 0.5, "not run yet", transform=top.transAxes, ha="center")
    for axes, label in zip(grid[:, 0], ("maximum deviation\nof the final bias", "loss", "accuracy"),
                           strict=True):  # fmt: skip
        axes.set_ylabel(label)
    for axes in grid.flat:
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        if handles:
            axes.legend(handles.values(), handles.keys(), frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return sheet


class Evidence:
    """The numbers behind the claims."""

    def __init__(self, joint: pd.DataFrame, bias: pd.DataFrame, ranking: pd.DataFrame) -> None:
        self.joint, self.bias, self.ranking = joint, bias, ranking
        self.have = set(joint["figure"].unique())

    def early_auc(self, figure: str) -> pd.Series:
        """Mean AUC of each variable's maximum deviation over the first rounds and all seeds."""
        r = self.ranking
        chosen = r[(r["figure"] == figure) & (r["statistic"] == "max")]
        chosen = chosen[chosen["reference"] == "clients"]
        return chosen.groupby("variable", sort=False)["auc_early"].mean()

    def auc(self, figure: str, variable: str = BIAS) -> float:
        """Mean AUC of a variable's maximum deviation over all rounds and seeds."""
        r = self.ranking
        chosen = r[(r["figure"] == figure) & (r["statistic"] == "max")]
        chosen = chosen[(chosen["reference"] == "clients") & (chosen["variable"] == variable)]
        return float(chosen["auc"].mean())

    def late_auc(self, figure: str, first: int = 7) -> float:
        """Mean AUC of the final bias from a round on."""
        mine = self.bias[(self.bias["figure"] == figure) & (self.bias["round"] >= first)]
        parts = mine.groupby(["seed", "round"])[["malicious", "clients"]]
        return float(parts.apply(lambda p: roc_auc(p["malicious"], p["clients"])).mean())

    def ratio(self, figure: str) -> pd.Series:
        """By round: median malicious deviation over the largest benign one, mean over seeds."""
        mine = self.bias[self.bias["figure"] == figure]
        bad = mine[mine["malicious"] == 1].groupby(["seed", "round"])["clients"].median()
        good = mine[mine["malicious"] == 0].groupby(["seed", "round"])["clients"].max()
        return (bad / good).groupby("round").mean()

    def level(self, figure: str, first: int = 1, last: int = ROUNDS, bad: int = 1) -> float:
        """Median deviation of malicious (or benign) clients in rounds first … last, seed 0."""
        mine = self.bias[(self.bias["figure"] == figure) & (self.bias["seed"] == 0)]
        mine = mine[(mine["malicious"] == bad) & mine["round"].between(first, last)]
        return float(mine["clients"].median())

    def last(self, figure: str, column: str) -> float:
        """A curve's value after the last round, mean over seeds."""
        j = self.joint
        return float(j[(j["figure"] == figure) & (j["round"] == ROUNDS)][column].mean())


def claims(e: Evidence) -> Iterator[tuple[str, str, str]]:
    """Yields (claim of the paper, verdict, numbers); the rule of each verdict stands here."""
    if "4a" in e.have:
        early = e.early_auc("4a")
        others = early.drop(BIAS)
        telling = [f"`{name}` {value:.2f}" for name, value in others.items() if value >= 0.9]
        only = early[BIAS] >= 0.9 and not telling
        yield (
            "With 1 of 10 malicious, the anomaly sits in the final layer's bias and nowhere else.",
            "holds" if only else "fails",
            f"AUC of the maximum deviation, first {EARLY} rounds, mean over seeds: final bias "
            f"{early[BIAS]:.2f}; others at 0.9 or more: {', '.join(telling) or 'none'}. "
            "(Holds if the bias reaches 0.9 and no other variable does.)",
        )
        ratio = e.ratio("4a")
        first, late = ratio.loc[1:3].mean(), ratio.loc[16:ROUNDS].mean()
        below = [int(r) for r, value in ratio.items() if value < 1]
        numbers = (
            f"malicious deviation over the largest benign one, mean over seeds: {first:.2f} in "
            f"rounds 1–3, {late:.2f} in rounds 16–{ROUNDS}; first round below 1: "
            f"{below[0] if below else '–'}; AUC over all rounds {e.auc('4a'):.2f}."
        )
        yield (
            "It fades as training proceeds …",
            "holds" if first > 1 and late < 1 else ("partly" if late < first else "fails"),
            f"{numbers} (Holds if above 1 at first and below 1 in the end; partly if it falls.)",
        )
        yield (
            "… and from round 7 on the malicious client acts like the others.",
            "holds" if below and below[0] <= 7 else "fails",
            f"first round below 1: {below[0] if below else '–'}; AUC in rounds 7–{ROUNDS}: "
            f"{e.late_auc('4a'):.2f}. (Holds if the first round below 1 is 7 or earlier.)",
        )
    if {"4a", "4b"} <= e.have:
        one, two = (e.last(figure, "backdoor_accuracy") for figure in ("4a", "4b"))
        one_loss, two_loss = (e.last(figure, "backdoor_loss") for figure in ("4a", "4b"))
        yield (
            "Two malicious clients with the same total of poisoned data attack more effectively "
            "than one.",
            "holds" if two > one or (two == one and two_loss < one_loss) else "fails",
            f"backdoor accuracy after round {ROUNDS}: {one:.2f} with one, {two:.2f} with two; "
            f"backdoor loss {one_loss:.2f} and {two_loss:.2f}.",
        )
    if "4c" in e.have:
        value = e.auc("4c")
        yield (
            "With 5 of 10 malicious the anomaly disappears.",
            "holds" if abs(value - 0.5) <= CHANCE else "fails",
            f"AUC of the final bias over all rounds: {value:.2f}. (Holds if within {CHANCE} of "
            "0.5.)",
        )
        main, back = e.last("4c", "accuracy"), e.last("4c", "backdoor_accuracy")
        yield (
            "With 5 of 10 malicious the backdoor does better than the main task.",
            "holds" if back > main else "fails",
            f"after round {ROUNDS}: backdoor accuracy {back:.2f}, main task {main:.2f}.",
        )
    if {"5a", "5b", "5c"} <= e.have:
        levels = [e.level(figure) for figure in ("5a", "5b", "5c")]
        start = [e.level(figure, 1, 1) for figure in ("5a", "5b", "5c")]
        yield (
            "The deviation scales with the learning rate.",
            "holds" if levels[0] > levels[1] > levels[2] else "fails",
            "median deviation of the malicious client at learning rate 0.1, 0.01, 0.001: "
            f"{', '.join(f'{x:.4f}' for x in levels)} over all rounds, "
            f"{', '.join(f'{x:.4f}' for x in start)} in round 1. (Holds if ordered.)",
        )
        main, back = e.last("5a", "accuracy"), e.last("5a", "backdoor_accuracy")
        peak = e.joint[e.joint["figure"] == "5a"]["backdoor_accuracy"].max()
        yield (
            "At learning rate 0.1 the backdoor gets in without harm to the main task.",
            "holds" if peak >= 0.95 and main >= e.last("5b", "accuracy") - 0.02 else "fails",
            f"backdoor accuracy {peak:.2f} at its highest, {back:.2f} after round {ROUNDS}; main "
            f"task {main:.2f}, against {e.last('5b', 'accuracy'):.2f} at learning rate 0.01 (test "
            "images; the paper's 100 % can only be training accuracy). (Holds if it once reaches "
            "0.95 and the main task ends no more than 2 points below.)",
        )
    if {"6a", "6b", "6c", "4a"} <= e.have:
        order = ("6a", "4a", "6b", "6c")
        start = [e.level(figure, 1, 3) for figure in order]
        yield (
            "The deviation softens as the malicious data rate falls.",
            "holds" if all(a > b for a, b in pairwise(start)) else "fails",
            "median deviation of the malicious client in rounds 1–3 at rate 1/1, 1/3, 1/10, 1/50: "
            f"{', '.join(f'{x:.4f}' for x in start)}; benign clients at 1/50: "
            f"{e.level('6c', 1, 3, bad=0):.4f}. (Holds if ordered.)",
        )
    if "6a" in e.have:
        ratio = e.ratio("6a")
        early, late = e.level("6a", 1, 5), e.level("6a", 21, ROUNDS)
        back = e.last("6a", "backdoor_accuracy")
        yield (
            "At rate 1/1 the deviation stands out in every round and stays almost constant, and "
            "one such client does not get the backdoor in.",
            "holds" if ratio.min() > 1 and 0.5 < late / early < 2 and back < 0.5 else "fails",
            f"malicious deviation over the largest benign one: at least {ratio.min():.2f} in every "
            f"round; level {early:.4f} in rounds 1–5, {late:.4f} in rounds 21–{ROUNDS}; backdoor "
            f"accuracy {back:.2f}. (Holds if always above 1, within a factor of 2, below 0.5.)",
        )


def detection_table(found: pd.DataFrame) -> str:
    """Recall, precision, false-positive rate and AUC by figure and defense, over rounds, seeds."""
    lines = [
        f"| curve | seeds | reference | rule | recall, rounds 1–{EARLY} | recall | precision | "
        "FPR | AUC |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (figure, reference, rule), part in found.groupby(["figure", "reference", "rule"]):
        if figure in SAME:
            continue
        early = part[part["round"] <= EARLY]["recall"]
        cells = [f"{early.mean():.2f}"]
        for name in ("recall", "precision", "fpr", "auc"):
            per_seed = part.groupby("seed")[name].mean()
            spread = f" ± {per_seed.std():.2f}" if len(per_seed) > 1 else ""
            cells.append("–" if per_seed.isna().all() else f"{per_seed.mean():.2f}{spread}")
        seeds = part["seed"].nunique()
        lines.append(f"| {figure} | {seeds} | {reference} | {rule} | {' | '.join(cells)} |")
    return "\n".join(lines)


def variable_table(ranking: pd.DataFrame) -> str:
    """AUC of the maximum deviation per variable and curve, and how far apart the groups are."""
    chosen = ranking[(ranking["statistic"] == "max") & (ranking["reference"] == "clients")]
    figures = [name for name in CURVES if name not in SAME and name in set(chosen["figure"])]
    lines = ["| variable | " + " | ".join(figures) + " |", "|---" * (len(figures) + 1) + "|"]
    for variable in sorted(chosen["variable"].unique()):
        cells = []
        for figure in figures:
            part = chosen[(chosen["variable"] == variable) & (chosen["figure"] == figure)]
            means = part[["auc_early", "auc", "separation_early"]].mean()
            cells.append(" / ".join(f"{value:.2f}" for value in means))
        lines.append(f"| `{variable}` | {' | '.join(cells)} |")
    return "\n".join(lines)


README = """# Bilgin's bias anomaly, measured again

Zeki Bilgin, *Anomaly Localization in Model Gradients Under Backdoor Attacks Against Federated
Learning*, Figures 4 to 6: CIFAR-10 dealt round-robin over a server and 10 clients, the small CNN,
25 rounds of 2 local epochs, cars with racing stripes taught as birds. This page is written by
`make.py` from the runs of `run.sh`; no number on it is typed.

```sh
export TFFL_DATA_DIR=...            # a folder with TFDS' cifar10; or `tffl data prepare cifar10`
bash results/bias_anomaly/run.sh    # trains; resumes and skips what is there
python results/bias_anomaly/make.py
```

{status}

Backdoor accuracy is measured on the 22 striped cars that the attackers train on, as the paper does:
it tells memory, not generalization. Main-task accuracy is on the 10,000 test images. All clients
are averaged, flagged or not (`enforce = false`), because the paper has no defense. Malicious
clients are drawn from the seed. CIFAR-10 came as re-encoded JPEG, so pixels differ slightly from
the original. Environment: {environment}.

## Claim by claim

{claims}

## Which variables give the attackers away

AUC with which a variable's maximum deviation from the clients' mean ranks malicious above benign
clients, in rounds 1–{early} / in all rounds (1 gives them away, 0.5 is chance) / how many times
larger it is for the median malicious client than for the median benign one in rounds 1–3. Means
over seeds. `variables.csv` has the RMS deviation and the joint model as reference too.

{variables}

![AUC by variable and round, Figure 4a, seed 0](localize_4a.png)

## What the paper lacks: a defense built on it

Flagging clients whose deviation of the final bias lies above median + 3.5·1.4826·MAD, or mean +
1.5·std, of the round's clients; the deviation is from the clients' mean (the author's notebook) or
from the joint model (the paper's text). Means over rounds, ± standard deviation over seeds. Both
constants were chosen beforehand, not on these runs. The verdicts are on undefended trajectories: a
server that acts on them gets other models from round 2 on.

{detection}

## Pictures

Seed 0, in the paper's layout.

{pictures}

Files: `curves.csv` (joint model by round), `deviations.csv` (final bias by round and client),
`variables.csv` (ranking of variables), `detection.csv` (verdicts by round).
"""


def write_readme(evidence: Evidence, found: pd.DataFrame) -> None:
    """Writes README.md."""
    done = set(zip(evidence.joint["figure"], evidence.joint["seed"], strict=True))
    wanted = [(f, s) for f in CURVES for s in SEEDS.get(f, (0,))]
    missing = [f"{figure} seed {seed}" for figure, seed in wanted if (figure, seed) not in done]
    status = f"{len(wanted) - len(missing)} of {len(wanted)} curves (with seeds) have been run."
    if missing:
        status += f" **Missing: {', '.join(missing)}.**"
    told = json.loads((HERE / "environment.json").read_text())
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    lines = ["| claim of the paper | verdict | measured |", "|---|---|---|"]
    lines += [f"| {claim} | **{verdict}** | {numbers} |"
              for claim, verdict, numbers in claims(evidence)]  # fmt: skip
    (HERE / "README.md").write_text(
        README.format(
            status=status,
            environment=f"{versions}; {told['machine']}",
            claims="\n".join(lines),
            early=EARLY,
            variables=variable_table(evidence.ranking),
            detection=detection_table(found),
            pictures="\n\n".join(f"![Figure {n}](figure_{n}.png)" for n in "456"),
        )
    )


def main() -> None:
    """Adds the finished runs to the tables, and writes pictures and README.md from the tables."""
    runs = collect(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/bias_anomaly"))
    if runs:
        bias = deviations(runs)
        made = {"curves": curves(runs), "deviations": bias, "variables": variables(runs)}
        for name, table in {**made, "detection": detections(bias)}.items():
            _merge(table, HERE / f"{name}.csv")
        versions = json.loads((next(iter(runs.values())).path / "environment.json").read_text())
        kept = {key: versions[key] for key in ("versions", "machine")}
        (HERE / "environment.json").write_text(json.dumps(kept, indent=2) + "\n")
    if ("4a", 0) in runs:
        run = runs["4a", 0]
        save(auc_heat_map(measure(run.deviations(), _malicious(run))), HERE / "localize_4a.png")
    joint, bias, ranking, found = (
        pd.read_csv(HERE / f"{name}.csv", dtype={"figure": str})
        for name in ("curves", "deviations", "variables", "detection")
    )
    for figure in "456":
        save(draw(figure, bias, joint), HERE / f"figure_{figure}.png")
    write_readme(Evidence(joint, bias, ranking), found)


def _merge(table: pd.DataFrame, path: Path) -> None:
    """Writes a table; rows of (figure, seed) that it lacks are kept from the file."""
    if path.exists():
        old = pd.read_csv(path, dtype={"figure": str})
        new = set(zip(table["figure"], table["seed"], strict=True))
        kept = [pair not in new for pair in zip(old["figure"], old["seed"], strict=True)]
        table = pd.concat([old[kept], table]) if any(kept) else table
    table = table.sort_values(["figure", "seed"], kind="stable")
    table.to_csv(path, index=False, float_format="%.6g")


def _malicious(run: RunDirectory) -> set[int]:
    return set(json.loads((run.path / "summary.json").read_text())["malicious_clients"])


def _stack(
    runs: dict[tuple[str, int], RunDirectory], table: Callable[[RunDirectory], pd.DataFrame]
) -> pd.DataFrame:
    parts = [table(run).assign(figure=figure, seed=seed) for (figure, seed), run in runs.items()]
    whole = pd.concat(parts, ignore_index=True)
    return whole[["figure", "seed", *[c for c in whole.columns if c not in ("figure", "seed")]]]


if __name__ == "__main__":
    main()
