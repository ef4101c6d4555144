"""`tffl audit-gan`: the GAN auditor in an experiment, on a run, and on a folder of models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tffl.core.errors import UsageError, require
from tffl_cli.main import Session
from tffl_cli.options import experiment_options, registered
from tffl_cli.scan import SUSPECTS, check_inputs
from tffl_cli.simulate import Job, carry_out, read_experiment, refuse_both

if TYPE_CHECKING:
    from tffl.defenses.gan_audit import GanAudit
    from tffl.scan.audit import AuditResult

DATASET = "mnist"
"""Of the experiment, if no other is named."""


@click.command(
    "audit-gan",
    epilog="Exit code of an audit: 0 if nothing is suspect, 3 if anything is, 2 if nothing can be "
    "judged. A new experiment ends with 0, whatever it shows.",
)
@click.option(
    "--models",
    type=click.Path(file_okay=False, path_type=Path),
    help="Audit this folder with one model per client: .keras, .weights.h5, .npz, .safetensors, "
    "SavedModel.",
)
@click.option(
    "--global",
    "global_model",
    type=click.Path(path_type=Path),
    help="With --models: your own model that the clients started from, a .keras file or a run.",
)
@click.option(
    "--aux",
    type=registered("datasets"),
    help="With --models: whose test images the server has, for gan, auxiliary and held-out.",
)
@click.option(
    "--run",
    type=click.Path(file_okay=False, path_type=Path),
    help="Audit the updates that this run has stored.",
)
@click.option("--round", "number", type=click.IntRange(min=1), help="With --run: of which round.")
@click.option(
    "--audit-source",
    metavar="SOURCE[+SOURCE…]",
    help="gan (the paper's; an experiment's default), model-inversion (an audit's default: needs "
    "no images, and finds label flips that are not scaled), held-out, auxiliary or noise; "
    "gan+model-inversion finds most, and takes longest.",
)
@experiment_options
@click.option("--out", type=click.Path(path_type=Path), help="Run directory of an experiment.")
@click.option(
    "--resume",
    "resumed",
    metavar="RUN",
    type=click.Path(file_okay=False, path_type=Path),
    help="Continue an interrupted experiment.",
)
@click.option("--quiet", is_flag=True, help="Experiment: print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every confusion matrix.")
@click.pass_context
def audit_gan(
    ctx: click.Context,
    models: Path | None,
    global_model: Path | None,
    aux: str | None,
    run: Path | None,
    number: int | None,
    audit_source: str | None,
    config: Path | None,
    settings: tuple[str, ...],
    out: Path | None,
    resumed: Path | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Audit clients' models with images of the server's own making.

    The models vote on the label of each audit image; who errs too often is a suspect. Without
    --models or --run it is the experiment of Zhao et al., small enough for minutes: label flips,
    and the auditor from round 9 of 24 on. Options of `tffl simulate` change it, --config replaces
    it.
    """
    experiment = {
        "config": config,
        "out": out,
        "resume": resumed,
        **{name: value for name, value in options.items() if name not in ("data_dir", "seed")},
    }
    if models is None and run is None:
        given = {"global": global_model, "aux": aux, "round": number}
        _refuse(given, "belongs to an audit: give --models or --run")
        session: Session = ctx.obj
        source = () if audit_source is None else (f"defense.source={audit_source}",)
        arguments = (config, options, (*source, *settings), resumed)
        _experiment(arguments, out, session.command, quiet, as_json)
        return
    require(models is None or run is None, "--models and --run exclude each other: choose one")
    _refuse(experiment, "belongs to an experiment: leave out --models and --run")
    seed, data_dir = options["seed"], options["data_dir"]
    if models is not None:
        _refuse({"round": number}, "belongs to --run")
        require(global_model is not None, "give --global, your own model, with --models")
        assert global_model is not None
        found = _audit_folder(models, global_model, aux, audit_source, data_dir, seed, settings)
    else:
        _refuse(
            {"global": global_model, "aux": aux, "seed": seed, "data-dir": data_dir},
            "belongs to --models: a run knows its own",
        )
        require(number is not None, "give --round, one that the run has stored, with --run")
        assert run is not None and number is not None
        found = _audit_run(run, number, audit_source, settings)
    _print(found, as_json)
    if found.unjudged and not found.suspects:
        raise UsageError(f"nothing could be judged: {found.unjudged}")
    ctx.exit(SUSPECTS if found.suspects else 0)


