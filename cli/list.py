"""`tffl list`: what can be named in a config."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tffl.registry import Registry

KINDS = ("attacks", "defenses", "models", "datasets")


def registry(kind: str) -> Registry:
    """Returns the registry of a plural noun, such as `"attacks"`.

    Raises:
      UsageError: There is no such kind; the message lists them.
    """
    from tffl.attacks import attacks
    from tffl.data import datasets
    from tffl.defenses import defenses
    from tffl.errors import unknown
    from tffl.models import models

    found = {"attacks": attacks, "defenses": defenses, "models": models, "datasets": datasets}
    if kind not in found:
        raise unknown("kind", kind, KINDS)
    return found[kind]


class Kind(click.ParamType):
    """One of the four registries; the program itself names the nearest to a misspelled one."""

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


@click.command("list")
@click.argument("kind", type=Kind(), metavar="attacks|defenses|models|datasets")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the options of each entry.")
def list_entries(kind: str, as_json: bool) -> None:
    """List attacks, defenses, models or datasets, with what they need and who published them."""
    entries = [registry(kind).describe(name) for name in registry(kind)]
    if as_json:
        click.echo(json.dumps(entries, indent=2, default=str))
        return
    from tffl_cli.console import print_entries

    print_entries(entries, "may know" if kind == "attacks" else "needs")
