"""Configs that are installed with tffl: experiments, and the plans of the papers' tables."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path


def folder() -> Path:
    """Returns the folder of installed configs."""
    with as_file(files("tffl_configs")) as path:
        return path


def names() -> list[str]:
    """Returns the names of installed configs, such as `"quickstart"`, sorted."""
    home = folder()
    return sorted(
        file.relative_to(home).with_suffix("").as_posix() for file in home.rglob("*.toml")
    )


def find(name: str) -> Path | None:
    """Returns the file of an installed config; None if no config has this name."""
    return folder() / f"{name}.toml" if name in names() else None
