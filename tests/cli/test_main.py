"""The program itself: help without TensorFlow, failures in one line, shell completion."""

import errno
import os
import re
import subprocess
import sys
from importlib import import_module

import click
import pytest
from click.shell_completion import BashComplete, FishComplete, ZshComplete
from click.testing import CliRunner

from tffl import __version__
from tffl.core.errors import TfflError, UsageError
from tffl_cli.main import COMMANDS, MAY_HANG, Interrupted, cli, describe_error

HELPS = [[], *([name] for name in COMMANDS), ["bench", "engine"], ["data", "show"]]


def tffl(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "tffl", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=300,
    )


@pytest.mark.parametrize("command", HELPS, ids=" ".join)
def test_help_answers_without_tensorflow(command):
    code = (
        "import sys\n"
        "from tffl_cli.main import cli\n"
        f"try: cli.main({[*command, '--help']!r})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'tensorflow', 'keras', 'matplotlib', 'pandas', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: {' '.join(['tffl', *command])}")


def test_importtime_of_help_names_no_tensorflow():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tffl", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "tffl_cli.main" in done.stderr
    assert not re.search(r"\| +(tensorflow|keras|pydantic|rich)$", done.stderr, re.MULTILINE)


def test_help_lists_every_command_with_a_line():
    output = CliRunner().invoke(cli, ["--help"]).output
    for name, (_, line) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(line)}$", output, re.MULTILINE)


def test_version():
    assert CliRunner().invoke(cli, ["--version"]).output == f"tffl, version {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["bench"]])
def test_without_a_subcommand_the_help_is_shown(arguments):
    result = CliRunner().invoke(cli, arguments)
    assert "Usage: tffl" in result.output and "Commands:" in result.output


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (UsageError("this cannot be"), "this cannot be", 2),
        (TfflError("it broke"), "it broke", 1),
        (MemoryError(), "out of memory", 1),
        (OSError(errno.ENOSPC, "No space left", "r.csv"), "the disk is full at r.csv", 1),
        (ValueError("odd\nand more"), "ValueError: odd (run with --verbose", 1),
        (click.UsageError("no such\noption"), "no such option", 2),
    ],
)
def test_every_failure_is_one_line(error, line, code):
    printed, exit_code = describe_error(error)
    assert printed.startswith(line)
    assert "\n" not in printed
    assert exit_code == code


@pytest.fixture
def failing(monkeypatch):
    """A subcommand `fail` that raises what the test asks for."""

    def install(error):
        @click.command()
        def fail():
            raise error

        monkeypatch.setattr("tffl_cli.main.COMMANDS", {"fail": ("nowhere:fail", "Fail.")})
        monkeypatch.setattr(cli, "get_command", lambda ctx, name: fail)
        return fail

    return install


def test_ctrl_c_exits_130_and_says_how_to_go_on(failing):
    failing(Interrupted("continue with tffl simulate --resume R"))
    result = CliRunner().invoke(cli, ["fail"])
    assert result.exit_code == 130
    assert result.stderr == "Interrupted: continue with tffl simulate --resume R\n"

    failing(KeyboardInterrupt())
    result = CliRunner().invoke(cli, ["fail"])
    assert result.exit_code == 130
    assert result.stderr.strip() == "Interrupted."


def test_traceback_only_with_verbose(failing):
    failing(RuntimeError("surprise"))
    quiet = CliRunner().invoke(cli, ["fail"])
    verbose = CliRunner().invoke(cli, ["--verbose", "fail"])
    assert quiet.exit_code == verbose.exit_code == 1
    assert quiet.stderr.splitlines() == [
        "Error: RuntimeError: surprise (run with --verbose for the traceback)"
    ]
    assert "Traceback (most recent call last)" in verbose.stderr


@pytest.mark.parametrize("module", MAY_HANG)
def test_the_program_asks_modules_that_exist_whether_something_hangs(module):
    assert callable(import_module(module).stuck)
    assert not import_module(module).stuck()


def test_verbose_shows_what_is_behind_a_line(failing):
    error = TfflError("dataset mine cannot be loaded")
    error.__cause__ = KeyError("images")
    failing(error)
    quiet = CliRunner().invoke(cli, ["fail"])
    verbose = CliRunner().invoke(cli, ["--verbose", "fail"])
    assert quiet.stderr == "Error: dataset mine cannot be loaded\n"
    assert "KeyError: 'images'" in verbose.stderr


def test_verbose_may_stand_before_or_after_the_subcommand():
    for arguments in (["--verbose", "list", "models"], ["list", "models", "--verbose"]):
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0 and "lenet5" in result.output


def test_unknown_command_names_the_nearest():
    result = CliRunner().invoke(cli, ["simulat"])
    assert result.exit_code == 2
    assert "did you mean 'simulate'?" in result.stderr


def completions(*words, incomplete):
    """What a shell would be offered, through click's own completion class."""
    shell = BashComplete(cli, {}, "tffl", "_TFFL_COMPLETE")
    return {item.value for item in shell.get_completions(list(words), incomplete)}


def test_completion_knows_commands_options_and_names():
    assert completions(incomplete="si") == {"simulate"}
    assert {"--dataset", "--data-dir"} <= completions("simulate", incomplete="--da")
    assert completions("simulate", "--attack", incomplete="lab") == {"label-flip"}
    assert completions("simulate", "--defense", incomplete="") >= {"none", "bias-anomaly"}
    assert completions("simulate", "--dataset", incomplete="cifar") == {"cifar10", "cifar100"}
    assert completions("simulate", "--model", incomplete="len") == {"lenet5"}
    assert completions("simulate", "--partition", incomplete="d") == {"dirichlet", "dirichlet-size"}
    assert completions("simulate", "--optimizer", incomplete="adam") == {"adam", "adamw"}
    assert completions("list", incomplete="at") == {"attacks"}


@pytest.mark.parametrize("shell", [BashComplete, ZshComplete, FishComplete])
def test_completion_script_of_every_shell(shell):
    script = shell(cli, {}, "tffl", "_TFFL_COMPLETE").source()
    assert f"_TFFL_COMPLETE={shell.name}_complete" in script


def test_completion_through_the_installed_program_imports_no_tensorflow():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tffl"],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "_TFFL_COMPLETE": "bash_complete",
            "COMP_WORDS": "tffl simulate --defense b",
            "COMP_CWORD": "3",
        },
    )
    assert "plain,bias-anomaly" in done.stdout
    assert not re.search(r"\| +tensorflow$", done.stderr, re.MULTILINE)
