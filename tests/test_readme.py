"""What the README says is true: its Python runs, and the continuous check runs its commands."""

import doctest
import re
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TEST_COMMAND = (
    "python3 -m venv .venv && .venv/bin/pip install --quiet '.[test]' && .venv/bin/python -m pytest"
)


def test_python_of_the_readme_runs_as_printed():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    parser, runner, names = doctest.DocTestParser(), doctest.DocTestRunner(), {}
    for number, block in enumerate(blocks):
        test = parser.get_doctest(block, names, f"README block {number}", str(README), 0)
        assert test.examples
        failed = runner.run(test, clear_globs=False).failed
        names = test.globs
        assert failed == 0
    assert names["NormLimit"](factor=2.0).threshold(names["np"].array([1.0, 1.0, 9.0])) == 2.0


def test_readme_has_the_test_command_that_the_check_extracts():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.endswith("-m pytest")] == [TEST_COMMAND]
    assert "grep -m 1 -- '-m pytest$' README.md" in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_readme_documents_completion(shell):
    assert f"_TFFL_COMPLETE={shell}_source tffl" in README.read_text(encoding="utf-8")


def test_no_slot_is_left_unfilled():
    assert "SLOT:" not in README.read_text(encoding="utf-8")


def test_every_package_is_installed() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    folders = [file.parent.relative_to(ROOT) for file in (ROOT / "tffl").rglob("__init__.py")]
    packages = {".".join(folder.parts) for folder in folders} | {"tffl_cli"}
    assert set(config["options"]["packages"].split()) == packages
