"""`tffl pretrain`: train a model on all data, to start experiments from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tffl_cli.combinations import refuse_both
from tffl_cli.main import Interrupted, Invocation
from tffl_cli.options import COUNT, FILE, experiment_options, json_option, quiet_option
from tffl_cli.output import print_json

OPTIONS = (
    *("config", "dataset", "data_dir", "train_limit", "model", "imports", "batch_size"),
    *("optimizer", "learning_rate", "precision", "jit", "seed", "devices", "settings"),
)


@click.command(epilog="Start from it with `tffl simulate --set model.weights=FILE`.")
@experiment_options(*OPTIONS)
@click.option(
    "--epochs", type=COUNT, default=10, show_default=True, help="Passes over the training data."
)
@click.option(
    "--out",
    required=True,
    type=FILE,
    help="File to write: .keras, .weights.h5, .npz or .safetensors; FILE.json says how it was "
    "made.",
)
@quiet_option
@json_option
@click.pass_obj
def pretrain(
    invocation: Invocation,
    config: Path | None,
    settings: tuple[str, ...],
    epochs: int,
    out: Path,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a model on all data at one place, and write its weights.

    Of --config, the data, the model, the training of a client and the seed count.
    """
    refuse_both(quiet=quiet, json=as_json)
    from tffl.config import read_experiment
    from tffl.core.process import silence
    from tffl.simulation.pretrain import Pretraining, pretrain

    job = Pretraining(read_experiment(config, options, settings), epochs, out)
    job.check()
    silence()
    from tffl_cli.progress import epochs_shown

    try:
        with epochs_shown(epochs, hidden=quiet or as_json) as (after_epoch, say):
            history = pretrain(job, after_epoch, say, invocation.command)
    except KeyboardInterrupt:
        kept = f"the weights of the last finished epoch are in {out}"
        raise Interrupted(kept if out.exists() else "nothing was written") from None
    if as_json:
        print_json({"weights": str(out), **history[-1]})
    elif not quiet:
        click.echo(f"The weights are in {out}, and how they were made in {job.about}")
