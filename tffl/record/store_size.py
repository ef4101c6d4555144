"""How large stored updates may become."""

from __future__ import annotations

from tffl.config import Config
from tffl.core.errors import require


def check_store_size(config: Config, clients: int, columns: int) -> None:
    """Checks, before round 1, that the updates to be stored stay within their limit.

    Args:
      config: The experiment.
      clients: Participants of a round, n.
      columns: Size of the weight layout, d.

    Raises:
      UsageError: rounds · (n + 1) · d · 4 bytes are more than `record.store_limit_gib`.
    """
    rounds = len(config.record.stored_rounds(config.federation.rounds))
    size = rounds * (clients + 1) * columns * 4 / 2**30
    require(
        size <= config.record.store_limit_gib,
        f"record.store_updates of {rounds} rounds takes {size:.3g} GiB, the limit is "
        f"{config.record.store_limit_gib:g} GiB: store fewer rounds, or raise "
        "record.store_limit_gib",
    )
