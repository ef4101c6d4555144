"""The grid of a replay, from names, options and a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from tffl.attacks import attacks as attack_registry
from tffl.config import ComponentConfig, Section, build, build_from_file, part_options
from tffl.core.errors import require
from tffl.core.registry import Registry
from tffl.defenses import defenses as defense_registry
from tffl.studies.benchmark import NONE, labeled
from tffl.studies.replay import ReplayGrid


class ReplayFile(Section):
    """The content of a file for `tffl replay --grid`."""

    attacks: list[str | dict[str, Any]] = Field(default_factory=list)
    defenses: list[str | dict[str, Any]] = Field(default_factory=list)


def read_grid(
    attacks: Sequence[str] = (),
    defenses: Sequence[str] = (),
    file: Path | None = None,
    settings: Sequence[str] = (),
    malicious: int | float | str = 0.2,
    draws: int = 1,
) -> ReplayGrid:
    """Returns the attacks and defenses of a file, and those that are named.

    Args:
      attacks: Names.
      defenses: Names.
      file: TOML with lists `attacks` and `defenses`, as for a benchmark.
      settings: Such as `"attack.scale=2"`: an option of every named attack that has it.
      malicious: As `ReplayGrid` takes it.
      draws: As `ReplayGrid` takes it.

    Raises:
      UsageError: The file cannot be read; a name or an option does not exist, or no name has an
        option; or there is no attack or no defense.
    """
    listed = build_from_file(file, cls=ReplayFile) if file else build({}, ReplayFile)
    options = part_options(settings, "attack", "defense")
    chosen = _labeled(attack_registry, listed.attacks, attacks, options["attack"])
    judges = _labeled(defense_registry, listed.defenses, defenses, options["defense"])
    require(
        bool(chosen and judges),
        "name at least one --attack and one --defense, or a --grid that lists them",
    )
    return ReplayGrid(chosen, judges, malicious, draws)


def _labeled(
    registry: Registry,
    listed: Sequence[str | dict[str, Any]],
    names: Sequence[str],
    options: Mapping[str, Any],
) -> dict[str, ComponentConfig]:
    """Returns label → attack or defense: those of a file, then those that are named."""
    kind = registry.kind
    require(bool(names) or not options, f"--set {kind}.KEY belongs to --{kind}: name one")
    named = registry.shared_options(names, options)
    entries = [*listed, *({"name": name, **own} for name, own in named.items())]
    result = labeled(entries)
    if NONE not in [entry if isinstance(entry, str) else entry.get("name") for entry in entries]:
        del result[NONE]
    for entry in result.values():
        registry.create_parts(entry.name, entry.options)
    return result
