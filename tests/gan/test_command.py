"""`tffl audit-gan`: the experiment, an audit of its stored updates, and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tffl.config import build
from tffl.gan.preset import preset
from tffl.record.identity import resolved
from tffl_cli.main import cli

SMALL = [
    *("--dataset", "digits", "--train-limit", "200", "--clients", "6", "--participants", "5"),
    *("--malicious", "2", "--rounds", "3", "--store-updates", "3", "--devices", "1"),
    *("--seed", "1", "--set", "data.image_size=8", "--set", "record.tensorboard=false"),
    *("--set", "record.export=false", "--set", "defense.from_round=2", "--set"),
    *("defense.images=20", "--set", "defense.gan_steps=2", "--set", "defense.gan_batch=4"),
    *("--set", "defense.generator_width=1"),
]


def audit_gan(*arguments: object) -> Any:
    return CliRunner().invoke(cli, ["audit-gan", *map(str, arguments)])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audit") / "run"
    result = audit_gan(*SMALL, "--out", out)
    assert result.exit_code == 0, result.output
    assert "audit_images.png" in result.output
    return out


def test_the_experiment_draws_its_pictures(run: Path) -> None:
    pictures = {file.name for file in (run / "figures").glob("audit_*.png")}
    assert pictures == {"audit_rounds.png", "audit_clients.png", "audit_images.png"}
    assert 'source = "gan"' in (run / "config.toml").read_text()


def test_a_stored_round_is_audited(run: Path) -> None:
    options = ("--set", "defense.inversion_steps=5", "--set", "defense.images=30")
    result = audit_gan("--run", run, "--round", 3, *options, "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == (3 if report["suspects"] else 0)
    assert len(report["models"]) == 5 and len(report["classes"]) == 11
    assert sum(report["label_counts"]) > 0
    for model in report["models"]:
        assert model["name"].startswith("client ")
        right = sum(row[i] for i, row in enumerate(model["confusion"]))
        assert model["accuracy"] == pytest.approx(right / sum(report["label_counts"]))
        assert model["suspect"] == (model["accuracy"] < model["threshold"])


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist", "cifar10"])
def test_every_preset_is_a_valid_experiment(dataset: str) -> None:
    config = resolved(build(preset(dataset)))
    assert config.federation.malicious_participants == 1
    assert config.defense.options["from_round"] < config.federation.rounds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--updates", "x", "--run", "y"], "--updates and --run exclude each other"),
        (["--updates", "x", "--clients", 3], "--clients 3 belongs to an experiment"),
        (["--updates", "x"], "give --global, your own model"),
        (["--run", "x"], "give --round"),
        (
            ["--run", "x", "--round", 1, "--set", "defense.from_round=2"],
            "defense.from_round = 2 belongs to an experiment",
        ),
        (["--run", "nowhere", "--round", 1], "nowhere"),
        (["--run", "x", "--round", 1, "--seed", 2], "--seed 2 belongs to --updates"),
        (["--round", 1], "--round 1 belongs to an audit"),
        (["--defense", "krum"], "defense.name = krum is not allowed here"),
        (["--audit-source", "gann"], "unknown audit source 'gann': did you mean 'gan'"),
    ],
)
def test_conflicting_arguments_give_a_one_line_error(arguments: list[Any], message: str) -> None:
    result = audit_gan(*arguments)
    assert result.exit_code == 2
    assert message in result.output and "Traceback" not in result.output


def test_error_names_a_round_that_was_not_stored(run: Path) -> None:
    result = audit_gan("--run", run, "--round", 2)
    assert result.exit_code == 2
    assert "stores no updates of round 2: it has those of 3" in result.output
