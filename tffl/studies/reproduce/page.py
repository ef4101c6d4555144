"""The page of a paper: what it says, what was measured, and whether its claims hold.

Made of the tables in a folder and of the configs alone, so that anybody can make it again.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from tffl.config import override
from tffl.core.atomic import write_text
from tffl.record.identity import flat
from tffl.record.tables import to_csv
from tffl.studies.benchmark import labeled
from tffl.studies.benchmark_table import NONE, Rows, distinct, escape, table, where
from tffl.studies.pages.builder import compose, versions_and_machine
from tffl.studies.pages.verdicts import Judged, claim_table, counts, words_table
from tffl.studies.reproduce import figures
from tffl.studies.reproduce.catalogue import PAPERS, Catalogue, Entry
from tffl.studies.reproduce.claims import DERIVED, Side, judge, number, summary
from tffl.studies.reproduce.measure import Record, key_of, read_record
from tffl.studies.reproduce.plan import PAPER, SCALES, Experiment, Item, stand_in

DETECTION = {
    "recall": "recall",
    "precision": "precision",
    "fpr": "FPR",
    "detection_accuracy": "ACC",
    "f1": "F1",
    "balanced_accuracy": "AUC",
    "auc": "AUC of the score",
}
METRICS = {
    "detection": DETECTION,
    "accuracy": {"accuracy": "final accuracy", "best_accuracy": "best accuracy"},
    "poisoning": {
        "late_accuracy": "overall accuracy",
        "late_attack_success": "poisoning accuracy",
        "recall": "recall",
        "fpr": "FPR",
    },
    "runtime": {"round_seconds": "seconds of a round", "defense_seconds": "of these, defense"},
    "scores": {"score_ratio": "score, malicious / honest", "auc": "AUC of the score"},
    "maps": {"recall": "recall", "fpr": "FPR"},
}
"""What is shown of each kind of item: metric → header."""

CLAIM_COLUMNS = ("item", "scale", "claim", "verdict", "numbers")


@dataclass(frozen=True)
class Printed:
    """A number that a paper prints."""

    value: float
    source: str
    note: str


@dataclass(frozen=True)
class Report:
    """A part of an item at one scale, as it is shown.

    Attributes:
      entry: The item.
      item: The part.
      experiment: What makes it.
      scale: At which size.
      tables: Setting → header and rows.
      judged: Its claims.
      failed: Runs that failed, one line each.
      seeds: Of the runs recorded.
      missing: How many of its runs are not recorded.
    """

    entry: Entry
    item: Item
    experiment: Experiment
    scale: str
    tables: dict[str, tuple[list[str], list[list[str]]]]
    judged: list[Judged]
    failed: list[str]
    seeds: list[int]
    missing: int

    @property
    def heading(self) -> str:
        """Its name and caption."""
        return f"{self.entry.name}: {', '.join(filter(None, (self.item.title, self.item.part)))}"

    @property
    def incomplete(self) -> str:
        """Says how many of its runs are missing."""
        are = "is" if self.missing == 1 else "are"
        return f"Incomplete: {self.missing} of its runs {are} not recorded."


@cache
def printed(paper: str) -> dict[tuple[str, ...], Printed]:
    """Returns (item, setting, attack, defense, metric) → what a paper prints."""
    source = files("tffl.studies.reproduce") / "papers" / f"{paper}.csv"
    if not source.is_file():
        return {}
    keys = ("item", "setting", "attack", "defense", "metric")
    return {
        tuple(row[key] for key in keys): Printed(float(row["value"]), row["source"], row["note"])
        for row in csv.DictReader(source.read_text(encoding="utf-8").splitlines())
    }


def reports(entries: Iterable[Entry], out: Path, scale: str) -> list[Report]:
    """Returns what is recorded of some items at a scale."""
    found, known = [], {}
    for entry in entries:
        for experiment, item in entry.parts:
            if scale not in experiment.scales:
                continue
            if experiment.path not in known:
                known[experiment.path] = read_record(out / scale, experiment.name)
            report = _report(entry, item, experiment, scale, known[experiment.path])
            if report is not None:
                found.append(report)
    return found


def write(catalogue: Catalogue, paper: str, out: Path) -> list[Report]:
    """Writes README.md, claims.csv and the pictures of a paper, from the tables in a folder.

    Raises:
      TfflError: A table is damaged, or a file cannot be written.
    """
    found = []
    for scale in SCALES:
        found += reports(catalogue.of(paper), out, scale)
        for experiment, items in catalogue.experiments(paper):
            if scale in experiment.scales:
                recorded = read_record(out / scale, experiment.name)
                figures.draw(experiment, items, recorded, scale, out / scale)
    rows = [
        {
            "item": report.entry.name,
            "scale": report.scale,
            "claim": judged.text,
            "verdict": judged.verdict,
            "numbers": judged.numbers,
        }
        for report in found
        for judged in report.judged
    ]
    write_text(out / "claims.csv", to_csv(CLAIM_COLUMNS, rows))
    write_text(out / "README.md", page(paper, found, out))
    return found


def page(paper: str, found: Sequence[Report], out: Path) -> str:
    """Returns the page of a paper."""
    call = f"tffl reproduce {paper} --scale {found[-1].scale if found else PAPER}"
    sections = [] if found else ["Nothing is recorded yet."]
    for scale in SCALES:
        mine = [report for report in found if report.scale == scale]
        if mine:
            sections += [f"## Scale {scale}", *_scale(mine, out / scale)]
    return compose(
        f"{paper}, measured again",
        f"{PAPERS.get(paper, paper)}.",
        run=call,
        again=f"{call} --no-run",
        paragraphs=sections,
    )


def section(report: Report, folder: Path | None = None) -> Iterator[str]:
    """Yields the paragraphs about one item."""
    item = report.item
    yield f"### {report.heading}"
    swapped = {} if report.scale == PAPER else item.stand_ins
    if swapped:
        pairs = "; ".join(f"{other} for {setting}" for setting, other in swapped.items())
        yield f"**Stand-ins, because the paper's data was not available:** {pairs}."
    if report.missing:
        yield f"**{report.incomplete}**"
    if item.about:
        yield item.about
    names = [row[0] for _, rows in report.tables.values() for row in rows]
    if any(name.endswith("*") for name in names):
        yield "\\* not in the paper."
    yield f"`{command(report)}`; {_seeds(report.seeds)}."
    for setting, (header, rows) in report.tables.items():
        yield (f"**{setting}**\n\n" if setting else "") + table(header, rows)
    if report.judged:
        yield claim_table(report.judged, "numbers")
    if report.failed:
        yield "Failed:\n\n" + "\n".join(f"- {escape(line)}" for line in report.failed)
    if folder is not None:
        for picture in _pictures(report, folder):
            yield f"![{report.entry.name}]({report.scale}/{picture})"


def command(report: Report) -> str:
    """Returns what makes an item."""
    return f"tffl reproduce {report.entry.paper} {report.entry.name} --scale {report.scale}"


def legend() -> str:
    """Says how the tables are to be read."""
    return (
        "A cell is *paper → ours*, or ours alone where the paper prints no number. Ours are means "
        "over seeds ± half the 95 % interval (Student's t; a single seed has none). Detection "
        "figures are means over the rounds that define them: precision is undefined in a round "
        "that flags nobody. The papers' AUC is that of the hard verdicts."
    )


def sizes(experiment: Experiment, scale: str) -> list[list[str]]:
    """Returns what a scale changes of the paper's sizes: key, paper, here."""
    if PAPER not in experiment.scales:
        return []
    rows = []
    plans = experiment.plan(PAPER), experiment.plan(scale)
    there, here = (flat(plan.experiment) for plan in plans)
    there["seeds"], here["seeds"] = (list(plan.seeds) for plan in plans)
    for key in {**there, **here}:
        if there.get(key) != here.get(key):
            rows.append([key, _size(there.get(key)), _size(here.get(key))])
    for setting in plans[1].settings:
        one, two = (override({}, plan.settings[setting]) for plan in plans)
        rows += _differences(one, two, setting)
    for kind in ("attacks", "defenses"):
        theirs, ours = (labeled(getattr(plan, kind)) for plan in plans)
        for label, named in ours.items():
            if label in theirs:
                rows += _differences(theirs[label].options, named.options, label)
    return rows


