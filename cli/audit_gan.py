"""`tffl audit-gan`: the GAN auditor, on a folder of clients' models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tffl.errors import UsageError, require
from tffl_cli.options import registered
from tffl_cli.scan import SUSPECTS

if TYPE_CHECKING:
    from tffl.defenses.gan_audit import GanAudit
    from tffl.gan.folder import FolderAudit


@click.command(
    "audit-gan",
    epilog="Exit code: 0 if nothing is suspect, 3 if anything is, 2 if nothing can be judged.",
)
@click.option(
    "--models",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder with one model per client: .keras, .weights.h5, .npz, .safetensors, SavedModel.",
)
@click.option(
    "--global",
    "global_model",
    type=click.Path(path_type=Path),
    help="Your own model that the clients started from: a .keras file, or a run.",
)
@click.option(
    "--aux",
    type=registered("datasets"),
    help="Whose test images the server has, for the sources gan, auxiliary and held-out.",
)
@click.option(
    "--audit-source",
    metavar="SOURCE[+SOURCE…]",
    help="gan, model-inversion, held-out, auxiliary or noise; else the defense's own default.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of prepared datasets; else $TFFL_DATA_DIR.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**32 - 1),
    help="Decides every random choice; drawn at random, so that no attacker knows the images.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="defense.KEY=VALUE",
    help="An option of the defense gan-audit. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every confusion matrix.")
@click.pass_context
def audit_gan(
    ctx: click.Context,
    models: Path | None,
    global_model: Path | None,
    aux: str | None,
    audit_source: str | None,
    data_dir: Path | None,
    seed: int | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Audit clients' models with images of the server's own making.

    The models vote on the label of each audit image; who errs too often is a suspect. Files that
    are damaged or hostile are suspects, too, and do not stop the audit of the others.
    """
    if models is None or global_model is None:
        raise UsageError("give --models, a folder of clients' models, and --global, your own model")
    found = _audit_folder(models, global_model, aux, audit_source, data_dir, seed, settings)
    _print(found, as_json)
    for reason in found.scan.unjudged.values() if not found.scan.suspects else ():
        raise UsageError(f"nothing could be judged: {reason}")
    ctx.exit(SUSPECTS if found.scan.suspects else 0)


def auditor(source: str | None, settings: Sequence[str]) -> GanAudit:
    """Returns the defense with the options that were given.

    Raises:
      UsageError: An option does not exist, or a value is out of range.
    """
    from tffl.config import override, parse_setting
    from tffl.defenses import create_defense
    from tffl.gan.folder import DEFENSE

    pairs = [parse_setting(text) for text in settings]
    for key, _ in pairs:
        require(key.startswith("defense."), f"--set {key}: an audit takes defense.KEY only")
    given = override({}, {key.removeprefix("defense."): value for key, value in pairs})
    named = {} if source is None else {"source": source}
    defense: GanAudit = create_defense(DEFENSE, {**named, **given})  # type: ignore[assignment]
    return defense


def _audit_folder(
    folder: Path,
    global_model: Path,
    aux: str | None,
    source: str | None,
    data_dir: Path | None,
    seed: int | None,
    settings: Sequence[str],
) -> FolderAudit:
    defense = auditor(source, settings)

    from tffl.files.trusted import load_global
    from tffl.gan.folder import audit_folder
    from tffl.scan import load_samples

    model = load_global(global_model)
    samples = None if aux is None else load_samples(model, aux, data_dir)
    return audit_folder(model, folder, defense, samples, seed)


def _print(found: FolderAudit, as_json: bool) -> None:
    from tffl.files import shown
    from tffl.record.run_directory import plain

    if as_json:
        report = {
            "files": [{**row, "file": shown(row["file"], 255)} for row in found.rows()],
            "suspects": [shown(name, 255) for name in found.scan.suspects],
            "unjudged": dict(found.scan.unjudged),
            "classes": found.classes,
            "label_counts": found.label_counts,
        }
        click.echo(json.dumps(plain(report), indent=2))
        return
    _print_table(found)


def _print_table(found: FolderAudit) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from tffl.files import shown
    from tffl.gan.folder import mistakes
    from tffl_cli.console import console, rate

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("file", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("audit accuracy", justify="right")
    table.add_column("threshold", justify="right")
    table.add_column("takes label → for label")
    table.add_column("reason", overflow="fold")
    for row in found.rows():
        confusion = row["confusion"]
        table.add_row(
            Text(shown(row["file"])),
            "suspect" if row["suspect"] else "not judged" if found.scan.unjudged else "ok",
            rate(row["accuracy"]),
            rate(row["threshold"]),
            "" if confusion is None else mistakes(confusion, found.classes, most=2),
            Text(row["reason"]),
            style="red" if row["suspect"] else None,
        )
    out = console()
    out.print(table)
    labels = [
        f"{name}: {n}" for name, n in zip(found.classes, found.label_counts, strict=True) if n
    ]
    out.print(f"Audit images by voted label: {', '.join(labels) or 'none'}.", markup=False)
    out.print(f"{len(found.scan.suspects)} of {len(found.scan.files)} files suspect.")
