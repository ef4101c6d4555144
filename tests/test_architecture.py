"""The pages name what there is, and the layers that they draw are those that CI holds."""

from __future__ import annotations

import re
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENTRY_POINTS = ("tffl.attacks", "tffl.datasets", "tffl.metrics", "tffl.models")
PAGES = ("README.md", "ARCHITECTURE.md", "SECURITY.md")


def codes(page: str) -> list[str]:
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page: str) -> None:
    named = [
        c for c in codes(page) if re.fullmatch(r"(tffl|cli|tests|configs|examples)/[\w/.]*", c)
    ]
    missing = [path for path in named if not (ROOT / path).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_dotted_names_exist(page: str) -> None:
    for code in codes(page):
        found = re.fullmatch(r"(tffl(\.\w+)+)(\(.*\))?", code)
        if found and found[1] not in ENTRY_POINTS:
            home, _, name = found[1].rpartition(".")
            assert hasattr(import_module(home), name) or import_module(found[1]), code


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
