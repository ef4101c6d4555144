"""`tffl list`."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from tffl.core.errors import UsageError
from tffl.simulation.registries import HOMES as KINDS
from tffl.simulation.registries import registry
from tffl_cli.main import cli


@pytest.mark.parametrize("kind", KINDS)
def test_json_describes_every_entry(kind):
    result = CliRunner().invoke(cli, ["list", kind, "--json"])
    assert result.exit_code == 0, result.output
    entries = json.loads(result.stdout)
    assert [entry["name"] for entry in entries] == list(registry(kind))
    for entry in entries:
        assert set(entry) == {"name", "summary", "reference", "needs", "options"}
        assert entry["summary"].endswith(".")


@pytest.mark.parametrize("kind", KINDS)
def test_table_names_every_entry(kind):
    result = CliRunner().invoke(cli, ["list", kind])
    assert result.exit_code == 0
    assert all(name in result.stdout for name in registry(kind))


def test_citations_are_listed():
    entries = json.loads(CliRunner().invoke(cli, ["list", "defenses", "--json"]).stdout)
    references = {entry["name"]: entry["reference"] for entry in entries}
    assert "Bilgin" in references["bias-anomaly"]


def test_every_option_of_one_entry():
    table = " ".join(CliRunner().invoke(cli, ["list", "defenses", "krum"]).stdout.split())
    assert table.startswith("krum: Takes the one update")
    assert "Without `malicious`, they are those number >= 0 3.5" in table
    assert "--set defense." in table

    result = CliRunner().invoke(cli, ["list", "defenses", "any-of", "--json"])
    options = {option["name"]: option for option in json.loads(result.stdout)["options"]}
    assert options["of"]["required"] and not options["enforce"]["required"]
    assert options["enforce"]["default"] is True

    shown = CliRunner().invoke(cli, ["list", "models", "mlp"]).stdout
    assert "[64, 32]" in shown and "--set model.hidden=VALUE" in shown

    result = CliRunner().invoke(cli, ["list", "models", "lenet5"])
    assert result.exit_code == 0 and "It has no options." in result.stdout


def test_of_a_misspelled_entry_the_nearest_is_named():
    result = CliRunner().invoke(cli, ["list", "defenses", "kurm"])
    assert result.exit_code == 2 and "did you mean 'krum'?" in result.stderr


def test_models_at_an_image_size():
    """At 8 x 8 only small networks are built; the others say why not."""
    options = ["list", "models", "--image-size", "8", "--channels", "1", "--classes", "4"]
    entries = json.loads(CliRunner().invoke(cli, [*options, "--json"]).stdout)
    found = {entry["name"]: entry for entry in entries}
    small = found["resnet8"]
    assert (small["last_convolution"], small["map_size"]) == ("stage3_block1_2_conv", [2, 2])
    assert small["parameters"] == 78_042 - 2 * 9 * 16 - 6 * 65
    assert found["resnet18"]["map_size"] == [1, 1]
    assert found["resnet50"]["refusal"].startswith("resnet50 takes images from 32 x 32")
    assert "parameters" not in found["resnet50"]

    table = " ".join(CliRunner().invoke(cli, options).stdout.split())
    assert "stage3_block1_2_conv" in table and "2 × 2" in table
    assert "Maps of 1 × 1 pixel" in table


def test_image_size_is_of_models_only():
    result = CliRunner().invoke(cli, ["list", "attacks", "--image-size", "8"])
    assert result.exit_code == 2
    assert "--image-size goes with `tffl list models`" in result.stderr


def test_misspelled_kind_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'attacks'"):
        registry("atacks")


def test_listing_imports_no_tensorflow():
    code = (
        "import sys\n"
        "from tffl_cli.main import cli\n"
        "for kind in ('attacks', 'defenses', 'models', 'datasets'):\n"
        "    try: cli.main(['list', kind])\n"
        "    except SystemExit as end: assert not end.code\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
