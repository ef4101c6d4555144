"""`tffl audit-gan`: the GAN auditor in an experiment, on a run, and on a folder of models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tffl.core.errors import UsageError, require
from tffl_cli.combinations import refuse_any, refuse_both
from tffl_cli.main import Invocation
from tffl_cli.options import (
    COUNT,
    FOLDER,
    experiment_options,
    json_option,
    pixels_option,
    quiet_option,
    resume_option,
    run_out_option,
)
from tffl_cli.output import print_json
from tffl_cli.scan import SUSPECTS, global_option, updates_option
from tffl_cli.simulate import Output, resumable, run_experiment

if TYPE_CHECKING:
    from tffl.scan.audit import AuditResult


@click.command(
    "audit-gan",
    epilog="Exit code of an audit: 0 if nothing is suspect, 3 if anything is, 2 if nothing can be "
    "judged. An experiment ends with 0, whatever it shows.",
)
@updates_option(required=False)
@global_option(required=False)
@click.option("--run", type=FOLDER, help="Audit the updates that this run has stored.")
@click.option("--round", "number", type=COUNT, help="With --run: the stored round to audit.")
@click.option(
    "--audit-source",
    metavar="SOURCE[+SOURCE…]",
    help="Where audit images come from: gan (the paper's, and an experiment's default), "
    "model-inversion (an audit's default: needs no images, and finds label flips that are not "
    "scaled), held-out, auxiliary or noise. gan+model-inversion finds most, and takes longest.",
)
@pixels_option
@experiment_options()
@run_out_option
@resume_option
@quiet_option
@json_option
@click.pass_context
def audit_gan(
    ctx: click.Context,
    updates: Path | None,
    global_model: Path | None,
    run: Path | None,
    number: int | None,
    audit_source: str | None,
    pixels: tuple[float, float] | None,
    config: Path | None,
    settings: tuple[str, ...],
    out: Path | None,
    resumed: Path | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Audit clients' models with images that the server makes itself.

    The models vote on the label of each audit image, and a model that is often outvoted is a
    suspect. --updates audits a folder of models: it needs --global, and for the sources gan,
    auxiliary and held-out a --dataset, whose test images the server has. --run audits a stored
    round.

    Without --updates or --run, it is the experiment of Zhao et al., small enough for minutes: label
    flips, and the auditor from round 9 of 24 on. Options of `tffl simulate` change it, and --config
    replaces it.
    """
    of_experiment = {"config": config, "out": out, "resume": resumed, **options}
    of_experiment = {name: of_experiment[name] for name in of_experiment if name not in SHARED}
    if updates is None and run is None:
        audit = {"global": global_model, "round": number, "pixels": pixels}
        refuse_any(audit, "belongs to an audit: give --updates or --run")
        refuse_both(quiet=quiet, json=as_json)
        source = () if audit_source is None else (f"defense.source={audit_source}",)
        arguments = (config, options, (*source, *settings), resumed)
        _experiment(arguments, out, ctx.obj, Output(quiet, as_json))
        return
    refuse_both(updates=updates, run=run)
    refuse_any(of_experiment, "belongs to an experiment: leave out --updates and --run")
    if updates is not None:
        refuse_any({"round": number}, "belongs to --run")
        found = _audit_files(updates, global_model, pixels, audit_source, settings, options)
    else:
        shared = {name: options[name] for name in SHARED}
        belongs = {"global": global_model, "pixels": pixels, **shared}
        refuse_any(belongs, "belongs to --updates: a run knows its own")
        assert run is not None
        found = _audit_run(run, number, audit_source, settings)
    if as_json:
        print_json(found.as_dict())
    else:
        _print_found(found)
    found.check_judged()
    ctx.exit(SUSPECTS if found.suspects else 0)


SHARED = ("data_dir", "dataset", "imports", "seed")
"""Options of an experiment that an audit of a folder takes too."""


def _audit_files(
    updates: Path,
    global_model: Path | None,
    pixels: tuple[float, float] | None,
    audit_source: str | None,
    settings: tuple[str, ...],
    options: Mapping[str, Any],
) -> AuditResult:
    """Audits a folder of clients' models."""
    if global_model is None:
        raise UsageError("give --global, your own model, with --updates")
    from tffl.scan.image_source import image_source, split_settings
    from tffl.scan.preparation import Inputs, audit_files

    data, settings = split_settings(settings)
    images = image_source(options["dataset"], None, data, data_dir=options["data_dir"])
    inputs = Inputs(global_model, updates, images, pixels, options["imports"] or ())
    return audit_files(inputs, audit_source, settings, options["seed"])


def _audit_run(
    run: Path, number: int | None, source: str | None, settings: tuple[str, ...]
) -> AuditResult:
    require(number is not None, "give --round, one that the run has stored, with --run")
    assert number is not None
    from tffl.scan.preparation import audit_stored_round

    return audit_stored_round(run, number, source, settings)


def _experiment(
    arguments: tuple[Path | None, Mapping[str, Any], tuple[str, ...], Path | None],
    out: Path | None,
    invocation: Invocation,
    output: Output,
) -> None:
    from tffl.simulation.preparation import Job
    from tffl.studies.audit_experiment import draw, read_audit

    job = Job.of(read_audit(*arguments), out, arguments[-1])
    with resumable(job, f"tffl audit-gan --resume {job.directory}"):
        run_experiment(job, invocation.command, output)
    pictures = draw(job.directory)
    if output.for_people:
        click.echo(f"Pictures: {', '.join(map(str, pictures))}")


def _print_found(found: AuditResult) -> None:
    from tffl.scan.audit import mistakes
    from tffl.untrusted import printable
    from tffl_cli.console import console, rate
    from tffl_cli.tables import PlainTable, words

    headers = ("model", "verdict", "audit accuracy", "threshold", "mistakes", "reason")
    table = PlainTable(*headers, right=(2, 3), unbroken=(1,), folded=(0, 5))
    for row in found.rows():
        confusion = row["confusion"]
        table.add_row(
            printable(row["name"]),
            "suspect" if row["suspect"] else "not judged" if found.unjudged else "ok",
            rate(row["accuracy"]),
            rate(row["threshold"]),
            "" if confusion is None else mistakes(confusion, found.classes, most=2),
            row["reason"],
            style="red" if row["suspect"] else None,
        )
    out = console()
    out.print(table)
    labels = [
        f"{name}: {n}" for name, n in zip(found.classes, found.label_counts, strict=True) if n
    ]
    out.print(words(f"Audit images by voted label: {', '.join(labels) or 'none'}."))
    out.print("Mistakes: voted label → what the model sees instead, the two most frequent.")
    out.print(f"{len(found.suspects)} of {len(found.opinions)} models suspect.")
