"""Hostile model files: made of sound ones, and what `tffl.untrusted` may make of them."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hypothesis import strategies as st
from safetensors import SafetensorError

from tffl.untrusted import ExpectedVariables, Refused, read_model

from .outcome import NotFinite, Outcome, attempt, demand

Arrays = dict[str, np.ndarray]

INDEX, DATA = "variables/variables.index", "variables/variables.data-00000-of-00001"
WEIGHTS = "model.weights.h5"

SUFFIXES = {
    "keras": ".keras",
    "weights.h5": ".weights.h5",
    "npz": ".npz",
    "safetensors": ".safetensors",
    "SavedModel": "",
}
"""Format → how its files are named; a SavedModel is a folder."""

SOUND = {
    "keras": "saved.keras",
    "weights.h5": "saved.weights.h5",
    "npz": "named.npz",
    "safetensors": "named.safetensors",
}


@dataclass(frozen=True)
class Corpus:
    """Sound files of one client, of which hostile ones are made.

    Attributes:
      folder: Where they are, as `SOUND` calls them, and `saved_model/`.
      expected: Of the global model.
      arrays: The client's variables by name.
    """

    folder: Path
    expected: ExpectedVariables
    arrays: Mapping[str, np.ndarray]

    @classmethod
    def make(cls, folder: Path) -> Corpus:
        """Writes the sound files."""
        from untrusted.models import WRITERS, build, by_path, trained

        model = trained()
        for name in (*SOUND.values(), "saved_model"):
            WRITERS[name](model, folder / name)
        return cls(folder, ExpectedVariables.of(build()), by_path(model))

    def sound(self, kind: str) -> dict[str, bytes]:
        """Returns the parts of the sound file: one, or index and data of a SavedModel."""
        return _sound(self.folder, kind)


@cache
def _sound(folder: Path, kind: str) -> dict[str, bytes]:
    if kind == "SavedModel":
        return {part: (folder / "saved_model" / part).read_bytes() for part in (INDEX, DATA)}
    return {"": (folder / SOUND[kind]).read_bytes()}


# --- bytes ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Damage:
    """What happened to the bytes: bits flipped, the end lost, something added, parts moved."""

    flips: tuple[tuple[int, int], ...] = ()
    kept: float | None = None
    added: bytes = b""
    moved: tuple[int, int, int] | None = None

    def of(self, content: bytes) -> bytes:
        result = bytearray(content)
        for place, bit in self.flips:
            result[place % len(result)] ^= 1 << bit
        if self.moved is not None:
            source, target, length = (number % len(result) for number in self.moved)
            result[target : target + length] = result[source : source + length]
        if self.kept is not None:
            result = result[: int(self.kept * len(result))]
        return bytes(result) + self.added


flips = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 7)), max_size=8).map(tuple)
damages = st.builds(
    Damage,
    flips=flips,
    kept=st.one_of(st.none(), st.none(), st.floats(0, 1)),
    added=st.one_of(st.just(b""), st.binary(max_size=16)),
    moved=st.one_of(st.none(), st.tuples(*[st.integers(0, 1 << 20)] * 2, st.integers(0, 64))),
)

# --- variables -----------------------------------------------------------------------------------

VALUES = [
    *(np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 1e-320, -1e-30),
    *(65504.0, 65536.0, 1e38, -1e38, 3.4028235e38, 3.4028236e38, 1e39, -1e300),
]
DTYPES = [
    *("<f2", "<f4", "<f8", ">f2", ">f4", ">f8"),
    *("<i4", "|u1", "|b1", "<c8", "<f16", "|S4", "<M8[s]"),
]


@dataclass(frozen=True)
class Edit:
    """What is wrong with one variable, or only unusual; `which` and `where` are taken modulo."""

    kind: str
    which: int
    where: int
    value: float
    dtype: str

    def of(self, arrays: Arrays) -> Arrays:
        names = list(arrays)
        if not names:
            return arrays
        name, other = names[self.which % len(names)], names[self.where % len(names)]
        result = dict(arrays)
        array = result[name]
        if self.kind == "missing":
            del result[name]
        elif self.kind == "more":
            result[f"{name}_{self.where}"] = array
        elif self.kind == "renamed":
            result = {(f"{k}x" if k == name else k): v for k, v in result.items()}
        elif self.kind == "exchanged":
            result[name], result[other] = result[other], array
        elif self.kind == "flat":
            result[name] = array.reshape(-1)
        elif self.kind == "turned":
            result[name] = np.ascontiguousarray(array.T)
        elif self.kind == "nested":
            result[name] = array[None]
        elif self.kind == "longer":
            result[name] = np.concatenate([array, array])
        elif self.kind == "empty":
            result[name] = array[:0]
        elif self.kind == "dtype":
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result[name] = array.astype(self.dtype)
        elif self.kind == "value" and array.dtype.kind == "f" and array.size:
            changed = array.copy()
            with np.errstate(all="ignore"):
                changed.flat[self.where % array.size] = self.value
            result[name] = changed
        return result


EDITS = (
    *("value", "value", "dtype", "missing", "more", "renamed", "exchanged"),
    *("flat", "turned", "nested", "longer", "empty"),
)
edits = st.builds(
    Edit,
    st.sampled_from(EDITS),
    st.integers(0, 9),
    st.integers(0, 200),
    st.one_of(st.sampled_from(VALUES), st.floats()),
    st.sampled_from(DTYPES),
)


def right(arrays: Mapping[str, np.ndarray], expected: ExpectedVariables) -> np.ndarray | None:
    """Returns the weights that sound arrays are, float32 `[d]`; None if they are not sound."""
    entries = expected.layout.entries
    if set(arrays) != {entry.name for entry in entries}:
        return None
    parts = []
    for entry in entries:
        array = arrays[entry.name]
        if array.dtype.newbyteorder("=") not in (np.float16, np.float32, np.float64):
            return None
        if array.shape != entry.shape:
            return None
        with np.errstate(all="ignore"):
            parts.append(array.astype(np.float32).reshape(-1))
        if entry.name.endswith("variance") and (parts[-1] < 0).any():
            return None
    whole = np.concatenate(parts)
    return whole if np.isfinite(whole).all() else None


# --- formats -------------------------------------------------------------------------------------


def zipped(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore")  # that a name is there twice
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return stream.getvalue()


def unzipped(content: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def write(kind: str, arrays: Arrays, corpus: Corpus) -> dict[str, bytes]:
    """Returns the parts of a file that holds some arrays.

    Raises:
      TypeError, ValueError, KeyError: No file of this kind can hold them.
    """
    if kind == "npz":
        stream = io.BytesIO()
        np.savez(stream, **arrays)  # type: ignore[arg-type]
        return {"": stream.getvalue()}
    if kind == "safetensors":
        from safetensors.numpy import save

        return {"": save({name: np.array(array, order="C") for name, array in arrays.items()})}
    if kind == "SavedModel":
        return _checkpoint(arrays, corpus)
    content = _h5(lambda file, name, array: file.create_dataset(name, data=array), arrays, corpus)
    if kind == "weights.h5":
        return {"": content}
    members = dict(unzipped(corpus.sound("keras")[""]))
    return {"": zipped([*{**members, WEIGHTS: content}.items()])}


def _h5(create: Callable[[Any, str, np.ndarray], Any], arrays: Arrays, corpus: Corpus) -> bytes:
    entries, paths = corpus.expected.layout.entries, corpus.expected.h5_paths
    places = {entry.name: path for entry, path in zip(entries, paths, strict=True)}
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, array in arrays.items():
            create(file, places.get(name, f"layers/more/{name}"), array)
    return stream.getvalue()


def _checkpoint(arrays: Arrays, corpus: Corpus) -> dict[str, bytes]:
    """Writes index and data anew, with the graph of names that the sound SavedModel has."""
    import tempfile

    import tensorflow as tf

    with tempfile.TemporaryDirectory(prefix="tffl-") as folder:
        tensors = _tensors(corpus)
        keys = _keys(corpus)
        for name in set(keys) - set(arrays):
            for key in keys[name]:
                del tensors[key]
        for name, array in arrays.items():
            for key in keys.get(name, [f"{name}/.ATTRIBUTES/VARIABLE_VALUE"]):
                tensors[key] = tf.constant(array.astype(array.dtype.newbyteorder("=")))
        prefix = f"{folder}/variables"
        slices = [""] * len(tensors)
        tf.raw_ops.SaveV2(
            prefix=prefix,
            tensor_names=list(tensors),
            shape_and_slices=slices,
            tensors=list(tensors.values()),
        )
        return {part: (Path(folder) / Path(part).name).read_bytes() for part in (INDEX, DATA)}


def _tensors(corpus: Corpus) -> dict[str, Any]:
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(corpus.folder / "saved_model" / "variables/variables"))
    return {key: tf.constant(reader.get_tensor(key)) for key in reader.get_variable_to_shape_map()}


@cache
def _keys_in(folder: Path) -> dict[str, tuple[str, ...]]:
    import tensorflow as tf
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    reader = tf.train.load_checkpoint(str(folder / "saved_model" / "variables/variables"))
    graph = TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    result: dict[str, tuple[str, ...]] = {}
    for node in graph.nodes:
        for attribute in node.attributes:
            name = attribute.full_name
            result[name] = (*result.get(name, ()), attribute.checkpoint_key)
    return result


def _keys(corpus: Corpus) -> dict[str, tuple[str, ...]]:
    """Name of a variable → its keys in the sound checkpoint."""
    names = {entry.name for entry in corpus.expected.layout.entries}
    return {name: keys for name, keys in _keys_in(corpus.folder).items() if name in names}


def plain(path: Path, kind: str, corpus: Corpus) -> np.ndarray:
    """Reads a file as its format's own library does, trusting all of it, float32 `[d]`."""
    entries, paths = corpus.expected.layout.entries, corpus.expected.h5_paths
    if kind == "SavedModel":
        import tensorflow as tf

        reader, keys = tf.train.load_checkpoint(str(path / "variables/variables")), _keys(corpus)
        arrays = [reader.get_tensor(keys[entry.name][0]) for entry in entries]
    elif kind == "npz":
        with np.load(path, allow_pickle=False) as file:
            arrays = [file[entry.name] for entry in entries]
    elif kind == "safetensors":
        from safetensors.numpy import load

        named = load(path.read_bytes())
        arrays = [named[entry.name] for entry in entries]
    else:
        content = path.read_bytes()
        if kind == "keras":
            content = zipfile.ZipFile(io.BytesIO(content)).read(WEIGHTS)
        with h5py.File(io.BytesIO(content)) as file:
            arrays = [file[where][()] for where in paths]
    with np.errstate(all="ignore"):
        return np.concatenate([array.astype(np.float32).reshape(-1) for array in arrays])


