"""Options that several commands share, each declared once, so that it means the same everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from click.shell_completion import CompletionItem

Command = TypeVar("Command", bound=Callable[..., Any])
Option = Callable[[Command], Command]

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
PATH = click.Path(path_type=Path)
COUNT = click.IntRange(min=1)


class Name(click.ParamType):
    """A name that the shell completes; the library checks it, and suggests the nearest one."""

    name = "name"

    def __init__(self, values: Callable[[], Iterable[str]], files: bool = False) -> None:
        """Keeps `values`, which is called only to complete; files may take their place."""
        self.values = values
        self.files = files

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Returns the names that begin with what was typed; else files, if they may be given."""
        names = [CompletionItem(name) for name in self.values() if name.startswith(incomplete)]
        files = [CompletionItem(incomplete, type="file")] if self.files else []
        return names or files


def registered(kind: str) -> Name:
    """Returns the type of a name in a registry, such as `"attacks"`."""

    def values() -> Iterable[str]:
        from tffl.simulation.registries import registry

        return registry(kind)

    return Name(values, files=kind in ("datasets", "models"))


def allowed(section: str, key: str) -> Name:
    """Returns the type of a config key that allows a few words only."""

    def values() -> Iterable[str]:
        from tffl.config import Config

        model: Any = Config.model_fields[section].annotation
        return get_args(model.model_fields[key].annotation)

    return Name(values)


class PixelRangeType(click.ParamType):
    """Two numbers, the first smaller, as in `0,1`."""

    name = "range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns both, or says what they should be."""
        try:
            low, high = map(float, value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not two numbers, as in 0,1", param, ctx)
        if not -math.inf < low < high < math.inf:
            self.fail(f"{value!r} does not go from a smaller number to a larger one", param, ctx)
        return low, high


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else."
)
quiet_option = click.option("--quiet", is_flag=True, help="Print nothing but errors.")
data_dir_option = click.option(
    "--data-dir",
    type=FOLDER,
    help="Folder of prepared datasets; by default $TFFL_DATA_DIR, else TFDS's own.",
)
pixels_option = click.option(
    "--pixels",
    type=PixelRangeType(),
    metavar="LOW,HIGH",
    help="Darkest and brightest pixel value that the global model takes, if images are scaled "
    "outside of it: 0,1 or -1,1. By default 0,255, and for float images the range they are in.",
)
rounds_option = click.option(
    "--round",
    "rounds",
    multiple=True,
    type=COUNT,
    help="Round whose heat maps are shown; by default the last that has any. Repeatable.",
)
resume_option = click.option(
    "--resume",
    "resumed",
    metavar="RUN",
    type=FOLDER,
    help="Continue an interrupted run, alone or with the options that began it.",
)
run_out_option = click.option(
    "--out",
    type=PATH,
    help="Run directory to write; by default runs/<time>-<defense>-<attack>.",
)

import_option = click.option(
    "--import",
    "imports",
    multiple=True,
    metavar="MODULE",
    callback=lambda ctx, option, value: value or None,
    help="Module to import first, such as one that registers layers of your model. Repeatable.",
)

