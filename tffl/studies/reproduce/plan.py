"""Which experiment makes which table or figure of which paper, at which size.

A file in `configs/<paper>/` that has `items` is the plan of a benchmark with more to it:

    [scales.small]                       # changes of sizes, and of nothing else
    seeds = [0, 1]
    "federation.rounds" = 10
    [scales.small.settings."100 clients"]
    "data.train_limit" = 8000

    [[items]]                            # a table or figure, or a part of one
    name = "table-1"
    shows = "detection"
    settings = ["IID"]

    [[items.claims]]                     # a sentence of the paper, and what would bear it out
    text = "GradCAM-AE finds every attacker."
    checks = [{ metric = "recall", defense = "gradcam-ae", operator = ">=", value = 0.99 }]

What several items need is run once. A file with `elsewhere` names items that have commands of
their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from tffl.config import Section, build, override
from tffl.studies.benchmark import NONE, Cell, Plan, grid, labeled
from tffl.studies.pages.verdicts import Operator

SCALES = ("smoke", "small", "paper")
SMOKE, PAPER = "smoke", "paper"

SIZES = frozenset(
    {
        "data.train_limit",
        "data.test_limit",
        "data.image_size",
        "data.server_samples",
        "federation.clients",
        "federation.participants",
        "federation.malicious",
        "federation.malicious_participants",
        "federation.rounds",
        "model.name",
        "training.local_epochs",
        "training.batch_size",
        # The one thing that is no size: with a hundredth of the steps it must be larger.
        "training.learning_rate",
        # Images in a step of an attack's own solver; everything else of an attack is its method.
        "attack.batch",
        "defense.from_round",
        "defense.images",
        "defense.gan_steps",
        "defense.inversion_steps",
        "defense.generator_rate",
        "defense.discriminator_rate",
        "defense.probe_size",
    }
)
"""What a scale may change: how much, never how."""

Shows = Literal["detection", "accuracy", "poisoning", "runtime", "scores", "maps"]


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Labels = Annotated[tuple[str, ...], BeforeValidator(_several)]


class Against(Section):
    """The other side of a comparison: what differs from this side; each, if there are several."""

    metric: Labels = ()
    setting: Labels = ()
    attack: Labels = ()
    defense: Labels = ()


class Check(Section):
    """A comparison of a metric, mean over seeds, with a number or with another run's.

    With several settings, attacks or defenses it must hold for each.
    """

    metric: str
    setting: Labels = ()
    attack: Labels = ()
    defense: Labels
    operator: Operator
    value: float | None = None
    against: Against | None = None
    gap_to: Against | None = None
    """For the metric `accuracy_gap`: the run from which accuracy differs."""
    by: float = 0.0
    """By how much more than the other side, or less."""
    factor: Annotated[float, Field(gt=0)] = 1.0
    """Of the other side."""
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    """By how much it may be missed."""

    @model_validator(mode="after")
    def _check_sides(self) -> Check:
        if (self.value is None) == (self.against is None):
            raise ValueError("a check is not allowed without either value or against")
        if (self.metric == "accuracy_gap") != (self.gap_to is not None):
            raise ValueError("gap_to is not allowed but with the metric accuracy_gap")
        return self


class Claim(Section):
    """A sentence of a paper, and the comparisons that all must hold for it."""

    text: str
    checks: Annotated[tuple[Check, ...], Field(min_length=1)]
    scales: tuple[str, ...] = ("small", PAPER)
    """Where it can be tested: absolute accuracies, for instance, need all data."""


class Item(Section):
    """A table or figure, or the part of it that one experiment makes."""

    name: Annotated[str, Field(pattern=r"^(table|figure)-\d+$")]
    title: str
    part: str = ""
    """What this part shows of it, if there are several."""
    shows: Shows
    paper: str = ""
    """Another paper than the folder's."""
    about: str = ""
    """What the paper's text leaves open, and what was taken."""
    settings: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ()
    defenses: tuple[str, ...] = ()
    """Labels; all if empty, attack-free and undefended runs only if named."""
    references: bool = False
    """Also show attack-free and undefended runs."""
    stand_ins: dict[str, str] = Field(default_factory=dict)
    """Setting → the one that stands in for it below the paper's scale, its data not being there."""
    claims: tuple[Claim, ...] = ()


class Reproduction(Plan):
    """What a file in `configs/<paper>/` says."""

    title: str
    about: str = ""
    extra: tuple[str, ...] = ()
    """Defenses that the papers do not have."""
    scales: dict[str, dict[str, Any]]
    items: Annotated[tuple[Item, ...], Field(min_length=1)]


