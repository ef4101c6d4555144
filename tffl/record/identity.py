"""What makes two runs one: every option spelled out, and the part that decides the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tffl.attacks import create_attack
from tffl.config import ComponentConfig, Config
from tffl.data.build import located
from tffl.defenses import create_defense
from tffl.models.own import resolved_model


def resolved(config: Config) -> Config:
    """Returns a config with every option of its attack and defense spelled out, and its data found.

    Raises:
      UsageError: A name or an option does not exist, or a value is out of range.
    """
    parts: dict[str, Any] = {
        "attack": create_attack(config.attack.name, config.attack.options),
        "defense": create_defense(config.defense.name, config.defense.options),
    }
    chosen = {
        section: ComponentConfig.model_validate(
            {"name": getattr(config, section).name, **part.options()}
        )
        for section, part in parts.items()
    }
    return config.model_copy(
        update={**chosen, "data": located(config.data), "model": resolved_model(config.model)}
    )


FIRST_KEYS: dict[str, tuple[str, ...]] = {
    "data": (
        *("dataset", "train_limit", "test_limit", "image_size", "partition", "beta"),
        *("classes_per_client", "samples_per_client", "server_shard", "server_samples"),
    ),
    "federation": (
        *("clients", "participants", "malicious", "malicious_participants", "weighting"),
        *("rounds", "server_epochs", "server_learning_rate"),
    ),
    "model": ("name",),
    "training": (
        *("local_epochs", "batch_size", "optimizer", "learning_rate", "momentum", "nesterov"),
        *("weight_decay", "schedule", "decay", "precision", "jit"),
    ),
}
"""The keys that results have been recorded with. Later ones belong to an identity only where they
differ from their defaults: otherwise a new key would make all those results unknown."""


LATER_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "bias-anomaly": {"layer": None},
    "update-consensus": {"opposed": True},
}
"""Defense → options that it has had only since then → the value with which they are left out."""

LATER_ATTACK_OPTIONS = {"on_rounds": 1, "off_rounds": 0, "spread": "none", "spread_share": 1.0}
"""Options that attacks have had only since then → the value with which they are left out."""


def identity(config: Config) -> dict[str, Any]:
    """Returns what decides the numbers of a run: two runs with equal identity are one."""
    found = deciding_keys(config)
    defaults = Config().model_dump(mode="json", include=set(FIRST_KEYS))
    for section, first in FIRST_KEYS.items():
        found[section] = {
            key: value
            for key, value in found[section].items()
            if key in first or key not in defaults[section] or value != defaults[section][key]
        }
    found["defense"] = _without_later(found["defense"]["name"], found["defense"])
    found["attack"] = {
        key: value
        for key, value in found["attack"].items()
        if key not in LATER_ATTACK_OPTIONS or value != LATER_ATTACK_OPTIONS[key]
    }
    return found


def _without_later(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves unset later options out, also in the tables of combined defenses."""
    parts = [LATER_OPTIONS.get(part, {}) for part in name.split("+")]
    later = {option: value for part in parts for option, value in part.items()}
    return {
        key: _without_later(key, value) if isinstance(value, Mapping) else value
        for key, value in options.items()
        if key not in later or value != later[key]
    }


def deciding_keys(config: Config) -> dict[str, Any]:
    """Returns all keys that may decide the numbers of a run, resolved."""
    dump = resolved(config).model_dump(
        mode="json", exclude={"runtime": True, "record": True, "data": {"data_dir"}}
    )
    dump["federation"]["malicious"] = config.federation.malicious_count
    dump["federation"]["participants"] = config.federation.participant_count
    return dump


def differences(first: Config, second: Config, limit: int = 3) -> str:
    """Says in which keys two experiments differ, at most `limit` of them; empty if in none.

    >>> differences(Config(seed=1), Config(seed=2))
    'seed is 1 there, 2 here'
    """
    there, here = flat(deciding_keys(first)), flat(deciding_keys(second))
    keys = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    shown = [f"{key} is {there.get(key)!r} there, {here.get(key)!r} here" for key in keys[:limit]]
    return "; ".join(shown) + (f"; and {len(keys) - limit} more" if len(keys) > limit else "")


def differences_but_end(first: Config, second: Config) -> str:
    """Says in what two experiments differ, their end aside unless something depends on it."""
    ends = first.federation.rounds, second.federation.rounds
    if ends[0] != ends[1] and (reason := _depending_on_rounds(second)):
        return f"{differences(first, second)} ({reason} depends on the number of rounds)"
    return differences(first.with_rounds(ends[1]), second)


def _depending_on_rounds(config: Config) -> str:
    """Returns the key that makes a round depend on how many there are; empty if none does."""
    if config.training.depends_on_total_rounds:
        return f"training.schedule = '{config.training.schedule}'"
    defense = create_defense(config.defense.name, config.defense.options)
    return f"defense.name = '{config.defense.name}'" if defense.depends_on_total_rounds else ""


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Joins nested keys by dots; leaves out None, which TOML cannot say.

    >>> flat({"data": {"beta": 0.5, "image_size": None}, "seed": 0})
    {'data.beta': 0.5, 'seed': 0}
    """
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result.update(flat(value, f"{prefix}{key}."))
        elif value is not None:
            result[prefix + key] = value
    return result
