"""`tffl list`: what can be named in a config."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from tffl_cli.belonging import belongs_to

if TYPE_CHECKING:
    from tffl.core.registry import Registry

KINDS = ("attacks", "defenses", "models", "datasets", "metrics")


def registry(kind: str) -> Registry:
    """Returns the registry of a plural noun, such as `"attacks"`.

    Raises:
      UsageError: There is no such kind; the message lists them.
    """
    from tffl.attacks import attacks
    from tffl.callbacks import metrics
    from tffl.core.errors import unknown
    from tffl.data import datasets
    from tffl.defenses import defenses
    from tffl.models import models

    found = dict(zip(KINDS, (attacks, defenses, models, datasets, metrics), strict=True))
    if kind not in found:
        raise unknown("kind", kind, KINDS)
    return found[kind]


class Kind(click.ParamType):
    """One of the registries; the program itself names the nearest to a misspelled one."""

    name = "kind"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """Completes the plural nouns."""
        return [
            click.shell_completion.CompletionItem(kind)
            for kind in KINDS
            if kind.startswith(incomplete)
        ]


def complete_name(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[click.shell_completion.CompletionItem]:
    """Completes the names of the kind that stands before."""
    kind = ctx.params.get("kind")
    names = registry(kind) if kind in KINDS else ()
    return [
        click.shell_completion.CompletionItem(name) for name in names if name.startswith(incomplete)
    ]


@click.command("list")
@click.argument("kind", type=Kind(), metavar="attacks|defenses|models|datasets|metrics")
@click.argument("name", required=False, shell_complete=complete_name)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the options of each entry.")
@click.option(
    "--image-size",
    type=click.IntRange(min=1),
    help="Of models: build them for such images; add parameters, last convolution, map size.",
)
@click.option(
    "--channels", type=click.IntRange(min=1), default=3, show_default=True, help="Of those images."
)
@click.option(
    "--classes", type=click.IntRange(min=2), default=10, show_default=True, help="Of those models."
)
def list_entries(
    kind: str, name: str | None, as_json: bool, image_size: int | None, channels: int, classes: int
) -> None:
    """List attacks, defenses, models, datasets or metrics: what they need, who published them.

    With NAME, such as `tffl list defenses krum`, every option of that one: what it means, what it
    may be, and what it is if it is not set.
    """
    for option in ("channels", "classes"):
        belongs_to(option, "image-size", image_size is not None)
    if name is not None:
        _print_one(kind, name, image_size, as_json)
        return
    entries = registry(kind).describe_all()
    if image_size is not None:
        entries = with_figures(kind, entries, (image_size, image_size, channels), classes)
    if as_json:
        click.echo(json.dumps(entries, indent=2, default=str))
        return
    from tffl_cli.console import print_entries, print_models

    if image_size is not None:
        print_models(entries)
        return
    print_entries(entries, needs(kind))


def _print_one(kind: str, name: str, image_size: int | None, as_json: bool) -> None:
    from tffl.core.errors import require

    require(image_size is None, f"--image-size lists all models: leave out {name}, or the option")
    entry = registry(kind).explain(name)
    if as_json:
        click.echo(json.dumps(entry, indent=2, default=str))
        return
    from tffl_cli.console import print_entry

    print_entry(entry, needs(kind), registry(kind).kind)


def needs(kind: str) -> str:
    """Returns what the column is called that says what an attack or a defense has to go by."""
    return "may know" if kind == "attacks" else "needs"


def with_figures(
    kind: str, entries: list[dict[str, Any]], image_shape: tuple[int, int, int], classes: int
) -> list[dict[str, Any]]:
    """Adds to each model's entry what it makes of images of a shape; this needs TensorFlow.

    Raises:
      UsageError: The entries are no models.
    """
    from tffl.core.errors import require

    require(kind == "models", f"--image-size goes with `tffl list models`, not with {kind}")
    from tffl.core.process import silence

    silence()
    return [entry | _figures(entry["name"], image_shape, classes) for entry in entries]


def _figures(name: str, image_shape: tuple[int, int, int], classes: int) -> dict[str, Any]:
    from tffl.core.errors import TfflError
    from tffl.models.shape import describe_network

    try:
        return describe_network(name, image_shape, classes)
    except TfflError as error:  # of a plug-in
        return {"refusal": str(error)}
