"""`tffl simulate`: one experiment, from the command line."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

import tffl
from tffl.core.errors import TfflError, WorkersLost, require
from tffl_cli.main import Interrupted, Session
from tffl_cli.options import assemble, experiment_options

if TYPE_CHECKING:
    from tffl.callbacks.base import Callback
    from tffl.config import Config


@click.command(epilog="Later ones win: --config, then single options, then --set.")
@experiment_options
@click.option("--out", type=click.Path(path_type=Path), help="Run directory; else runs/<time>-….")
@click.option(
    "--resume",
    "resumed",
    metavar="RUN",
    type=click.Path(file_okay=False, path_type=Path),
    help="Continue an interrupted run, alone or with the options that began it.",
)
@click.option("--compare", is_flag=True, help="Also run it undefended, and attack-free.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, and only that.")
@click.pass_obj
def simulate(
    session: Session,
    config: Path | None,
    settings: tuple[str, ...],
    out: Path | None,
    resumed: Path | None,
    compare: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Attack a federation and see what a defense stops."""
    refuse_both(quiet, as_json)
    experiment = read_experiment({}, config, options, settings, resumed)
    job = Job.of(experiment, out, resumed, session.command)
    carry_out(job, compare, quiet, as_json)


def refuse_both(quiet: bool, as_json: bool) -> None:
    """Refuses two options that contradict each other, before a folder is made."""
    require(not (quiet and as_json), "--quiet and --json exclude each other: choose one")


def carry_out(
    job: Job,
    compare: bool = False,
    quiet: bool = False,
    as_json: bool = False,
    command: str = "simulate",
) -> None:
    """Runs an experiment, shows what it shows, and says how to continue if it is interrupted."""
    again = f"tffl {command} --resume {job.directory}{' --compare' if compare else ''}"
    with _resumable(job, again):
        check_folder(job)
        if compare:
            _compare(job, quiet, as_json)
        else:
            _simulate(job, quiet, as_json)
    if not (quiet or as_json):
        click.echo(f"\nThe run is in {job.directory}")


class Job(NamedTuple):
    """What is to be run, and where."""

    config: Config
    directory: Path
    resume: bool
    command: list[str]
    unnamed: bool = False
    """Whether the folder was made for this job, and goes if nothing is written into it."""

    @classmethod
    def of(cls, config: Config, out: Path | None, resumed: Path | None, command: list[str]) -> Job:
        """Returns the job of running a config, or of continuing it.

        Raises:
          UsageError: A name or an option of the config does not exist.
        """
        check(config)
        folder, unnamed = _directory(config, out, resumed), not (out or resumed)
        return cls(config, folder, resumed is not None, command, unnamed)


def _simulate(job: Job, quiet: bool, as_json: bool) -> None:
    with _watching(quiet, as_json) as watch:
        run = tffl.simulate(
            job.config,
            job.directory,
            resume=job.resume and (job.directory / "config.toml").exists(),
            callbacks=[watch("")],
            command=job.command,
        )
    if as_json:
        click.echo(json.dumps(run.summary, indent=2))
    elif not quiet:
        from tffl.studies.comparison import Outcome
        from tffl_cli.console import print_run

        print_run(run.rounds, Outcome.of(run.rounds, run.summary))


def _compare(job: Job, quiet: bool, as_json: bool) -> None:
    from tffl.studies.comparison import Outcome, compare, conclusion, variants

    variants(job.config)
    with _watching(quiet, as_json) as watch:
        runs = compare(
            job.config, job.directory, resume=job.resume, watch=watch, command=job.command
        )
    if as_json:
        click.echo(json.dumps({name: run.summary for name, run in runs.items()}, indent=2))
    elif not quiet:
        from tffl_cli.console import print_comparison

        outcomes = {name: Outcome.of(run.rounds, run.summary) for name, run in runs.items()}
        print_comparison(outcomes, conclusion(outcomes, job.config.defense.name))


@contextmanager
def _watching(quiet: bool, as_json: bool) -> Iterator[Callable[[str], Callback]]:
    """Makes the callback that shows each run, given its title."""
    from tffl.callbacks.base import Callback
    from tffl_cli.progress import Warnings, Watch

    if quiet:
        yield lambda title: Callback()
    elif as_json:
        yield Warnings
    else:
        with Watch() as watch:
            yield watch.titled


def check(config: Config) -> None:
    """Refuses what cannot work in an instant, before TensorFlow is imported.

    Raises:
      UsageError: A name or an option does not exist, and the message lists the nearest and all; or
        the dataset is not prepared.
    """
    from tffl.attacks import create_attack
    from tffl.callbacks.metric import named_metrics
    from tffl.data.build import check_prepared
    from tffl.defenses import create_defense
    from tffl.models import models

    models[config.model.name]
    named_metrics(config.record.metrics)
    create_attack(config.attack.name, config.attack.options)
    create_defense(config.defense.name, config.defense.options)
    check_prepared(config.data)


def check_folder(job: Job) -> None:
    """Refuses a folder that cannot hold a run, or holds another one, before TensorFlow is imported.

    Raises:
      UsageError: It is so; the message says what to do.
    """
    from tffl.record.identity import resolved
    from tffl.record.writer import RunWriter, refuse_occupied

    config = resolved(job.config)
    if job.resume and (job.directory / "config.toml").exists():
        RunWriter.resume(job.directory, config)
    else:
        refuse_occupied(job.directory, config)


def read_experiment(
    base: Mapping[str, Any],
    config: Path | None,
    options: Mapping[str, Any],
    settings: tuple[str, ...],
    resumed: Path | None = None,
) -> Config:
    """Returns the experiment that the options describe, upon a file's values or else `base`."""
    from tffl.config import build, build_from_file

    if resumed is not None and (resumed / "config.toml").exists():
        config = config or resumed / "config.toml"
        return build_from_file(config, lambda values: assemble(values, options, settings))
    told = config or settings or any(value is not None for value in options.values())
    # A run killed before its first file was written can only begin again, from its options.
    require(
        resumed is None or bool(told),
        f"{resumed} holds no config.toml, hence no run to resume: begin one with --out {resumed}",
    )
    if config is None:
        return build(assemble(base, options, settings))
    return build_from_file(config, lambda values: assemble(values, options, settings))


def _directory(config: Config, out: Path | None, resumed: Path | None) -> Path:
    same = out is None or resumed is None or out.resolve() == resumed.resolve()
    require(same, f"--out {out} and --resume {resumed} name two run directories: give one")
    chosen = resumed or out
    if chosen:
        return chosen
    from tffl.core.atomic import make_free_folder

    stamp = time.strftime("%Y%m%d-%H%M%S")
    return make_free_folder(Path("runs") / f"{stamp}-{config.defense.name}-{config.attack.name}")


@contextmanager
def _resumable(job: Job, again: str) -> Iterator[None]:
    """Tells how to continue after Ctrl-C or a full disk."""
    directory = job.directory
    try:
        yield
    except KeyboardInterrupt:
        begun = (directory / "config.toml").exists()
        raise Interrupted(f"continue with {again}" if begun else "nothing was written") from None
    except WorkersLost as error:
        raise TfflError(f"{error}, and continue with {again}") from None
    except (OSError, TfflError) as error:
        cause = error.__cause__ if isinstance(error, TfflError) else error
        if not (isinstance(cause, OSError) and cause.errno == errno.ENOSPC):
            raise
        raise TfflError(
            f"the disk is full while writing {directory}: free some space, then {again}"
        ) from None
    finally:
        if job.unnamed:
            with suppress(OSError):  # there is a run in it
                directory.rmdir()
