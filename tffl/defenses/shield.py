"""Shield: heat maps and updates, each against the clients' consensus; either may convict.

    shield = any-of(cam-consensus, update-consensus)

Heat maps show what training on wrong data or noise does to what a model looks at; distance,
direction and near-duplicates show what happens to an update without changing that. See
`tffl.defenses.cam_consensus` and `tffl.defenses.update_consensus`, whose options stand in tables of
their names: `--set defense.update-consensus.reference_point=root` for a server with data of its
own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tffl.defenses.base import PROBE_DATA
from tffl.defenses.combination import AnyOf


@dataclass(frozen=True)
class Shield(AnyOf):
    """Rejects clients whose heat maps or whose updates leave the clients' consensus."""

    of: tuple[str, ...] = field(default=("cam-consensus", "update-consensus"), init=False)

    needs: ClassVar[tuple[str, ...]] = (PROBE_DATA,)
    reference: ClassVar[str] = "tffl's own"
