"""What makes two runs one: every option spelled out, and the part that decides the numbers."""

from __future__ import annotations

from typing import Any

from tffl.attacks import create_attack
from tffl.config import Config, Named
from tffl.defenses import create_defense


def resolved(config: Config) -> Config:
    """Returns a config with every option of its attack and defense spelled out.

    Raises:
      UsageError: A name or an option does not exist, or a value is out of range.
    """
    parts: dict[str, Any] = {
        "attack": create_attack(config.attack.name, config.attack.options),
        "defense": create_defense(config.defense.name, config.defense.options),
    }
    chosen = {
        section: Named.model_validate({"name": getattr(config, section).name, **part.options()})
        for section, part in parts.items()
    }
    return config.model_copy(update=chosen)


def identity(config: Config) -> dict[str, Any]:
    """Returns what decides the numbers of a run: two runs with equal identity are one."""
    dump = resolved(config).model_dump(
        mode="json", exclude={"runtime": True, "record": True, "data": {"data_dir"}}
    )
    dump["federation"]["malicious"] = config.federation.malicious_count
    dump["federation"]["participants"] = config.federation.participant_count
    return dump
