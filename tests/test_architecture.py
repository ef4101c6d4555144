"""The pages name things that exist, and draw the layers that CI checks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from configparser import ConfigParser
from functools import cache
from importlib import import_module
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parents[1]
ENTRY_POINTS = ("tffl.attacks", "tffl.datasets", "tffl.metrics", "tffl.models")
PAGES = ("README.md", "ARCHITECTURE.md", "SECURITY.md")

# Words of other programs, of the shell, and of README's own examples.
OUTSIDE = {
    *("kill", "ssh", "-N", "-L", "os._exit", "source", "activate", "--logdir", "machine-a"),
    *(".venv", "KERAS_BACKEND", "keras.json", "TF_CONFIG", "TMPDIR", "check_estimator"),
    *("NormLimit", "norm-limit", "banana", "table-1", "MLFLOW_TRACKING_URI", "sync"),
}


def codes(page: str) -> list[str]:
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def sources() -> list[Path]:
    return [file for folder in ("tffl", "cli") for file in (ROOT / folder).rglob("*.py")]


def names(tree: ast.AST) -> Iterator[str]:
    """Yields the identifiers of a module, and the words of its strings of one line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.alias):
            yield from node.name.split(".")
        elif isinstance(node, ast.Constant) and "\n" not in str(node.value):
            yield from re.findall(r"[\w.+-]*\w", str(node.value))


@cache
def vocabulary() -> frozenset[str]:
    """Names of files, identifiers, options, commands, and what a registry or a table has."""
    words = {name for file in sources() for name in names(ast.parse(file.read_text()))}
    folders = ("tffl", "cli", "tests", "configs", "examples", "results")
    paths = [*ROOT.iterdir(), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    files = {path.name for path in paths}
    words |= files | {Path(name).stem for name in files}
    requirements = (ROOT / "setup.cfg").read_text() + (ROOT / "pyproject.toml").read_text()
    return frozenset(words | set(re.findall(r"[\w-]+", requirements)))


@cache
def options() -> frozenset[str]:
    from tffl_cli.main import cli

    def collect(command: click.Command) -> Iterator[str]:
        for parameter in command.params:
            yield from (*parameter.opts, *parameter.secondary_opts)
        if isinstance(command, click.Group):
            for name in command.list_commands(click.Context(command)):
                inner = command.get_command(click.Context(command), name)
                assert inner is not None
                yield from collect(inner)

    return frozenset(collect(cli)) | {"--help", "--version", "--no-deps"}


def is_known(word: str) -> bool:
    word = word.removeprefix(".venv/bin/")
    if "/" in word and (ROOT / word).exists():
        return True
    if word in OUTSIDE or re.fullmatch(r"[A-Z]+|[a-z]|[\d.,%-]+", word):
        return True  # a placeholder such as RUN, a letter of a formula, a number
    if word.startswith("--"):
        return word in options()
    parts = [part for part in word.split("/") if not re.fullmatch(r"[A-Z]*", part)]
    return all(
        part in vocabulary() or {*filter(None, part.split("."))} <= vocabulary() for part in parts
    )


@pytest.mark.parametrize("page", PAGES)
def test_every_word_of_code_exists(page: str) -> None:
    """Modules, classes, functions, commands, options, files, attacks, defenses, columns."""
    spans = [code for code in codes(page) if not code.startswith(("http", "pip "))]
    words = [(span, word) for span in spans for word in re.findall(r"[-\w./%]*[\w%]", span)]
    assert [(span, word) for span, word in words if not is_known(word)] == []


@pytest.mark.parametrize("word", ["Wrokshop", "--frobnicate", "tffl/models/tubes.py", "kurm"])
def test_a_word_that_does_not_exist_is_found(word: str) -> None:
    assert not is_known(word)


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page: str) -> None:
    folders = "tffl|cli|tests|configs|examples|results"
    named = [c for c in codes(page) if re.fullmatch(rf"({folders})/[\w/.-]*", c)]
    links = re.findall(r"\]\(([\w/.-]+)\)", (ROOT / page).read_text())
    assert [path for path in [*named, *links] if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_modules_named_by_file_exist(page: str) -> None:
    """`name.py` and `folder/name.py`, wherever in the project they are."""
    files = {file.as_posix() for folder in ("tffl", "cli", "tests") for file in _files(folder)}
    named = [code for code in codes(page) if re.fullmatch(r"[\w/]+\.py", code)]
    assert [
        name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)
    ] == []


def _files(folder: str) -> Iterator[Path]:
    return (ROOT / folder).rglob("*.py")


@pytest.mark.parametrize("page", PAGES)
def test_dotted_names_exist(page: str) -> None:
    for code in codes(page):
        found = re.fullmatch(r"(tffl(\.\w+)+)(\(.*\))?", code)
        if found and found[1] not in ENTRY_POINTS:
            home, _, name = found[1].rpartition(".")
            assert hasattr(import_module(home), name) or import_module(found[1]), code


def test_every_attack_and_defense_is_in_the_readmes_tables() -> None:
    from tffl.attacks import attacks
    from tffl.defenses.registry import defenses

    text = (ROOT / "README.md").read_text()
    for head, registry in (("attacks", attacks), ("defenses", defenses)):
        table = re.search(rf"^\| {head} \| \|\n(\|.*\n)+", text, re.MULTILINE)
        assert table is not None
        listed = re.findall(r"`([^`]+)`", table[0])
        assert sorted(listed) == sorted(set(registry.builtin) - {"none"})


def test_the_readmes_help_is_that_of_the_command_line() -> None:
    from click.testing import CliRunner

    from tffl_cli.main import cli

    printed = CliRunner().invoke(cli, ["--help"]).stdout
    shown = re.search(
        r"^\[…\]\n(Commands:\n(  .*\n)+)", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert shown is not None and printed.endswith(shown[1])


def test_the_drawn_layers_are_those_that_are_held() -> None:
    config = ConfigParser()
    config.read(ROOT / ".importlinter")
    held = config["importlinter:contract:layers"]["layers"].split("\n")
    text = (ROOT / "ARCHITECTURE.md").read_text()
    drawn = re.search(r"^## The layers.*?^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert drawn is not None
    rows = [row for row in drawn[1].splitlines() if not row.startswith("cli")]
    names = [re.match(r"\w+( \| \w+)?", row) for row in rows]
    assert [name[0] for name in names if name] == [row for row in held if row]
