"""Shield: heat maps, updates and losses, each against the clients' consensus; any may convict.

    shield = any-of(coalition, cam-consensus, update-consensus, probe-loss)

Training on wrong data or noise changes where a model looks, which heat maps show. An attack on the
update alone shows in its distance, its direction and near-duplicates, and one that raises the loss
in small steps shows in the loss. See `tffl.defenses.cam_consensus`,
`tffl.defenses.update_consensus` and `tffl.defenses.probe_loss`, whose options stand in tables of
their names: `--set defense.update-consensus.reference_point=root` for a server with data of its
own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tffl.data.samples import PROBE_DATA
from tffl.defenses.combination import AnyOf


@dataclass(frozen=True)
class Shield(AnyOf):
    """Rejects clients whose heat maps, updates or losses leave the clients' consensus.

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

    needs: ClassVar[tuple[str, ...]] = (PROBE_DATA,)
    reference: ClassVar[str] = "tffl's own"
