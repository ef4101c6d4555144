"""Files of a model's weights, the user's own: `model.weights` of an experiment, and what is saved.

Variables are matched by their names. Files from a model whose layers Keras has named by itself, as
in `dense_3`, are matched by order where all shapes agree; `.safetensors` files keep no order.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tffl.core.atomic import replacing
from tffl.core.errors import TfflError, UsageError, first_line, require
from tffl.core.layout import WeightLayout, is_floating
from tffl.models.layers import set_weights

if TYPE_CHECKING:
    import keras

ENDINGS = (".keras", ".weights.h5", ".npz", ".safetensors")

SORTED = ".safetensors"
"""These files do not keep the order of their arrays."""

Arrays = Mapping[str, np.ndarray]
"""Name of a variable → its value, in the file's order."""


def check_weights_path(path: Path, key: str) -> None:
    """Raises `UsageError` unless a file name ends in one of `ENDINGS`; `key` is what names it."""
    require(
        path.name.lower().endswith(ENDINGS),
        f"{key} = {path} is not allowed: it should end in {', '.join(ENDINGS)}",
    )


def check_weights_file(path: Path) -> None:
    """Checks, without TensorFlow, that there is a file of weights.

    Raises:
      UsageError: There is none, or its name has another ending.
    """
    check_weights_path(path, "model.weights")
    require(path.is_file(), f"there is no file {path}: check model.weights")


def load_weights(
    model: keras.Model, path: Path, head: Literal["loaded", "random"] = "loaded"
) -> None:
    """Sets the weights of a model from a file; integer and boolean variables keep their values.

    Args:
      model: A built model.
      path: The file.
      head: If `random`, the last layer keeps its weights, and may have another size in the file.

    Raises:
      UsageError: The file cannot be read, or is of another architecture.
    """
    check_weights_file(path)
    what = f"model.weights = {path}"
    try:
        arrays = _read(path, model)
    except TfflError:
        raise
    except Exception as error:  # every library fails differently on other files
        raise UsageError(f"{what} cannot be read: {first_line(error)}") from error
    layout = WeightLayout.of(model)
    kept = layout.final_layer if head == "random" else ""
    ordered = not path.name.lower().endswith(SORTED)
    found = _matched(layout, arrays, f"{what} does not fit {model.name}", kept, ordered)
    vector = layout.flatten(model.get_weights())
    for entry in layout.entries:
        if entry.layer == kept:
            continue
        values = found[entry.name].astype(np.float32)
        require(bool(np.isfinite(values).all()), f"{what}: {entry.name} holds NaN or infinity")
        vector[layout[entry.name]] = values.ravel()
    set_weights(model, layout.unflatten(vector))


def about_path(path: Path) -> Path:
    """Returns the JSON file beside a file of weights that says how `tffl pretrain` made them."""
    return path.with_name(f"{path.name}.json")


def other_normalization(path: Path, normalization: str) -> str:
    """Says that weights were trained on images of another normalization; empty if not, or unknown.

    Args:
      path: The file of weights.
      normalization: The `data.normalization` of the experiment that starts from them.
    """
    try:
        made = json.loads(about_path(path).read_text())["data"].get("normalization", "none")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ""  # from elsewhere
    if made == normalization:
        return ""
    return (
        f"model.weights = {path} were trained with data.normalization = {made!r}, and this is "
        f"{normalization!r}: the model sees other inputs than those it was trained on"
    )


def save_weights(model: keras.Model, path: Path) -> None:
    """Writes the weights of a model, and with `.keras` the whole model.

    Raises:
      TfflError: The file cannot be written.
    """
    with replacing(path) as temporary:
        ending = next(ending for ending in ENDINGS if path.name.lower().endswith(ending))
        if ending == ".keras":
            model.save(temporary)
        elif ending == ".weights.h5":
            model.save_weights(temporary)
        else:
            _save_arrays(WeightLayout.of(model), model.get_weights(), temporary, ending)


def _save_arrays(layout: WeightLayout, weights: list[np.ndarray], path: Path, ending: str) -> None:
    pairs = zip(layout.entries, layout.positions, strict=True)
    arrays = {entry.name: np.asarray(weights[position]) for entry, position in pairs}
    if ending == ".safetensors":
        from safetensors.numpy import save_file

        save_file(arrays, path)
        return
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _read(path: Path, model: keras.Model) -> Arrays:
    name = path.name.lower()
    if name.endswith(".keras"):
        return _of_keras(path)
    if name.endswith(".weights.h5"):
        return _of_h5(path, model)
    if name.endswith(".safetensors"):
        from safetensors.numpy import load_file

        return dict(load_file(path))
    # NumPy would take any other file for a pickle, and advise to load it.
    require(zipfile.is_zipfile(path), f"model.weights = {path} cannot be read: it is no .npz file")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _of_keras(path: Path) -> Arrays:
    from tffl.models.file import load_model_file

    saved = load_model_file(path, f"model.weights = {path}")
    layout = WeightLayout.of(saved)
    pairs = zip(layout.entries, layout.positions, strict=True)
    weights = saved.get_weights()
    return {entry.name: weights[position] for entry, position in pairs}


def _of_h5(path: Path, model: keras.Model) -> Arrays:
    """Reads a weights file; its paths come from the classes of layers, not from their names."""
    import h5py

    from tffl.untrusted.h5_paths import h5_paths_of, weight_datasets

    layout = WeightLayout.of(model)
    names = dict(zip(h5_paths_of(model), (entry.name for entry in layout.entries), strict=True))
    with h5py.File(path, "r") as file:
        return {names.get(where, where): values[()] for where, values in weight_datasets(file)}


def _matched(
    layout: WeightLayout, arrays: Arrays, refusal: str, kept: str, ordered: bool
) -> Arrays:
    """Returns name → value of every variable but those of the layer `kept`.

    Args:
      layout: Of the model.
      arrays: Of the file.
      refusal: Begins the message.
      kept: Name of a layer that is left out; empty for none.
      ordered: Whether the file has the variables in the model's order.

    Raises:
      UsageError: A variable is missing or has another shape, or the file has more.
    """
    floating = {name: value for name, value in arrays.items() if is_floating(value)}
    found = _by_order(layout, floating, kept) if ordered else floating
    for entry in layout.entries:
        if entry.layer == kept:
            continue
        require(entry.name in found, f"{refusal}: it lacks {entry.name} {list(entry.shape)}")
        have = found[entry.name].shape
        head = entry.layer == layout.final_layer
        require(
            have == entry.shape,
            f"{refusal}: {entry.name} is {list(have)} there, {list(entry.shape)} here"
            + (", so set model.head = 'random'" if head and not kept else ""),
        )
    names = {entry.name for entry in layout.entries}
    more = [name for name in found if name not in names]
    require(not more or bool(kept), f"{refusal}: it holds {', '.join(more[:3])} too")
    return found


def _by_order(layout: WeightLayout, arrays: Arrays, kept: str) -> Arrays:
    """Names values by their order, where the names differ and all shapes agree."""
    names = [entry.name for entry in layout.entries]
    if set(names) == set(arrays) or len(names) != len(arrays):
        return arrays
    values = list(arrays.values())
    if all(name.startswith("arr_") for name in arrays):  # np.savez(file, *model.get_weights())
        values = [arrays[name] for name in sorted(arrays, key=lambda name: int(name[4:]))]
    agree = (
        value.shape == entry.shape or entry.layer == kept
        for value, entry in zip(values, layout.entries, strict=True)
    )
    return dict(zip(names, values, strict=True)) if all(agree) else arrays
