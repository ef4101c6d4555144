"""What a report tells: all runs together, each run by itself, benchmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tffl.report import document
from tffl.report.benchmarks import benchmark_sections
from tffl.report.document import Bars, Block, Gallery, Grid, Report, Section, Table
from tffl.report.key_figures import OVERVIEW, figures_of
from tffl.report.overview import number, overview, plain_text
from tffl.report.sources import RecordedBenchmark, RecordedRun, baselines, read
from tffl.report.verdicts import detection_block, ranking_blocks, scores_block, yes

if TYPE_CHECKING:
    from tffl.drawing.explanation import Explanation

PHASES = {"train": "training", "attack": "attack", "defense": "defense", "evaluate": "evaluation"}


def report(paths: Sequence[Path], rounds: Sequence[int] = ()) -> Report:
    """Reads folders and says what there is to say.

    Args:
      paths: Runs and benchmarks. A run's undefended and attack-free siblings, which
        `tffl simulate --compare` puts into its folder, are compared with it.
      rounds: Whose heat maps are shown; if none are named, the last round's that has any.

    Raises:
      UsageError: A folder is neither run nor benchmark, or a round has no heat maps.
      TfflError: A file is damaged.
    """
    found = read(paths)
    runs = [one for one in found if isinstance(one, RecordedRun)]
    named = {run.path.resolve() for run in runs}
    siblings = [one for run in runs for one in baselines(run) if one.path.resolve() not in named]
    sections: list[Section] = []
    if runs:
        sections += overview([*runs, *siblings])
    for run in runs:
        sections += _run(run, rounds, titled=len(found) > 1)
    for one in found:
        if isinstance(one, RecordedBenchmark):
            sections += benchmark_sections(one)
    return Report(
        title=_title(found),
        sections=sections,
        about=[_about(run) for run in runs],
        warnings=[one.warning for one in [*found, *siblings] if one.warning],
        figures=_headline(runs[0]) if len(runs) == 1 else [],
    )


def _title(found: Sequence[RecordedRun | RecordedBenchmark]) -> str:
    return " · ".join(one.name for one in found)


def _about(run: RecordedRun) -> str:
    config = run.config
    federation = config.federation
    attack, defense = config.attack.name, config.defense.name
    malicious = 0 if attack == "none" else federation.malicious_count
    acting = len(run.summary.get("acting_clients", range(malicious)))
    idle = f" (only {acting} of whom had data to attack with)" if acting < malicious else ""
    return (
        f"{run.name}: {'no attack' if attack == 'none' else attack} against "
        f"{'no defense' if defense == 'none' else defense}. {config.data.dataset}, "
        f"{config.model.name}, {federation.clients} clients, {malicious} of them malicious{idle}, "
        f"{federation.rounds} rounds, seed {config.seed}."
    )


def _headline(run: RecordedRun) -> list[tuple[str, str]]:
    values = figures_of(run)
    chosen = ("accuracy", "attack_success", "recall", "precision", "fpr", "seconds")
    known = (key for key in chosen if not math.isnan(values[key]))
    return [(OVERVIEW[key][0], OVERVIEW[key][1](values[key])) for key in known]


def _run(run: RecordedRun, rounds: Sequence[int], titled: bool) -> list[Section]:
    level = 3 if titled else 2
    parts = []
    if len(run.rounds):
        looks = run.looks(rounds)
        parts += [
            ("Verdicts", [detection_block(run), scores_block(run)], ""),
            ("How well the scores tell", *ranking_blocks(run)),
            ("Heat maps", *_galleries(run, looks)),
            ("Time", [_time(run)], ""),
        ]
    split = _split(run)
    parts.insert(
        2, ("Data of the clients", split, "" if split else "This run did not record its split.")
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
        [str(a) if a == b else f"{a} → {b}" for a, b in zip(*pair, strict=True)]
        for pair in zip(values, after, strict=True)
    ]
    names = [str(client) for client in clients]
    sums = [str(sum(row)) for row in values]
    rows = [[name, *cells, total] for name, cells, total in zip(names, text, sums, strict=True)]
    title = "Samples of each client and class"
    chart = Grid(title, "class", "client", classes, names, values, unit="samples")
    note = ""
    if values != after:
        note = "a → b: as dealt, and as labeled after an attack on the client's data."
    return [Block(Table(title, ["client", *classes, "all"], rows), chart, note=note)]


def _galleries(run: RecordedRun, looks: Sequence[Explanation]) -> tuple[list[Block], str]:
    if not looks:
        return [], "The defense of this run looks at no heat maps."
    return [Block(_look_table(look), gallery=Gallery(look)) for look in looks], ""


def _look_table(look: Explanation) -> Table:
    header = ["client", "truth", look.score_name, "flagged", "dead maps", "distance to the median"]
    rows = [
        [
            str(row["client"]),
            "malicious" if row["malicious"] else "honest",
            number(row["score"]),
            yes(row["flagged"]),
            str(row["dead_maps"]),
            number(row["distance"]),
        ]
        for row in look.rows()
    ]
    part = f", {look.part}" if look.part else ""
    return Table(f"Heat maps of round {look.round}{part}", header, rows, words=(1, 3))


def _time(run: RecordedRun) -> Block:
    seconds = {
        name: run.rounds[f"{phase}_seconds"].astype(float).tolist()
        for phase, name in PHASES.items()
    }
    rounds = [str(round) for round in run.rounds["round"]]
    columns = [[number(value) for value in column] for column in seconds.values()]
    means = [number(float(np.nanmean(column))) for column in seconds.values()]
    names, columns = (
        ["mean", *rounds],
        [[mean, *cells] for mean, cells in zip(means, columns, strict=True)],
    )
    table = Table("Seconds of each phase", ["round", *seconds], document.paired("", names, columns))
    chart = Bars("Time of each phase", "round", "seconds", run.rounds["round"].tolist(), seconds)
    return Block(table, chart)


def _config(run: RecordedRun) -> Block:
    from tffl.record.identity import flat

    values = flat(run.config.model_dump(mode="json"))
    rows = [[key, plain_text(value)] for key, value in values.items()]
    return Block(Table("Config", ["key", "value"], rows, words=(0, 1)))


def _environment(run: RecordedRun) -> Block:
    from tffl.record.identity import flat

    command = " ".join(map(str, run.environment.get("command", [])))
    values = flat({**run.environment, "command": command} if run.environment else {})
    rows = [[key, plain_text(value)] for key, value in values.items()]
    return Block(Table("Environment", ["key", "value"], rows, words=(0, 1)))
