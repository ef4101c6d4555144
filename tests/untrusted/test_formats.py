"""Every format that Keras, NumPy and safetensors write is read as the same weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from tffl.models.lenet import lenet5
from tffl.models.resnet import resnet8
from tffl.untrusted import ExpectedVariables, Refused, printable, read_model
from tffl.untrusted.global_model import load_global
from tffl.untrusted.read import file_format

from .models import WRITERS, build, by_path


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_returns_the_exact_weights(name, files, expected, vector):
    read = read_model(files / name, expected)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, vector)


@pytest.mark.parametrize("name", ["saved.keras", "exported"])
def test_lenet5_round_trip(name, tmp_path):
    model = lenet5((12, 12, 1), 10, seed=3)
    model.save(tmp_path / "global.keras")
    client = keras.saving.load_model(tmp_path / "global.keras")
    client.set_weights([w + np.float32(0.5) for w in client.get_weights()])
    WRITERS[name](client, tmp_path / name)
    expected = ExpectedVariables.of(model)
    weights = expected.layout.flatten(client.get_weights())
    np.testing.assert_array_equal(read_model(tmp_path / name, expected), weights)


def test_reading_the_expected_variables_restores_the_weights():
    model = build()
    before = model.get_weights()
    expected = ExpectedVariables.of(model)
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)
    assert dict(zip([e.name for e in expected.layout.entries], expected.h5_paths, strict=True)) == {
        "conv/kernel": "layers/conv2d/vars/0",
        "conv/bias": "layers/conv2d/vars/1",
        "norm/gamma": "layers/batch_normalization/vars/0",
        "norm/beta": "layers/batch_normalization/vars/1",
        "norm/moving_mean": "layers/batch_normalization/vars/2",
        "norm/moving_variance": "layers/batch_normalization/vars/3",
        "in/deep/kernel": "layers/sequential/layers/conv2d/vars/0",
        "in/deep/bias": "layers/sequential/layers/conv2d/vars/1",
        "logits/kernel": "layers/dense/vars/0",
        "logits/bias": "layers/dense/vars/1",
    }


def test_every_weight_of_a_residual_network_has_an_h5_path():
    model = resnet8((32, 32, 3), 10)
    expected = ExpectedVariables.of(model)
    assert len(set(expected.h5_paths)) == len(model.weights) > 40


@pytest.mark.parametrize("dtype", ["<f8", "<f2", ">f4", ">f8"])
def test_other_floats_and_byte_orders_are_rounded_to_float32(dtype, expected, client, tmp_path):
    arrays = {name: value.astype(dtype) for name, value in by_path(client).items()}
    np.savez(tmp_path / "other.npz", **arrays)
    wanted = expected.layout.flatten([array.astype(np.float32) for array in arrays.values()])
    np.testing.assert_array_equal(read_model(tmp_path / "other.npz", expected), wanted)
    if dtype[0] == "<":
        save_file(arrays, tmp_path / "other.safetensors")
        np.testing.assert_array_equal(read_model(tmp_path / "other.safetensors", expected), wanted)


def test_byte_swapped_h5(expected, files, vector, tmp_path):
    import h5py

    with (
        h5py.File(files / "saved.weights.h5") as old,
        h5py.File(tmp_path / "s.weights.h5", "w") as new,
    ):
        for path in expected.h5_paths:
            new[path] = old[path][()].astype(">f4")
    np.testing.assert_array_equal(read_model(tmp_path / "s.weights.h5", expected), vector)


def test_column_major_arrays(expected, client, vector, tmp_path):
    np.savez(tmp_path / "f.npz", **{k: np.asfortranarray(v) for k, v in by_path(client).items()})
    np.testing.assert_array_equal(read_model(tmp_path / "f.npz", expected), vector)


@pytest.mark.parametrize(
    "name", ["{stem}{suffix}", "{stem}", "{stem}.bin", "{stem}.npz", "{stem}.KERAS", "x.Weights.H5"]
)
@pytest.mark.parametrize(
    "source", ["saved.keras", "saved.weights.h5", "named.npz", "named.safetensors"]
)
def test_the_content_decides_the_format(name, source, files, expected, vector, tmp_path):
    stem, _, suffix = source.upper().partition(".")
    path = shutil.copy(files / source, tmp_path / name.format(stem=stem, suffix=f".{suffix}"))
    np.testing.assert_array_equal(read_model(path, expected), vector)


def test_the_name_decides_between_two_formats(files, expected, vector, tmp_path):
    both = (files / "saved.weights.h5").read_bytes() + (files / "saved.keras").read_bytes()
    assert file_format(both, "a.keras") == file_format(both, "A.KERAS") == ".keras"
    assert file_format(both, "a.weights.h5") == ".weights.h5"
    assert file_format(both, "a") is file_format(both, "a.npz") is None
    assert file_format(b"damaged", "A.NPZ") == ".npz" and file_format(b"damaged", "a.pkl") is None


def test_a_global_model_with_an_upper_case_suffix(tmp_path):
    model = build()
    model.save(tmp_path / "upper.keras")
    (tmp_path / "upper.keras").rename(tmp_path / "UPPER.KERAS")
    for a, b in zip(
        load_global(tmp_path / "UPPER.KERAS").get_weights(), model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_printed_names_cannot_control_a_terminal():
    assert printable("a\x1b[31m\nb\udcff") == "a\\x1b[31m\\nb\\udcff"
    assert len(printable("x" * 500)) == 80
    reason = str(Refused("bad\n" * 1000))
    assert "\n" not in reason and len(reason) == 300


def test_the_user_may_link_to_the_folder(files: Path, expected, vector, tmp_path):
    (tmp_path / "link").symlink_to(files)
    np.testing.assert_array_equal(read_model(tmp_path / "link" / "named.npz", expected), vector)
