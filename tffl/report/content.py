"""The content of a report: an overview of all runs, each run by itself, and benchmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tffl.report import document
from tffl.report.benchmarks import benchmark_sections
from tffl.report.document import Bars, Block, Gallery, MatrixChart, Report, Section, Table
from tffl.report.key_figures import OVERVIEW, key_figures
from tffl.report.overview import format_number, format_value, overview
from tffl.report.sources import RecordedBenchmark, RecordedRun, baselines, read_folders
from tffl.report.verdicts import detection_block, ranking_blocks, scores_block, yes_or_no

if TYPE_CHECKING:
    from tffl.drawing.explanation import Explanation

PHASES = {"train": "training", "attack": "attack", "defense": "defense", "evaluate": "evaluation"}


def build_report(paths: Sequence[Path], rounds: Sequence[int] = ()) -> Report:
    """Reads folders and builds a report about them.

    Args:
      paths: The folders of runs and benchmarks. The undefended and attack-free runs that
        `tffl simulate --compare` puts into the folder of a run are compared with it.
      rounds: The rounds whose heat maps are shown; by default the last one that has any.

    Raises:
      UsageError: A folder is neither a run nor a benchmark, or a round has no heat maps.
      TfflError: A file is damaged.
    """
    sources = read_folders(paths)
    runs = [source for source in sources if isinstance(source, RecordedRun)]
    named = {run.path.resolve() for run in runs}
    others = [base for run in runs for base in baselines(run) if base.path.resolve() not in named]
    sections: list[Section] = []
    if runs:
        sections += overview([*runs, *others])
    for run in runs:
        sections += _run_sections(run, rounds, titled=len(sources) > 1)
    for source in sources:
        if isinstance(source, RecordedBenchmark):
            sections += benchmark_sections(source)
    return Report(
        title=" · ".join(source.name for source in sources),
        sections=sections,
        about=[_description(run) for run in runs],
        warnings=[source.warning for source in [*sources, *others] if source.warning],
        headline=_headline(runs[0]) if len(runs) == 1 else [],
    )


def _description(run: RecordedRun) -> str:
    config = run.config
    federation = config.federation
    attack, defense = config.attack.name, config.defense.name
    malicious = 0 if attack == "none" else federation.malicious_count
    acting = len(run.summary.get("acting_clients", range(malicious)))
    idle = f" (only {acting} had data to attack with)" if acting < malicious else ""
    return (
        f"{run.name}: {'no attack' if attack == 'none' else attack} against "
        f"{'no defense' if defense == 'none' else defense}. {config.data.dataset}, "
        f"{config.model.name}, {federation.clients} clients, {malicious} of them malicious{idle}, "
        f"{federation.rounds} round{'s' * (federation.rounds != 1)}, seed {config.seed}."
    )


def _headline(run: RecordedRun) -> list[tuple[str, str]]:
    values = key_figures(run)
    chosen = ("accuracy", "attack_success", "recall", "precision", "fpr", "seconds")
    known = (key for key in chosen if not math.isnan(values[key]))
    return [(OVERVIEW[key][0], OVERVIEW[key][1](values[key])) for key in known]


def _run_sections(run: RecordedRun, rounds: Sequence[int], titled: bool) -> list[Section]:
    level = 3 if titled else 2
    parts = []
    if len(run.rounds):
        parts += [
            ("Verdicts", [detection_block(run), scores_block(run)], ""),
            ("Quality of the scores", *ranking_blocks(run)),
            ("Heat maps", *_galleries(run.explanations(rounds))),
            ("Time", [_time(run)], ""),
        ]
    split = _split(run)
    parts.insert(
        2,
        (
            "Data of the clients",
            split,
            "" if split else "This run did not record how the data was split.",
        ),
    )
    parts.append(("Config and environment", [_config(run), _environment(run)], ""))
    sections = [Section(run.name)] if titled else []
    return sections + [Section(title, blocks, text, level) for title, blocks, text in parts]


def _split(run: RecordedRun) -> list[Block]:
    if not run.split:
        return []
    clients = list(dict.fromkeys(row["client"] for row in run.split))
    classes = list(dict.fromkeys(row["class"] for row in run.split))
    dealt = {(row["client"], row["class"]): row["samples"] for row in run.split}
    trained = {(row["client"], row["class"]): row["trained"] for row in run.split}
    values = [[dealt.get((c, name), 0) for name in classes] for c in clients]
    after = [[trained.get((c, name), 0) for name in classes] for c in clients]
    text = [
        [str(a) if a == b else f"{a} → {b}" for a, b in zip(*lines, strict=True)]
        for lines in zip(values, after, strict=True)
    ]
    names = [str(client) for client in clients]
    sums = [str(sum(row)) for row in values]
    rows = [[name, *cells, total] for name, cells, total in zip(names, text, sums, strict=True)]
    title = "Samples by client and class"
    chart = MatrixChart(title, "class", "client", classes, names, values, unit="samples")
    note = ""
    if values != after:
        note = (
            "In the table, a → b is the number of samples before and after the attack on the "
            "client's data."
        )
    return [Block(Table(title, ["client", *classes, "all"], rows), chart, note=note)]


def _galleries(explanations: Sequence[Explanation]) -> tuple[list[Block], str]:
    if not explanations:
        return [], "The defense of this run uses no heat maps."
    return [Block(_heat_map_table(each), gallery=Gallery(each)) for each in explanations], ""


def _heat_map_table(explanation: Explanation) -> Table:
    score = explanation.score_name
    header = ["client", "truth", score, "flagged", "dead maps", "distance to the median"]
    rows = [
        [
            str(row["client"]),
            "malicious" if row["malicious"] else "honest",
            format_number(row["score"]),
            yes_or_no(row["flagged"]),
            str(row["dead_maps"]),
            format_number(row["distance"]),
        ]
        for row in explanation.rows()
    ]
    part = f", {explanation.part}" if explanation.part else ""
    return Table(f"Heat maps of round {explanation.round}{part}", header, rows, words=(1, 3))


def _time(run: RecordedRun) -> Block:
    seconds = {
        name: run.rounds[f"{phase}_seconds"].astype(float).tolist()
        for phase, name in PHASES.items()
    }
    rounds = [str(round) for round in run.rounds["round"]]
    columns = [
        [format_number(value) for value in (run.rounds[f"{phase}_seconds"].mean(), *seconds[name])]
        for phase, name in PHASES.items()
    ]
    rows = document.rows_of(["mean", *rounds], columns)
    table = Table("Seconds of each phase", ["round", *seconds], rows)
    # What did not happen takes no time: of a bar on something undefined nothing would be seen.
    bars = {name: np.nan_to_num(column).tolist() for name, column in seconds.items()}
    chart = Bars("Time of each phase", "round", "seconds", run.rounds["round"].tolist(), bars)
    return Block(table, chart)


def _config(run: RecordedRun) -> Block:
    from tffl.record.identity import flat

    values = flat(run.config.model_dump(mode="json"))
    rows = [[key, format_value(value)] for key, value in values.items()]
    return Block(Table("Config", ["key", "value"], rows, words=(0, 1)))


def _environment(run: RecordedRun) -> Block:
    from tffl.record.identity import flat

    command = " ".join(map(str, run.environment.get("command", [])))
    values = flat({**run.environment, "command": command} if run.environment else {})
    rows = [[key, format_value(value)] for key, value in values.items()]
    return Block(Table("Environment", ["key", "value"], rows, words=(0, 1)))
