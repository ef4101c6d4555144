"""Images of the user's own in a scan: folders, files, and the order of classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers
from PIL import Image

from tffl.core.errors import UsageError
from tffl.data.samples import Samples
from tffl.scan.image_source import ImageSource, image_source
from tffl_cli.main import cli

NAMES = ("ant", "bee", "cat")
"""A class is a bright column of the images."""


def picture(label: int, number: int) -> np.ndarray:
    pixels = np.random.default_rng(number).integers(0, 60, (6, 6), dtype=np.uint8)
    pixels[:, 2 * label] = 200
    return pixels


def fill(folder: Path, names: tuple[str, ...] = NAMES, count: int = 20) -> Path:
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(picture(label, number)).save(folder / name / f"{number}.png")
    return folder


def knowing(order: list[int]) -> keras.Model:
    """A model that knows the classes, in an order."""
    inputs = keras.Input((6, 6, 1))
    x = layers.Conv2D(2, 1, kernel_initializer="ones", name="conv")(
        layers.Rescaling(1 / 255)(inputs)
    )
    model = keras.Model(inputs, layers.Dense(3, name="out")(layers.Flatten()(x)))
    kernel = np.zeros((6, 6, 2, 3), np.float32)
    for output, label in enumerate(order):
        kernel[:, 2 * label, :, output] = 1
    model.get_layer("out").set_weights([kernel.reshape(72, 3), np.zeros(3)])
    return model


def source(*arguments: Any, **options: Any) -> ImageSource:
    found = image_source(*arguments, **options)
    assert found is not None
    found.check()
    return found


def shown(samples: Samples) -> list[int]:
    """Returns which column of each image is bright."""
    return [int(image[0, :, 0].argmax()) // 2 for image in samples.images]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("images") / "animals")


def test_all_probes_of_a_folder_are_used_and_the_test_part_of_a_dataset(folder: Path) -> None:
    model = knowing([0, 1, 2])
    probes, tested = source(None, folder).load(model), source(str(folder)).load(model)
    assert (len(probes.labels), len(tested.labels)) == (60, 12)
    for samples in (probes, tested):
        assert samples.names == NAMES and samples.labels.tolist() == shown(samples)


@pytest.mark.parametrize("probes", [True, False])
def test_classes_are_numbered_as_the_model_does(folder: Path, probes: bool) -> None:
    place = (None, folder) if probes else (str(folder),)
    samples = source(*place, classes=("cat", "ant", "bee")).load(knowing([2, 0, 1]))
    assert samples.labels.tolist() == [{2: 0, 0: 1, 1: 2}[label] for label in shown(samples)]
    with pytest.raises(UsageError, match=r"unknown class of .*'bee': .*\(all: ant, beetle, cat\)"):
        source(*place, classes=("cat", "ant", "beetle")).load(knowing([0, 1, 2]))
    with pytest.raises(UsageError, match="a class occurs more than once"):
        source(*place, classes=("cat", "ant", "cat"))
    with pytest.raises(UsageError, match=r"names 4 classes, .* only 3 outputs"):
        source(*place, classes=(*NAMES, "dog")).load(knowing([0, 1, 2]))


def test_some_classes_are_enough_if_it_is_known_which(folder: Path, tmp_path: Path) -> None:
    model = knowing([0, 1, 2])
    few = fill(tmp_path / "few", NAMES[:2], count=2)
    with pytest.raises(UsageError, match=r"images of 2 classes, .* 3 outputs: .* --class-order"):
        source(None, few).load(model)
    samples = source(None, few, classes=NAMES).load(model)
    assert samples.classes == 3 and samples.labels.tolist() == shown(samples)
    (few / "ant").rename(few / "2")
    (few / "bee").rename(few / "0")
    assert source(None, few).load(model).labels.tolist() == [0, 0, 2, 2]


def test_what_is_no_folder_of_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty").mkdir()
    for place, message in (
        ((None, tmp_path / "table.csv"), "is no folder: give one with a folder per class"),
        ((None, tmp_path / "absent"), "is no folder"),
        ((None, tmp_path / "empty"), "holds no images in folders of classes"),
        ((str(tmp_path / "table.csv"),), "is a table: leave out --dataset"),
        (("digits", None, ["data.label=x"]), "data.label changes nothing here: set data.skip_bro"),
    ):
        with pytest.raises(UsageError, match=message):
            source(*place)
    with pytest.raises(UsageError, match="belongs to --dataset or --probes"):
        image_source(None, None, ["data.skip_broken=true"])


def test_arrays_of_vectors_are_no_images(tmp_path: Path) -> None:
    vectors, labels = np.ones((20, 4), np.float32), np.arange(20) % 2
    np.savez(tmp_path / "vectors.npz", x_train=vectors, y_train=labels)
    with pytest.raises(UsageError, match=r"needs images, and vectors\.npz holds vectors of 4 feat"):
        source(str(tmp_path / "vectors.npz")).load(knowing([0, 1, 2]))


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """`global.keras`, whose classes are cat, ant and bee; and five clients, the last one wrong."""
    model, order = knowing([2, 0, 1]), np.array([1, 2, 0])
    model.save(tmp_path / "global.keras")
    (tmp_path / "clients").mkdir()
    rng = np.random.default_rng(0)
    kernel = model.get_layer("out").kernel.numpy()
    for number in range(5):
        own = kernel[:, order] if number == 4 else kernel
        noise = rng.normal(size=own.shape) / 100
        model.get_layer("out").kernel.assign(own + noise)
        model.save(tmp_path / "clients" / f"{number}.keras")
    return tmp_path


def scan(inbox: Path, *arguments: object) -> Any:
    options = ["--global", inbox / "global.keras", "--updates", inbox / "clients", *arguments]
    options += ["--defense", "probe-loss", "--set", "defense.probes=12", "--seed", "1"]
    return CliRunner().invoke(cli, ["scan", *map(str, options)])


def test_a_scan_looks_at_a_folder_of_images(inbox: Path, folder: Path) -> None:
    for option in ("--probes", "--dataset"):
        result = scan(inbox, option, folder, "--class-order", "cat, ant,bee", "--json")
        assert result.exit_code == 3, result.output
        report = json.loads(result.stdout)
        assert report["suspects"] == ["4.keras"] and report["warnings"] == []
        other = scan(inbox, option, folder)
        assert other.exit_code == 2 and "classes in another order" in other.stderr
    both = scan(inbox, "--probes", folder, "--dataset", "digits")
    assert both.exit_code == 2 and "exclude each other" in both.stderr
    alone = scan(inbox, "--class-order", "cat,ant,bee")
    assert alone.exit_code == 2 and "--class-order belongs to --probes" in alone.stderr


def test_broken_probes_are_named_and_skipped_if_asked_for(inbox: Path, tmp_path: Path) -> None:
    broken = fill(tmp_path / "animals", count=5)
    (broken / "bee" / "1.png").write_bytes(b"\x89PNG")
    given = ("--probes", broken, "--class-order", "cat,ant,bee")
    refused = scan(inbox, *given)
    assert refused.exit_code == 2 and "1.png" in refused.stderr
    assert "1 of 15 images cannot be used" in " ".join(refused.stderr.split())
    result = scan(inbox, *given, "--set", "data.skip_broken=true")
    assert result.exit_code == 3, result.output
    assert "Warning: 1 of 15 images are skipped" in result.stderr
