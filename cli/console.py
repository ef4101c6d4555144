"""What the program prints: progress and warnings on stderr, results on stdout."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from tffl.studies.comparison import Outcome, conclusion, last_and_mean, percent
from tffl_cli.tables import PlainTable, words

if TYPE_CHECKING:
    from tffl.drawing.coalitions import SeenCoalition
    from tffl.drawing.explanation import Explanation
    from tffl.report.document import Table as ReportTable
    from tffl.simulation.run import Run
    from tffl.studies.reproduce.listing import Line
    from tffl.studies.reproduce.page import Report

WIDTH = 100
"""Width of a table in characters, where there is no terminal."""

TRAIN_NOTE = (
    "Attack success is measured on training images that the attackers hold, because the dataset "
    "has no others, so that it shows what the model memorized, not how it generalizes."
)


def console(stderr: bool = False) -> Console:
    """Returns a console, wide enough for tables where there is no terminal."""
    result = Console(stderr=stderr, highlight=False, soft_wrap=False, emoji=False)
    if not result.is_terminal:
        result.width = max(result.width, WIDTH)
    return result


def defined(value: Any) -> bool:
    """Says whether a cell of a table has a value."""
    return value is not None and value != "" and not math.isnan(float(value))


def number(value: Any) -> str:
    """Writes a score with four digits, an undefined one as a dash."""
    return f"{float(value):.4g}" if defined(value) else "–"


def rate(value: Any) -> str:
    """Writes a rate as a percentage, an undefined one as a dash."""
    return percent(float(value)) if defined(value) else percent(math.nan)


RATES = {
    "accuracy": "accuracy",
    "attack_success": "attack success",
    "recall": "recall",
    "precision": "precision",
    "fpr": "FPR",
}
"""Column of `rounds.csv` → its name in the tables of runs."""


def _rates_table(rows: Iterable[tuple[str, Mapping[str, Any], str]]) -> PlainTable:
    """Returns a table of label, rates, and updates that were rejected."""
    table = PlainTable("", *RATES.values(), "rejected")
    for label, rates, rejected in rows:
        table.add_row(label, *(rate(rates.get(key)) for key in RATES), rejected)
    return table


def print_run(run: Run) -> None:
    """Prints the table of one run: its last round, and the means over all rounds."""
    last, means = last_and_mean(run.rounds)
    rows = ((f"round {int(last['round'])}", last), ("mean", means))
    table = _rates_table((name, dict(row), f"{row['rejected']:.3g}") for name, row in rows)
    out = console()
    out.print(table)
    _note(out, Outcome.of(run.rounds, run.summary).source)
    if skipped := run.summary.get("skipped_rounds"):
        text = f"{skipped} of {len(run.rounds)} rounds were skipped: too few participants answered."
        out.print(text, style="dim")


def print_comparison(runs: Mapping[str, Run], defense: str) -> None:
    """Prints the table of a comparison, and what it means."""
    outcomes = {name: Outcome.of(run.rounds, run.summary) for name, run in runs.items()}
    out = console()
    out.print(
        _rates_table(
            (name, vars(one), f"{one.rejected} of {one.malicious + one.honest}")
            for name, one in outcomes.items()
        )
    )
    out.print(
        "Accuracy and attack success after the last round; recall, precision and FPR (honest "
        "updates blamed) as means over rounds; rejected updates in all. Attack-free: the defense "
        "is on, but nobody is malicious.",
        style="dim",
    )
    _note(out, next(iter(outcomes.values())).source)
    out.print()
    out.print(words(conclusion(outcomes, defense)))


def print_seeds(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints the figures of each seed, and their means with 95 % confidence intervals."""
    from tffl.studies.several_seeds import summarize_seeds

    table = PlainTable("seed", *RATES.values(), "rejected")
    for row in rows:
        table.add_row(str(row["seed"]), *(rate(row[key]) for key in RATES), str(row["rejected"]))
    found = summarize_seeds(rows)
    spread = [(found["mean"][key], found["interval"][key]) for key in RATES]
    rejected = found["mean"]["rejected"], found["interval"]["rejected"]
    means = [
        rate(mean) + (f" ± {half * 100:.1f}" if defined(half) else "") for mean, half in spread
    ]
    count = f"{rejected[0]:.3g}" + (f" ± {rejected[1]:.2g}" if defined(rejected[1]) else "")
    table.add_section()
    table.add_row("mean", *means, count)
    out = console()
    out.print(table)
    ruins = f" {found['ruined']} of {len(rows)} models are ruined and in no mean."
    out.print(
        "Accuracy and attack success after the last round; recall, precision and FPR as means over "
        "rounds; rejected updates in all. ± is half of the 95 % confidence interval (Student's t)."
        + (ruins if found["ruined"] else ""),
        style="dim",
    )