class Evidence(Section):
    """How to see what is recorded: a table, and the values that a column of it should have."""

    file: str
    column: str
    values: tuple[str, ...]


class Elsewhere(Section):
    """A table or figure that has commands of its own."""

    name: Annotated[str, Field(pattern=r"^(table|figure)-\d+$")]
    title: str
    paper: str = ""
    config: str
    commands: tuple[str, ...] = ()
    """To be run from the root; none if it cannot be reproduced."""
    results: str = ""
    scales: tuple[str, ...] = ()
    recorded: Evidence | None = None
    about: str = ""


class OtherItems(Section):
    """A file of items that have commands of their own."""

    elsewhere: tuple[Elsewhere, ...]


@dataclass(frozen=True)
class Experiment:
    """A file of `configs/`, at all scales."""

    path: Path
    spec: Reproduction

    @property
    def paper(self) -> str:
        """Its folder's paper."""
        return paper_of(self.path)

    @property
    def name(self) -> str:
        """Its name in results."""
        return self.path.stem

    @property
    def scales(self) -> tuple[str, ...]:
        """The scales at which it exists."""
        return tuple(scale for scale in SCALES if scale in self.spec.scales)

    @cached_property
    def attacks(self) -> tuple[str, ...]:
        """Labels of the attacks, without `none`."""
        return tuple(label for label in labeled(self.spec.attacks) if label != NONE)

    @cached_property
    def defenses(self) -> tuple[str, ...]:
        """Labels of the defenses, without `none`."""
        return tuple(label for label in labeled(self.spec.defenses) if label != NONE)

    def plan(self, scale: str) -> Plan:
        """Returns the benchmark at a scale."""
        changes = dict(self.spec.scales[scale])
        seeds = changes.pop("seeds", self.spec.seeds)
        of_settings = changes.pop("settings", {})
        attacks, defenses = (_taken(changes, section) for section in ("attack", "defense"))
        settings = {
            label: {**own, **of_settings.get(label, {})}
            for label, own in self.spec.settings.items()
        }
        values = {
            "seeds": seeds,
            "attacks": [_with_options(entry, attacks) for entry in self.spec.attacks],
            "defenses": [_with_options(entry, defenses) for entry in self.spec.defenses],
            "experiment": override(self.spec.experiment, changes),
            "settings": settings,
        }
        return build(values, Plan)

    def settings_of(self, item: Item, scale: str) -> tuple[str, ...]:
        """Returns an item's settings at a scale."""
        named = item.settings or tuple(self.spec.settings)
        return tuple(stand_in(item, label, scale) for label in named)

    def wants(self, item: Item, scale: str, setting: str, attack: str, defense: str) -> bool:
        """Says whether an item shows a run."""
        if setting not in self.settings_of(item, scale):
            return False
        attacks, defenses = item.attacks or self.attacks, item.defenses or self.defenses
        if item.references and defense == NONE and attack in (NONE, *attacks):
            return True
        return attack in attacks and defense in defenses

    def cells(self, items: Iterable[Item], scale: str) -> list[Cell]:
        """Returns the runs that some items need at a scale."""
        chosen = tuple(items)

        def wanted(setting: str, attack: str, defense: str) -> bool:
            return any(self.wants(item, scale, setting, attack, defense) for item in chosen)

        return grid(self.plan(scale), str(self.path), wanted)

    def keeps_maps(self, cell: Cell, scale: str) -> bool:
        """Says whether the heat maps of a run are to be drawn: of the first seed."""
        return cell.seed == self.plan(scale).seeds[0] and any(
            item.shows == "maps"
            and self.wants(item, scale, cell.setting, cell.attack, cell.defense)
            for item in self.spec.items
        )


def paper_of(path: Path) -> str:
    """Returns the paper that a config's folder is about."""
    return path.parent.name.replace("_", "-")


def stand_in(item: Item, setting: str, scale: str) -> str:
    """Returns the setting that is run for a setting of the paper."""
    return setting if scale == PAPER else item.stand_ins.get(setting, setting)


def _taken(changes: dict[str, Any], section: str) -> dict[str, Any]:
    """Takes a section's keys out of a scale's changes, and returns them without its name."""
    keys = [key for key in changes if key.startswith(f"{section}.")]
    return {key.partition(".")[2]: changes.pop(key) for key in keys}


def _with_options(entry: str | dict[str, Any], options: Mapping[str, Any]) -> Any:
    """Gives an attack or a defense those options that it names itself; a scale adds none."""
    if isinstance(entry, str):
        return entry
    inner = {
        key: _with_options(value, options)
        for key, value in entry.items()
        if isinstance(value, dict)
    }
    own = {key: value for key, value in options.items() if key in entry}
    return {**entry, **inner, **own}
