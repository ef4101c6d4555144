"""SavedModel folders: only the variables are read; `saved_model.pb`, the graph, is never opened.

The checkpoint in `variables/` lists the paths of the variables. Keras stores most of them twice,
and some versions store a weight under its optimizer. All values of a path must agree, unless the
global model has several variables with that path: then there must be one value for each, in order.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tffl.core.layout import Entry
from tffl.untrusted.expected import MARGIN, ExpectedVariables
from tffl.untrusted.refusal import Refused, printable
from tffl.untrusted.safe_files import entry_names, read_bytes
from tffl.untrusted.server_variables import is_server_variable

VARIABLES = "variables"
INDEX, SHARD = "variables.index", "variables.data-{:05d}-of-{:05d}"
SHARDS = re.compile(r"variables\.data-\d{5}-of-(\d{5})")
MAX_SHARDS = 1000
GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
OPTIMIZER, METRICS = "optimizer/", "keras_api/metrics/"
ORDERED, UNORDERED = "variables/", "_all_variables/"
"""Where an export stores all variables in the order of `model.weights`, and again in any order."""


def read(folder: Path, name: str, expected: ExpectedVariables) -> dict[str, np.ndarray]:
    """Reads the SavedModel `folder/name/`. Integers and booleans are ignored.

    Args:
      folder: The folder that contains it.
      name: Its name.
      expected: The variables that it must hold.

    Returns:
      Variable name → array.

    Raises:
      Refused: There is no SavedModel, or its content is not the expected one.
    """
    files = {INDEX: read_bytes(folder, (name, VARIABLES, INDEX), MARGIN)}
    limit = expected.limit
    for shard in _shards(entry_names(folder, (name, VARIABLES))):
        files[shard] = read_bytes(folder, (name, VARIABLES, shard), limit)
        limit -= len(files[shard])
    from tffl.core.process import silence

    silence()
    import tensorflow as tf

    # TensorFlow reads only from files, so it gets a private copy that nobody else can change.
    with TemporaryDirectory(prefix="tffl-") as private:
        for file, content in files.items():
            (Path(private) / file).write_bytes(content)
        try:
            return _arrays(tf.train.load_checkpoint(f"{private}/{VARIABLES}"), expected)
        except (tf.errors.OpError, RuntimeError) as error:
            reason = str(error).replace(private, name)
            raise Refused(f"is not a readable SavedModel: {reason}") from None


def _shards(names: Iterable[str]) -> list[str]:
    """Returns the names of all files with values, whether or not they exist."""
    counts = {int(found[1]) for found in map(SHARDS.fullmatch, names) if found}
    count = max(counts, default=1)
    if count > MAX_SHARDS:
        raise Refused(f"claims that it has {count} files with values")
    return [SHARD.format(number, count) for number in range(count)]


def _arrays(checkpoint: Any, expected: ExpectedVariables) -> dict[str, np.ndarray]:
    shapes = checkpoint.get_variable_to_shape_map()
    dtypes = {
        key: np.dtype(dtype.as_numpy_dtype)
        for key, dtype in checkpoint.get_variable_to_dtype_map().items()
    }
    found = {
        path: weights
        for path, keys in _keys_by_path(checkpoint, shapes).items()
        if (weights := _weight_keys(path, keys, dtypes, expected))
    }
    paths = [_path_in_file(path, found, expected) for path in expected.paths]
    expected.check_names(found, paths)
    owners: dict[str, list[Entry]] = defaultdict(list)
    for path, entry in zip(paths, expected.layout.entries, strict=True):
        owners[path].append(entry)

    def value(entry: Entry, key: str) -> np.ndarray:
        expected.check(entry, tuple(shapes[key]), dtypes[key])
        return np.asarray(checkpoint.get_tensor(key))

    result: dict[str, np.ndarray] = {}
    for path, entries in owners.items():
        own = _keys_in_order(path, found[path], len(entries))
        result |= {entry.name: value(entry, key) for entry, key in zip(entries, own, strict=True)}
        for key in set(found[path]) - set(own):
            same_shape = [entry for entry in entries if entry.shape == tuple(shapes[key])]
            copy = value((same_shape or entries)[0], key)
            if not any(np.array_equal(result[e.name], copy, equal_nan=True) for e in same_shape):
                raise Refused(f"holds {path} twice, with different values")
    return result


def _path_in_file(path: str, found: Collection[str], expected: ExpectedVariables) -> str:
    """Returns a path as the file has it: tf-keras omits the models that contain a layer."""
    parts = path.split("/")
    tails = ["/".join(parts[begin:]) for begin in range(1, len(parts) - 1)]
    others = [tail for tail in tails if tail in found and tail not in expected.paths]
    return path if path in found or not others else others[0]


def _keys_in_order(path: str, keys: list[str], count: int) -> list[str]:
    """Returns the keys of the variables of one path, in the order of `model.weights`."""
    if count == 1:
        return keys[:1]
    ordered = [key for key in keys if key.startswith(ORDERED)]
    own = ordered if len(ordered) == count else [k for k in keys if not k.startswith(UNORDERED)]
    if len(own) != count:
        raise Refused(
            f"holds {len(own)} variables called {printable(path)}, and the global model has "
            f"{count}: nothing says which is which"
        )
    return sorted(own, key=lambda key: [int(number) for number in re.findall(r"\d+", key)])


def _weight_keys(
    path: str, keys: list[str], dtypes: Mapping[str, np.dtype], expected: ExpectedVariables
) -> list[str]:
    """Returns those keys of a path under which the values of a weight are stored."""
    keys = [key for key in keys if not key.startswith(METRICS)]
    if path in expected.paths:
        return keys  # some versions store a weight only under the optimizer
    if all(key.startswith(OPTIMIZER) for key in keys):
        return []
    return [key for key in keys if not is_server_variable(dtypes[key])]


def variable_graph(content: bytes) -> Any:
    """Parses the list of a checkpoint's objects, a protocol buffer."""
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    return TrackableObjectGraph.FromString(content)


def _keys_by_path(checkpoint: Any, shapes: dict[str, Any]) -> dict[str, list[str]]:
    """Returns the path of every variable → its keys in the checkpoint."""
    from google.protobuf.message import DecodeError

    if GRAPH not in shapes:
        raise Refused("is not a SavedModel of TensorFlow 2: its variables have no names")
    try:
        graph = variable_graph(checkpoint.get_tensor(GRAPH))
    except (DecodeError, TypeError) as error:
        raise Refused(f"has no readable list of variables: {error}") from None
    keys: dict[str, list[str]] = defaultdict(list)
    for node in graph.nodes:
        for attribute in node.attributes:
            if attribute.checkpoint_key not in shapes:
                raise Refused(f"lacks the values of {printable(attribute.full_name)}")
            keys[attribute.full_name].append(attribute.checkpoint_key)
    nameless = set(shapes) - {GRAPH} - {key for stored in keys.values() for key in stored}
    if nameless:
        raise Refused(f"holds {printable(min(nameless))}, for which it has no name")
    return keys