# --- containers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Twist:
    """What is odd about the container: `which` part of it, and a `number` to lie with."""

    kind: str
    which: int
    number: int
    text: str = ""


@cache
def _bomb() -> bytes:
    """An archive member that inflates beyond what any file of the tiny model may have."""
    return bytes(20 << 20)


NAMES = ["../evil.npy", "/etc/evil.npy", "a/../../b.npy", "..\\evil.npy", "note.txt", "\x1b[2J.npy"]
NUMBERS = [0, 1, 7, 255, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1]

ZIP_TWISTS = ("twice", "renamed", "more", "lzma", "deflated", "size", "bomb", "number")
H5_TWISTS = (
    *("soft", "external", "outside", "chunks", "packed", "virtual", "unwritten", "alias"),
    *("cycle", "group", "attribute", "huge", "number"),
)
HEADER_TWISTS = ("twice", "offsets", "shape", "dtype", "length", "metadata", "spaces", "number")
TWISTS = {
    "npz": ZIP_TWISTS,
    "keras": (*ZIP_TWISTS, "lambda", "deep"),
    "weights.h5": H5_TWISTS,
    "safetensors": HEADER_TWISTS,
    "SavedModel": ("number",),
}


def twist(kind: str, how: Twist, corpus: Corpus) -> dict[str, bytes]:
    """Returns the parts of a file with the client's arrays in an odd container."""
    sound = corpus.sound(kind)
    if how.kind == "number":  # four bytes anywhere say something else
        part = list(sound)[how.which % len(sound)]
        content = bytearray(sound[part])
        at = how.which % (len(content) - 4)
        content[at : at + 4] = struct.pack("<I", how.number)
        return {**sound, part: bytes(content)}
    if kind == "safetensors":
        return {"": _odd_header(sound[""], how)}
    if kind == "weights.h5":
        return {"": _odd_h5(how, corpus)}
    return {"": _odd_zip(sound[""], how)}


