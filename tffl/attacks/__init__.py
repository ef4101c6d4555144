"""Attacks on a federation: one file each, named in a config by `attack.name`."""

from collections.abc import Mapping
from typing import Any

from tffl.attacks.base import Attack, SuccessSet
from tffl.core.lazy import lazy
from tffl.core.registry import Registry

attacks = Registry(
    "attack",
    {
        "none": "tffl.attacks.base:Attack",
        "a3fl": "tffl.attacks.a3fl:A3fl",
        "adaptive-cam": "tffl.attacks.adaptive_cam:AdaptiveCam",
        "adaptive-coalition": "tffl.attacks.adaptive_coalition:AdaptiveCoalition",
        "chameleon": "tffl.attacks.chameleon:Chameleon",
        "constrain-and-scale": "tffl.attacks.constrain_and_scale:ConstrainAndScale",
        "dba": "tffl.attacks.dba:Dba",
        "distance-constrained": "tffl.attacks.distance_constrained:DistanceConstrained",
        "edge-case": "tffl.attacks.edge_case:EdgeCase",
        "fang-krum": "tffl.attacks.fang:FangKrum",
        "fang-trimmed-mean": "tffl.attacks.fang:FangTrimmedMean",
        "gaussian": "tffl.attacks.gaussian:Gaussian",
        "graph-autoencoder": "tffl.attacks.graph_autoencoder:GraphAutoencoder",
        "iba": "tffl.attacks.iba:Iba",
        "ipm": "tffl.attacks.ipm:Ipm",
        "label-flip": "tffl.attacks.label_flip:LabelFlip",
        "lie": "tffl.attacks.lie:Lie",
        "mimic": "tffl.attacks.mimic:Mimic",
        "min-max": "tffl.attacks.min_max:MinMax",
        "min-sum": "tffl.attacks.min_max:MinSum",
        "mpaf": "tffl.attacks.mpaf:Mpaf",
        "neurotoxin": "tffl.attacks.neurotoxin:Neurotoxin",
        "non-finite": "tffl.attacks.non_finite:NonFinite",
        "patch-backdoor": "tffl.attacks.patch_backdoor:PatchBackdoor",
        "poisonedfl": "tffl.attacks.poisonedfl:PoisonedFL",
        "rop": "tffl.attacks.rop:Rop",
        "scaling": "tffl.attacks.scaling:Scaling",
        "semantic-backdoor": "tffl.attacks.semantic_backdoor:SemanticBackdoor",
        "sign-flip": "tffl.attacks.sign_flip:SignFlip",
        "uniform": "tffl.attacks.uniform:Uniform",
    },
    base="tffl.attacks.base:Attack",
)

STANDS_FOR = {
    name: f"patch-backdoor+{name}" for name in ("chameleon", "constrain-and-scale", "neurotoxin")
}
"""Name → the joined attack that it stands for: these train on data that another one poisons."""


def create_attack(name: str, options: Mapping[str, Any]) -> Attack:
    """Builds an attack, or several joined by `+`, from user-given options.

    Raises:
      UsageError: A name or an option does not exist, a value is out of its range, or the parts
        cannot be joined.
    """
    from tffl.attacks.composed import compose

    name = STANDS_FOR.get(name, name)
    return compose(name, attacks.create_parts(name, options))


_HOMES = {
    **attacks.homes(),
    "CommonRowAttack": "tffl.attacks.model_attack",
    "DataAttack": "tffl.attacks.data_attack",
    "InformedAttack": "tffl.attacks.model_attack",
    "ModelAttack": "tffl.attacks.model_attack",
}

__all__ = [*sorted(_HOMES), "SuccessSet", "attacks", "create_attack"]
__getattr__ = lazy(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
