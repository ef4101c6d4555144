"""What tffl imports is what setup.cfg declares, and nothing is declared that is not used."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Mapping
from configparser import ConfigParser
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]

OWN = {"tffl", "tffl_cli", "tffl_configs"}

UNIMPORTED = {
    # What MLflow's default store needs, and mlflow-skinny does not require.
    "alembic",
    "sqlalchemy",
    # tensorflow-datasets 4.9.10 imports it without requiring it.
    "importlib-resources",
}
"""Declared for a reason that setup.cfg states, although no line imports it."""

UNINSTALLED = {"tomli": "tomli", "mlflow": "mlflow-skinny", "wandb": "wandb"}
"""Module → distribution, of those that only an older Python needs, and of trackers."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported() -> dict[str, set[str]]:
    """Returns module → files that import it, of modules of other packages.

    Of `google` and other namespaces, the module below them counts.
    """
    found: dict[str, set[str]] = {}
    for folder in ("tffl", "cli"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                for name in modules(node):
                    if name.partition(".")[0] not in OWN | sys.stdlib_module_names:
                        found.setdefault(name, set()).add(str(file.relative_to(ROOT)))
    return found


def modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module]
    return []


@cache
def distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


def distribution(module: str) -> str:
    """Returns the distribution that a module comes from."""
    if module.startswith("google.protobuf"):  # several share the namespace `google`
        return "protobuf"
    top = module.partition(".")[0]
    if top in UNINSTALLED:
        return UNINSTALLED[top]
    return normal(distributions()[top][0])


def requirements(text: str) -> set[str]:
    lines = [line.strip() for line in text.splitlines()]
    names = [re.match(r"[\w.-]+", line) for line in lines if not line.startswith(("#", "%"))]
    return {normal(name[0]) for name in names if name}


def declared() -> tuple[set[str], set[str]]:
    """Returns what every installation needs, and what extras for users add."""
    setup = ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = setup["options.extras_require"]
    optional = (requirements(extras[name]) for name in ("flower", "mlflow", "wandb"))
    return requirements(setup["options"]["install_requires"]), set().union(*optional)


def test_every_import_is_declared() -> None:
    base, extra = declared()
    missing = {
        f"{module} ({distribution(module)}): {', '.join(sorted(files))}"
        for module, files in imported().items()
        if distribution(module) not in base | extra
    }
    assert not missing


def test_everything_declared_is_imported() -> None:
    base, extra = declared()
    used = {distribution(module) for module in imported()}
    assert base | extra == used | UNIMPORTED
