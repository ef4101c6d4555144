"""An experiment from the command line: a file, single options and `--set` become one config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tffl.config.reading import build, build_from_file, override, parse_setting
from tffl.config.sections import Config
from tffl.core.errors import require

KEYS = {
    "dataset": "data.dataset",
    "data_dir": "data.data_dir",
    "train_limit": "data.train_limit",
    "partition": "data.partition",
    "beta": "data.beta",
    "clients": "federation.clients",
    "participants": "federation.participants",
    "malicious": "federation.malicious",
    "weighting": "federation.weighting",
    "rounds": "federation.rounds",
    "model": "model.name",
    "imports": "model.imports",
    "local_epochs": "training.local_epochs",
    "batch_size": "training.batch_size",
    "optimizer": "training.optimizer",
    "learning_rate": "training.learning_rate",
    "precision": "training.precision",
    "jit": "training.jit",
    "attack": "attack.name",
    "defense": "defense.name",
    "seed": "seed",
    "devices": "runtime.devices",
    "placement": "runtime.placement",
    "workers": "runtime.workers",
    "parameter_server": "runtime.parameter_server",
    "updates_on_disk": "runtime.updates_on_disk",
    "store_updates": "record.store_updates",
}
"""Option, as a Python name → the config key that it sets."""


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Returns dotted key → value of `--set` arguments; the last of equal keys counts."""
    return dict(map(parse_setting, settings))


def part_options(settings: Iterable[str], *sections: str) -> dict[str, dict[str, Any]]:
    """Returns section → options, of `--set` arguments that may name no other section.

    >>> part_options(["defense.k=2", "defense.krum.malicious=1"], "attack", "defense")
    {'attack': {}, 'defense': {'k': 2, 'krum': {'malicious': 1}}}

    Args:
      settings: Such as `"defense.k=2"`.
      sections: `"attack"` or `"defense"`, or both.

    Raises:
      UsageError: A setting is malformed, or of another section.
    """
    changes = parse_settings(settings)
    allowed = " or ".join(f"{section}.KEY" for section in sections)
    for key in changes:
        section, dot, _ = key.partition(".")
        require(bool(dot) and section in sections, f"--set {key} is not allowed: set {allowed}")
    return {section: {} for section in sections} | override({}, changes)


def assemble(
    base: Mapping[str, Any], options: Mapping[str, Any], settings: Iterable[str]
) -> dict[str, Any]:
    """Lays single options, then `--set`, over the values of a config file.

    Naming another attack, defense or model than the file's drops the options that the file has for
    its own, which the other would not understand.

    >>> assemble({"attack": {"name": "a", "depth": 3}}, {"attack": "b"}, ["attack.scale=2"])
    {'attack': {'name': 'b', 'scale': 2}}

    Args:
      base: Nested values, as read from TOML.
      options: Values by option name; None where the option was not used.
      settings: The `--set` arguments, in order.
    """
    changes = {KEYS[name]: value for name, value in options.items() if value is not None}
    if "runtime.workers" in changes:
        changes.setdefault("runtime.placement", "cluster")
    for section in ("attack", "defense", "model"):
        name = changes.get(f"{section}.name")
        old = base.get(section)
        default = Config.model_fields[section].default.name
        if name is not None and isinstance(old, Mapping) and old.get("name", default) != name:
            kept = {key: old[key] for key in ("imports",) if key in old and section == "model"}
            base = {**base, section: kept}
    return override(override(base, changes), parse_settings(settings))


def describes_experiment(
    config: Path | None, options: Mapping[str, Any], settings: Sequence[str]
) -> bool:
    """Says whether the command line has any option of an experiment."""
    return bool(config or settings) or any(value is not None for value in options.values())


def read_experiment(
    config: Path | None,
    options: Mapping[str, Any],
    settings: Sequence[str],
    resumed: Path | None = None,
    base: Mapping[str, Any] | None = None,
) -> Config:
    """Returns the experiment that the command line describes.

    Args:
      config: A TOML file, if one is named.
      options: Values by option name; None where the option was not used.
      settings: The `--set` arguments, in order.
      resumed: The run directory to continue; its own config is the file, unless one is named.
      base: Nested values in the place of a file, where there is none.

    Raises:
      UsageError: A key or value is not allowed, a file cannot be read, or there is no run to
        continue.
    """
    if resumed is not None and (resumed / "config.toml").exists():
        config = config or resumed / "config.toml"
    else:
        # A run killed before its first file was written can only begin again, from its options.
        require(
            resumed is None or describes_experiment(config, options, settings),
            f"{resumed} holds no config.toml, hence no run to resume: begin one with "
            f"--out {resumed}",
        )
    if config is None:
        return build(assemble(base or {}, options, settings))
    return build_from_file(config, lambda values: assemble(values, options, settings))
