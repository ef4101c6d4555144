"""`tffl certify`: what a run of `crfl` proves about its test predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tffl_cli.options import COUNT, FOLDER, PATH, json_option

POSITIVE = click.FloatRange(min=0, min_open=True)
SHARE = click.FloatRange(min=0, max=1, min_open=True)
PROBABILITY = click.FloatRange(min=0, max=1, min_open=True, max_open=True)


@click.command()
@click.argument("run", type=FOLDER)
@click.option(
    "--attackers",
    type=COUNT,
    default=1,
    show_default=True,
    help="R, how many clients' data may differ.",
)
@click.option(
    "--share",
    type=SHARE,
    default=1.0,
    show_default=True,
    help="q/n, the share of each of their batches that may differ.",
)
@click.option(
    "--gamma",
    "scale",
    type=POSITIVE,
    help="γ, what they multiply their updates by in both trainings; by default as in RUN.",
)
@click.option("--round", type=COUNT, help="t*, in which data differ; by default the last one.")
@click.option(
    "--copies", type=COUNT, default=1000, show_default=True, help="M, how many copies vote."
)
@click.option(
    "--alpha",
    type=PROBABILITY,
    default=0.001,
    show_default=True,
    help="With which probability one bound of a share of votes may be wrong.",
)
@click.option("--noise", type=POSITIVE, help="σ of the copies; by default that of the defense.")
@click.option(
    "--lipschitz",
    type=POSITIVE,
    help="L, Lipschitz constant of the gradient in a sample; by default derived for logistic.",
)
@click.option(
    "--input-norm",
    type=POSITIVE,
    help="Largest norm of a training input, poisoned ones too, as the model rescales it; by "
    "default that of the brightest image.",
)
@click.option(
    "--radius",
    "radii",
    type=click.FloatRange(min=0),
    multiple=True,
    help="Where certified accuracy is computed; by default up to the largest. Repeatable.",
)
@click.option(
    "--anyway",
    is_flag=True,
    help="Compute the formula although an assumption fails; it proves nothing then.",
)
@click.option("--out", type=PATH, help="Folder to write; by default RUN/certified.")
@json_option
def certify(
    run: Path, radii: tuple[float, ...], anyway: bool, out: Path | None, as_json: bool, **asked: Any
) -> None:
    """Say what RUN's model proves about its test predictions (CRFL).

    Noisy copies of the last global model vote. If the training keeps the theorem's assumptions, a
    vote stays the same however the data of some clients had differed by less than its radius, in
    one round. RUN needs --defense crfl, and --model logistic for a certificate.
    """
    from tffl.studies.certificate import Question
    from tffl.studies.certify import certify as study
    from tffl_cli.output import print_json
    from tffl_cli.progress import Watch

    with Watch() as watch:
        found = study(run, Question(**asked), radii, anyway, watch, out)
    if as_json:
        print_json(found)
        return
    _print(found)


def _print(found: dict[str, Any]) -> None:
    from tffl_cli.console import PlainTable, console, rate

    asked, out = found["question"], console()
    out.print(
        f"The vote of {asked['copies']} copies, with noise of {asked['noise']:g}, is right for "
        f"{rate(found['smoothed_accuracy'])} of the test samples.\n"
    )
    if found["unmet"]:
        out.print("This is no certificate. The theorem does not hold for this training:")
        for sentence in found["unmet"]:
            out.print(f"- {sentence}", markup=False)
        out.print()
    if found["certified"] is None:
        return
    names = ("accuracy", "rate") if found["unmet"] else ("certified accuracy", "certified rate")
    table = PlainTable("radius", *names, right=(0, 1, 2))
    for row in found["certified"]:
        table.add_row(f"{row['radius']:.4g}", rate(row["accuracy"]), rate(row["rate"]))
    out.print(table)
    if not found["unmet"]:
        out.print("\n" + _meaning(found))
    click.echo(f"\nThe radius of each test sample is in {found['folder']}")


def _meaning(found: dict[str, Any]) -> str:
    """Returns what a certificate says, and what it does not."""
    asked = found["question"]
    one = asked["attackers"] == 1
    clients = "one client that trains" if one else f"{asked['attackers']} clients that train"
    given = [
        f"{name} = {asked[key]:g}"
        for name, key in (("L", "lipschitz"), ("a largest input norm", "input_norm"))
        if asked[key] is not None
    ]
    presumed = f"It presumes {' and '.join(given)}, as you say. " if given else ""
    return (
        f"Certified against {clients} as told, on data of which up to a share of "
        f"{asked['share']:.3g} of each batch differs by at most the radius, in round "
        f"{asked['round']} only. The radius is a Euclidean norm over a sample, as the model "
        "rescales it, and its one-hot label: another label alone is 1.414. "
        f"{presumed}Each radius is wrong with a probability of at most {found['error']:.2g}. "
        "Clients that send what they like, or attack in several rounds, are not covered."
    )
