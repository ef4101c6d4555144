"""The options of an experiment, each a shorthand for one key of the config."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from click.shell_completion import CompletionItem

Command = TypeVar("Command", bound=Callable[..., Any])


class Name(click.ParamType):
    """A name that the shell completes; the program checks it, and names the nearest one."""

    name = "name"

    def __init__(self, values: Callable[[], Iterable[str]]) -> None:
        """Keeps `values`, which is called only to complete."""
        self.values = values

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Returns the names that begin as typed."""
        return [CompletionItem(name) for name in self.values() if name.startswith(incomplete)]


def registered(kind: str) -> Name:
    """Returns the type of a name in a registry, such as `"attacks"`."""

    def values() -> Iterable[str]:
        from tffl_cli.list import registry

        return registry(kind)

    return Name(values)


def allowed(section: str, key: str) -> Name:
    """Returns the type of a config key that allows a few words only."""

    def values() -> Iterable[str]:
        from tffl.config import Config

        model: Any = Config.model_fields[section].annotation
        return get_args(model.model_fields[key].annotation)

    return Name(values)


KEYS = {
    "dataset": "data.dataset",
    "data_dir": "data.data_dir",
    "train_limit": "data.train_limit",
    "partition": "data.partition",
    "beta": "data.beta",
    "clients": "federation.clients",
    "participants": "federation.participants",
    "malicious": "federation.malicious",
    "weighting": "federation.weighting",
    "rounds": "federation.rounds",
    "model": "model.name",
    "local_epochs": "training.local_epochs",
    "batch_size": "training.batch_size",
    "optimizer": "training.optimizer",
    "learning_rate": "training.learning_rate",
    "precision": "training.precision",
    "jit": "training.jit",
    "attack": "attack.name",
    "defense": "defense.name",
    "seed": "seed",
    "devices": "runtime.devices",
    "placement": "runtime.placement",
    "workers": "runtime.workers",
    "parameter_server": "runtime.parameter_server",
    "updates_on_disk": "runtime.updates_on_disk",
    "store_updates": "record.store_updates",
}
"""Option, as a Python name → the config key that it sets."""

_OPTIONS = (
    click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Experiment in TOML; the options below win over it.",
    ),
    click.option("--dataset", type=registered("datasets"), help="See `tffl list datasets`."),
    click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=str),
        help="Folder of prepared datasets; else $TFFL_DATA_DIR.",
    ),
    click.option("--train-limit", type=int, help="Use only this many training images."),
    click.option(
        "--partition",
        type=allowed("data", "partition"),
        help="How clients share the images: iid, dirichlet, shards, round-robin or sampled.",
    ),
    click.option("--beta", type=float, help="Evenness of a dirichlet or sampled partition."),
    click.option("--clients", type=int, help="Number of clients."),
    click.option(
        "--participants", metavar="COUNT|FRACTION", help="Clients drawn each round; else all."
    ),
    click.option("--malicious", metavar="COUNT|FRACTION", help="Malicious clients: 2, 0.2 or 20%."),
    click.option(
        "--weighting",
        type=allowed("federation", "weighting"),
        help="How much a client counts: by its claimed samples, capped ones, or uniform.",
    ),
    click.option("--model", type=registered("models"), help="See `tffl list models`."),
    click.option("--rounds", type=int, help="Number of rounds."),
    click.option("--local-epochs", type=int, help="Epochs of a client in a round."),
    click.option("--batch-size", type=int, help="Batch size of a client."),
    click.option("--optimizer", type=allowed("training", "optimizer"), help="sgd, adam or adamw."),
    click.option("--learning-rate", type=float, help="Learning rate of a client."),
    click.option(
        "--precision",
        type=allowed("training", "precision"),
        help="float32, mixed_bfloat16 or mixed_float16.",
    ),
    click.option("--jit/--no-jit", default=None, help="Compile training steps with XLA."),
    click.option("--attack", type=registered("attacks"), help="See `tffl list attacks`."),
    click.option("--defense", type=registered("defenses"), help="See `tffl list defenses`."),
    click.option("--seed", type=int, help="Decides every random choice."),
    click.option("--devices", type=int, help="Local devices to use; 0 takes all."),
    click.option(
        "--placement",
        type=allowed("runtime", "placement"),
        help="local, or cluster: clients are trained by `tffl worker` processes.",
    ),
    click.option(
        "--worker",
        "workers",
        multiple=True,
        metavar="HOST:PORT",
        callback=lambda ctx, option, value: value or None,
        help="A worker of the cluster, or several: HOST:5000-5003. Repeatable; else TF_CONFIG.",
    ),
    click.option(
        "--parameter-server",
        metavar="HOST:PORT",
        help="An idle process for TensorFlow's cluster; else its own.",
    ),
    click.option(
        "--updates-on-disk/--updates-in-memory",
        default=None,
        help="Where a round's updates are kept; on disk if they do not fit.",
    ),
    click.option(
        "--store-updates",
        metavar="ROUNDS|all",
        help="Keep the client updates of these rounds, such as 1,5,10-12.",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        help="Set any other key of the config; wins over all else. Repeatable.",
    ),
)


def experiment_options(command: Command) -> Command:
    """Adds the options of an experiment: `config`, every key of `KEYS`, and `settings`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def assemble(
    base: Mapping[str, Any], options: Mapping[str, Any], settings: Iterable[str]
) -> dict[str, Any]:
    """Lays single options, then `--set`, over the values of a config file.

    Naming another attack or defense than the file's drops the options that the file gave to its
    own, which the other would not understand.

    >>> assemble({"attack": {"name": "a", "depth": 3}}, {"attack": "b"}, ["attack.scale=2"])
    {'attack': {'name': 'b', 'scale': 2}}

    Args:
      base: Nested values, as read from TOML.
      options: Values by option name; None where the option was not given.
      settings: The `--set` arguments, in order.
    """
    from tffl.config import override, parse_setting

    given = {KEYS[name]: value for name, value in options.items() if value is not None}
    if "runtime.workers" in given:
        given.setdefault("runtime.placement", "cluster")
    for section in ("attack", "defense"):
        name = given.get(f"{section}.name")
        old = base.get(section)
        if name is not None and isinstance(old, Mapping) and old.get("name", "none") != name:
            base = {key: value for key, value in base.items() if key != section}
    return override(override(base, given), dict(map(parse_setting, settings)))
