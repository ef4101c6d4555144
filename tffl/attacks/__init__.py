"""Attacks on a federation: one file each, named in a config by `attack.name`."""

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

__all__ = ["Attack", "SuccessSet", "attacks"]
