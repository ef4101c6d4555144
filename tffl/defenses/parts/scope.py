"""Which columns a detector uses: the whole model, or the layer that makes the logits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, TypeAlias

from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates

Layers: TypeAlias = Literal["all", "final"]


def within(updates: Updates, layers: Layers) -> Updates:
    """Returns the updates of all layers, or of the final one alone, without copying them.

    Args:
      updates: Of a whole model. A layer's variables stand next to each other in it.
      layers: `final` is the last layer with trainable weights.
    """
    if layers == "all":
        return updates
    layout = updates.layout
    entries = tuple(entry for entry in layout.entries if entry.layer == layout.final_layer)
    columns = slice(layout[entries[0].name].start, layout[entries[-1].name].stop)
    return replace(
        updates,
        start=updates.start[columns],
        matrix=updates.matrix[:, columns],
        layout=WeightLayout(entries),
        overrides={row: new[columns] for row, new in updates.overrides.items()},
    )


def by_variable(updates: Updates) -> Iterator[tuple[slice, Updates]]:
    """Yields the columns of each trainable variable, and its updates, without copying them."""
    for entry, columns in zip(updates.layout.entries, updates.layout.spans, strict=True):
        if entry.trainable:
            yield (
                columns,
                replace(
                    updates,
                    start=updates.start[columns],
                    matrix=updates.matrix[:, columns],
                    layout=WeightLayout((entry,)),
                    overrides={row: new[columns] for row, new in updates.overrides.items()},
                ),
            )