def _odd_zip(content: bytes, how: Twist) -> bytes:
    members, method = unzipped(content), zipfile.ZIP_STORED
    at = how.which % len(members)
    name, inner = members[at]
    if how.kind == "twice":
        members.append((name, inner))
    elif how.kind == "renamed":
        members[at] = (how.text, inner)
    elif how.kind == "more":
        members.append((how.text, b"x" * (how.number % 100)))
    elif how.kind in ("lzma", "deflated"):
        method = zipfile.ZIP_LZMA if how.kind == "lzma" else zipfile.ZIP_DEFLATED
    elif how.kind == "bomb":
        members[at], method = (name, _bomb()), zipfile.ZIP_DEFLATED
    elif how.kind == "lambda":
        code = {"class_name": "Lambda", "config": {"function": how.text}}
        config = json.dumps({"class_name": "Functional", "config": {"layers": [code]}})
        members = [(n, config.encode() if n == "config.json" else c) for n, c in members]
    elif how.kind == "deep":
        config = "[" * (how.number % 100_000)
        members = [(n, config.encode() if n == "config.json" else c) for n, c in members]
    result = bytearray(zipped(members, method))
    if how.kind == "size":  # the table of contents lies about one member
        entry = -1
        for _ in range(at + 1):
            entry = result.index(b"PK\x01\x02", entry + 1)
        field = entry + (20 if how.number % 2 else 24)
        result[field : field + 4] = struct.pack("<I", how.number)
    return bytes(result)


