"""Bilgin's bias anomaly, Figures 4 to 6 at full size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tffl.core.deviations import REFERENCES, STATISTICS
from tffl.core.metrics import detection
from tffl.core.thresholds import mean_std, median_mad
from tffl.record.run_directory import RunDirectory
from tffl.studies.benchmark_table import table
from tffl.studies.localize import EARLY, measure, rank
from tffl.studies.pages.bias_anomaly_claims import BIAS, CURVES, SAME, Evidence, claims
from tffl.studies.pages.builder import Page, read_json, read_table
from tffl.studies.pages.verdicts import claim_table, counts

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SEEDS = {"4a": (0, 1, 2), "4b": (0, 1, 2), "4c": (0, 1, 2)}
KEYS = ["figure", "seed"]

Runs = Mapping[tuple[str, int], RunDirectory]
"""(curve, seed) → finished run."""


def wanted() -> list[tuple[str, int]]:
    """Returns every curve with its seeds."""
    return [(figure, seed) for figure in CURVES for seed in SEEDS.get(figure, (0,))]


# --- what the runs have measured -----------------------------------------------------------------


def collect(folder: Path) -> Mapping[str, pd.DataFrame]:
    """Returns the tables that the finished runs give."""
    runs = {
        (figure, seed): RunDirectory.open(path)
        for figure, seed in wanted()
        if (path := folder / f"figure_{SAME.get(figure, figure)}_seed{seed}").is_dir()
        and (path / "summary.json").exists()
    }
    if not runs:
        return {}
    bias = _stack(runs, deviations)
    found = {
        "curves": _stack(runs, curves),
        "deviations": bias,
        "variables": _stack(runs, variables),
        "detection": detections(bias),
    }
    return {f"{name}.csv": rows.map(_rounded) for name, rows in found.items()}


def curves(run: RunDirectory) -> pd.DataFrame:
    """Returns accuracy and loss of the joint model, main task and backdoor, by round."""
    names = {"attack_success": "backdoor_accuracy", "attack_loss": "backdoor_loss"}
    return run.frames()[0][["round", "accuracy", "loss", *names]].rename(columns=names)


def deviations(run: RunDirectory) -> pd.DataFrame:
    """Returns the maximum deviation of the final bias, by round and client."""
    import pandas as pd

    malicious = _malicious(run)
    rows = [
        {
            "round": part.round,
            "client": int(client),
            "malicious": int(client in malicious),
            **dict(zip(REFERENCES, values[part.names.index(BIAS), 0], strict=True)),
        }
        for part in run.deviations()
        for client, values in zip(part.client_ids, part.values.astype(float), strict=True)
    ]
    return pd.DataFrame(rows)


def variables(run: RunDirectory) -> pd.DataFrame:
    """Returns the ranking of all variables, for every statistic and reference."""
    import pandas as pd

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


def detections(bias: pd.DataFrame) -> pd.DataFrame:
    """Returns what a defense built on the deviation would decide, for four such defenses."""
    import pandas as pd

    rows = []
    for (figure, seed, number), part in bias.groupby([*KEYS, "round"]):
        malicious = part["malicious"].to_numpy(bool)
        for reference in REFERENCES:
            scores = part[reference].to_numpy(float)
            thresholds = {"median-mad": median_mad(scores, 3.5), "mean-std": mean_std(scores, 1.5)}
            for rule, threshold in thresholds.items():
                found = detection(malicious, scores > threshold, scores)
                row = {"figure": figure, "seed": seed, "round": number}
                row |= {"reference": reference, "rule": rule}
                rows.append(row | {name: found[name] for name in RATES})
    return pd.DataFrame(rows).astype({"precision": float})


RATES = ("recall", "precision", "fpr", "auc")


def _malicious(run: RunDirectory) -> set[int]:
    return set(read_json(run.path / "summary.json")["malicious_clients"])


def _stack(runs: Runs, rows_of: Callable[[RunDirectory], pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    parts = [rows_of(run).assign(figure=figure, seed=seed) for (figure, seed), run in runs.items()]
    whole = pd.concat(parts, ignore_index=True)
    return whole[[*KEYS, *(name for name in whole.columns if name not in KEYS)]]


def _rounded(value: Any) -> Any:
    """Returns a number with six digits."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


