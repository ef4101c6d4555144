"""`tffl reproduce`: the papers' tables and figures, measured again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tffl_cli.benchmark import benchmark_progress, continued_by
from tffl_cli.combinations import belongs_to
from tffl_cli.main import Invocation
from tffl_cli.options import FOLDER, json_option, quiet_option
from tffl_cli.output import print_json

if TYPE_CHECKING:
    from tffl.studies.reproduce.catalogue import Entry


@click.command()
@click.argument("paper", required=False)
@click.argument("item", required=False)
@click.option(
    "--scale",
    metavar="smoke|small|paper",
    default="smoke",
    show_default=True,
    help="smoke takes a minute and shows that it works, small takes about an hour on two cores, "
    "and paper has the paper's own numbers of clients and rounds.",
)
@click.option("--list", "as_list", is_flag=True, help="List tables and figures, and run nothing.")
@click.option(
    "--no-times",
    is_flag=True,
    help="With --list: do not time this machine, which takes minutes the first time.",
)
@click.option("--no-run", is_flag=True, help="Run nothing: show and write what is recorded.")
@click.option(
    "--out",
    type=FOLDER,
    help="Folder to write tables and the page to; by default results/PAPER, or for smoke "
    "runs/reproduce/smoke/PAPER.",
)
@click.option(
    "--runs",
    type=FOLDER,
    default=Path("runs/reproduce"),
    show_default=True,
    help="Folder of unfinished runs.",
)
@click.option(
    "--configs",
    type=FOLDER,
    help="Folder of plans; by default ./configs, or if there is none, the plans that come with "
    "tffl.",
)
@quiet_option
@json_option
@click.pass_obj
def reproduce(
    invocation: Invocation,
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
    """Measure an ITEM of a PAPER again, such as table-1, or all of its tables and figures.

    What is recorded already is not run again, so that the same command continues after an
    interruption. Writes tables, pictures, a verdict on each claim, and the page README.md.
    """
    from tffl.studies.reproduce.measure import default_out
    from tffl.studies.reproduce.page import reports, write
    from tffl.studies.reproduce.request import (
        check_entries,
        check_scale,
        read_plans,
        run_entries,
        values,
    )

    check_scale(scale)
    plans = read_plans(configs)
    entries = plans.of(paper, item)
    belongs_to("no-times", "list", as_list or paper is None)
    if as_list or paper is None:
        _list(entries, out, runs, not no_times, as_json)
        return
    check_entries(entries, scale)
    target, failed = out or default_out(paper, scale), 0
    if not no_run:
        with continued_by(invocation):
            failed = run_entries(
                entries,
                scale,
                target,
                runs,
                invocation.command,
                lambda total: benchmark_progress(total, quiet or as_json),
            )
    write(plans, paper, target)
    found = reports(entries, target, scale)
    if as_json:
        print_json([values(report) for report in found])
        return
    if not quiet:
        from tffl_cli.console import print_reproduction

        print_reproduction(found)
        click.echo(f"\nTables, pictures and the page are in {target}: README.md")
    if failed:
        click.echo(f"{failed} runs failed; README.md says why", err=True)


def _list(
    entries: Sequence[Entry], out: Path | None, runs: Path, timed: bool, as_json: bool
) -> None:
    from tffl.studies.reproduce.listing import lines

    with _timing() as show:
        found = lines(entries, out, runs, show if timed else None)
    if as_json:
        print_json([asdict(line) for line in found])
        return
    from tffl_cli.console import print_items

    print_items(found)


@contextmanager
def _timing() -> Iterator[Callable[[str, int, int], None]]:
    """Yields a function that shows what is being timed."""
    from tffl_cli.console import console

    err = console(stderr=True)
    with err.status("", spinner="line") as status:

        def show(what: str, number: int, total: int) -> None:
            text = f"timing {what} on this machine, once ({number} of {total})"
            if err.is_terminal:
                status.update(text)
            else:
                err.print(text, markup=False, soft_wrap=True)

        yield show
