"""Files of unusual models: shared paths, counters, other precisions, and those of tf-keras."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from tffl.defenses import create_defense
from tffl.scan.scanner import Scanner
from tffl.untrusted import ExpectedVariables, Refused, read_model
from tffl.untrusted.global_model import load_global

from .models import WRITERS, build, by_path, trained, two_branches


@pytest.fixture(scope="module")
def expected_branches() -> ExpectedVariables:
    return ExpectedVariables.of(two_branches())


@pytest.mark.parametrize("name", WRITERS)
def test_variables_that_share_a_path(
    name: str, expected_branches: ExpectedVariables, tmp_path: Path
):
    client = trained(two_branches)
    client.get_layer("scale").count.assign(99)
    WRITERS[name](client, tmp_path / name)
    wanted = expected_branches.layout.flatten(client.get_weights())
    np.testing.assert_array_equal(read_model(tmp_path / name, expected_branches), wanted)


def test_names_of_variables_that_share_a_path(expected_branches: ExpectedVariables):
    names = [entry.name for entry in expected_branches.layout.entries]
    assert names == [
        "scale/mean", "scale/variance", "conv/kernel", "conv (2)/kernel", "conv (2)/bias",
        "logits/kernel", "logits/bias",
    ]  # fmt: skip
    assert len(set(expected_branches.h5_paths)) == len(names)


@pytest.mark.parametrize("count", [None, np.ones(5, np.int8), np.array(True), np.uint64(2**63)])
@pytest.mark.parametrize("kind", ["npz", "safetensors", "weights.h5"])
def test_integers_may_be_absent(kind, count, expected_branches: ExpectedVariables, tmp_path: Path):
    arrays = by_path(trained(two_branches))
    del arrays["scale/count"]
    more = {} if count is None else {"scale/count": np.asarray(count), "seen": np.asarray(count)}
    path = tmp_path / f"client.{kind}"
    if kind == "npz":
        np.savez(path, **arrays, **more)
    elif kind == "safetensors":
        save_file(arrays | more, path)
    else:
        places = dict(zip(arrays, expected_branches.h5_paths, strict=True))
        with h5py.File(path, "w") as file:
            for name, array in (arrays | more).items():
                file[places.get(name, f"layers/{name}")] = array
    wanted = np.concatenate([array.ravel() for array in arrays.values()])
    np.testing.assert_array_equal(read_model(path, expected_branches), wanted)


def test_an_export_without_one_of_two_variables(expected_branches: ExpectedVariables, tmp_path):
    model = two_branches()
    values = by_path(model)
    module = tf.Module()
    module.parts = [
        tf.Variable(value, name=name.replace(" (2)", ""))
        for name, value in values.items()
        if name != "conv (2)/kernel"
    ]
    tf.saved_model.save(module, str(tmp_path / "m"))
    with pytest.raises(Refused, match=r"holds 1 variables called conv/kernel.* model has 2"):
        read_model(tmp_path / "m", expected_branches)


def test_more_variables_than_one_bfloat16_digit_can_number():
    images = keras.Input((1, 1, 1))
    x = keras.layers.Flatten()(images)
    for number in range(135):
        x = keras.layers.Dense(1, name=f"dense{number}", dtype="bfloat16")(x)
    model = keras.Model(images, x)
    before = model.get_weights()
    expected = ExpectedVariables.of(model)
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)
    last = [f"layers/dense{end}/vars/{part}" for end in ("_133", "_134") for part in (0, 1)]
    assert list(expected.h5_paths[-4:]) == last


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "float64", "mixed_bfloat16"])
@pytest.mark.parametrize("name", WRITERS)
def test_other_precisions(policy: str, name: str, tmp_path: Path):
    def network() -> keras.Model:
        images = keras.Input((2, 2, 1))
        x = keras.layers.Flatten()(images)
        return keras.Model(images, keras.layers.Dense(3, name="logits", dtype=policy)(x))

    model, expected = network(), ExpectedVariables.of(network())
    model.set_weights([np.full_like(w, i + 0.5) for i, w in enumerate(model.get_weights())])
    if policy == "bfloat16" and name.endswith("safetensors"):
        arrays = {k: v.view(np.uint16) for k, v in by_path(model).items()}
        save_file(arrays, tmp_path / name)
        content = (tmp_path / name).read_bytes().replace(b'"U16"', b'"BF16"')
        header = int.from_bytes(content[:8], "little") + content.count(b"BF16")
        (tmp_path / name).write_bytes(header.to_bytes(8, "little") + content[8:])
    else:
        WRITERS[name](model, tmp_path / name)
    wanted = expected.layout.flatten(model.get_weights())
    np.testing.assert_array_equal(read_model(tmp_path / name, expected), wanted)


def test_bfloat16_is_refused_for_a_float32_model(tmp_path: Path):
    arrays = {k: v.astype(tf.bfloat16.as_numpy_dtype) for k, v in by_path(build()).items()}
    np.savez(tmp_path / "client.npz", **arrays)
    with pytest.raises(Refused, match=r"conv/kernel holds .V2: it should be float32"):
        read_model(tmp_path / "client.npz", ExpectedVariables.of(build()))


# What tf-keras writes.


def test_metrics_in_weights_file(files: Path, expected: ExpectedVariables, vector, tmp_path: Path):
    path = shutil.copy(files / "saved.weights.h5", tmp_path / "client.weights.h5")
    with h5py.File(path, "a") as file:
        file["metrics/mean/vars/0"] = np.float32(3)
        file["metrics/mean_metric_wrapper/vars/1"] = np.float32(3)
    np.testing.assert_array_equal(read_model(path, expected), vector)
    content = path.read_bytes()
    shutil.copy(files / "saved.keras", tmp_path / "client.keras")
    with zipfile.ZipFile(files / "saved.keras") as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(tmp_path / "client.keras", "w") as new:
        for name, member in members.items():
            new.writestr(name, content if name.endswith(".h5") else member)
    np.testing.assert_array_equal(read_model(tmp_path / "client.keras", expected), vector)
    with h5py.File(path, "a") as file:
        file["other/metrics/vars/0"] = np.float32(3)
    with pytest.raises(Refused, match="holds other/metrics/vars/0, which the global model"):
        read_model(path, expected)


class Metric(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.total, self.count = tf.Variable(1.5, name="total"), tf.Variable(2.0, name="count")


class Old(tf.Module):
    """A model as tf-keras saves it: nested layers without the model's name, metrics, counters."""

    def __init__(self, values: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.parts = [tf.Variable(v, name=k.removeprefix("in/")) for k, v in values.items()]
        self.flip = tf.Variable([1, 2, 3], dtype=tf.int64, name="flip/StateVar")
        self.optimizer = tf.Module()
        self.optimizer.rate = tf.Variable(0.1, name="learning_rate")
        self.optimizer.steps = tf.Variable(8, dtype=tf.int64, name="iteration")
        self.keras_api = tf.Module()
        self.keras_api.metrics = [Metric(), Metric()]


@pytest.fixture
def old(client: keras.Model, tmp_path: Path) -> Path:
    tf.saved_model.save(Old(by_path(client)), str(tmp_path / "old"))
    return tmp_path / "old"


def test_a_saved_model_with_counters_and_metrics(old: Path, expected: ExpectedVariables, vector):
    np.testing.assert_array_equal(read_model(old, expected), vector)


def test_a_checkpoint_of_several_shards(
    old: Path, expected: ExpectedVariables, vector, tmp_path: Path
):
    """TensorFlow writes one file for each kind of device that holds variables."""
    reader = tf.train.load_checkpoint(f"{old}/variables/variables")
    names = sorted(reader.get_variable_to_shape_map())
    prefixes = []
    for number, part in enumerate((names[::2], names[1::2])):
        prefixes.append(str(tmp_path / f"part{number}"))
        tensors = [tf.constant(reader.get_tensor(name)) for name in part]
        tf.raw_ops.SaveV2(
            prefix=prefixes[-1], tensor_names=part, shape_and_slices=[""] * len(part),
            tensors=tensors,
        )  # fmt: skip
    shutil.rmtree(old / "variables")
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=prefixes,
        destination_prefix=f"{old}/variables/variables",
        delete_old_dirs=False,
    )
    np.testing.assert_array_equal(read_model(old, expected), vector)
    (old / "variables" / "variables.data-00001-of-00002").unlink()
    with pytest.raises(Refused, match=r"lacks variables/variables.data-00001-of-00002"):
        read_model(old, expected)
    (old / "variables" / "variables.data-00000-of-99999").touch()
    with pytest.raises(Refused, match="it has 99999 files with values"):
        read_model(old, expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_honest_files_of_a_model_with_normalization_are_not_suspect(dtype: str, tmp_path: Path):
    images = keras.Input((6, 6, 1))
    x = keras.layers.Normalization(name="scale")(images)
    x = keras.layers.Conv2D(2, 3, dtype=dtype, name="conv")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(images, keras.layers.Dense(3, dtype=dtype, name="logits")(x))
    model.save(tmp_path / "global.keras")
    (tmp_path / "inbox").mkdir()
    trusted = load_global(tmp_path / "global.keras")
    start = trusted.get_weights()
    generator = np.random.default_rng(0)
    for number in range(6):
        noise = [generator.normal(0, 0.1, np.shape(w)).astype(w.dtype) for w in start]
        noise = [np.asarray(number) if part.dtype.kind == "i" else part for part in noise]
        model.set_weights([w + part for w, part in zip(start, noise, strict=True)])
        end = ("keras", "weights.h5")[number % 2]
        (model.save if end == "keras" else model.save_weights)(tmp_path / f"inbox/{number}.{end}")
    scanner = Scanner(trusted, {"update-consensus": create_defense("update-consensus", {})})
    scan = scanner.scan(tmp_path / "inbox")
    assert scan.folder.refused == {} and scan.unjudged == {} and scan.suspects == []