def _odd_h5(how: Twist, corpus: Corpus) -> bytes:
    paths = corpus.expected.h5_paths
    path, other = paths[how.which % len(paths)], paths[(how.which + 1) % len(paths)]

    def create(file: Any, where: str, array: np.ndarray) -> None:
        if where != path or how.kind in ("alias", "cycle", "group", "attribute"):
            file[where] = array
        elif how.kind == "soft":
            file[where] = h5py.SoftLink(other)
        elif how.kind == "external":
            file[where] = h5py.ExternalLink("/etc/passwd", "/kernel")
        elif how.kind == "outside":
            storage = [("/etc/passwd", 0, array.nbytes)]
            file.create_dataset(where, array.shape, "f4", external=storage)
        elif how.kind in ("chunks", "packed"):
            packed = {"compression": "gzip"} if how.kind == "packed" else {}
            file.create_dataset(where, data=array, chunks=array.shape, **packed)
        elif how.kind == "virtual":
            layout = h5py.VirtualLayout(array.shape, "f4")
            layout[...] = h5py.VirtualSource("/etc/passwd", "kernel", array.shape)
            file.create_virtual_dataset(where, layout)
        elif how.kind == "unwritten":
            file.create_dataset(where, array.shape, "f4", fillvalue=1.0)
        elif how.kind == "huge":
            file.create_dataset(where, (1 << 40, how.number + 1), "f4")

    stream = io.BytesIO(_h5(create, dict(corpus.arrays), corpus))
    with h5py.File(stream, "r+") as file:
        if how.kind == "alias":
            del file[path]
            file[path] = file[other]
        elif how.kind == "cycle":
            file["layers/again"] = file["layers"]
        elif how.kind == "group":
            file.create_group(f"layers/nothing{how.number}")
        elif how.kind == "attribute":
            file[path].attrs["more"] = how.text
    return stream.getvalue()


def _odd_header(content: bytes, how: Twist) -> bytes:
    length = int.from_bytes(content[:8], "little")
    pairs = list(json.loads(content[8 : 8 + length]).items())
    at = how.which % len(pairs)
    name, about = pairs[at]
    data = content[8 + length :]
    if how.kind == "twice":
        pairs.append((name, pairs[how.number % len(pairs)][1]))
    elif how.kind == "offsets" and "data_offsets" in about:
        begin, end = about["data_offsets"]
        moved = [[begin, how.number], [end, begin], [0, end - begin], [-1, end]]
        pairs[at] = (name, {**about, "data_offsets": moved[how.which % 4]})
    elif how.kind == "shape" and "shape" in about:
        shapes = [[how.number], [-1, *about["shape"]], [2**40, 2**40], [], None]
        pairs[at] = (name, {**about, "shape": shapes[how.which % 5]})
    elif how.kind == "dtype" and "dtype" in about:
        kinds = ["F64", "BF16", "I32", "F8_E4M3", "BOOL", "O", "", None]
        pairs[at] = (name, {**about, "dtype": kinds[how.number % 8]})
    elif how.kind == "metadata":
        pairs.append(("__metadata__", {"a": how.text}))
    header = "{" + ", ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in pairs) + "}"
    header += " " * (how.number % 1000) if how.kind == "spaces" else ""
    encoded = header.encode()
    told = how.number if how.kind == "length" else len(encoded)
    return struct.pack("<Q", told) + encoded + data


def twists(kind: str) -> st.SearchStrategy[Twist]:
    number = st.one_of(st.sampled_from(NUMBERS), st.integers(0, 2**32 - 1))
    text = st.one_of(st.sampled_from(NAMES), st.text(min_size=1, max_size=12))
    text = text.filter(lambda t: ("\0" not in t and t.isprintable()) or t in NAMES)
    return st.builds(Twist, st.sampled_from(TWISTS[kind]), st.integers(0, 1 << 16), number, text)


