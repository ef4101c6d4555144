"""SavedModel folders: the variables only; `saved_model.pb`, the graph, is not even opened.

The checkpoint in `variables/` lists the paths of the variables. Keras writes most of them twice,
or a weight under its optimizer; what has one path has to have one value.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tffl.untrusted.expected import MARGIN, Expected
from tffl.untrusted.folder import read_bytes
from tffl.untrusted.refusal import Refused, shown

VARIABLES = "variables"
INDEX, DATA = "variables.index", "variables.data-00000-of-00001"
GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
OPTIMIZER = "optimizer/"
SEED = "/seed_generator_state"


def read(folder: Path, name: str, expected: Expected) -> dict[str, np.ndarray]:
    """Returns the arrays of the SavedModel `folder/name/`, by variable.

    Raises:
      Refused: It is no such folder, or something in it is not as expected.
    """
    index = read_bytes(folder, (name, VARIABLES, INDEX), MARGIN)
    data = read_bytes(folder, (name, VARIABLES, DATA), expected.limit)
    from tffl.core.process import silence

    silence()
    import tensorflow as tf

    # TensorFlow reads files only: its own copy, which nobody else can change meanwhile.
    with TemporaryDirectory(prefix="tffl-") as private:
        (Path(private) / INDEX).write_bytes(index)
        (Path(private) / DATA).write_bytes(data)
        try:
            return _arrays(tf.train.load_checkpoint(f"{private}/{VARIABLES}"), expected)
        except (tf.errors.OpError, RuntimeError) as error:
            reason = str(error).replace(private, name)
            raise Refused(f"is no readable SavedModel: {reason}") from None


def _arrays(checkpoint: Any, expected: Expected) -> dict[str, np.ndarray]:
    shapes = checkpoint.get_variable_to_shape_map()
    dtypes = checkpoint.get_variable_to_dtype_map()
    keys = _keys(checkpoint, shapes)
    seeds = {path for path in keys if path.endswith(SEED)}
    known = {entry.name for entry in expected.layout.entries}
    optimizers = {
        path
        for path, places in keys.items()
        if path not in known and all(place.startswith(OPTIMIZER) for place in places)
    }
    expected.check_names(set(keys) - optimizers - (seeds - known))
    result: dict[str, np.ndarray] = {}
    for entry in expected.layout.entries:
        for key in keys[entry.name]:
            expected.check(entry, tuple(shapes[key]), np.dtype(dtypes[key].as_numpy_dtype))
            value = checkpoint.get_tensor(key)
            first = result.setdefault(entry.name, value)
            if not np.array_equal(first, value, equal_nan=True):
                raise Refused(f"holds {entry.name} twice, with different values")
    return result


def _keys(checkpoint: Any, shapes: dict[str, Any]) -> dict[str, list[str]]:
    """Returns path → keys in the checkpoint, of all variables."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    if GRAPH not in shapes:
        raise Refused("is no SavedModel of TensorFlow 2: its variables have no names")
    try:
        graph = TrackableObjectGraph.FromString(checkpoint.get_tensor(GRAPH))
    except (DecodeError, TypeError) as error:
        raise Refused(f"has no readable list of variables: {error}") from None
    keys: dict[str, list[str]] = defaultdict(list)
    for node in graph.nodes:
        for attribute in node.attributes:
            if attribute.checkpoint_key not in shapes:
                raise Refused(f"lacks the values of {shown(attribute.full_name)}")
            keys[attribute.full_name].append(attribute.checkpoint_key)
    nameless = set(shapes) - {GRAPH} - {key for places in keys.values() for key in places}
    if nameless:
        raise Refused(f"holds {shown(min(nameless))}, which it has no name for")
    return keys
