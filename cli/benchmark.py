"""`tffl benchmark`: attacks × defenses × settings × seeds, as a file says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tffl_cli.main import Interrupted, Session

if TYPE_CHECKING:
    from tffl.studies.benchmark import Cell


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the results; else runs/<name of the file>.",
)
@click.option("--keep-runs", is_flag=True, help="Keep every run's directory, not only its result.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON, and only that.")
@click.pass_obj
def benchmark(
    session: Session, file: Path, out: Path | None, keep_runs: bool, quiet: bool, as_json: bool
) -> None:
    """Run every attack against every defense that FILE names.

    Attack-free and undefended runs are added. What is finished is not run again, so that the same
    command continues after an interruption. Writes results.csv and results.md.
    """
    from tffl.studies.benchmark import load, run

    cells = load(file)
    check_data(cells)
    folder = out or Path("runs") / file.stem
    try:
        with show_progress(len(cells), quiet or as_json) as progress:
            results = run(cells, folder, keep_runs=keep_runs, progress=progress)
    except KeyboardInterrupt:
        raise Interrupted(f"continue with {' '.join(session.command)}") from None
    if as_json:
        click.echo(json.dumps(json.loads(results.to_json(orient="records")), indent=2))
    elif not quiet:
        from tffl_cli.console import print_benchmark

        print_benchmark(results.to_dict("records"))
        click.echo(f"\nThe results are in {folder}: results.csv and results.md")
    failed = int((results["error"] != "").sum())
    if failed and not as_json:
        click.echo(f"{failed} of {len(cells)} runs failed; results.md says why", err=True)


def check_data(cells: Sequence[Cell]) -> None:
    """Refuses, without TensorFlow, runs of which none has the data that it needs.

    Raises:
      UsageError: No dataset is prepared; if one is, the others' runs are recorded as failed.
    """
    from tffl.core.errors import UsageError
    from tffl.data.build import check_prepared

    problems = []
    for data in dict.fromkeys(cell.config.data for cell in cells):
        try:
            check_prepared(data)
        except UsageError as error:
            problems.append(error)
        else:
            return
    if problems:
        raise problems[0]


@contextmanager
def show_progress(total: int, silent: bool) -> Iterator[Callable[[int, Cell | None, str], None]]:
    """Makes a bar that names the run under way, and lines for those that fail."""
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
    with Progress(*columns, TimeRemainingColumn(), console=err, disable=silent) as bar:
        task = bar.add_task("starting", total=total)

        def progress(done: int, cell: Cell | None, error: str) -> None:
            if error:
                err.print(words(f"failed: {error}"), soft_wrap=True)
            title = "done" if cell is None else " · ".join(filter(None, _words(cell)))
            bar.update(task, completed=done, description=title)

        yield progress


def _words(cell: Cell) -> tuple[str, ...]:
    return cell.setting, cell.attack, cell.defense, f"seed {cell.seed}"
