"""`tffl list`: what can be named in a config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from tffl.core.errors import require
from tffl_cli.combinations import belongs_to, refuse_both
from tffl_cli.options import COUNT, experiment_options, json_option
from tffl_cli.output import print_json

if TYPE_CHECKING:
    from tffl.config import DataConfig

IMAGE_SIZE = 32
"""Height and width of images where neither a size nor a dataset is given."""

KINDS = ("attacks", "defenses", "models", "datasets", "metrics")


def _starting_with(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def complete_kind(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Completes the plural nouns."""
    return _starting_with(KINDS, incomplete)


def complete_name(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Completes the names of the kind that stands before."""
    from tffl.simulation.registries import registry

    kind = ctx.params.get("kind")
    return _starting_with(registry(kind) if kind in KINDS else (), incomplete)


@click.command("list")
@click.argument("kind", metavar="|".join(KINDS), shell_complete=complete_kind)
@click.argument("name", required=False, shell_complete=complete_name)
@json_option
@click.option(
    "--image-size",
    type=COUNT,
    help="With models: build each for images of this size, and add its parameters, its last "
    "convolution and the size of that one's maps.",
)
@click.option(
    "--channels", type=COUNT, default=3, show_default=True, help="Channels of those images."
)
@click.option(
    "--classes",
    type=click.IntRange(min=2),
    default=10,
    show_default=True,
    help="Classes that those models tell apart.",
)
@click.option(
    "--layers",
    is_flag=True,
    help="With models and a NAME: list the layers that defense.layer may name, with the size of "
    "their maps, for images of --image-size or --dataset.",
)
@experiment_options("dataset", "data_dir", "imports")
def list_entries(
    kind: str,
    name: str | None,
    as_json: bool,
    image_size: int | None,
    channels: int,
    classes: int,
    layers: bool,
    **options: Any,
) -> None:
    """List attacks, defenses, models, datasets or metrics: what they need, who published them.

    With a NAME, as in `tffl list defenses krum`, list its options: what each means, which values
    it allows, and its default.
    """
    for option in ("channels", "classes"):
        belongs_to(option, "image-size", image_size is not None)
    for option in ("dataset", "data-dir", "imports"):
        belongs_to(option, "layers", layers)
    shape = (image_size or IMAGE_SIZE, image_size or IMAGE_SIZE, channels)
    if layers:
        require(kind == "models" and name is not None, "--layers goes with `tffl list models NAME`")
        refuse_both(image_size=image_size, dataset=options["dataset"])
        _print_layers(str(name), shape, classes, image_size is not None, as_json, options)
        return
    from tffl.simulation.registries import registry

    entries = registry(kind)
    if image_size is None:
        _print(kind, name, as_json)
        return
    require(name is None, f"--image-size lists all models: leave out {name}, or the option")
    require(kind == "models", f"--image-size goes with `tffl list models`, not with {kind}")
    from tffl.models.shape import describe_networks
    from tffl_cli.console import print_models

    described = describe_networks(entries.describe_all(), shape, classes)
    if as_json:
        print_json(described)
    else:
        print_models(described)


def _print_layers(
    name: str,
    shape: tuple[int, ...],
    classes: int,
    sized: bool,
    as_json: bool,
    options: Mapping[str, Any],
) -> None:
    """Prints the layers of a model that have feature maps.

    Args:
      name: The model's name, file or function.
      shape: Of the images, where neither a dataset nor a file says it.
      classes: Number of classes, in the same case.
      sized: Whether the user has given the shape.
      as_json: Print JSON.
      options: The other options of the command.
    """
    from tffl.config import ModelConfig, read_experiment
    from tffl.core.process import silence
    from tffl.models.own import is_file, model_options, shape_of_file

    model = ModelConfig(name=name, imports=options["imports"] or ())
    model_options(model)
    if options["dataset"]:
        chosen = {key: options[key] for key in ("dataset", "data_dir")}
        shape, classes = _shape_of(read_experiment(None, chosen, ()).data)
    silence()
    if is_file(name) and not options["dataset"] and not sized:
        shape, classes = shape_of_file(Path(name).expanduser())
    from tffl.models.build import build_network
    from tffl.models.shape import describe_layers
    from tffl_cli.console import print_layers

    described = describe_layers(build_network(model, shape, classes))
    if as_json:
        print_json(described)
    else:
        print_layers(described)


def _shape_of(config: DataConfig) -> tuple[tuple[int, ...], int]:
    """Returns the shape of a dataset's samples, and the number of its classes."""
    from tffl.core.process import silence
    from tffl.data.build import check_prepared, load_dataset

    check_prepared(config)
    silence()
    dataset = load_dataset(config)
    return dataset.sample_shape, dataset.classes


def _print(kind: str, name: str | None, as_json: bool) -> None:
    """Prints all entries of a kind, or one with its options."""
    from tffl.simulation.registries import registry
    from tffl_cli.console import print_entries, print_entry

    entries = registry(kind)
    found = entries.describe_all() if name is None else entries.explain(name)
    # An attack lists what it knows about other clients, a defense what it needs beyond updates.
    needs = "may know" if kind == "attacks" else "needs"
    if as_json:
        print_json(found)
    elif isinstance(found, list):
        print_entries(found, needs)
    else:
        print_entry(found, needs, entries.kind)
