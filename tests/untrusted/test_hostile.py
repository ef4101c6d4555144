"""Damaged and hostile files are refused with a reason, and no code in them runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from tffl.untrusted import ExpectedVariables, Refused, read_model, safe_files

from .models import WRITERS, build, by_path

Arrays = dict[str, np.ndarray]

RAN: list[str] = []


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def refusal(path: Path, expected: ExpectedVariables) -> str:
    with pytest.raises(Refused) as error:
        read_model(path, expected)
    reason = str(error.value)
    assert reason and "\n" not in reason
    return reason


@pytest.fixture
def arrays(client: keras.Model) -> Arrays:
    return {name: value.copy() for name, value in by_path(client).items()}


def keras_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=True)
    return stream.getvalue()


def h5_copy(source: Path, target: Path, expected: ExpectedVariables, skip: str = "") -> h5py.File:
    new = h5py.File(target, "w")
    with h5py.File(source) as old:
        for path in expected.h5_paths:
            if path != skip:
                new[path] = old[path][()]
    return new


KERNEL = "layers/conv2d/vars/0"

# --- variables -----------------------------------------------------------------------------------


def missing(a: Arrays) -> None:
    del a["conv/bias"], a["logits/bias"]


def unexpected(a: Arrays) -> None:
    a["logits/more\x1b[2J"] = np.zeros(3)


def wrong_shape(a: Arrays) -> None:
    a["conv/kernel"] = a["conv/kernel"][..., :1]


def same_size(a: Arrays) -> None:
    a["logits/kernel"] = a["logits/kernel"].T


def integers(a: Arrays) -> None:
    a["conv/bias"] = np.zeros(2, np.int32)


def nan(a: Arrays) -> None:
    a["logits/kernel"][1, 2] = np.nan


def infinity(a: Arrays) -> None:
    a["norm/beta"][0] = -np.inf


def too_large(a: Arrays) -> None:
    a["conv/bias"] = np.array([1e39, 0.0])


def negative(a: Arrays) -> None:
    a["norm/moving_variance"][1] = -1e-3


VARIABLES = [
    (missing, "lacks conv/bias and 1 more variables"),
    (unexpected, "holds logits/more\\x1b[2J, which the global model does not have"),
    (wrong_shape, "conv/kernel has shape (3, 3, 1, 1): it should be (3, 3, 1, 2)"),
    (same_size, "logits/kernel has shape (4, 12): it should be (12, 4)"),
    (integers, "conv/bias holds"),
    (nan, "logits/kernel holds NaN or infinity"),
    (infinity, "norm/beta holds NaN or infinity"),
    (too_large, "conv/bias holds NaN or infinity, as float32"),
    (negative, "norm/moving_variance holds a negative variance, -0.001"),
]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(("spoil", "reason"), VARIABLES)
def test_wrong_variables(spoil: Callable, reason: str, suffix: str, arrays, expected, tmp_path):
    spoil(arrays)
    path = tmp_path / f"bad{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path)
    assert reason in refusal(path, expected)


@pytest.mark.parametrize("name", ["saved.keras", "saved.weights.h5", "saved_model"])
def test_values_are_checked_in_every_format(name: str, client, expected, tmp_path):
    spoiled = build()
    weights = client.get_weights()
    weights[5][0] = -2
    spoiled.set_weights(weights)
    WRITERS[name](spoiled, tmp_path / name)
    assert "norm/moving_variance holds a negative" in refusal(tmp_path / name, expected)


@pytest.mark.parametrize("name", ["saved.keras", "saved.weights.h5", "exported"])
def test_a_model_with_other_layers(name: str, expected, tmp_path):
    images = keras.Input((6, 6, 1))
    flat = keras.layers.Flatten()(images)
    WRITERS[name](keras.Model(images, keras.layers.Dense(4, name="logits")(flat)), tmp_path / name)
    assert "lacks" in refusal(tmp_path / name, expected)


# --- what a path is ------------------------------------------------------------------------------


def test_only_regular_files_are_read(files: Path, expected, tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "link.npz").symlink_to(files / "named.npz")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.keras").touch()
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(1))
    assert refusal(tmp_path / "pipe.npz", expected) == "is a FIFO"
    assert "symbolic link" in refusal(tmp_path / "link.npz", expected)
    assert "is not a complete SavedModel: it lacks variables" in refusal(
        tmp_path / "folder", expected
    )
    assert refusal(tmp_path / "empty.keras", expected) == "is empty"
    assert "has no known format" in refusal(tmp_path / "model.pkl", expected)
    assert "No such file" in refusal(tmp_path / "absent.npz", expected)


@pytest.mark.parametrize("part", ["variables", "variables/variables.index"])
def test_links_inside_a_saved_model(part: str, files: Path, expected, tmp_path):
    (tmp_path / "m" / "variables").mkdir(parents=True)
    for name in ("variables.index", "variables.data-00000-of-00001"):
        source = files / "exported" / "variables" / name
        (tmp_path / "m" / "variables" / name).write_bytes(source.read_bytes())
    read_model(tmp_path / "m", expected)
    target = tmp_path / "m" / part
    target.rename(tmp_path / "moved")
    target.symlink_to(tmp_path / "moved")
    assert (
        refusal(tmp_path / "m", expected) == f"{part} is a symbolic link, which may lead anywhere"
    )


def test_a_file_that_changes_while_it_is_read(files: Path, expected, tmp_path, monkeypatch):
    path = tmp_path / "growing.npz"
    path.write_bytes((files / "named.npz").read_bytes())
    looked = safe_files._check_kind

    def append(what: os.stat_result, wanted: int, where: str) -> None:
        looked(what, wanted, where)
        with path.open("ab") as file:
            file.write(b"more")

    monkeypatch.setattr(safe_files, "_check_kind", append)
    assert refusal(path, expected) == "changed while it was read"


def test_a_file_that_is_too_large_is_not_read(expected, tmp_path):
    path = tmp_path / "sparse.npz"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert "has 1,048,576.0 MiB" in refusal(path, expected)


# --- zip archives --------------------------------------------------------------------------------


def test_zip_bombs(files: Path, expected, tmp_path):
    good = members(files / "named.npz")
    bomb = {**good, "conv/kernel.npy": bytes(1 << 26)}
    honest = keras_zip(tmp_path / "bomb.npz", bomb, zipfile.ZIP_DEFLATED)
    assert honest.stat().st_size < 1 << 17
    assert "inflates to 64.0 MiB" in refusal(honest, expected)

    liar = bytearray(honest.read_bytes())  # the table of contents says 160 bytes instead
    for at in range(len(liar)):
        if liar[at : at + 4] == struct.pack("<I", 1 << 26):
            liar[at : at + 4] = struct.pack("<I", 160)
    (tmp_path / "liar.npz").write_bytes(liar)
    assert "conv/kernel.npy is damaged" in refusal(tmp_path / "liar.npz", expected)


def test_an_archive_with_too_many_members(files: Path, expected, tmp_path):
    many = {f"{number}.npy": b"" for number in range(10_001)}
    assert "more than 10,000 members" in refusal(keras_zip(tmp_path / "many.npz", many), expected)
    whole = {**members(files / "saved.keras"), "config.json": b" " * ((1 << 22) + 1)}
    path = keras_zip(tmp_path / "config.keras", whole, zipfile.ZIP_DEFLATED)
    assert "config.json has more than 4.0 MiB" in refusal(path, expected)


def test_members_with_unusual_names_or_compression(files: Path, expected, tmp_path):
    good = members(files / "named.npz")
    for name, reason in [
        ("../../evil.npy", "a path that leads outside"),
        ("/etc/evil.npy", "a path that leads outside"),
        ("note.txt", "holds note.txt, which is not an array"),
    ]:
        path = keras_zip(tmp_path / "odd.npz", {**good, name: b"x"})
        assert reason in refusal(path, expected)
    assert not (tmp_path.parent / "evil.npy").exists()
    packed = keras_zip(tmp_path / "lzma.npz", good, zipfile.ZIP_LZMA)
    assert "packed in an unusual way" in refusal(packed, expected)


def test_a_repeated_npz_member(files: Path, expected, tmp_path):
    path = tmp_path / "twice.npz"
    with pytest.warns(UserWarning), zipfile.ZipFile(path, "w") as archive:
        for name, content in [*members(files / "named.npz").items()] * 2:
            archive.writestr(name, content)
    assert "holds conv/kernel.npy twice" in refusal(path, expected)


def test_a_repeated_safetensors_variable(files: Path, expected, tmp_path):
    content = (files / "named.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].rstrip()
    entry = json.dumps(json.loads(header)["conv/bias"]).encode()
    header = header[:-1] + b', "conv/bias": ' + entry + b"}"
    path = tmp_path / "twice.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    assert refusal(path, expected) == "holds conv/bias twice"


# --- NumPy ---------------------------------------------------------------------------------------


def test_pickles_are_not_executed(files: Path, expected, tmp_path):
    evidence = tmp_path / "executed"
    payload = np.array([Payload(evidence)] * 2, dtype=object)
    np.savez(tmp_path / "a.npz", allow_pickle=True, **{"conv/bias": payload})
    arrays = {**members(files / "named.npz"), "conv/bias.npy": npy(payload)}
    keras_zip(tmp_path / "b.npz", arrays)
    raw = pickle.dumps(Payload(evidence))
    keras_zip(tmp_path / "c.npz", {**arrays, "conv/bias.npy": raw})
    for name in ("d.npz", "d.keras", "d.weights.h5", "d.safetensors", "d.npy"):
        (tmp_path / name).write_bytes(raw)
    assert "Python objects (a pickle)" in refusal(tmp_path / "b.npz", expected)
    assert "no readable NumPy header" in refusal(tmp_path / "c.npz", expected)
    for path in sorted(tmp_path.iterdir()):
        refusal(path, expected)
    assert not evidence.exists()
    pickle.loads(raw)  # so would it have shown
    assert evidence.exists()


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999)}", "has shape"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}", "has shape"),
        ("{'descr': '<f16', 'fortran_order': False, 'shape': (2,)}", "holds float128"),
        ("{'descr': '<c8', 'fortran_order': False, 'shape': (2,)}", "holds complex64"),
        ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}", "it should be float"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}" + " " * 20_000, "no readable"),
        ("__import__('os').mkdir('executed')", "no readable NumPy header"),
        ("(" * 3000, "no readable NumPy header"),
    ],
)
def test_numpy_headers(header: str, reason: str, files: Path, expected, tmp_path):
    encoded = header.encode() + b"\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(encoded)) + encoded + bytes(8)
    path = tmp_path / "bad.npz"
    keras_zip(path, {**members(files / "named.npz"), "conv/bias.npy": content})
    assert reason in refusal(path, expected)


def test_arrays_longer_or_shorter_than_their_header(files: Path, expected, tmp_path):
    content = members(files / "named.npz")["conv/bias.npy"]
    for changed in (content + b"1234", content[:-4]):
        path = tmp_path / "bad.npz"
        keras_zip(path, {**members(files / "named.npz"), "conv/bias.npy": changed})
        assert "do not fit its header" in refusal(path, expected)


def test_positions_and_names_cannot_be_mixed(arrays: Arrays, expected, tmp_path):
    values = list(arrays.values())
    np.savez(tmp_path / "few.npz", *values[:-1])
    np.savez(tmp_path / "many.npz", *values, values[0])
    np.savez(tmp_path / "both.npz", values[0], **dict(list(arrays.items())[1:]))
    assert "lacks arr_9" in refusal(tmp_path / "few.npz", expected)
    assert "holds arr_10, which" in refusal(tmp_path / "many.npz", expected)
    assert "lacks arr_1" in refusal(tmp_path / "both.npz", expected)


# --- HDF5 ----------------------------------------------------------------------------------------


@pytest.fixture
def h5(files: Path, expected: ExpectedVariables, tmp_path: Path):
    """Writes a `.weights.h5` whose first array is what a function makes of it."""

    def write(spoil: Callable[[h5py.File, np.ndarray], None], wrapped: bool) -> Path:
        path = tmp_path / "bad.weights.h5"
        with h5py.File(files / "saved.weights.h5") as old:
            kernel = old[KERNEL][()]
        with h5_copy(files / "saved.weights.h5", path, expected, skip=KERNEL) as file:
            spoil(file, kernel)
        if not wrapped:
            return path
        whole = {**members(files / "saved.keras"), "model.weights.h5": path.read_bytes()}
        return keras_zip(tmp_path / "bad.keras", whole)

    return write


def external_link(file: h5py.File, kernel: np.ndarray) -> None:
    file[KERNEL] = h5py.ExternalLink("/etc/passwd", "/kernel")


def soft_link(file: h5py.File, kernel: np.ndarray) -> None:
    file[KERNEL] = h5py.SoftLink("/layers/dense/vars/0")


def external_storage(file: h5py.File, kernel: np.ndarray) -> None:
    file.create_dataset(KERNEL, kernel.shape, "f4", external=[("/etc/passwd", 0, kernel.nbytes)])


def chunks(file: h5py.File, kernel: np.ndarray) -> None:
    file.create_dataset(KERNEL, data=kernel, chunks=True, compression="gzip")


def virtual(file: h5py.File, kernel: np.ndarray) -> None:
    layout = h5py.VirtualLayout(kernel.shape, "f4")
    layout[...] = h5py.VirtualSource("/etc/passwd", "kernel", kernel.shape)
    file.create_virtual_dataset(KERNEL, layout)


def never_written(file: h5py.File, kernel: np.ndarray) -> None:
    file.create_dataset(KERNEL, kernel.shape, "f4", fillvalue=1.0)


def huge(file: h5py.File, kernel: np.ndarray) -> None:
    file.create_dataset(KERNEL, (1 << 40, 1 << 10), "f4")


def alias(file: h5py.File, kernel: np.ndarray) -> None:
    file[KERNEL] = kernel
    del file["layers/conv2d/vars/1"]
    file["layers/conv2d/vars/1"] = file["layers/dense/vars/1"]


def text(file: h5py.File, kernel: np.ndarray) -> None:
    file[KERNEL] = np.full(kernel.shape, b"text")


def references(file: h5py.File, kernel: np.ndarray) -> None:
    file.create_dataset(KERNEL, kernel.shape, h5py.ref_dtype)


def group(file: h5py.File, kernel: np.ndarray) -> None:
    file.create_group(KERNEL)


def cycle(file: h5py.File, kernel: np.ndarray) -> None:
    file[KERNEL] = kernel
    file["layers/dense/again"] = file["layers"]


def datatype(file: h5py.File, kernel: np.ndarray) -> None:
    file[KERNEL] = np.dtype("f4")


def more(file: h5py.File, kernel: np.ndarray) -> None:
    file[KERNEL] = kernel
    file["layers/dense_1/vars/0"] = kernel


H5 = [
    (external_link, f"{KERNEL} is a link to another place"),
    (soft_link, f"{KERNEL} is a link to another place"),
    (external_storage, "conv/kernel is stored in another file"),
    (chunks, "conv/kernel is stored in chunks or virtually"),
    (virtual, "conv/kernel is stored in chunks or virtually"),
    (never_written, "conv/kernel is incomplete"),
    (huge, "conv/kernel has shape (1099511627776, 1024): it should be"),
    (alias, "conv/bias and logits/bias are the same array"),
    (text, "conv/kernel holds"),
    (references, "conv/kernel holds Python objects"),
    (group, f"lacks {KERNEL}"),
    (cycle, "a group that contains itself"),
    (datatype, f"{KERNEL} is neither a group nor an array"),
    (more, "holds layers/dense_1/vars/0, which the global model does not have"),
]


@pytest.mark.parametrize("wrapped", [False, True], ids=["h5", "keras"])
@pytest.mark.parametrize(("spoil", "reason"), H5)
def test_hostile_hdf5(spoil: Callable, reason: str, wrapped: bool, h5: Callable, expected):
    assert reason in refusal(h5(spoil, wrapped), expected)


# --- Keras ---------------------------------------------------------------------------------------


def test_a_lambda_layer_is_named_and_never_executed(expected, tmp_path):
    def execute(x):
        RAN.append("lambda")
        return x

    images = keras.Input((6, 6, 1))
    model = keras.Model(images, keras.layers.Lambda(execute)(images))
    RAN.clear()
    model.save(tmp_path / "evil.keras")
    reason = refusal(tmp_path / "evil.keras", expected)
    assert reason.startswith("config.json names keras:Lambda, which the global model does not have")
    assert RAN == []


def test_a_lambda_layer_beside_the_right_weights(files: Path, expected, tmp_path):
    good = members(files / "saved.keras")
    config = json.loads(good["config.json"])
    function = {"class_name": "__lambda__", "config": {"value": "4wAAAAAAAA"}}
    config["config"]["layers"][0]["config"]["function"] = function
    path = keras_zip(tmp_path / "e.keras", {**good, "config.json": json.dumps(config).encode()})
    assert "config.json names keras:__lambda__, which the global model does not have" in refusal(
        path, expected
    )


def layer(module: str | None, name: str, config: object = None, **more: object) -> dict:
    return {"module": module, "class_name": name, "config": config, **more}


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        (layer("os", "function", "getcwd"), "os:function getcwd"),
        (layer("builtins", "function", "exec"), "builtins:function exec"),
        (layer("keras.losses", "function", "deserialize"), "keras:function deserialize"),
        (layer("keras.utils", "function", "get_file"), "keras:function get_file"),
        (layer("keras.layers", "TFSMLayer", {}), "keras:TFSMLayer"),
        (layer("keras.layers", "TorchModuleWrapper", {}), "keras:TorchModuleWrapper"),
        (layer("subprocess", "Conv2D", {}), "subprocess:Conv2D"),
        (layer("keras.optimizers.evil", "Adam", {}), "keras:Adam"),
        (layer(None, "TFOpLambda", {}), "keras:TFOpLambda"),
        (layer("keras.layers", "Dense", {}, registered_name="their>Own"), "their>Own"),
        (layer("tensorflow", "__typespec__", [], spec_name="TensorSpec"), "tensorflow:__typespec"),
        ({"module": "os", "config": "getcwd"}, "os:None"),
    ],
)
@pytest.mark.parametrize("place", ["layer", "activation", "compile_config"])
def test_a_config_may_name_only_what_the_global_model_names(
    entry: dict, named: str, place: str, files: Path, expected, tmp_path
):
    good = members(files / "saved.keras")
    config = json.loads(good["config.json"])
    if place == "layer":
        config["config"]["layers"].append(entry)
    elif place == "activation":
        config["config"]["layers"][1]["config"]["activation"] = entry
    else:
        config["compile_config"] = {"metrics": [[entry]]}
    path = keras_zip(tmp_path / "e.keras", {**good, "config.json": json.dumps(config).encode()})
    reason = refusal(path, expected)
    assert f"config.json names {named}" in reason and "the global model does not have" in reason


def test_a_client_may_compile_the_model(expected, vector, client, tmp_path):
    other = build()
    other.set_weights(client.get_weights())
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    losses = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    metrics = [keras.metrics.SparseCategoricalAccuracy(), keras.metrics.mean_absolute_error]
    other.compile(keras.optimizers.AdamW(schedule), losses, metrics=metrics)
    other.save(tmp_path / "other.keras")
    np.testing.assert_array_equal(read_model(tmp_path / "other.keras", expected), vector)


def test_configs_of_other_versions_of_keras(files: Path, expected, vector, tmp_path):
    """Keras 3.3 writes dtype policies as text; Keras 2 keeps its classes in other modules."""

    def older(value: object) -> object:
        if isinstance(value, list):
            return [older(one) for one in value]
        if not isinstance(value, dict):
            return value
        if value.get("class_name") == "DTypePolicy":
            return value["config"]["name"]
        moved = {"keras.src.models.functional": "keras.src.engine.functional"}
        new = {key: older(one) for key, one in value.items()}
        return {**new, "module": moved.get(value["module"], value["module"])} if (
            "module" in value
        ) else new  # fmt: skip

    whole = members(files / "saved.keras")
    content = json.dumps(older(json.loads(whole["config.json"]))).encode()
    assert b"DTypePolicy" not in content and b"engine.functional" in content
    path = keras_zip(tmp_path / "old.keras", {**whole, "config.json": content})
    np.testing.assert_array_equal(read_model(path, expected), vector)


@pytest.mark.parametrize("name", ["assets/x.py", "__init__.py", "variables/variables.index"])
def test_members_that_keras_does_not_write(name: str, files: Path, expected, tmp_path):
    path = keras_zip(tmp_path / "more.keras", {**members(files / "saved.keras"), name: b"1"})
    assert refusal(path, expected) == f"holds {name}, which Keras does not write for this model"


def test_a_whole_model_in_the_old_format(files: Path, client, expected, tmp_path):
    """`load_model` would run the code in a `model_config`."""
    path = shutil.copy(files / "saved.weights.h5", tmp_path / "more.weights.h5")
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Lambda"})
    client.save(tmp_path / "whole.h5")
    for name in ("more.weights.h5", "whole.h5"):
        assert "has an attribute model_config" in refusal(tmp_path / name, expected)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (b"[" * 100_000, "not readable JSON"),
        (b"\xff\xfe{", "not readable"),
        (None, "it lacks config"),
    ],
)
def test_keras_configs(config: bytes | None, reason: str, files: Path, expected, tmp_path):
    whole = members(files / "saved.keras")
    del whole["config.json"]
    if config is not None:
        whole["config.json"] = config
    assert reason in refusal(keras_zip(tmp_path / "bad.keras", whole), expected)


# --- safetensors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1, 1 << 20])
def test_safetensors_headers(length: int, files: Path, expected, tmp_path):
    content = (files / "named.safetensors").read_bytes()
    path = tmp_path / "bad.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + content[8:])
    assert f"its header has {length:,} bytes" in refusal(path, expected)


def test_safetensors_huge_shape_and_other_dtype(files: Path, expected, tmp_path):
    content = (files / "named.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    for change in ({"shape": [1 << 40, 1 << 20]}, {"dtype": "BF16"}, {"dtype": "F1"}):
        header = json.loads(content[8 : 8 + length])
        header["conv/bias"].update(change)
        encoded = json.dumps(header).encode()
        path = tmp_path / "bad.safetensors"
        path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content[8 + length :])
        refusal(path, expected)


# --- SavedModel ----------------------------------------------------------------------------------


def test_the_graph_of_a_saved_model_is_never_opened(files: Path, expected, vector, tmp_path):
    path = shutil.copytree(files / "exported", tmp_path / "m")
    (path / "saved_model.pb").unlink()
    (path / "saved_model.pb").mkdir()
    np.testing.assert_array_equal(read_model(path, expected), vector)


def test_a_saved_model_without_its_values(files: Path, expected, tmp_path):
    path = shutil.copytree(files / "exported", tmp_path / "m")
    data = path / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-100])
    refusal(path, expected)
    (path / "variables" / "variables.index").write_bytes(b"no index")
    assert "is not a readable SavedModel" in refusal(path, expected)
