"""What several attacks need: classes by name, drawn samples, training, the last global step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core import seeds
from tffl.core.errors import require, unknown
from tffl.core.states import State
from tffl.core.updates import Updates
from tffl.data.federation import Dataset

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


def class_index(dataset: Dataset, value: int | str, option: str) -> int:
    """Returns the class that a user names by its name or its number.

    Args:
      dataset: Names and number of the classes.
      value: A class name, or a number from 0 to `dataset.classes - 1`.
      option: Name of the option, for the message: `"attack.target"`.

    Raises:
      UsageError: There is no such class.
    """
    if isinstance(value, str) and value not in dataset.class_names:
        raise unknown(f"class of {dataset.name} in {option}:", value, dataset.class_names)
    number = class_number(dataset.class_names, value)
    require(
        0 <= number < dataset.classes,
        f"{option} = {value} is not a class of {dataset.name}: "
        f"give a number from 0 to {dataset.classes - 1} or a class name",
    )
    return number


def class_number(names: Sequence[str], value: int | str) -> int:
    """Returns the number of a class that is known to exist, given its name or its number.

    >>> class_number(("cat", "dog"), "dog"), class_number(("cat", "dog"), 0)
    (1, 0)
    """
    return names.index(value) if isinstance(value, str) else value


def draw(candidates: np.ndarray, amount: float, seed: int, purpose: str, client: int) -> np.ndarray:
    """Draws samples of one client at random, without repetition.

    Args:
      candidates: int64 `[m]`.
      amount: Number of samples, rounded to the nearest whole number (half up); at most all.
      seed: The experiment's seed.
      purpose: Purpose of the draw, as in `tffl.core.seeds`.
      client: Id of the client.

    Returns:
      The drawn candidates, ascending.
    """
    count = min(int(amount + 0.5), len(candidates))
    generator = seeds.generator(seed, purpose, client=client)
    return np.sort(generator.choice(candidates, size=count, replace=False))


def retrained(own: Updates, adversary: Adversary, **constraints: Any) -> np.ndarray:
    """Trains malicious clients again under constraints, float32 `[m, d]`.

    Args:
      own: The malicious clients' updates.
      adversary: Trains them.
      **constraints: As `Adversary.train` takes them.
    """
    rows = np.empty((len(own), own.layout.size), np.float32)
    for row, client in zip(rows, own.client_ids.tolist(), strict=True):
        row[:] = adversary.train(own.start, client, own.round, **constraints)
    return rows


def last_step(updates: Updates, state: State) -> np.ndarray | None:
    """Returns how the global weights have changed per round since the attackers last saw them.

    Args:
      updates: This round's, for its start and number.
      state: What `seen_weights` returned in an earlier round.

    Returns:
      float64 `[d]`, 0 in columns that no gradient trains; None if they see them for the first time.
    """
    if "start" not in state:
        return None
    rounds = updates.round - int(state["round"][0])
    with np.errstate(invalid="ignore"):
        change = (updates.start.astype(np.float64) - state["start"]) / rounds
    change[~updates.layout.trainable] = 0
    return change


def seen_weights(updates: Updates) -> State:
    """Returns what attackers remember of a round in which they take part: the global weights."""
    return {"start": updates.start, "round": np.array([updates.round], np.int64)}
