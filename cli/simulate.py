"""`tffl simulate`: one experiment, from the command line."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

import tffl
from tffl.core.errors import TfflError, WorkersLost, require
from tffl_cli.combinations import refuse_both
from tffl_cli.main import Interrupted, Invocation
from tffl_cli.options import (
    COUNT,
    Name,
    experiment_options,
    json_option,
    quiet_option,
    resume_option,
    run_out_option,
)
from tffl_cli.output import print_json

if TYPE_CHECKING:
    from tffl.callbacks.base import Callback
    from tffl.simulation.preparation import Job


class Output(NamedTuple):
    """What a command prints: nothing but errors, JSON, or tables for people.

    Attributes:
      quiet: Nothing but errors.
      as_json: The result as JSON.
      tracked: Names of trackers that follow every run.
    """

    quiet: bool
    as_json: bool
    tracked: tuple[str, ...] = ()

    @property
    def for_people(self) -> bool:
        """Whether tables and progress are shown."""
        return not (self.quiet or self.as_json)


@click.command(epilog="Later ones override earlier ones: --config, single options, --set.")
@experiment_options()
@run_out_option
@resume_option
@click.option(
    "--compare", is_flag=True, help="Run it also without the defense, and without the attack."
)
@click.option(
    "--seeds",
    type=COUNT,
    help="Run it with so many seeds, from its own on, and print means with intervals.",
)
@click.option(
    "--track",
    "tracked",
    multiple=True,
    type=Name(lambda: ("mlflow", "wandb")),
    metavar="mlflow|wandb",
    help="Log the run to MLflow or, offline, to Weights & Biases. Repeatable.",
)
@quiet_option
@json_option
@click.pass_obj
def simulate(
    invocation: Invocation,
    config: Path | None,
    settings: tuple[str, ...],
    out: Path | None,
    resumed: Path | None,
    compare: bool,
    seeds: int | None,
    tracked: tuple[str, ...],
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Attack a federation and see what a defense stops."""
    refuse_both(quiet=quiet, json=as_json)
    refuse_both(compare=compare, seeds=seeds)
    from tffl.config import read_experiment
    from tffl.integrations.trackers import named_trackers
    from tffl.simulation.preparation import Job
    from tffl.studies.several_seeds import first_directory

    begun = first_directory(resumed) if resumed else None
    require(
        seeds is not None or begun == resumed,
        f"{resumed} holds runs of several seeds: give --seeds too, or resume one, such as {begun}",
    )
    named_trackers(tracked)  # whether their packages are installed
    job = Job.of(read_experiment(config, options, settings, begun), out, resumed)
    more = " --compare" if compare else f" --seeds {seeds}" if seeds else ""
    more += "".join(f" --track {name}" for name in tracked)
    again = f"tffl simulate --resume {job.directory}{more}"
    run = run_comparison if compare else partial(run_seeds, seeds) if seeds else run_experiment
    with resumable(job, again):
        run(job, invocation.command, Output(quiet, as_json, tracked))


def run_experiment(job: Job, command: list[str], output: Output) -> None:
    """Runs a job and prints its summary."""
    job.check_directory()
    with watching(output) as watch:
        run = tffl.simulate(
            job.config,
            job.directory,
            resume=job.resumes,
            callbacks=watch(""),
            command=command,
        )
    if output.as_json:
        print_json(run.summary)
    elif output.for_people:
        from tffl_cli.console import print_run

        print_run(run)
        click.echo(f"\nThe run is in {job.directory}")


def run_comparison(job: Job, command: list[str], output: Output) -> None:
    """Runs a job also without its defense and without its attack, and prints what differs."""
    from tffl.studies.comparison import compare, variants

    job.check_directory()
    variants(job.config)
    with watching(output) as watch:
        runs = compare(job.config, job.directory, resume=job.resume, watch=watch, command=command)
    if output.as_json:
        print_json({name: run.summary for name, run in runs.items()})
    elif output.for_people:
        from tffl_cli.console import print_comparison

        print_comparison(runs, job.config.defense.name)
        click.echo(f"\nThe run is in {job.directory}")


def run_seeds(count: int, job: Job, command: list[str], output: Output) -> None:
    """Runs a job with several seeds, and prints their figures with means and intervals."""
    from tffl.studies.several_seeds import (
        check_directories,
        figures_by_seed,
        seed_configs,
        simulate_seeds,
        summarize_seeds,
    )

    check_directories(seed_configs(job.config, count), job.directory, job.resume)
    with watching(output) as watch:
        runs = simulate_seeds(
            job.config,
            count,
            job.directory,
            resume=job.resume,
            watch=lambda seed: watch(f"seed {seed}"),
            command=command,
        )
    rows = figures_by_seed(runs)
    if output.as_json:
        print_json({**summarize_seeds(rows), "runs": rows})
    elif output.for_people:
        from tffl_cli.console import print_seeds

        print_seeds(rows)
        click.echo(f"\nThe runs are in {job.directory}")


@contextmanager
def watching(output: Output) -> Iterator[Callable[[str], list[Callback]]]:
    """Yields a function that makes the callbacks of a run, from the run's title."""
    from tffl.integrations.trackers import named_trackers
    from tffl_cli.progress import Warnings, Watch

    def trackers() -> list[Callback]:
        return [*named_trackers(output.tracked)]

    if output.quiet:
        yield lambda title: trackers()
    elif output.as_json:
        yield lambda title: [Warnings(title), *trackers()]
    else:
        with Watch() as watch:
            yield lambda title: [watch.titled(title), *trackers()]


@contextmanager
def resumable(job: Job, again: str) -> Iterator[None]:
    """Says how to continue after Ctrl-C, lost workers or a full disk."""
    try:
        yield
    except KeyboardInterrupt:
        continued = f"continue with {again}" if job.begun else "nothing was written"
        raise Interrupted(continued) from None
    except WorkersLost as error:
        raise TfflError(f"{error}, and continue with {again}") from None
    except (OSError, TfflError) as error:
        cause = error.__cause__ if isinstance(error, TfflError) else error
        if not (isinstance(cause, OSError) and cause.errno == errno.ENOSPC):
            raise
        raise TfflError(
            f"the disk is full while writing {job.directory}: free some space, then {again}"
        ) from None
    finally:
        job.clean()
