"""What a defense showed of a round, as the named arrays of a run's file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields

import numpy as np

from tffl.core.verdict import AuditImages, HeatMaps, Shown
from tffl.explain.maps import Findings

AUDIT = {
    "images": "audit_images",
    "labels": "audit_labels",
    "support": "audit_support",
    "kept": "audit_kept",
    "label_counts": "label_counts",
    "accuracies": "audit_accuracies",
    "confusions": "confusions",
    "auxiliary": "auxiliary_images",
}
"""Field of `AuditImages` → name of its array; fields of `HeatMaps` are named as they are."""

MAPS = {field.name: field.name for field in fields(HeatMaps) if field.name != "part"}


def to_arrays(shown: Iterable[Shown]) -> dict[str, np.ndarray]:
    """Returns the arrays to store, by name; those of a named part begin with its path.

    >>> maps = HeatMaps(np.zeros((2, 1, 1, 1)), part="krum/")
    >>> list(to_arrays([maps]))
    ['krum/maps', 'krum/dead', 'krum/non_finite']
    """
    found: dict[str, np.ndarray] = {}
    for one in shown:
        names = MAPS if isinstance(one, HeatMaps) else AUDIT
        arrays = {name: getattr(one, field) for field, name in names.items()}
        if isinstance(one, HeatMaps):
            arrays |= vars(Findings.of(one.maps))
        found |= {one.part + name: a for name, a in arrays.items() if a is not None}
    return found


def from_arrays(arrays: Mapping[str, np.ndarray]) -> tuple[Shown, ...]:
    """Reads what `to_arrays` wrote; arrays of other names are passed over.

    >>> maps = HeatMaps(np.zeros((2, 1, 1, 1)), part="krum/")
    >>> from_arrays(to_arrays([maps])) == (maps,)
    True
    """
    found: list[Shown] = []
    for name in arrays:
        part, slash, leaf = name.rpartition("/")
        if leaf == "maps":
            found.append(HeatMaps(**_fields(arrays, MAPS, part + slash), part=part + slash))
        elif leaf == "audit_images":
            found.append(AuditImages(**_fields(arrays, AUDIT, part + slash), part=part + slash))
    return tuple(found)


def _fields(
    arrays: Mapping[str, np.ndarray], names: Mapping[str, str], part: str
) -> dict[str, np.ndarray]:
    """Returns the fields of a part that are there."""
    return {field: arrays[part + name] for field, name in names.items() if part + name in arrays}
