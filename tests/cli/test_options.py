"""Options mean the same in every command, and those that change nothing are refused."""

import ast
from collections import defaultdict
from pathlib import Path
from typing import get_args

import click
import pytest
from click.testing import CliRunner

from tffl.config import Config
from tffl.config.command_line import KEYS
from tffl_cli import __path__ as cli_folder
from tffl_cli.main import COMMANDS, cli
from tffl_cli.simulate import simulate

OWN_SENTENCE = {
    # What is written, counted or drawn differs by command.
    *("--out", "--clients", "--rounds", "--round", "--runs", "--model", "--participants"),
    # A scan draws its seed, a worker has a machine's devices, a scan shows what is looked at.
    *("--seed", "--devices", "--dataset", "--malicious", "--set", "--defense", "--attack"),
}
"""Options whose help differs between commands, because their values do."""


def commands(group=cli, name="tffl"):
    """Yields every command with its name, those of groups too."""
    context = click.Context(group)
    for child in group.list_commands(context):
        command = group.get_command(context, child)
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {child}")
        else:
            yield f"{name} {child}", command


def helps():
    """Option → its help sentences → the commands that have it."""
    found = defaultdict(lambda: defaultdict(list))
    for name, command in commands():
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                found[option.opts[0]][option.help].append(name)
    return found


def test_an_option_has_one_sentence_everywhere():
    differing = {option: dict(texts) for option, texts in helps().items() if len(texts) > 1}
    assert set(differing) <= OWN_SENTENCE, differing


@pytest.mark.parametrize("key", ["data.partition", "training.optimizer", "training.precision"])
def test_help_names_every_value_of_a_key(key):
    section, field = key.split(".")
    values = get_args(Config.model_fields[section].annotation.model_fields[field].annotation)
    (text,) = helps()[f"--{field}"]
    assert len(values) > 1 and all(value in text for value in values)


def test_every_option_has_a_sentence():
    for option, texts in helps().items():
        for text, names in texts.items():
            assert (
                text
                and text[0] != " "
                and text.rstrip("]").endswith((".", ": 127.0.0.1", ": 5000"))
            ), (
                option,
                names,
            )


def test_every_command_says_what_it_does_in_one_line():
    for name, command in commands():
        first = command.help.split("\n")[0]
        assert first.endswith("."), name
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        for child, member in getattr(command, "commands", {}).items():
            assert len(member.help.split("\n")[0]) <= 66, child  # else the group's help cuts it


def test_experiments_have_an_option_for_every_key():
    options = {option.name for option in simulate.params if isinstance(option, click.Option)}
    assert set(KEYS) <= options


@pytest.mark.parametrize("file", sorted(Path(cli_folder[0]).glob("*.py")), ids=lambda f: f.stem)
def test_no_command_computes(file):
    """Arrays and tables are handled in the package, and tested there; here they are types only."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing = [node for node in tree.body if isinstance(node, ast.If)]
    types = {name for node in typing for name in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.body[0].lineno < 60, node.name
        if isinstance(node, ast.Import) and node not in types:
            assert not {alias.name for alias in node.names} & {"numpy", "pandas", "tensorflow"}


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("list models --channels 1", "--channels belongs to --image-size"),
        ("list models cnn --classes 3", "--classes belongs to --image-size"),
        ("scan --global g.keras --updates . --interval 5", "--interval belongs to --watch"),
        ("scan --global g.keras --updates . --data-dir .", "--data-dir belongs to --dataset"),
        ("reproduce pdgan --no-times", "--no-times belongs to --list"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(line, other):
    result = CliRunner().invoke(cli, line.split())
    assert result.exit_code == 2
    assert result.stderr == f"Error: {other}: give that too, or leave it out\n"
