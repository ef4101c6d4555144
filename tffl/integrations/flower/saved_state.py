"""The state with which a server continues after a restart, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tffl.core import states
from tffl.core.errors import require
from tffl.core.tensors import read_tensors, write_tensors
from tffl.defenses import Defense
from tffl.defenses.base import State

DEFENSE, SERVER = "defense", "server"
"""Prefixes in the file: the defense's state, and the server's own variables by position."""


@dataclass(frozen=True)
class SavedState:
    """The state of a server between two rounds.

    Attributes:
      defense: The identity of the defense, see `identity`.
      round: The last round.
      seed: The seed of the defense.
      capacity: The largest number of nodes that may take part.
      keys: The names of the global model's arrays in Flower's records.
      weights: The global model, float32 `[d]`.
      nodes: Flower's ids of the nodes; the position is the client number.
      server_variables: Position of a variable that clients do not change → its value.
      memory: The state of the defense.
    """

    defense: str
    round: int
    seed: int
    capacity: int
    keys: tuple[str, ...]
    weights: np.ndarray
    nodes: tuple[int, ...]
    server_variables: Mapping[int, np.ndarray]
    memory: State

    def write(self, path: Path) -> None:
        """Writes the file.

        Raises:
          TfflError: The file cannot be written.
        """
        own = {str(position): value for position, value in self.server_variables.items()}
        tensors = {
            "weights": self.weights,
            "nodes": np.array(self.nodes, dtype=np.uint64),
            **states.join({SERVER: own, DEFENSE: self.memory}),
        }
        metadata = {
            "defense": self.defense,
            "round": str(self.round),
            "seed": str(self.seed),
            "clients": str(self.capacity),
            "keys": json.dumps(self.keys),
        }
        write_tensors(path, tensors, metadata)

    @classmethod
    def read(cls, path: Path, defense: str, size: int) -> SavedState:
        """Reads a file that `write` has written.

        Args:
          path: The file.
          defense: The identity of the defense that continues.
          size: d, the number of weights of the model that continues.

        Raises:
          TfflError: The file is missing or damaged.
          UsageError: The file belongs to another defense or model.
        """
        tensors, about = read_tensors(path)
        require(
            about["defense"] == defense,
            f"{path} was written by {about['defense']}, and this is {defense}",
        )
        weights = tensors["weights"]
        require(
            weights.shape == (size,),
            f"{path} holds {weights.size} weights, and the model has {size}",
        )
        return cls(
            defense=defense,
            round=int(about["round"]),
            seed=int(about["seed"]),
            capacity=int(about["clients"]),
            keys=tuple(json.loads(about["keys"])),
            weights=weights,
            nodes=tuple(int(node) for node in tensors["nodes"]),
            server_variables={
                int(position): value for position, value in states.part(tensors, SERVER).items()
            },
            memory=states.part(tensors, DEFENSE),
        )


def identity(defense: Defense) -> str:
    """Returns the class and options of a defense as text."""
    kind = f"{type(defense).__module__}:{type(defense).__qualname__}"
    return f"{kind} {json.dumps(defense.options(), sort_keys=True, default=str)}"