# --- the page ------------------------------------------------------------------------------------


def intro(folder: Path) -> str:
    """Says what was run."""
    return (
        "Zeki Bilgin, *Anomaly Localization in Model Gradients Under Backdoor Attacks Against "
        "Federated Learning*, Figures 4 to 6: CIFAR-10 dealt round-robin to a server and 10 "
        "clients, the small CNN, 25 rounds of 2 local epochs, cars with racing stripes that "
        "attackers label as birds. The runs need CIFAR-10: set `TFFL_DATA_DIR` to a folder that "
        "has TFDS' `cifar10`, or call `tffl data prepare cifar10`."
    )


def body(folder: Path) -> Iterator[str]:
    """Yields the paragraphs."""
    joint, bias, ranking, found = (
        read_table(folder / f"{name}.csv")
        for name in ("curves", "deviations", "variables", "detection")
    )
    judged = list(claims(Evidence(joint, bias, ranking)))
    yield status(joint)
    yield (
        "Backdoor accuracy is measured on the 22 striped cars that the attackers train on, as the "
        "paper does: it shows memory, not generalization. Main-task accuracy is on the 10,000 test "
        "images. All clients are averaged, flagged or not (`enforce = false`), because the paper "
        "has no defense. Malicious clients are drawn from the seed. CIFAR-10 came as re-encoded "
        "JPEG, so that pixels differ slightly from the original."
    )
    yield "## Claim by claim"
    yield f"{counts(judged)}."
    yield claim_table(judged)
    yield "## Which variables give the attackers away"
    yield (
        "Three numbers in a cell: the AUC with which a variable's maximum deviation from the "
        f"clients' mean ranks malicious above benign clients, in rounds 1–{EARLY}; the same in all "
        "rounds (1 gives them away, 0.5 is chance); and how many times as large the deviation is "
        "for the median malicious client as for the median benign one in rounds 1–3. Means over "
        "seeds. `variables.csv` also has the RMS deviation, and the joint model as reference."
    )
    yield variable_table(ranking)
    if (folder / "localize_4a.png").exists():
        yield "![AUC by variable and round, Figure 4a, seed 0](localize_4a.png)"
    yield "## What the paper lacks: a defense built on it"
    yield (
        "Such a defense flags clients whose deviation of the final bias lies above median + "
        "3.5·1.4826·MAD, or mean + 1.5·std, of the round's clients. The deviation is from the "
        "clients' mean (the author's notebook) or from the joint model (the paper's text). Means "
        "over rounds, ± standard deviation over seeds. Both constants were chosen before these "
        "runs. The verdicts are on undefended runs: a server that acts on them has other models "
        "from round 2 on."
    )
    yield detection_table(found)
    yield "## Pictures"
    yield "Seed 0, in the paper's layout."
    yield from (f"![Figure {number}](figure_{number}.png)" for number in "456")
    yield (
        "Files: `curves.csv` (joint model by round), `deviations.csv` (final bias by round and "
        "client), `variables.csv` (ranking of variables), `detection.csv` (verdicts by round)."
    )


def status(joint: pd.DataFrame) -> str:
    """Says which curves have been run."""
    done = set(zip(joint["figure"], joint["seed"], strict=True))
    missing = [f"{figure} seed {seed}" for figure, seed in wanted() if (figure, seed) not in done]
    total = len(wanted())
    progress = f"{total - len(missing)} of {total} curves (with seeds) have been run."
    return progress + (f" **Missing: {', '.join(missing)}.**" if missing else "")


def variable_table(ranking: pd.DataFrame) -> str:
    """AUC of the maximum deviation per variable and curve, and how far apart the groups are."""
    chosen = ranking[(ranking["statistic"] == "max") & (ranking["reference"] == "clients")]
    present = set(chosen["figure"])
    names = [name for name in CURVES if name not in SAME and name in present]
    lines = []
    for variable in sorted(chosen["variable"].unique()):
        cells = []
        for name in names:
            part = chosen[(chosen["variable"] == variable) & (chosen["figure"] == name)]
            means = part[["auc_early", "auc", "separation_early"]].mean()
            cells.append(" / ".join(f"{value:.2f}" for value in means))
        lines.append([f"`{variable}`", *cells])
    return table(["variable", *names], lines)


