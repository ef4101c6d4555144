"""What the program prints: progress and warnings on stderr, results on stdout."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from tffl.studies.comparison import Outcome, percent
from tffl_cli.tables import PlainTable, words

if TYPE_CHECKING:
    import pandas as pd

    from tffl.drawing.explanation import Explanation
    from tffl.report.document import Table as ReportTable
    from tffl.studies.reproduce.listing import Line
    from tffl.studies.reproduce.page import Report

WIDTH = 100
"""Columns of a table, where no terminal tells them."""

TRAIN_NOTE = (
    "Attack success is measured on training images that the attackers hold, because the dataset "
    "has no others: it tells memory, not generalization."
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


def rate(value: Any) -> str:
    """Writes a rate as a percentage, an undefined one as a dash."""
    return percent(float(value)) if defined(value) else percent(math.nan)


def print_run(rounds: pd.DataFrame, outcome: Outcome) -> None:
    """Prints the table of one run: its last round, and the means over all rounds."""
    table = PlainTable("", "accuracy", "attack success", "recall", "precision", "FPR", "rejected")
    last = rounds.iloc[-1]
    means = rounds.mean(numeric_only=True)
    # Rounds in which the model is ruined have no accuracy: the others' mean would flatter it.
    of_model = ["accuracy", "attack_success"]
    means[of_model] = rounds[of_model].astype(float).mean(skipna=False)
    for label, row in ((f"round {int(last['round'])}", last), ("mean", means)):
        shown = ("accuracy", "attack_success", "recall", "precision", "fpr")
        table.add_row(label, *(rate(row.get(key)) for key in shown), f"{row['rejected']:.3g}")
    out = console()
    out.print(table)
    _note(out, outcome.source)


def print_comparison(outcomes: Mapping[str, Outcome], sentence: str) -> None:
    """Prints the table of a comparison, and what it means."""
    table = PlainTable("", "accuracy", "attack success", "recall", "precision", "FPR", "rejected")
    for variant, outcome in outcomes.items():
        table.add_row(
            variant,
            percent(outcome.accuracy),
            percent(outcome.attack_success),
            percent(outcome.recall),
            percent(outcome.precision),
            percent(outcome.fpr),
            f"{outcome.rejected} of {outcome.malicious + outcome.honest}",
        )
    out = console()
    out.print(table)
    out.print(
        "Accuracy and attack success after the last round; recall, precision and FPR (honest "
        "updates blamed) as means over rounds; rejected updates in all. Attack-free: the defense "
        "is on, but nobody is malicious.",
        style="dim",
    )
    _note(out, next(iter(outcomes.values())).source)
    out.print()
    out.print(words(sentence))


def print_benchmark(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints, for each setting and defense, how it fares without attack and in its worst case."""
    from tffl.studies.benchmark_table import (
        NONE,
        defined,
        distinct,
        mean,
        where,
        worst,
    )

    out = console()
    for setting in distinct(rows, "setting"):
        table = PlainTable(setting, "no attack", "worst", "by", "recall", "FPR, no attack")
        mine = where(rows, setting=setting)
        for defense in distinct(mine, "defense"):
            judged = where(mine, defense=defense)
            free, lowest = where(judged, attack=NONE), worst(judged)
            table.add_row(
                "undefended" if defense == NONE else defense,
                percent(mean(defined(free, "accuracy"))),
                _worst_accuracy(lowest),
                "" if lowest is None else lowest[0],
                percent(mean([] if defense == NONE else defined(judged, "recall"))),
                percent(mean([] if defense == NONE else defined(free, "fpr"))),
            )
        out.print(table)
    out.print("Accuracy after the last round; recall is the mean over all attacks.", style="dim")


def _worst_accuracy(lowest: tuple[str, float] | None) -> str:
    """Writes what `worst` returns."""
    if lowest is None:
        return "–"
    return "ruined" if math.isnan(lowest[1]) else percent(lowest[1])