_EXPERIMENT = {
    "config": click.option(
        "--config",
        type=FILE,
        help="Experiment: a TOML file, or a name such as quickstart. Other options override it.",
    ),
    "dataset": click.option(
        "--dataset",
        type=registered("datasets"),
        help="Dataset, one of `tffl list datasets`; or your own: a folder of images, or a .npz, "
        ".csv or .parquet file.",
    ),
    "data_dir": data_dir_option,
    "train_limit": click.option(
        "--train-limit", type=int, help="Use only this many training images."
    ),
    "partition": click.option(
        "--partition",
        type=allowed("data", "partition"),
        help="How clients share the images: iid, dirichlet, dirichlet-size, shards, round-robin, "
        "natural or sampled.",
    ),
    "beta": click.option(
        "--beta", type=float, help="Evenness of a dirichlet, dirichlet-size or sampled partition."
    ),
    "clients": click.option("--clients", type=int, help="Number of clients."),
    "participants": click.option(
        "--participants",
        metavar="COUNT|FRACTION",
        help="Clients drawn each round; by default all take part.",
    ),
    "malicious": click.option(
        "--malicious", metavar="COUNT|FRACTION", help="Malicious clients: 2, 0.2 or 20%."
    ),
    "weighting": click.option(
        "--weighting",
        type=allowed("federation", "weighting"),
        help="Weight of a client in the average: its claimed samples, capped ones, or uniform.",
    ),
    "model": click.option(
        "--model",
        type=registered("models"),
        metavar="NAME|FILE|MODULE:FUNCTION",
        help="Model, one of `tffl list models`, or your own: a .keras file, or a function.",
    ),
    "imports": import_option,
    "rounds": click.option("--rounds", type=int, help="Number of rounds."),
    "local_epochs": click.option(
        "--local-epochs", type=int, help="Epochs that a client trains in a round."
    ),
    "batch_size": click.option("--batch-size", type=int, help="Batch size of a client."),
    "optimizer": click.option(
        "--optimizer", type=allowed("training", "optimizer"), help="sgd, adam or adamw."
    ),
    "learning_rate": click.option("--learning-rate", type=float, help="Learning rate of a client."),
    "precision": click.option(
        "--precision",
        type=allowed("training", "precision"),
        help="float32, mixed_bfloat16 or mixed_float16.",
    ),
    "jit": click.option("--jit/--no-jit", default=None, help="Compile training steps with XLA."),
    "attack": click.option(
        "--attack", type=registered("attacks"), help="Attack, one of `tffl list attacks`."
    ),
    "defense": click.option(
        "--defense", type=registered("defenses"), help="Defense, one of `tffl list defenses`."
    ),
    "seed": click.option("--seed", type=int, help="Seed of every random choice."),
    "devices": click.option("--devices", type=int, help="Local devices to use; 0 uses all."),
    "placement": click.option(
        "--placement",
        type=allowed("runtime", "placement"),
        help="Where clients are trained: local, or cluster for `tffl worker` processes.",
    ),
    "workers": click.option(
        "--worker",
        "workers",
        multiple=True,
        metavar="HOST:PORT",
        callback=lambda ctx, option, value: value or None,
        help="Worker of the cluster, or several as HOST:5000-5003; by default those of TF_CONFIG. "
        "Repeatable.",
    ),
    "parameter_server": click.option(
        "--parameter-server",
        metavar="HOST:PORT",
        help="Idle process that TensorFlow's cluster needs; by default one is started.",
    ),
    "updates_on_disk": click.option(
        "--updates-on-disk/--updates-in-memory",
        default=None,
        help="Where a round's updates are kept; by default on disk if memory is too small.",
    ),
    "store_updates": click.option(
        "--store-updates",
        metavar="ROUNDS|all",
        help="Store the client updates of these rounds, such as 1,5,10-12.",
    ),
    "settings": click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        help="Set any key of the config; overrides all other options. Repeatable.",
    ),
}
"""Parameter of a command → the option of an experiment that fills it."""


def experiment_options(*names: str) -> Option[Command]:
    """Adds options of an experiment, in this order; all of them if none is named."""

    def decorate(command: Command) -> Command:
        for name in reversed(names or tuple(_EXPERIMENT)):
            command = _EXPERIMENT[name](command)
        return command

    return decorate


def several_option(section: str) -> Option[Command]:
    """Adds `--attack` or `--defense`, which may be repeated."""
    return click.option(
        f"--{section}",
        f"{section}s",
        multiple=True,
        type=registered(f"{section}s"),
        help=f"{section.capitalize()}, one of `tffl list {section}s`. Repeatable.",
    )


def part_settings_option(*sections: str) -> Option[Command]:
    """Adds `--set` for the options of attacks, defenses or both."""
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="|".join(f"{section}.KEY=VALUE" for section in sections),
        help=f"Set an option of every {' or '.join(f'--{section}' for section in sections)} that "
        "has it. Repeatable.",
    )
