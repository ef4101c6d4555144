"""`tffl reproduce`: the papers' tables and figures, measured again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tffl.core.errors import require, unknown
from tffl_cli.belonging import belongs_to
from tffl_cli.benchmark import show_progress
from tffl_cli.main import Interrupted, Session

if TYPE_CHECKING:
    from tffl.studies.reproduce.catalogue import Entry
    from tffl.studies.reproduce.listing import Line
    from tffl.studies.reproduce.page import Report

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("paper", required=False)
@click.argument("item", required=False)
@click.option(
    "--scale",
    metavar="smoke|small|paper",
    default="smoke",
    show_default=True,
    help="A minute, to see that it works; about an hour of two cores; or the paper's own numbers.",
)
@click.option("--list", "as_list", is_flag=True, help="List tables and figures, and run nothing.")
@click.option(
    "--no-times",
    is_flag=True,
    help="With --list: do not time this machine, which takes minutes the first time.",
)
@click.option("--no-run", is_flag=True, help="Run nothing: show, and write, what is recorded.")
@click.option("--out", type=FOLDER, help="Tables and page; else results/PAPER, for smoke in runs/.")
@click.option(
    "--runs",
    type=FOLDER,
    default=Path("runs/reproduce"),
    show_default=True,
    help="Unfinished work.",
)
@click.option(
    "--configs",
    type=FOLDER,
    help="The plans; ./configs where there is such a folder, else those that come with tffl.",
)
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and only that.")
@click.pass_obj
def reproduce(
    session: Session,
    paper: str | None,
    item: str | None,
    scale: str,
    as_list: bool,
    no_times: bool,
    no_run: bool,
    out: Path | None,
    runs: Path,
    configs: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Measure a table or figure of a PAPER again, such as table-1, or all that there are.

    What is recorded already is not run again, so that the same command continues after an
    interruption. Writes tables, pictures, a verdict on each claim, and the page README.md.
    """
    from tffl.studies.reproduce.catalogue import load
    from tffl.studies.reproduce.plan import SCALES

    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)
    catalogue = load(configs or _plans())
    entries = catalogue.of(paper, item)
    belongs_to("no-times", "list", as_list or paper is None)
    if as_list or paper is None:
        _list(entries, out, runs, not no_times, as_json)
        return
    _check(entries, scale, item is not None)
    from tffl.studies.reproduce.measure import default_out

    target = out or default_out(paper, scale)
    failed = 0
    if not no_run:
        failed = _run(session, entries, scale, target, runs, quiet or as_json)
    from tffl.studies.reproduce.page import reports, write

    write(catalogue, paper, target)
    found = reports(entries, target, scale)
    if as_json:
        click.echo(json.dumps([_values(report) for report in found], indent=2))
    elif not quiet:
        from tffl_cli.console import print_reproduction

        print_reproduction(found)
        click.echo(f"\nTables, pictures and the page are in {target}: README.md")
    if failed and not as_json:
        click.echo(f"{failed} runs failed; README.md says why", err=True)


def _check(entries: Sequence[Entry], scale: str, single: bool) -> None:
    """Raises `UsageError` if there is nothing to run, or datasets are missing."""
    for entry in entries if single else ():
        if entry.elsewhere is not None:
            told = entry.elsewhere
            run = " && ".join(told.commands)
            require(bool(run), f"{entry.paper} {entry.name} cannot be reproduced: {told.about}")
            require(False, f"{entry.paper} {entry.name} has commands of its own: {run}")
    existing = [name for entry in entries for name in entry.scales]
    require(
        scale in existing,
        f"{entries[0].paper} {entries[0].name if single else ''} does not exist at scale {scale}: "
        f"there is {', '.join(dict.fromkeys(existing)) or 'none'}",
    )


def _run(
    session: Session, entries: Sequence[Entry], scale: str, out: Path, runs: Path, silent: bool
) -> int:
    """Runs what is missing; returns how many runs failed."""
    from tffl.studies.reproduce.listing import missing_data
    from tffl.studies.reproduce.measure import reproduce as measure

    lacking = missing_data(entries, scale)
    require(
        not lacking,
        f"{', '.join(lacking)} is not prepared: tffl data prepare {' '.join(lacking)}",
    )
    grouped: dict[Path, tuple[Any, list[Any]]] = {}
    for entry in entries:
        for experiment, item in entry.parts if scale in entry.scales else ():
            grouped.setdefault(experiment.path, (experiment, []))[1].append(item)
    failed = 0
    try:
        for experiment, items in grouped.values():
            total = len(experiment.cells(items, scale))
            with show_progress(total, silent) as progress:
                failed += measure(
                    experiment,
                    items,
                    scale,
                    out,
                    runs,
                    command=session.command,
                    progress=progress,
                )
    except KeyboardInterrupt:
        raise Interrupted(f"continue with {' '.join(session.command)}") from None
    return failed


def _plans() -> Path:
    from tffl.core import shipped

    here = Path("configs")
    return here if here.is_dir() else shipped.folder()


def _list(
    entries: Sequence[Entry], out: Path | None, runs: Path, timed: bool, as_json: bool
) -> None:
    from tffl.studies.reproduce.listing import lines

    with _timing() as tell:
        found: list[Line] = lines(entries, out, runs, tell if timed else None)
    if as_json:
        click.echo(json.dumps([asdict(line) for line in found], indent=2))
        return
    from tffl_cli.console import print_items

    print_items(found)


@contextmanager
def _timing() -> Iterator[Callable[[str, int, int], None]]:
    """Shows what is being timed."""
    from tffl_cli.console import console

    err = console(stderr=True)
    with err.status("", spinner="line") as status:

        def tell(what: str, number: int, total: int) -> None:
            text = f"timing {what} on this machine, once ({number} of {total})"
            if err.is_terminal:
                status.update(text)
            else:
                err.print(text, markup=False, soft_wrap=True)

        yield tell


def _values(report: Report) -> dict[str, Any]:
    return {
        "paper": report.entry.paper,
        "item": report.entry.name,
        "title": report.item.title,
        "part": report.item.part,
        "scale": report.scale,
        "seeds": report.seeds,
        "missing": report.missing,
        "tables": {
            setting: {"header": header, "rows": rows}
            for setting, (header, rows) in report.tables.items()
        },
        "claims": [asdict(judged) for judged in report.judged],
        "failed": report.failed,
    }
