"""Builds a page: collects what runs have measured, or reads the recorded tables, and writes it.

What a page says depends on the files in its folder alone, so that anybody can make it again.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tffl.core.atomic import write_text
from tffl.core.errors import TfflError, first_line, require
from tffl.core.jsonable import write_json

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ENVIRONMENT = "environment.json"
KEPT = ("versions", "machine", "seed")
"""What a page keeps of the environment of its runs."""

PACKAGES = ("tffl", "tensorflow", "keras", "numpy")

CONSENSUS_TESTS = "consensus tests"
"""How tables call `shield` as it was before it asked `coalition` too: no results of the two mix."""
ABOUT_CONSENSUS_TESTS = (
    f"The {CONSENSUS_TESTS} are `any-of` with `cam-consensus`, `update-consensus` and "
    "`probe-loss`. That was `shield` when they were recorded; it has changed since."
)


def nothing(folder: Path) -> dict[str, Any]:
    """Returns no tables, or no figures: of a page that has none."""
    return {}


@dataclass(frozen=True)
class Page:
    """A page of `results/`.

    Attributes:
      name: Of its module and its folder.
      title: Its heading.
      intro: The folder → the first paragraph.
      body: The folder → the other paragraphs.
      collect: A folder of runs → file name → a table, or values for a JSON file. Only what is found
        there; other files of the page's folder stay as they are.
      figures: The folder → file name → figure.
      copies: Name of a picture in the page's folder → where it is below the folder of runs.
      keys: Columns that name a run: in a table that is collected again, the rows of runs that were
        not collected this time stay. Without keys, a table is replaced.
      packages: Whose versions are recorded, if the runs have not recorded any.
    """

    name: str
    title: str
    intro: Callable[[Path], str]
    body: Callable[[Path], Iterator[str]]
    collect: Callable[[Path], Mapping[str, Any]] = nothing
    figures: Callable[[Path], Mapping[str, Figure]] = nothing
    copies: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    packages: tuple[str, ...] = PACKAGES

    @property
    def folder(self) -> Path:
        """Where its tables are, from the root of the repository."""
        return Path("results") / self.name

    @property
    def runs(self) -> Path:
        """Where its runs are, from the root of the repository."""
        return Path("runs") / self.name


def make(page: Page, folder: Path, runs: Path, draw: bool = True) -> bool:
    """Writes a page, its tables and its figures.

    Args:
      page: Which.
      folder: Where the tables are, and where the page goes.
      runs: Where the runs are. Without any, the tables are read as they are.
      draw: Whether figures are drawn.

    Returns:
      Whether anything was collected from runs.

    Raises:
      UsageError: There are neither runs nor tables.
      TfflError: A table is damaged, or a file cannot be written.
    """
    found = page.collect(runs) if runs.is_dir() else {}
    known = folder.is_dir() and any(folder.glob("*.[cj]s*"))
    require(
        bool(found) or known,
        f"there are no runs in {runs} and no tables in {folder}: see results/{page.name}/run.sh",
    )
    for name, value in found.items():
        _record(folder / name, value, page.keys)
    if found:
        _copy(page.copies, folder, runs)
        write_json(folder / ENVIRONMENT, _environment(runs, page.packages))
    try:
        if draw:
            from tffl.drawing.figures import save

            for name, figure in page.figures(folder).items():
                save(figure, folder / name)
        write_text(folder / "README.md", text(page, folder))
    except (KeyError, TypeError, ValueError) as error:  # a column is missing, or not of numbers
        reason = first_line(error)
        raise TfflError(f"the page cannot be made of the tables in {folder}: {reason}") from error
    return bool(found)


def text(page: Page, folder: Path) -> str:
    """Returns a page, from the files in its folder."""
    return compose(
        page.title,
        page.intro(folder),
        run=f"bash results/{page.name}/run.sh",
        again=f"tffl page {page.name}",
        measured=measured_with(folder),
        paragraphs=page.body(folder),
    )


def compose(
    title: str,
    intro: str,
    *,
    run: str,
    again: str,
    paragraphs: Iterable[str],
    measured: str = "",
) -> str:
    """Returns a page in Markdown: its front matter, and the paragraphs below it.

    Args:
      title: Its heading.
      intro: What it is about.
      run: The command that makes the runs and the page.
      again: The command that makes the page from the recorded tables.
      paragraphs: All else.
      measured: On what machine, if it is the same for the whole page.
    """
    width = max(len(run), len(again))
    commands = (
        f"{run:{width}}  # runs what is missing, then writes this page",
        f"{again:{width}}  # writes this page again from the tables beside it",
    )
    front = [f"# {title}", intro, "\n".join(["```sh", *commands, "```"])]
    front.append(f"No number and no verdict on this page is typed. {measured}".rstrip())
    return "\n\n".join([*front, *paragraphs]) + "\n"


def measured_with(folder: Path) -> str:
    """Says with which versions, and on which machine, a page's tables were measured."""
    about = read_json(folder / ENVIRONMENT)
    if not about:
        return "Versions and machine were not recorded."
    seed = f"; seed {about['seed']}" if "seed" in about else ""
    return f"Measured {versions_and_machine(about)}{seed}."


