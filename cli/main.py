"""`tffl`: the program, its subcommands, and how it fails.

Subcommands are imported when they are called, and what they import themselves waits until they
run, so that every `--help` answers at once.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import click

from tffl import __version__
from tffl.core.errors import TfflError, TfflWarning, first_line, unknown
from tffl_cli.plain import plain_streams

COMMANDS = {
    "simulate": ("tffl_cli.simulate:simulate", "Attack a federation and see what a defense stops."),
    "pretrain": ("tffl_cli.pretrain:pretrain", "Train a model on all data, to start from it."),
    "benchmark": ("tffl_cli.benchmark:benchmark", "Run attacks x defenses x settings x seeds."),
    "reproduce": ("tffl_cli.reproduce:reproduce", "Measure a paper's tables and figures again."),
    "page": ("tffl_cli.page:page", "Write a page of results/ from runs or recorded tables."),
    "replay": ("tffl_cli.replay:replay", "Try attacks and defenses on a run's stored updates."),
    "recover": ("tffl_cli.recover:recover", "Rebuild a model without convicted clients."),
    "certify": ("tffl_cli.certify:certify", "Say what a run of crfl proves about its predictions."),
    "localize": ("tffl_cli.localize:localize", "Rank the weights that give attackers away."),
    "explain": ("tffl_cli.explain:explain", "Draw what a heat-map defense saw in a round."),
    "report": ("tffl_cli.report:report", "Show runs and benchmarks as a page, Markdown or LaTeX."),
    "compare": ("tffl_cli.compare:compare", "Put the figures of several runs side by side."),
    "audit-gan": ("tffl_cli.audit_gan:audit_gan", "Audit clients' models with generated images."),
    "scan": ("tffl_cli.scan:scan", "Find poisoned and hostile files among clients' models."),
    "worker": ("tffl_cli.worker:worker", "Train clients for a run on another machine."),
    "data": ("tffl_cli.data:data", "List, prepare and inspect datasets."),
    "list": ("tffl_cli.list:list_entries", "List attacks, defenses, models, datasets or metrics."),
    "bench": ("tffl_cli.bench:bench", "Measure the speed of the engine and the defenses."),
}
"""Subcommand → where it is, and its line in `tffl --help`."""

INTERRUPTED = 130

MAY_HANG = ("tffl.simulation.cluster.chief", "tffl.engine.threads")
"""Modules that know whether something is stuck that the end of the process would wait for."""

_HELP_INSTEAD = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""What click 8.2 and later raises where a group is called without a subcommand."""


@dataclass
class Invocation:
    """One call of the program: its command line, and whether `--verbose` was used."""

    command: list[str] = field(default_factory=lambda: ["tffl"])
    verbose: bool = False


class Interrupted(click.ClickException):
    """Ctrl-C, with a line that says how to go on."""

    exit_code = INTERRUPTED

    def show(self, file: Any = None) -> None:
        """Prints the line without calling it an error."""
        click.echo(f"Interrupted: {self.message}", err=True)


class Program(click.Group):
    """A group that imports subcommands on demand and turns every failure into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the subcommands in the order in which a newcomer uses them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a subcommand."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        return _with_verbose(getattr(import_module(module), attribute))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the subcommand that the arguments name, or the nearest one for the message."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise unknown("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> Any:
        """Runs the program and exits with its code."""
        arguments = list(sys.argv[1:] if args is None else args)
        invocation = Invocation(["tffl", *arguments])
        extra |= {"prog_name": "tffl", "standalone_mode": False, "obj": invocation}
        with plain_streams(), _quiet():
            try:
                code = super().main(arguments, **extra)
            except Exception as error:
                code = print_error(error, invocation.verbose)
        _exit(code if isinstance(code, int) else 0)


def _exit(code: int) -> None:
    """Ends the program, at once where TensorFlow would wait for workers that are gone or hang."""
    if any(module in sys.modules and sys.modules[module].stuck() for module in MAY_HANG):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def print_error(error: Exception, verbose: bool) -> int:
    """Prints a failure as one line on stderr, and returns the exit code."""
    if isinstance(error, (Interrupted, _HELP_INSTEAD)):
        error.show()
        return error.exit_code
    if isinstance(error, click.Abort):
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    expected = isinstance(error, (TfflError, click.ClickException))
    if verbose and (not expected or error.__cause__ is not None):
        traceback.print_exception(error)
    from tffl.untrusted.refusal import escape_controls

    line, code = describe_error(error)
    click.echo(f"Error: {escape_controls(line)}", err=True)
    return code


def describe_error(error: Exception) -> tuple[str, int]:
    """Returns the line and the exit code of a failure."""
    if isinstance(error, TfflError):
        return str(error), error.exit_code
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        hint = f" (see '{context.command_path} --help')" if context else ""
        return " ".join(error.format_message().split()) + hint, error.exit_code
    if isinstance(error, MemoryError):
        return "out of memory: use fewer clients, a smaller model or --train-limit", 1
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        place = f" at {error.filename}" if error.filename else ""
        return f"the disk is full{place}: free some space and try again", 1
    return f"{first_line(error)} (run with --verbose for the traceback)", 1


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences TensorFlow's start-up noise, unless `--verbose` lifts it."""
    level = os.environ.get("TF_CPP_MIN_LOG_LEVEL")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "_TFFL_COMPLETE" not in os.environ:
            warnings.simplefilter("always", TfflWarning)
        warnings.showwarning = _show_warning
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
            _restore(level)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    """Prints a warning of our own as one line, and others as Python does."""
    from tffl.untrusted.refusal import escape_controls

    text = f"Warning: {escape_controls(str(message))}\n"
    if not issubclass(category, TfflWarning):
        text = warnings.formatwarning(message, category, filename, lineno, line)
    click.echo(text, err=True, nl=False)


def _restore(level: str | None) -> None:
    if level is None:
        os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
    else:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = level


def _set_verbose(ctx: click.Context, option: click.Parameter, verbose: bool) -> None:
    if not verbose:
        return
    ctx.ensure_object(Invocation).verbose = True
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"
    warnings.simplefilter("default")
    logging.disable(logging.NOTSET)


def _verbose_option() -> click.Option:
    return click.Option(
        ["--verbose"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_set_verbose,
        help="Show TensorFlow's messages, and the traceback of an unexpected error.",
    )


def _with_verbose(command: click.Command) -> click.Command:
    """Lets `--verbose` stand after the subcommand as well as before it."""
    if not any(option.name == "verbose" for option in command.params):
        command.params.append(_verbose_option())
    for child in getattr(command, "commands", {}).values():
        _with_verbose(child)
    return command


@click.group(
    cls=Program,
    params=[_verbose_option()],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="tffl")
def cli() -> None:
    """Find out whether a federated-learning server can be poisoned, and what stops it."""


def main() -> None:
    """Runs the program: the console script `tffl`, and `python -m tffl`."""
    cli.main()