def print_benchmark(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints, for each setting and defense, how it fares without attack and in its worst case."""
    from tffl.studies.benchmark_table import NONE, summaries

    out = console()
    for setting, defenses in summaries(rows).items():
        table = PlainTable(setting, "no attack", "worst", "by", "recall", "FPR, no attack")
        for one in defenses:
            table.add_row(
                "undefended" if one.defense == NONE else one.defense,
                percent(one.accuracy),
                "ruined" if one.ruined else percent(one.worst_accuracy),
                one.worst_attack or "",
                percent(one.recall),
                percent(one.fpr),
            )
        out.print(table)
    out.print("Accuracy after the last round; recall is the mean over all attacks.", style="dim")


def print_replay(rows: Sequence[Mapping[str, Any]], rounds: int) -> None:
    """Prints the means of a replay."""
    from tffl.studies.replay import failures

    headers = ("attack", "defense", "lost", "undefended", "recall", "precision", "FPR", "AUC")
    table = PlainTable(*headers, right=range(2, len(headers)))
    for row in rows:
        rates = (rate(row[key]) for key in ("lost", "undefended_lost", "recall", "precision"))
        auc = f"{row['auc']:.3f}" if defined(row["auc"]) else "–"
        table.add_row(row["attack"], row["defense"], *rates, rate(row["fpr"]), auc)
    out = console()
    out.print(table)
    for (attack, error), defenses in failures(rows).items():
        line = f"Not replayed: {attack} against {', '.join(defenses)}: {error}"
        out.print(words(line), soft_wrap=True)
    if any(not row["error"] and not defined(row["lost"]) for row in rows):
        out.print("Lost –: the model is ruined, its outputs are not finite.", style="dim")
    out.print(
        f"Means over {rounds} stored rounds. Lost: accuracy below plain averaging of honest "
        "updates after that one round, with the defense and without any. Each round starts from "
        "the honest run's weights, so damage that builds up over rounds does not show.",
        style="dim",
    )


def print_explanation(found: Explanation) -> None:
    """Prints what a heat-map detector found out about each client in a round."""
    headers = ("client", "", "score", "", "dead maps", "not finite", "distance to median")
    title = f"Round {found.round}: {found.title}"
    table = PlainTable(*headers, right=(0, 2, 4, 5, 6), title=title)
    for row in found.rows():
        table.add_row(
            str(row["client"]),
            "malicious" if row["malicious"] else "",
            number(row["score"]),
            "flagged" if row["flagged"] else "",
            str(row["dead_maps"] or "–"),
            str(row["non_finite_maps"] or "–"),
            f"{row['distance']:.3g}",
            style="red" if row["flagged"] else None,
        )
    out = console()
    out.print(table)
    threshold = f", threshold {found.threshold:.4g}" if defined(found.threshold) else ""
    scores = f"Score: {found.score_name}{threshold}. " if found.scored else ""
    out.print(
        f"{scores}{found.maps.shape[1]} maps of each client. The distance to the clients' median "
        "map is relative to that of the median client.",
        style="dim",
    )


def print_coalition(found: SeenCoalition) -> None:
    """Prints which clients pushed together in a round."""
    detector = f", {found.part}" if found.part else ""
    out = console()
    out.print(words(f"Coalitions of round {found.round}: {found.title}{detector}"))
    for sentence in found.sentences():
        out.print(words(f"  {sentence}"))


def print_entries(entries: Iterable[Mapping[str, Any]], needs: str) -> None:
    """Prints the entries of a registry; `needs` is the header of what they need or know."""
    table = PlainTable("name", "description", needs, "citation", right=(), unbroken=(0,))
    for entry in entries:
        table.add_row(
            entry["name"], entry["summary"], ", ".join(entry["needs"]), entry["reference"]
        )
    console().print(table, markup=False)


def print_entry(entry: Mapping[str, Any], needs: str, section: str) -> None:
    """Prints one entry of a registry, with a table of its options."""
    out = console()
    out.print(words(f"{entry['name']}: {entry['summary']}"))
    for title, text in ((needs, ", ".join(entry["needs"])), ("by", entry["reference"])):
        if text:
            out.print(words(f"{title.capitalize()}: {text}"))
    if not entry["options"]:
        out.print("It has no options.")
        return
    table = PlainTable("option", "meaning", "allowed", "default", right=(), unbroken=(0,))
    for option in entry["options"]:
        default = (
            "unset" if option["default"] is None else json.dumps(option["default"], default=str)
        )
        table.add_row(
            option["name"],
            option["meaning"],
            option["allowed"],
            "required" if option["required"] else default,
        )
    out.print(table)
    if section in ("attack", "defense", "model"):
        example = entry["options"][0]["name"]
        out.print(f"Set one with --set {section}.{example}=VALUE", markup=False, style="dim")


def print_models(entries: Sequence[Mapping[str, Any]]) -> None:
    """Prints models with their figures for images of one size, or why they take none."""
    headers = ("name", "parameters", "last convolution", "its maps", "description")
    table = PlainTable(*headers, right=(1, 3))
    for entry in entries:
        name, summary = entry["name"], entry["summary"]
        if "refusal" in entry:
            table.add_row(name, "–", entry["refusal"], "–", summary)
            continue
        height, width = entry["map_size"]
        parameters = f"{entry['parameters']:,}"
        table.add_row(name, parameters, entry["last_convolution"], f"{height} × {width}", summary)
    out = console()
    out.print(table, markup=False)
    if all(entry.get("map_size") != [1, 1] for entry in entries):
        return
    out.print(
        "Maps of 1 × 1 pixel show no location: enlarge the probes (defense.probe_size), or take a "
        "network with another stem.",
        style="dim",
    )


def print_layers(layers: Sequence[Mapping[str, Any]]) -> None:
    """Prints the layers of a network that have feature maps."""
    table = PlainTable("layer", "kind", "its maps", "", right=(2,), unbroken=(0,))
    for layer in layers:
        height, width = layer["map_size"]
        default = ", the default" if layer["alias"] == "last-block" else ""
        note = f"{layer['alias']}{default}"
        table.add_row(layer["layer"], layer["kind"], f"{height} × {width}", note)
    out = console()
    out.print(table, markup=False)
    out.print("Choose one with --set defense.layer=LAYER", markup=False, style="dim")


def print_items(lines: Sequence[Line]) -> None:
    """Prints what can be reproduced."""
    from tffl.studies.reproduce.cost import duration

    out = console()
    for paper in dict.fromkeys(line.paper for line in lines):
        headers = ("item", "shows", "scales, and time here", "recorded")
        table = PlainTable(*headers, right=(), unbroken=(0,), title=paper)
        mine = [line for line in lines if line.paper == paper]
        for line in mine:
            scales = ", ".join(
                one.scale if one.seconds is None else f"{one.scale} {duration(one.seconds)}"
                for one in line.scales
            )
            about = f"{line.title}. {line.note}".rstrip(". ")
            table.add_row(line.item, about, scales or "–", line.recorded or "–")
        out.print(table)
        for config in dict.fromkeys(config for line in mine for config in line.configs):
            names = ", ".join(line.item for line in mine if config in line.configs)
            out.print(words(f"{config}: {names}"), soft_wrap=True, style="dim")
        for command in dict.fromkeys(line.command for line in mine):
            if command and not command.startswith("tffl reproduce"):
                out.print(words(f"Run: {command}"), soft_wrap=True, style="dim")
        out.print()
    out.print(
        "A time is that of all runs of an item, estimated from a few training steps on this "
        "machine, or from recorded runs; without either, no time is shown. Estimates leave out "
        "the time of attacks and defenses.",
        style="dim",
    )


def print_reproduction(reports: Sequence[Report]) -> None:
    """Prints the paper's numbers beside ours, and the verdict on each claim."""
    from tffl.studies.reproduce.page import counts, legend

    out = console()
    for report in reports:
        out.print(f"\n[bold]{report.entry.paper}[/], scale {report.scale}, ", end="")
        out.print(words(report.heading), soft_wrap=True)
        if report.missing:
            out.print(report.incomplete)
        for setting, (header, rows) in report.tables.items():
            table = PlainTable(*header, folded=range(len(header)), title=setting)
            for row in rows:
                table.add_row(*(cell.replace("\\*", "*") for cell in row))
            out.print(table)
        for judged in report.judged:
            out.print(f"[bold]{judged.verdict}[/]: {escape(judged.text)}", soft_wrap=True)
            out.print(f"  {escape(judged.numbers)}", style="dim", soft_wrap=True)
    if not reports:
        out.print("Nothing is recorded yet.")
        return
    out.print(f"\nClaims: {counts(judged for report in reports for judged in report.judged)}.")
    out.print(legend().replace("*paper → ours*", "paper → ours"), style="dim")


def print_report_tables(tables: Iterable[ReportTable], warnings: Iterable[str]) -> None:
    """Prints the tables of a report that have rows, and what is unfinished."""
    out = console()
    for content in filter(lambda table: table.rows, tables):
        columns = range(len(content.header))
        numbers = [column for column in columns if column not in content.words]
        table = PlainTable(*content.header, right=numbers, folded=columns, title=content.title)
        for row in content.rows:
            table.add_row(*row)
        out.print(table)
    for warning in warnings:
        out.print(words(f"Note: {warning}"), soft_wrap=True)


def print_figures(values: Mapping[str, Any]) -> None:
    """Prints the figures of a benchmark, nested ones under a dotted name."""
    from tffl.record.identity import flat

    table = PlainTable("figure", "value")
    for name, value in flat(values).items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    console().print(table)


def _note(out: Console, source: str) -> None:
    if source == "train":
        out.print(TRAIN_NOTE, style="dim")
