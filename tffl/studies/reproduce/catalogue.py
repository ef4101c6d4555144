"""All plans of a folder of configs, read and checked: which tables and figures there are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tffl.config import build, build_from_file, read
from tffl.core.errors import UsageError, require, unknown
from tffl.studies.benchmark import NONE
from tffl.studies.reproduce.plan import (
    SCALES,
    SIZES,
    Check,
    Elsewhere,
    Experiment,
    Item,
    OtherItems,
    Reproduction,
    paper_of,
)

PAPERS = {
    "gradcam-ae": "GradCAM-AE: A New Shield Defense against Poisoning Attacks on Federated "
    "Learning (Zheng et al.)",
    "gcama": "Detecting Poisoning Attacks on Federated Learning Using Gradient-Weighted Class "
    "Activation Mapping (Zheng et al., WWW 2024 Companion)",
    "fedcamae": "FedCAMAE, a defense with LayerCAM and an autoencoder (Zheng et al.)",
    "bias-anomaly": "Anomaly Localization in Model Gradients Under Backdoor Attacks Against "
    "Federated Learning (Bilgin)",
    "pdgan": "Detecting and Mitigating Poisoning Attacks in Federated Learning Using Generative "
    "Adversarial Networks (Zhao et al., 2020)",
}
"""The papers, in the order in which they are listed."""


@dataclass(frozen=True)
class Entry:
    """A table or figure of a paper, and the parts that make it."""

    paper: str
    name: str
    parts: list[tuple[Experiment, Item]] = field(default_factory=list)
    elsewhere: Elsewhere | None = None

    @property
    def title(self) -> str:
        """Its caption."""
        return self.elsewhere.title if self.elsewhere else self.parts[0][1].title

    @property
    def scales(self) -> tuple[str, ...]:
        """The scales at which all of it exists."""
        if self.elsewhere:
            return self.elsewhere.scales
        shared = [set(experiment.scales) for experiment, _ in self.parts]
        return tuple(scale for scale in SCALES if all(scale in scales for scales in shared))

    @property
    def configs(self) -> list[str]:
        """The files that make it."""
        if self.elsewhere:
            return [self.elsewhere.config]
        return list(dict.fromkeys(str(experiment.path) for experiment, _ in self.parts))

    @property
    def stand_ins(self) -> dict[str, str]:
        """Setting → the one that stands in for it."""
        return {key: value for _, item in self.parts for key, value in item.stand_ins.items()}


class Catalogue:
    """Every table and figure that a folder of configs knows."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = sorted(entries, key=_order)

    @property
    def papers(self) -> tuple[str, ...]:
        """Papers with any item, in order."""
        return tuple(dict.fromkeys(entry.paper for entry in self.entries))

    def of(self, paper: str | None = None, item: str | None = None) -> list[Entry]:
        """Returns the entries of a paper, or one of them.

        Raises:
          UsageError: There is no such paper or item; the message says which there are.
        """
        if paper is None:
            return self.entries
        if paper not in self.papers:
            raise unknown("paper", paper, self.papers)
        mine = [entry for entry in self.entries if entry.paper == paper]
        if item is None:
            return mine
        names = [entry.name for entry in mine]
        if item not in names:
            raise unknown(f"item of {paper}", item, names)
        return [entry for entry in mine if entry.name == item]

    def experiments(self, paper: str) -> list[tuple[Experiment, list[Item]]]:
        """Returns a paper's experiments, each with the paper's items that it makes."""
        found: dict[Path, tuple[Experiment, list[Item]]] = {}
        for entry in self.of(paper):
            for experiment, item in entry.parts:
                found.setdefault(experiment.path, (experiment, []))[1].append(item)
        return list(found.values())


def load(folder: Path) -> Catalogue:
    """Reads all plans of a folder of configs.

    Raises:
      UsageError: There is none, or one is invalid: the message names the file.
    """
    require(
        folder.is_dir(),
        f"there is no folder {folder}: name a folder of plans by --configs",
    )
    entries: dict[tuple[str, str], Entry] = {}
    for path in sorted(folder.glob("*/*.toml")):
        for entry in _entries(path):
            known = entries.setdefault((entry.paper, entry.name), entry)
            if known is not entry:
                known.parts.extend(entry.parts)
    require(bool(entries), f"{folder} has no plan with items: name tffl's configs by --configs")
    return Catalogue(entries.values())


def read_experiment(path: Path) -> Experiment:
    """Reads and checks one plan.

    Raises:
      UsageError: It is invalid.
    """
    spec = build_from_file(path, cls=Reproduction)
    experiment = Experiment(path, spec)
    try:
        _check(experiment)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return experiment


def _entries(path: Path) -> Iterator[Entry]:
    values = read(path)
    if "elsewhere" in values:
        for other in build(values, OtherItems).elsewhere:
            yield Entry(other.paper or paper_of(path), other.name, elsewhere=other)
    elif "items" in values:
        experiment = read_experiment(path)
        for item in experiment.spec.items:
            yield Entry(item.paper or experiment.paper, item.name, [(experiment, item)])


def _check(experiment: Experiment) -> None:
    spec = experiment.spec
    for scale, changes in spec.scales.items():
        if scale not in SCALES:
            raise unknown("scale", scale, SCALES)
        of_settings = changes.get("settings", {})
        _check_names("setting", of_settings, spec.settings)
        own = {key: value for key, value in changes.items() if key not in ("seeds", "settings")}
        for part in (own, *of_settings.values()):
            _check_sizes(scale, part)
    known = {
        "setting": tuple(spec.settings),
        "attack": (NONE, *experiment.attacks),
        "defense": (NONE, *experiment.defenses),
    }
    _check_names("defense", spec.extra, known["defense"])
    for item in spec.items:
        stand_ins = (*item.stand_ins, *item.stand_ins.values())
        _check_names("setting", (*item.settings, *stand_ins), known["setting"])
        _check_names("attack", item.attacks, known["attack"])
        _check_names("defense", item.defenses, known["defense"])
        for check in (check for claim in item.claims for check in claim.checks):
            _check_labels(check, known)


def _check_labels(check: Check, known: Mapping[str, tuple[str, ...]]) -> None:
    for part in filter(None, (check, check.against, check.gap_to)):
        for kind in known:
            _check_names(kind, getattr(part, kind), known[kind])


def _check_names(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)


def _check_sizes(scale: str, changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if key not in SIZES:
            raise UsageError(
                f"scale {scale} sets {key}, but a scale changes sizes only: "
                f"{', '.join(sorted(SIZES))}"
            )
        require(
            key != "federation.malicious" or isinstance(value, float),
            f"scale {scale} sets federation.malicious = {value}: give a fraction, so that the "
            "share of attackers stays the paper's",
        )


def _order(entry: Entry) -> tuple[Any, ...]:
    kind, _, number = entry.name.partition("-")
    papers = list(PAPERS)
    place = papers.index(entry.paper) if entry.paper in papers else len(papers)
    return place, entry.paper, kind != "table", int(re.sub(r"\D", "", number) or 0)
