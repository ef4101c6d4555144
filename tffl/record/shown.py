"""What a defense showed of a round, as the named arrays of a run's file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from tffl.core.verdict import AuditImages, CoalitionPlane, HeatMaps, Shown
from tffl.explain.maps import Findings


def _named(kind: type, prefix: str, plain: tuple[str, ...] = ()) -> dict[str, str]:
    names = [field.name for field in fields(kind) if field.name != "part"]
    return {name: name if name in plain else prefix + name for name in names}


NAMES: dict[type[Shown], dict[str, str]] = {
    HeatMaps: _named(HeatMaps, ""),
    AuditImages: {
        **_named(AuditImages, "audit_", ("label_counts", "confusions")),
        "auxiliary": "auxiliary_images",
    },
    CoalitionPlane: _named(CoalitionPlane, "coalition_"),
}
"""Field → name of its array. The array of the first field is always there."""


def to_arrays(shown: Iterable[Shown]) -> dict[str, np.ndarray]:
    """Returns the arrays to store, by name; those of a named part begin with its path.

    >>> maps = HeatMaps(np.zeros((2, 1, 1, 1)), part="krum/")
    >>> list(to_arrays([maps]))
    ['krum/maps', 'krum/dead', 'krum/non_finite']
    """
    found: dict[str, np.ndarray] = {}
    for one in shown:
        arrays = {name: getattr(one, field) for field, name in NAMES[type(one)].items()}
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
    kinds = {next(iter(names.values())): kind for kind, names in NAMES.items()}
    found: list[Shown] = []
    for name in arrays:
        part, slash, leaf = name.rpartition("/")
        if kind := kinds.get(leaf):
            found.append(_read(kind, arrays, part + slash))
    return tuple(found)


def _read(kind: type[Shown], arrays: Mapping[str, np.ndarray], part: str) -> Shown:
    """Returns what a part showed, of the fields that are there."""
    there: dict[str, Any] = {
        field: arrays[part + name] for field, name in NAMES[kind].items() if part + name in arrays
    }
    return kind(**there, part=part)
