"""Attacks on a federation: one file each, named in a config by `attack.name`."""

from collections.abc import Mapping
from typing import Any

from tffl.attacks.base import Attack, SuccessSet
from tffl.registry import Registry

attacks = Registry(
    "attack",
    {
        "none": "tffl.attacks.base:Attack",
        "label-flip": "tffl.attacks.label_flip:LabelFlip",
        "patch-backdoor": "tffl.attacks.patch_backdoor:PatchBackdoor",
        "semantic-backdoor": "tffl.attacks.semantic_backdoor:SemanticBackdoor",
    },
)


def create_attack(name: str, options: Mapping[str, Any]) -> Attack:
    """Builds an attack, or several joined by `+`, from user-given options.

    Raises:
      UsageError: A name or an option does not exist, a value is out of its range, or the parts do
        not go together.
    """
    from tffl.attacks.composed import compose

    return compose(name, attacks.create_parts(name, options))


__all__ = ["Attack", "SuccessSet", "attacks", "create_attack"]
