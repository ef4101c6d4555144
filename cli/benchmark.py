"""`tffl benchmark`: attacks × defenses × settings × seeds, as a file says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tffl_cli.main import Interrupted, Invocation
from tffl_cli.options import FILE, FOLDER, json_option, quiet_option
from tffl_cli.output import print_json

if TYPE_CHECKING:
    from tffl.studies.benchmark import Cell


@click.command()
@click.argument("file", type=FILE)
@click.option(
    "--out", type=FOLDER, help="Folder to write the results to; by default runs/<name of the file>."
)
@click.option("--keep-runs", is_flag=True, help="Keep every run's directory, not only its result.")
@quiet_option
@json_option
@click.pass_obj
def benchmark(
    invocation: Invocation,
    file: Path,
    out: Path | None,
    keep_runs: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run every attack against every defense that FILE names.

    Attack-free and undefended runs are added. What is finished is not run again, so that the same
    command continues after an interruption. Writes results.csv and results.md.
    """
    from tffl.data.build import check_any_prepared
    from tffl.studies.benchmark import load, run

    cells = load(file)
    check_any_prepared(cell.config.data for cell in cells)
    folder = out or Path("runs") / file.stem
    with continued_by(invocation), benchmark_progress(len(cells), quiet or as_json) as progress:
        results = run(cells, folder, keep_runs=keep_runs, progress=progress)
    if as_json:
        print_json(results.to_dict("records"))
        return
    if not quiet:
        from tffl_cli.console import print_benchmark

        print_benchmark(results.to_dict("records"))
        click.echo(f"\nThe results are in {folder}: results.csv and results.md")
    if failed := int((results["error"] != "").sum()):
        click.echo(f"{failed} of {len(cells)} runs failed; results.md says why", err=True)


@contextmanager
def continued_by(invocation: Invocation) -> Iterator[None]:
    """Says that the same command continues after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"continue with {' '.join(invocation.command)}") from None


@contextmanager
def benchmark_progress(
    total: int, silent: bool
) -> Iterator[Callable[[int, Cell | None, str], None]]:
    """Yields what shows a bar with the current run, and a line for each run that fails."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from tffl_cli.console import console
    from tffl_cli.tables import words

    err = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    # Elsewhere than on a terminal nothing moves, and a thread that redraws would only be in the way
    # of packages that load their modules lazily.
    moving = err.is_terminal
    with Progress(
        *columns, TimeRemainingColumn(), console=err, disable=silent, auto_refresh=moving
    ) as bar:
        task = bar.add_task("starting", total=total)

        def progress(done: int, cell: Cell | None, error: str) -> None:
            if error:
                err.print(words(f"failed: {error}"), soft_wrap=True)
            bar.update(task, completed=done, description="done" if cell is None else cell.title)

        yield progress
