"""Shield: coalitions first, then heat maps, updates and losses of single clients; any may convict.

    shield = any-of(coalition, cam-consensus, update-consensus, probe-loss)

`coalition` finds who pushes together and costs, and who costs alone; in tuning runs it found nearly
all that any part found. The others are the second line, for what costs nothing on the server's
images in the round in which it is sent: cam-consensus sees models that look elsewhere,
update-consensus rows that are absurdly long or point elsewhere, and probe-loss models that do much
worse than all others. They stand with higher limits than alone, since each adds its false alarms on
very uneven data (Dirichlet 0.1): there honest clients point against the median (`opposed`), or,
with the same single class, send nearly the same (`duplicate`).

What escapes it is told in README and in results/coalition: attackers who cost little in any one
round, unscaled label flips on uneven data, and most attacks on very uneven data (Dirichlet 0.1).

Options of the parts stand in tables of their names: `--set
defense.update-consensus.reference_point=root` for a server with data of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from tffl.data.samples import PROBE_DATA
from tffl.defenses.combination import AnyOf


@dataclass(frozen=True)
class Shield(AnyOf):
    """Rejects coalitions, and clients whose heat maps, updates or losses leave the consensus.

    >>> Shield().of
    ('coalition', 'cam-consensus', 'update-consensus', 'probe-loss')
    >>> Shield().judge_rows([[1.0], [2.0], [3.0]])
    Traceback (most recent call last):
        ...
    tffl.core.errors.UsageError: Shield looks at clients' models: give model=
    """

    of: tuple[str, ...] = field(
        default=("coalition", "cam-consensus", "update-consensus", "probe-loss"), init=False
    )

    usual: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
        {
            "cam-consensus": MappingProxyType({"k": 5.0}),
            "update-consensus": MappingProxyType({"k": 8.0, "opposed": False, "duplicate": 0.0}),
            "probe-loss": MappingProxyType({"k": 12.0}),
        }
    )
    needs: ClassVar[tuple[str, ...]] = (PROBE_DATA,)
    reference: ClassVar[str] = "tffl's own"
