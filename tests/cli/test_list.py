"""`tffl list`."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from tffl.errors import UsageError
from tffl_cli.list import KINDS, registry
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
