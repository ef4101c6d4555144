"""The global model as a SavedModel: its variables are read as clients' are, its graph never is.

An export of Keras lists all variables in the order of `model.weights`, and those that gradients
train. The graph says nothing of classes and layers that tffl could use, so only defenses that judge
updates alone can work with such a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core.errors import UsageError, first_line, require
from tffl.core.layout import Entry, ServerVariable, WeightLayout, unique_names
from tffl.untrusted.expected import ExpectedVariables
from tffl.untrusted.h5_paths import SEEDS
from tffl.untrusted.saved_model import GRAPH, VARIABLES, variable_graph

if TYPE_CHECKING:
    import keras

ALL, TRAINABLE = "variables", "trainable_variables"
"""The lists of variables that an export holds."""

MARK = "saved_model.pb"
"""The file that makes a folder a SavedModel."""

Stored = tuple[int, str, str]
"""Number of a variable's node in the list of a checkpoint's objects, its path, and its key."""


@dataclass(frozen=True)
class GlobalVariables:
    """The variables of a global model.

    Attributes:
      expected: What clients' files must hold.
      start: float32 `[d]`, the values.
    """

    expected: ExpectedVariables
    start: np.ndarray

    @classmethod
    def of(cls, model: keras.Model) -> GlobalVariables:
        """Returns those of a built Keras model."""
        expected = ExpectedVariables.of(model)
        return cls(expected, expected.layout.flatten(model.get_weights()))

    @property
    def layout(self) -> WeightLayout:
        """Names, shapes and order of the variables."""
        return self.expected.layout


def is_saved_model(path: Path) -> bool:
    """Returns whether a path is the folder of a SavedModel."""
    return (path / MARK).is_file()


def read_global(folder: Path) -> GlobalVariables:
    """Reads the variables of a trusted SavedModel.

    Raises:
      UsageError: The folder is damaged, or does not say which variables gradients train.
    """
    import tensorflow as tf

    try:
        checkpoint = tf.train.load_checkpoint(str(folder / VARIABLES / VARIABLES))
        values = {key: checkpoint.get_tensor(key) for key in checkpoint.get_variable_to_shape_map()}
        graph = variable_graph(values[GRAPH])
    except Exception as error:  # TensorFlow fails in many ways on damaged files
        raise UsageError(f"cannot read the global model {folder}: {first_line(error)}") from None
    stored, trained = _listed(graph, ALL), {node for node, *_ in _listed(graph, TRAINABLE)}
    require(
        bool(trained),
        f"the global model {folder} does not list the variables that gradients train: write it "
        "with model.export, or give its .keras file",
    )
    weights = [(node, path, values[key]) for node, path, key in stored if not _is_seed(path)]
    names = unique_names([path for _, path, _ in weights])
    entries, own, paths = [], [], []
    for position, (name, (node, path, value)) in enumerate(zip(names, weights, strict=True)):
        if value.dtype.kind in "iub":
            own.append(ServerVariable(name, position, value))
            continue
        require(
            value.dtype.kind in "fV",
            f"the global model {folder} has {name} of type {value.dtype}: only numbers are judged",
        )
        entries.append(Entry(name, value.shape, node in trained, str(value.dtype)))
        paths.append(path)
    layout = WeightLayout(tuple(entries), tuple(own))
    start = layout.flatten([value for *_, value in weights])
    return GlobalVariables(ExpectedVariables(layout, paths=tuple(paths)), start)


def _is_seed(path: str) -> bool:
    """Returns whether a variable is the state of a random layer, which `model.weights` lacks."""
    return path.rpartition("/")[2] == f"{SEEDS}_state"


def _listed(graph: Any, name: str) -> list[Stored]:
    """Returns the variables in a list of the outermost object, in order; empty if there is none."""
    lists = {child.local_name: child.node_id for child in graph.nodes[0].children}
    if name not in lists:
        return []
    children = [c for c in graph.nodes[lists[name]].children if c.local_name.isdecimal()]
    return [
        (child.node_id, attribute.full_name, attribute.checkpoint_key)
        for child in sorted(children, key=lambda child: int(child.local_name))
        for attribute in graph.nodes[child.node_id].attributes
    ]