def print_replay(rows: Sequence[Mapping[str, Any]], rounds: int) -> None:
    """Prints the means of a replay."""
    table = PlainTable(
        "attack", "defense", "lost", "undefended", "recall", "precision", "FPR", "AUC"
    )
    table.columns[1].justify = "left"
    for row in rows:
        rates = (rate(row[key]) for key in ("lost", "undefended_lost", "recall", "precision"))
        auc = f"{row['auc']:.3f}" if defined(row["auc"]) else "–"
        table.add_row(row["attack"], row["defense"], *rates, rate(row["fpr"]), auc)
    out = console()
    out.print(table)
    failed: dict[tuple[str, str], list[str]] = {}
    for row in filter(lambda row: row["error"], rows):
        failed.setdefault((row["attack"], row["error"]), []).append(row["defense"])
    for (attack, error), defenses in failed.items():
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
    """Prints what a heat-map detector saw of each client in a round."""
    table = PlainTable("client", "", "score", "", "dead maps", "not finite", "distance to median")
    table.columns[0].justify = "right"
    table.columns[1].justify = table.columns[3].justify = "left"
    table.title = words(f"Round {found.round}: {found.title}")
    for row in found.rows():
        table.add_row(
            str(row["client"]),
            "malicious" if row["malicious"] else "",
            f"{row['score']:.4g}" if defined(row["score"]) else "–",
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
        f"{scores}{found.maps.shape[1]} maps of each client; distance to the clients' median map, "
        "that of the median client being 1.",
        style="dim",
    )


def print_entries(entries: Iterable[Mapping[str, Any]], needs: str) -> None:
    """Prints the entries of a registry; `needs` is the header of what they need or know."""
    table = PlainTable("name", "description", needs, "citation", numbers=False)
    table.columns[0].no_wrap = True
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
    table = PlainTable("option", "meaning", "allowed", "default", numbers=False)
    table.columns[0].no_wrap = True
    for option in entry["options"]:
        default = (
            "unset" if option["default"] is None else json.dumps(option["default"], default=str)
        )
        table.add_row(
            option["name"],
            option["meaning"],
            option["allowed"],
            "to be set" if option["required"] else default,
        )
    out.print(table)
    if section in ("attack", "defense"):
        example = entry["options"][0]["name"]
        out.print(f"Set one with --set {section}.{example}=VALUE", markup=False, style="dim")


def print_models(entries: Sequence[Mapping[str, Any]]) -> None:
    """Prints models with what they make of images of one size, or why they take none."""
    table = PlainTable("name", "parameters", "last convolution", "its maps", "description")
    for column in table.columns[2::2]:
        column.justify = "left"
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
        "Maps of 1 × 1 pixel show no place: enlarge the probes (defense.probe_size), or take a "
        "network with another stem.",
        style="dim",
    )


def print_items(lines: Sequence[Line]) -> None:
    """Prints what can be reproduced."""
    from tffl.studies.reproduce.cost import duration

    out = console()
    for paper in dict.fromkeys(line.paper for line in lines):
        table = PlainTable("item", "shows", "scales, and time here", "recorded", numbers=False)
        table.title = words(paper)
        table.columns[0].no_wrap = True
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
        "Times are of all runs of an item, from a few training steps timed on this machine, or "
        "from recorded runs; where neither is known, none is told. Attacks and defenses come on "
        "top of timed steps.",
        style="dim",
    )


def print_reproduction(reports: Sequence[Report]) -> None:
    """Prints paper against ours, and the verdict on each claim."""
    from tffl.studies.reproduce.page import counts, legend

    out = console()
    for report in reports:
        out.print(f"\n[bold]{report.entry.paper}[/], scale {report.scale}, ", end="")
        out.print(words(report.heading), soft_wrap=True)
        if report.missing:
            out.print(report.incomplete)
        for setting, (header, rows) in report.tables.items():
            table = PlainTable(*header, title=setting)
            for column in table.columns:
                column.overflow = "fold"  # a name or a number is never cut short
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
    """Prints tables of a report, those with rows, and what is unfinished."""
    out = console()
    for told in filter(lambda table: table.rows, tables):
        table = PlainTable(*told.header, title=told.title)
        for index, column in enumerate(table.columns):
            column.overflow = "fold"
            column.justify = "left" if index in told.words else "right"
        for row in told.rows:
            table.add_row(*row)
        out.print(table)
    for warning in warnings:
        out.print(words(f"Note: {warning}"), soft_wrap=True)


def print_figures(values: Mapping[str, Any]) -> None:
    """Prints the figures of a benchmark, nested ones under a dotted name."""
    table = PlainTable("figure", "value")
    for name, value in _flat(values):
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    console().print(table)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _note(out: Console, source: str) -> None:
    if source == "train":
        out.print(TRAIN_NOTE, style="dim")