def _differences(there: Mapping[str, Any], here: Mapping[str, Any], where: str) -> list[list[str]]:
    first, second = flat(there), flat(here)
    return [
        [f"{key}, {where}", _size(first.get(key)), _size(second.get(key))]
        for key in {**first, **second}
        if first.get(key) != second.get(key)
    ]


def _scale(found: Sequence[Report], folder: Path) -> Iterator[str]:
    yield counts(judged for report in found for judged in report.judged).capitalize() + "."
    yield legend()
    rows = [[f"{r.entry.name}", j.text, f"**{j.verdict}**"] for r in found for j in r.judged]
    if rows:
        yield words_table(["item", "claim", "verdict"], rows)
    for report in found:
        yield from section(report, folder)
    for path in dict.fromkeys(report.experiment.path for report in found):
        mine = [report for report in found if report.experiment.path == path]
        yield from _provenance(mine, folder)
    metrics = [f"`{name}`: {meaning}" for name, meaning in DERIVED.items()]
    yield f"Metrics of the claims: {'; '.join(metrics)}."


def _provenance(found: Sequence[Report], folder: Path) -> Iterator[str]:
    experiment, scale = found[0].experiment, found[0].scale
    about = read_record(folder, experiment.name).environment
    machine = "on an unknown machine"
    if about:
        with_devices = {**about, "machine": ", ".join([about["machine"], *about["devices"]])}
        where = versions_and_machine(with_devices)
        machine = f"measured {where}; the last run on {about['recorded']}"
    yield f"### How {experiment.name} was made"
    yield (
        f"By the commands above, with `configs/{experiment.path.parent.name}/"
        f"{experiment.path.name}`; {machine}."
    )
    if experiment.spec.about:
        yield experiment.spec.about
    changes = sizes(experiment, scale)
    if changes:
        yield "What this scale changes of the paper's sizes:"
        yield words_table(["", "paper", scale], changes)


