"""A user's own model file, with a softmax, BatchNorm and Normalization, on a folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from keras import layers
from PIL import Image
from sklearn.datasets import load_digits

import tffl
from tffl.core.errors import UsageError
from tffl.data import datasets
from tffl.models import models
from tffl_cli.main import cli

TRAINING = {"learning_rate": 0.1, "batch_size": 16}
FEDERATION = {"clients": 6, "malicious": 1, "rounds": 2}
RECORD = {"export": False, "figures": False, "tensorboard": False}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of gray PNGs by class: `cat` is a 0, `dog` a 1, `emu` a 4."""
    folder, digits = tmp_path_factory.mktemp("own") / "pictures", load_digits()
    for name, digit in (("cat", 0), ("dog", 1), ("emu", 4)):
        (folder / name).mkdir(parents=True)
        for number, image in enumerate(digits.images[digits.target == digit][:80]):
            pixels = np.minimum(image * 16, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def network(name: str = "norm.1_a", **options: Any) -> keras.Model:
    """Returns a model as users have them."""
    keras.utils.set_random_seed(3)
    images = keras.Input((8, 8, 1), name="my.pictures")
    scale = layers.Normalization(axis=None)
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, **options)(scale(images))
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9, name=name)(x))
    x = layers.Flatten()(layers.Dropout(0.1, seed=5)(layers.MaxPooling2D()(x)))
    x = layers.Dense(3, activation="softmax", dtype="float32", use_bias=False)(x)
    model = keras.Model(images, x, name="mine")
    scale.adapt(np.random.default_rng(0).uniform(0, 255, (50, 8, 8, 1)))
    return model


@pytest.fixture(autouse=True)
def nothing_stays() -> Any:
    known = [{*models}, {*datasets}]
    yield
    for registry, names in zip((models, datasets), known, strict=True):
        for name in {*registry} - names:
            registry.forget(name)


def test_a_model_file_and_a_folder_of_pictures_need_no_line_of_python(
    pictures: Path, tmp_path: Path
) -> None:
    """The same file, the same object: the same numbers."""
    model, out = network(), tmp_path / "run"
    model.save(tmp_path / "my.keras")
    options = [f"--model={tmp_path / 'my.keras'}", f"--dataset={pictures}", f"--out={out}"]
    parts = ["--attack", "label-flip", "--set", "attack.source=cat", "--set", "attack.target=dog"]
    parts += [
        "--set",
        "data.test_share=0.4",
        "--defense",
        "shield",
        "--clients",
        "6",
        "--malicious",
        "1",
    ]
    training = ["--rounds", "2", "--learning-rate", "0.1", "--batch-size", "16"]
    record = [f"--set=record.{key}=false" for key in RECORD]
    result = CliRunner().invoke(cli, ["simulate", *options, *parts, *training, *record])
    assert result.exit_code == 0, result.output
    said = "ends in softmax: it is taken off, as the loss takes logits"
    assert result.stderr.count(said) == 1 and "start · accuracy" in result.stderr
    rounds = pd.read_csv(out / "rounds.csv")
    assert rounds["accuracy"].iloc[-1] > 0.5

    run = tffl.simulate(
        {
            "data": {"test_share": 0.4},
            "training": TRAINING,
            "federation": FEDERATION,
            "record": RECORD,
        },
        attack=tffl.attacks.LabelFlip(source="cat", target="dog"),
        defense="shield",
        model=model,
        dataset=pictures,
    )
    for column in ("accuracy", "loss", "rejected"):
        np.testing.assert_allclose(run.rounds[column], rounds[column], rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "float16", "float64"])
def test_models_of_other_precisions_learn(pictures: Path, policy: str) -> None:
    """Their first weights are nearly those of a run in float32, after which rounding differs."""
    run = tffl.simulate(
        {"training": TRAINING, "federation": FEDERATION, "record": RECORD},
        attack="none",
        model=network(dtype=policy),
        dataset=pictures,
    )
    assert run.rounds["accuracy"].iloc[-1] > 0.5


def test_a_head_without_bias_says_what_to_choose(pictures: Path) -> None:
    with pytest.raises(UsageError, match=r"dense\w* has no bias .*: let `tffl localize`"):
        tffl.simulate({}, defense="bias-anomaly", model=network(), dataset=pictures)


def test_classes_of_the_model_and_of_the_data_must_match(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "two" / name).symlink_to(pictures / name)
    with pytest.raises(UsageError, match="mine has 3 outputs for 2 classes"):
        tffl.simulate({}, model=network(), dataset=tmp_path / "two", attack="none")


def test_a_layer_whose_name_tensorflow_refuses_is_one_line(pictures: Path) -> None:
    """Plain Keras cannot fit such a model either, and then puts the name before all later ones."""
    with pytest.raises(UsageError, match=r"^model mine has a layer named 'größe 1', which Tensor"):
        tffl.simulate({}, model=network(name="größe 1"), dataset=pictures, attack="none")
    dense = layers.Dense(2, name="later")
    dense.build((None, 3))
    assert dense.kernel.path == "later/kernel"
