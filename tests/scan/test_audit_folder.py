"""`tffl audit-gan --updates`: a folder of clients' models, audited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from tffl.scan.audit import mistakes
from tffl_cli.main import cli

CLASSES = 10


def classifier(weights: np.ndarray, scaling: bool = True) -> keras.Model:
    """A linear model of 8 × 8 images, of pixels from 0 to 255 or from 0 to 1."""
    images = keras.Input((8, 8, 1), name="images")
    x = keras.layers.Rescaling(1 / 255, name="rescale")(images) if scaling else images
    x = keras.layers.Conv2D(1, 1, use_bias=False, name="conv")(x)
    logits = keras.layers.Dense(CLASSES, name="logits")(keras.layers.Flatten(name="flat")(x))
    model = keras.Model(images, logits, name="linear")
    model.set_weights([np.ones((1, 1, 1, 1)), weights - weights.mean(axis=0), np.zeros(CLASSES)])
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five honest models, one that exchanges classes 7 and 1, and a file of nothing."""
    base = tmp_path_factory.mktemp("audit")
    rng = np.random.default_rng(0)
    common = rng.normal(size=(64, CLASSES))
    classifier(common).save(base / "global.keras")
    (base / "clients").mkdir()
    for number in range(6):
        own = common + rng.normal(scale=0.01, size=common.shape)
        if number == 5:
            own[:, [1, 7]] = own[:, [7, 1]]
        classifier(own).save(base / "clients" / f"{number}.keras")
    (base / "clients" / "evil.npz").write_bytes(b"nothing")
    return base


def audit(folder: Path, *arguments: object) -> Any:
    options = ["--updates", folder / "clients", "--global", folder / "global.keras", *arguments]
    return CliRunner().invoke(cli, ["audit-gan", *map(str, options), "--seed", "1"])


SMALL = ("--set", "defense.images=100")


@pytest.mark.parametrize(
    "source", ["model-inversion", "noise", "held-out", "auxiliary", "held-out+auxiliary"]
)
def test_the_audit_finds_the_faulty_model_and_its_mistakes(source: str, folder: Path) -> None:
    given = () if source in ("model-inversion", "noise") else ("--dataset", "digits")
    result = audit(folder, "--audit-source", source, *given, *SMALL, "--json")
    assert result.exit_code == 3, result.output
    report = json.loads(result.stdout)
    assert report["suspects"] == ["5.keras", "evil.npz"]
    files = {model["name"]: model for model in report["models"]}
    for name, file in files.items():
        if name == "evil.npz":
            assert file["accuracy"] is None and file["confusion"] is None
            continue
        confusion = np.array(file["confusion"])
        assert confusion.sum() == sum(report["label_counts"])
        np.testing.assert_array_equal(confusion.sum(axis=1), report["label_counts"])
        assert np.isclose(np.trace(confusion) / confusion.sum(), file["accuracy"])
        assert (file["accuracy"] < file["threshold"]) == file["suspect"]
    wrong = np.array(files["5.keras"]["confusion"])
    np.fill_diagonal(wrong, 0)
    assert wrong[1, 7] + wrong[7, 1] > 0.8 * wrong.sum() > 0


@pytest.mark.parametrize("source", ["model-inversion", "noise", "held-out+auxiliary"])
def test_models_of_other_pixels_are_audited_in_their_range(
    source: str, folder: Path, tmp_path: Path
) -> None:
    names = ["global.keras", *(f"clients/{number}.keras" for number in range(6))]
    (tmp_path / "clients").mkdir()
    for name in names:
        weights = keras.saving.load_model(folder / name).get_weights()[1]
        classifier(weights, scaling=False).save(tmp_path / name)
    given = ("--dataset", "digits", "--pixels", "0,1") if "+" in source else ("--pixels", "0,1")
    result = audit(tmp_path, "--audit-source", source, *given, *SMALL, "--json")
    report = json.loads(result.stdout)
    assert report["suspects"] == ["5.keras"], result.output
    reference = audit(folder, "--audit-source", source, *given[:-2], *SMALL, "--json")
    wanted = [model["accuracy"] for model in json.loads(reference.stdout)["models"][:6]]
    found = [model["accuracy"] for model in report["models"]]
    np.testing.assert_allclose(found, wanted, atol=0.05)


def test_the_table_names_the_mistakes(folder: Path) -> None:
    result = audit(folder, "--audit-source", "noise", *SMALL)
    assert result.exit_code == 3
    assert "1 → 7" in result.stdout or "7 → 1" in result.stdout
    assert "is not a readable zip archive" in " ".join(result.stdout.split())
    assert "2 of 7 models suspect." in result.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--audit-source", "held-out"], "gan-audit needs images: give a dataset"),
        (["--audit-source", "gan", "--dataset", "digits"], "needs one more, for fakes"),
        (["--audit-source", "gam"], "unknown audit source 'gam'"),
        (["--set", "defense.thetta=1"], "did you mean 'theta'"),
        (["--set", "seed=1"], "--set seed is not allowed: set defense.KEY"),
        (["--dataset", "digits", "--set", "defense.auxiliary=12"], "classes are 0 to 9"),
    ],
)
def test_impossible_arguments_are_refused(arguments: list[str], reason: str, folder: Path) -> None:
    if "defense.auxiliary=12" in arguments:
        arguments = [*arguments, "--audit-source", "auxiliary"]
    result = audit(folder, *arguments)
    assert result.exit_code == 2, result.output
    assert reason in result.stderr


def test_a_folder_needs_its_global_model(folder: Path) -> None:
    result = CliRunner().invoke(cli, ["audit-gan", "--updates", str(folder / "clients")])
    assert result.exit_code == 2 and "--global" in result.stderr


def test_too_few_models_do_not_pass(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "clients").mkdir()
    classifier(np.ones((64, CLASSES))).save(tmp_path / "global.keras")
    classifier(np.ones((64, CLASSES))).save(tmp_path / "clients" / "0.keras")
    result = audit(tmp_path)
    assert result.exit_code == 2
    assert "gan-audit needs at least 3 participants" in result.stderr
    assert "not judged" in result.stdout


def test_mistakes_are_named_most_frequent_first() -> None:
    confusion = np.array([[3, 1, 0], [0, 9, 0], [4, 0, 0]])
    assert mistakes(confusion, ("a", "b", "c"), most=2) == "c → a: 4 of 4, a → b: 1 of 4"
    assert mistakes(np.eye(3, dtype=int), ("a", "b", "c"), most=2) == ""
