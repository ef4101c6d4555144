"""How far each client's variables are from the others', or from the joint model.

For each variable, the deviation of a client's values w from a reference r is

    max_j |w_j − r_j|        or        sqrt(mean_j (w_j − r_j)²)

where r is the clients' mean, or the joint model that they started from.

Anomaly Localization in Model Gradients Under Backdoor Attacks Against Federated Learning
    Zeki Bilgin. 2021. Section 5.4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tffl.core.updates import Updates

STATISTICS = ("max", "rms")
REFERENCES = ("clients", "joint")

VALUES_AT_ONCE = 1 << 18
"""Largest number of values of the update matrix that are copied to float64 at a time."""


@dataclass(frozen=True)
class Deviations:
    """How far each client's variables are from the others', in one round.

    Attributes:
      round: 1-based.
      client_ids: int64 `[n]`.
      names: One per variable.
      values: float32 `[n, variables, 2, 2]`, see `deviations`.
    """

    round: int
    client_ids: np.ndarray
    names: tuple[str, ...]
    values: np.ndarray


def deviations(updates: Updates) -> np.ndarray:
    """Measures how far each client's variables are from the others'.

    A client whose values are not finite is left out of the mean, and its deviation is infinite.

    Returns:
      float32 `[n, variables, 2, 2]`: variables × `STATISTICS` × `REFERENCES`.
    """
    finite = updates.finite()
    with np.errstate(over="ignore", invalid="ignore"):
        found = [_variable(updates.deltas, finite, columns) for columns in updates.layout.spans]
        result = np.stack(found, axis=1).astype(np.float32)
    result[np.isnan(result)] = np.inf
    return result


def _variable(deltas: np.ndarray, finite: np.ndarray, columns: slice) -> np.ndarray:
    """Returns the deviations float64 `[n, 2, 2]` of one variable, without copying all of it."""
    largest = np.zeros((len(deltas), 2))
    squares = np.zeros((len(deltas), 2))
    step = max(1, VALUES_AT_ONCE // len(deltas))
    for begin in range(columns.start, columns.stop, step):
        part = deltas[:, begin : min(begin + step, columns.stop)].astype(np.float64)
        mean = part[finite].mean(axis=0) if finite.any() else 0.0
        for index, difference in enumerate((part - mean, part)):
            np.maximum(largest[:, index], np.abs(difference).max(axis=1), out=largest[:, index])
            squares[:, index] += np.einsum("ij,ij->i", difference, difference)
    rms = np.sqrt(squares / max(1, columns.stop - columns.start))
    return np.stack([largest, rms], axis=1)


def of_updates(updates: Updates) -> Deviations:
    """Measures the deviations of one round, and names the variables."""
    names = tuple(entry.name for entry in updates.layout.entries)
    return Deviations(updates.round, updates.client_ids, names, deviations(updates))