def detection_table(found: pd.DataFrame) -> str:
    """Recall, precision, false-positive rate and AUC by curve and defense."""
    lines = []
    for (figure, reference, rule), part in found.groupby(["figure", "reference", "rule"]):
        if figure in SAME:
            continue
        names = [str(name) for name in (figure, part["seed"].nunique(), reference, rule)]
        early = part[part["round"] <= EARLY]["recall"].mean()
        cells = [_over_seeds(part, name) for name in RATES]
        lines.append([*names, f"{early:.2f}", *cells])
    header = ["curve", "seeds", "reference", "rule", f"recall, rounds 1–{EARLY}"]
    return table([*header, "recall", "precision", "FPR", "AUC"], lines)


def _over_seeds(part: pd.DataFrame, name: str) -> str:
    per_seed = part.groupby("seed")[name].mean()
    if per_seed.isna().all():
        return "–"
    spread = f" ± {per_seed.std():.2f}" if len(per_seed) > 1 else ""
    return f"{per_seed.mean():.2f}{spread}"


def figures(folder: Path) -> Mapping[str, Figure]:
    """Draws Figures 4, 5 and 6."""
    joint, bias = (read_table(folder / f"{name}.csv") for name in ("curves", "deviations"))
    return {f"figure_{number}.png": draw(number, bias, joint) for number in "456"}


def draw(number: str, bias: pd.DataFrame, joint: pd.DataFrame) -> Figure:
    """Draws a figure in the paper's layout, seed 0: a column for each curve."""
    from matplotlib.figure import Figure

    sheet = Figure(figsize=(12, 8), layout="constrained")
    grid = sheet.subplots(3, 3, sharex=True)
    names = [name for name in CURVES if name.startswith(number)]
    for column, name in enumerate(names):
        mine = bias[(bias["figure"] == name) & (bias["seed"] == 0)]
        model = joint[(joint["figure"] == name) & (joint["seed"] == 0)]
        _draw_curve(grid[:, column], f"({name[1]}) {CURVES[name]}", mine, model)
    for axes, label in zip(
        grid[:, 0], ("maximum deviation\nof the final bias", "loss", "accuracy"), strict=True
    ):
        axes.set_ylabel(label)
    for axes in grid.flat:
        handles, labels = axes.get_legend_handles_labels()
        once = dict(zip(labels, handles, strict=True))
        if once:
            axes.legend(once.values(), once.keys(), frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return sheet


def _draw_curve(axes: Sequence[Axes], title: str, bias: pd.DataFrame, joint: pd.DataFrame) -> None:
    """Draws the clients' deviations, and below them loss and accuracy of the joint model."""
    from tffl.drawing.figures import BLUE, RED

    top, *below = axes
    top.set_title(title)
    for _, line in bias.groupby("client"):
        bad = bool(line["malicious"].iloc[0])
        style: dict[str, Any] = {"color": BLUE, "lw": 0.8, "label": "benign"}
        if bad:
            style = {"color": RED, "lw": 1.6, "ls": "--", "zorder": 3, "label": "malicious"}
        top.plot(line["round"], line["clients"], **style)
    for axis, quantity in zip(below, ("loss", "accuracy"), strict=True):
        axis.plot(joint["round"], joint[quantity], color=BLUE, label="main task")
        values = joint[f"backdoor_{quantity}"]
        axis.plot(joint["round"], values, color=RED, ls="--", label="backdoor")
    below[-1].set_ylim(-0.03, 1.03)
    below[-1].set_xlabel("round")
    if bias.empty:
        top.text(0.5, 0.5, "not run yet", transform=top.transAxes, ha="center")


PAGE = Page(
    "bias_anomaly",
    "Bilgin's bias anomaly, measured again",
    intro,
    body,
    collect,
    figures,
    {"localize_4a.png": "figure_4a_seed0/figures/localize.png"},
    keys=("figure", "seed"),
)