# --- cases ---------------------------------------------------------------------------------------

PLACES = ("link", "pipe", "folder", "empty", "links")
"""What lies there instead of a file; `links` are those to the parts of a SavedModel."""


@dataclass(frozen=True)
class Case:
    """One hostile file: its variables edited, or its container odd, or its bytes damaged."""

    edits: tuple[Edit, ...] = ()
    twist: Twist | None = None
    damage: Damage | None = None
    part: int = 0
    place: str = ""


def cases(kind: str) -> st.SearchStrategy[Case]:
    edited = st.builds(Case, edits=st.lists(edits, max_size=3).map(tuple))
    both = st.builds(
        Case, edits=st.lists(edits, max_size=1).map(tuple), damage=damages, part=st.integers(0, 1)
    )
    twisted = st.builds(Case, twist=twists(kind))
    damaged = st.builds(Case, damage=damages, part=st.integers(0, 1))
    placed = st.builds(Case, place=st.sampled_from(PLACES))
    pools = {"edits": edited, "twist": twisted, "damage": damaged, "both": both, "place": placed}
    chosen = st.sampled_from([*["edits", "twist", "damage"] * 6, "both", "place"])
    return chosen.flatmap(pools.__getitem__)


def examine(kind: str, case: Case, corpus: Corpus, folder: Path) -> Outcome | None:
    """Writes a case's file into a folder, and reads it; None if no file can be like that."""
    arrays = dict(corpus.arrays)
    for edit in case.edits:
        arrays = edit.of(arrays)
    try:
        parts = write(kind, arrays, corpus) if case.edits else dict(corpus.sound(kind))
        if case.twist:
            parts = twist(kind, case.twist, corpus)
    except (TypeError, ValueError, KeyError, NotImplementedError, SafetensorError):
        return None
    if case.damage:
        part = list(parts)[case.part % len(parts)]
        parts[part] = case.damage.of(parts[part])
    path = folder / f"client{SUFFIXES[kind]}"
    clear(path)
    place(path, parts, case.place)
    intact = not (case.twist or case.damage or case.place)
    return attempt(lambda: _read(path, kind, corpus, arrays if intact else None, case.place))


def examine_bytes(kind: str, content: bytes, corpus: Corpus, folder: Path) -> Outcome:
    """Reads a file with this content."""
    path = folder / f"client{SUFFIXES[kind]}"
    path.write_bytes(content)
    return attempt(lambda: _read(path, kind, corpus, None, ""))


def clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def place(path: Path, parts: Mapping[str, bytes], how: str = "") -> None:
    """Puts a file there, or what stands for it."""
    if how == "pipe":
        os.mkfifo(path)
        return
    if how == "folder":
        (path / "inner").mkdir(parents=True)
        return
    if how == "empty":
        parts = dict.fromkeys(parts, b"")
    aside = path.with_name("aside")
    clear(aside)
    target = aside if how in ("link", "links") else path
    for part, content in parts.items():
        file = target / part if part else target
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    if how == "links" and aside.is_dir():
        path.mkdir()
        (path / "variables").symlink_to(aside / "variables")
    elif how in ("link", "links"):
        path.symlink_to(aside)


def _read(path: Path, kind: str, corpus: Corpus, arrays: Arrays | None, placed: str) -> None:
    wanted = right(arrays, corpus.expected) if arrays is not None else None
    try:
        weights = read_model(path, corpus.expected)
    except Refused as refused:
        demand(wanted is None, f"a sound file is refused: {refused}")
        raise
    demand(not placed, f"{placed} is taken for a file")
    demand(arrays is None or wanted is not None, "variables that are not sound are accepted")
    well_formed(weights, corpus.expected)
    same = plain(path, kind, corpus) if wanted is None else wanted
    demand(np.array_equal(weights, same), "other weights are read than the file holds")


def well_formed(weights: np.ndarray, expected: ExpectedVariables) -> None:
    """Raises `Broken` unless these can be a client's weights."""
    if not np.isfinite(weights).all():
        raise NotFinite("weights are not finite")
    demand(weights.shape == (expected.layout.size,), f"weights have shape {weights.shape}")
    demand(weights.dtype == np.float32, f"weights are {weights.dtype}")
    for entry in expected.layout.entries:
        if entry.name.endswith("variance"):
            demand((weights[expected.layout[entry.name]] >= 0).all(), "a variance is negative")
