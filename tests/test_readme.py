"""What the README says is true: its Python runs, and the continuous check runs its commands."""

import doctest
import re
import shlex
import shutil
from configparser import ConfigParser
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tffl_cli.main import cli
from tffl_cli.options import Name

OF_A_PLUGIN = "norm-limit"
"""A defense that the README adds."""
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
    packages = {".".join(folder.parts) for folder in folders} | {"tffl_cli", "tffl_configs"}
    assert set(config["options"]["packages"].split()) == packages


def commands(file):
    """Every call of the program in a page's blocks and after its prompts."""
    text = file.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"^\$ (.*)$", text, re.MULTILINE)
    calls = [part.strip() for line in lines for part in line.split("&&")]
    calls = [re.sub(r"\s+#.*", "", call) for call in calls]
    return list(dict.fromkeys(call for call in calls if re.match(r"(\S*/)?tffl [-a-z]", call)))


def mentions(file):
    """Every call of the program within a page's sentences, which may leave out arguments."""
    text = file.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    calls = [" ".join(code.split()) for code in re.findall(r"`(tffl [^`]+)`", prose)]
    return [call for call in calls if OF_A_PLUGIN not in call]


def words(call):
    return shlex.split(call)[1:]


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("examples/*/*.md"), *ROOT.glob("results/*/README.md")]
CALLS = sorted({call for page in PAGES for call in commands(page)})
MENTIONS = sorted({call for page in PAGES for call in mentions(page)} - {*CALLS})


def test_commands_of_the_readme_are_found():
    found = commands(README)
    assert len(found) > 20 and len(mentions(README)) > 20
    assert "tffl data show fashion_mnist --partition dirichlet --beta 0.3 --clients 20" in found
    assert ".venv/bin/tffl simulate --config configs/quickstart.toml --compare" in found


def leaf(arguments):
    """The command that the first words name."""
    command = cli
    for word in arguments:
        if not isinstance(command, click.Group):
            break
        command = command.get_command(click.Context(command), word) or command
    return command


@pytest.mark.parametrize("call", [*CALLS, *MENTIONS])
def test_every_command_line_of_the_pages_parses(call, monkeypatch):
    monkeypatch.setattr("tffl.data.build.check_prepared", lambda data: None)  # no data is needed
    arguments, parsed = words(call), []
    monkeypatch.setattr("tffl.data.build.check_prepared", lambda data: None)  # no data is needed
    command = leaf(arguments)
    monkeypatch.setattr(command, "callback", lambda *_, **given: parsed.append(given))
    result = CliRunner().invoke(cli, arguments)
    lacking = re.search("Missing|requires an argument", result.stderr) or command.name == "data"
    incomplete = call in MENTIONS and lacking
    assert result.exit_code == 0 or incomplete, result.stderr
    for given in parsed:
        check_names(command, given)
        check_experiment(given)


def check_names(command, given):
    """Names of attacks, defenses, models and datasets exist."""
    for option in command.params:
        if not isinstance(option.type, Name) or not given.get(option.name):
            continue
        values = given[option.name]
        for value in values if isinstance(values, tuple) else [values]:
            if option.type.files and (value.endswith("/") or Path(value).suffix or ":" in value):
                continue  # a path of the reader's own
            for part in value.split("/")[0].split("+"):
                assert part in option.type.values()


def check_experiment(given):
    """Settings and options describe an experiment, and its file exists."""
    from tffl.config import build, read
    from tffl.config.command_line import KEYS, assemble
    from tffl.record.identity import resolved

    if "weighting" not in given:
        return
    file = given["config"]
    base = read(ROOT / file) if file and file.parts[0] == "configs" else {}
    options = {name: given[name] for name in KEYS}
    assert resolved(build(assemble(base, options, given["settings"])))


SMALL = "--model lenet5 --rounds 3 --set data.train_limit=200 --set data.test_limit=100"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder in which the README's small run has been made, smaller still, and another one."""
    folder = tmp_path_factory.mktemp("readme")
    simulate = next(call for call in commands(README) if call.endswith("--out runs/flip"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small = f"{SMALL} --set record.export=false --set record.figures=false"
        result = CliRunner().invoke(cli, words(f"{simulate} {small}"))
    assert result.exit_code == 0, result.stderr
    shutil.copytree(folder / "runs/flip", folder / "runs/other")
    return folder


FOR_REAL = [
    call
    for call in commands(README)
    if re.match(r"tffl (localize|report|compare|explain) runs/", call)
    or call in ("tffl data list", "tffl --help")
]


@pytest.mark.parametrize("call", FOR_REAL)
def test_cheap_command_lines_of_the_readme_run(call, runs, monkeypatch):
    monkeypatch.chdir(runs)
    result = CliRunner().invoke(cli, words(call))
    assert result.exit_code == 0, result.stderr
    assert result.stdout


def test_the_readmes_scan_runs(tmp_path, monkeypatch):
    import keras
    import numpy as np

    monkeypatch.chdir(tmp_path)
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential(layers)
    model.save("global.keras")
    (tmp_path / "inbox").mkdir()
    kernel, bias = model.get_weights()
    for client in range(4):
        step = np.random.default_rng(client).normal(scale=0.01, size=kernel.shape)
        model.set_weights([(kernel + step).astype("float32"), bias])
        model.save_weights(tmp_path / f"inbox/client_{client}.weights.h5")
    call = next(call for call in commands(README) if call.startswith("tffl scan "))
    result = CliRunner().invoke(cli, words(call))
    assert result.exit_code in (0, 3), result.stderr
    assert "of 4 files suspect" in result.stdout
