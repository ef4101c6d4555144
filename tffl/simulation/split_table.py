"""How many samples of each class every client has: `split.csv`."""

from __future__ import annotations

from typing import Any

from tffl.data.federation import Federation

LISTED = 1000
"""The most sampled clients whose samples are counted in `split.csv`."""


def split_table(dealt: Federation, trained: Federation, partition: str) -> list[dict[str, Any]]:
    """Returns a row for each client and class.

    Nothing if there are more sampled clients than `LISTED`: the tables of a run do not grow with
    those that never take part.

    Args:
      dealt: The federation before an attack.
      trained: The same as the attack left it.
      partition: Of the config.
    """
    if partition == "sampled" and len(dealt.clients) > LISTED:
        return []
    before, after = dealt.class_counts(), trained.class_counts()
    return [
        {
            "client": client,
            "class": name,
            "samples": int(before[client, label]),
            "trained": int(after[client, label]),
        }
        for client in range(len(before))
        for label, name in enumerate(dealt.dataset.class_names)
    ]