def _refuse(given: Mapping[str, Any], why: str) -> None:
    """Raises `UsageError` for the first option that was given."""
    for name, value in given.items():
        require(value in (None, (), False), f"--{name.replace('_', '-')} {value} {why}")


def _experiment(
    arguments: tuple[Path | None, Mapping[str, Any], tuple[str, ...], Path | None],
    out: Path | None,
    command: list[str],
    quiet: bool,
    as_json: bool,
) -> None:
    from tffl.gan.preset import preset
    from tffl.scan.audit import DEFENSE

    refuse_both(quiet, as_json)
    file, options, settings, resumed = arguments
    base = preset(options["dataset"] or DATASET)
    config = read_experiment(base, file, options, settings, resumed)
    name = config.defense.name
    require(name == DEFENSE, f"defense.name = {name} is not allowed here: audit-gan runs {DEFENSE}")
    job = Job.of(config, out, resumed, command)
    carry_out(job, quiet=quiet, as_json=as_json, command="audit-gan")

    from tffl.record.run_directory import RunDirectory
    from tffl.studies.audit_pictures import draw_audits

    begins = auditor(None, (), config.defense.options).from_round
    paths = draw_audits(RunDirectory.open(job.directory), begins)
    if not (quiet or as_json):
        click.echo(f"Pictures: {', '.join(map(str, paths))}")


def auditor(
    source: str | None, settings: Sequence[str], options: Mapping[str, Any] | None = None
) -> GanAudit:
    """Returns the defense with the options that were given.

    Raises:
      UsageError: An option does not exist, or a value is out of range.
    """
    from tffl.config import override, parse_setting
    from tffl.defenses import create_defense
    from tffl.scan.audit import DEFENSE

    pairs = [parse_setting(text) for text in settings]
    for key, _ in pairs:
        require(key.startswith("defense."), f"--set {key}: an audit takes defense.KEY only")
    given = override(options or {}, {key.removeprefix("defense."): v for key, v in pairs})
    named = {} if source is None else {"source": source}
    defense: GanAudit = create_defense(DEFENSE, {**given, **named})  # type: ignore[assignment]
    return defense


def _auditor_of_now(source: str | None, settings: Sequence[str]) -> GanAudit:
    """Returns an auditor that does not wait for a later round, in which nobody would be judged."""
    defense = auditor(source, settings)
    first = defense.from_round
    require(first == 1, f"defense.from_round = {first} belongs to an experiment: leave it out")
    return defense


def _audit_folder(
    folder: Path,
    global_model: Path,
    aux: str | None,
    source: str | None,
    data_dir: str | None,
    seed: int | None,
    settings: Sequence[str],
) -> AuditResult:
    defense = _auditor_of_now(source, settings)
    where = None if data_dir is None else Path(data_dir)
    check_inputs(global_model, folder, aux, where)

    from tffl.scan.audit import audit_folder
    from tffl.scan.scanner import load_samples
    from tffl.untrusted.global_model import load_global

    model = load_global(global_model)
    samples = None if aux is None else load_samples(model, aux, where)
    return audit_folder(model, folder, defense, samples, seed)


def _audit_run(path: Path, number: int, source: str | None, settings: Sequence[str]) -> AuditResult:
    defense = _auditor_of_now(source, settings)

    from tffl.core.process import silence
    from tffl.record.run_directory import RunDirectory

    run = RunDirectory.open(path)
    run.check_stored(number)
    silence()
    from tffl.scan.audit import audit_run

    return audit_run(run, number, defense)


def _print(found: AuditResult, as_json: bool) -> None:
    from tffl.core.jsonable import plain
    from tffl.untrusted import printable

    if as_json:
        report = {
            "models": [{**row, "name": printable(row["name"], 255)} for row in found.rows()],
            "suspects": [printable(name, 255) for name in found.suspects],
            "unjudged": found.unjudged,
            "classes": found.classes,
            "label_counts": found.label_counts,
        }
        click.echo(json.dumps(plain(report), indent=2))
        return
    _print_table(found)


def _print_table(found: AuditResult) -> None:
    from tffl.scan.audit import mistakes
    from tffl.untrusted import printable
    from tffl_cli.console import console, rate
    from tffl_cli.tables import PlainTable, words

    headers = ("audit accuracy", "threshold", "takes label → for label", "reason")
    table = PlainTable("model", "verdict", *headers, numbers=False)
    table.columns[0].overflow = table.columns[5].overflow = "fold"
    table.columns[1].no_wrap = True
    table.columns[2].justify = table.columns[3].justify = "right"
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
    out.print(f"{len(found.suspects)} of {len(found.opinions)} models suspect.")