@dataclass(frozen=True)
class _Source:
    """What the table of a part is made of."""

    entry: Entry
    item: Item
    experiment: Experiment
    scale: str
    record: Record


def _report(
    entry: Entry, item: Item, experiment: Experiment, scale: str, record: Record
) -> Report | None:
    shown = figures.shown_rows(experiment, item, record, scale)
    if not shown:
        return None
    judged = [judge(claim, item, experiment, record, scale) for claim in item.claims]
    failed = [
        "{setting}, {attack} against {defense}, seed {seed}: {error}".format(**row)
        for row in shown
        if row["error"]
    ]
    seeds = sorted({int(row["seed"]) for row in shown})
    source = _Source(entry, item, experiment, scale, record)
    tables = {
        setting: _table(source, setting, where(shown, setting=setting))
        for setting in distinct(shown, "setting")
    }
    known = {key_of(row) for row in shown}
    missing = sum(key_of(cell.key) not in known for cell in experiment.cells([item], scale))
    return Report(entry, item, experiment, scale, tables, judged, failed, seeds, missing)


def _table(source: _Source, setting: str, rows: Rows) -> tuple[list[str], list[list[str]]]:
    """Returns a setting's table: one row for each attack and defense."""
    item, experiment = source.item, source.experiment
    pairs = list(dict.fromkeys((row["attack"], row["defense"]) for row in rows))
    attacks = {attack for attack, _ in pairs if attack != NONE}
    originals = [
        name for name in experiment.spec.settings if stand_in(item, name, source.scale) == setting
    ]
    lines = []
    for attack, defense in pairs:
        name = "undefended" if defense == NONE else defense
        if attack == NONE:
            name = "no attack" if defense == NONE else f"{defense}, no attack"
        elif len(attacks) > 1:
            name += f", {attack}"
        line = [name + ("\\*" if defense in experiment.spec.extra else "")]
        for metric in METRICS[item.shows]:
            ours = number(*summary(source.record, Side(metric, setting, attack, defense)))
            theirs = _printed(source.entry, originals, attack, defense, metric)
            line.append(f"{theirs} → {ours}" if theirs else ours)
        lines.append(line)
    header = ["", *METRICS[item.shows].values()]
    keep = [
        column
        for column in range(len(header))
        if column == 0 or any(line[column] != "–" for line in lines)
    ]
    return [header[c] for c in keep], [[line[c] for c in keep] for line in lines]


def _printed(entry: Entry, settings: Sequence[str], attack: str, defense: str, metric: str) -> str:
    values = printed(entry.paper)
    for setting in settings:
        for named in (attack, ""):
            found = values.get((entry.name, setting, named, defense, metric))
            if found is not None:
                return f"{found.value:g}" + (" (sic)" if found.note else "")
    return ""


def _pictures(report: Report, folder: Path) -> list[str]:
    if report.item.shows == "maps":
        names = [file.name for file in folder.glob(figures.maps_name(report.experiment))]
        return sorted(names)
    name = figures.name(report.experiment, report.item)
    return [name] if (folder / name).exists() else []


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}"


def _size(value: Any) -> str:
    if value is None:
        return "all"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