def versions_and_machine(about: Mapping[str, Any]) -> str:
    """Writes the versions and the machine of an `environment.json`.

    >>> versions_and_machine({"versions": {"numpy": "2.4"}, "machine": "x86_64, 2 cores"})
    'with numpy 2.4 on x86_64, 2 cores'
    """
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items() if number)
    return f"with {versions} on {about['machine']}" if versions else f"on {about['machine']}"


def read_table(path: Path) -> pd.DataFrame:
    """Reads a table; it is empty if it is not recorded.

    `none` and `nan` are names of attacks: only an empty cell is undefined.

    Raises:
      TfflError: It is damaged.
    """
    import pandas as pd

    if not path.exists():
        return pd.DataFrame()
    try:
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    except ValueError as error:
        raise TfflError(f"{path} is damaged: {first_line(error)}") from None


def read_json(path: Path) -> dict[str, Any]:
    """Reads the values of a JSON file; there are none if it is not recorded.

    Raises:
      TfflError: It is damaged.
    """
    if not path.exists():
        return {}
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise TfflError(f"{path} is not valid JSON") from None
    return values


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns a table row by row."""
    rows: list[Any] = table.to_dict("records")
    return rows


def by_key(means: pd.DataFrame) -> dict[Any, dict[str, Any]]:
    """Returns the rows of a table by its index: after a `groupby`, its values."""
    rows: Any = means.to_dict("index")
    return rows


def distinct(table: pd.DataFrame, column: str) -> list[str]:
    """Returns a column's values in the order in which they appear, each once."""
    return list(dict.fromkeys(table[column])) if column in table else []


def _record(path: Path, value: Any, keys: tuple[str, ...]) -> None:
    """Writes a collected table, or the values of a JSON file."""
    if path.suffix == ".json":
        write_json(path, value)
        return
    write_text(path, _merged(value, read_table(path), list(keys)).to_csv(index=False))


def _merged(new: pd.DataFrame, old: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Returns a table with those rows of the old one whose runs are not in the new one."""
    import pandas as pd

    if not keys:
        return new
    if len(old):
        known = pd.MultiIndex.from_frame(new[keys])
        kept = old[~pd.MultiIndex.from_frame(old[keys]).isin(known)]
        new = pd.concat([kept, new]) if len(kept) else new
    return new.sort_values(keys, kind="stable")


def _copy(copies: Mapping[str, str], folder: Path, runs: Path) -> None:
    for name, place in copies.items():
        if (runs / place).exists():
            shutil.copyfile(runs / place, folder / name)


def _environment(runs: Path, packages: tuple[str, ...]) -> dict[str, Any]:
    """Returns what a run has recorded of its environment, or what there is now."""
    for file in sorted(runs.rglob(ENVIRONMENT)):
        about = read_json(file)
        if {"versions", "machine"} <= set(about):
            return {key: about[key] for key in KEPT if key in about}
    return present_environment(packages)


def present_environment(packages: tuple[str, ...] = PACKAGES) -> dict[str, Any]:
    """Returns the versions of packages, as far as they are installed, and the machine."""
    from tffl.core.process import cores

    versions = {"python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # such as tensorflow-cpu in the place of tensorflow
            continue
    several = "s" if cores() > 1 else ""
    return {"versions": versions, "machine": f"{platform.machine()}, {cores()} core{several}"}
