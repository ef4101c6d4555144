"""One experiment with several seeds: how much of its result is chance.

Each seed has a run directory of its own, `OUT/seed-N`. `OUT/seeds.csv` has a row for each seed, and
`OUT/summary.json` the means with their 95 % confidence intervals (Student's t).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tffl.callbacks.base import Callback
from tffl.config import Config, as_config
from tffl.core.atomic import write_text
from tffl.core.errors import require
from tffl.core.jsonable import write_json
from tffl.record.identity import resolved
from tffl.record.lock import locked
from tffl.record.tables import to_csv
from tffl.record.writer import RunWriter, make_folder, refuse_occupied
from tffl.studies.benchmark_table import defined, interval, ruined

if TYPE_CHECKING:
    from tffl.simulation.run import Run

FIGURES = {
    **{name: name for name in ("accuracy", "loss", "attack_success", "attack_loss")},
    **{name: f"mean_{name}" for name in ("recall", "precision", "fpr", "f1", "auc")},
    "rejected": "rejected",
}
"""Column of `seeds.csv` → key of a run's summary: of the last round, means, and a sum."""


def seed_configs(config: Config, count: int) -> dict[int, Config]:
    """Returns seed → config, of an experiment's own seed and those after it.

    >>> list(seed_configs(Config(seed=7), 3))
    [7, 8, 9]

    Raises:
      UsageError: The last seed is not below 2³².
    """
    seeds = range(config.seed, config.seed + count)
    require(
        seeds[-1] < 2**32,
        f"seed = {config.seed} is not allowed for {count} seeds: the last would be {seeds[-1]}, "
        "and the largest is 2**32 - 1",
    )
    return {seed: config.model_copy(update={"seed": seed}) for seed in seeds}


def first_directory(out: Path) -> Path:
    """Returns the run directory of the lowest seed in a folder; the folder if it is no such one."""
    if (out / "config.toml").exists():
        return out
    numbered = _numbered(out)
    return numbered[min(numbered)] if numbered else out


def _numbered(out: Path) -> dict[int, Path]:
    """Returns seed → run directory, of what a folder holds."""
    found = {file.parent for file in out.glob("seed-*/config.toml")}
    return {int(path.name[5:]): path for path in found if re.fullmatch("[0-9]+", path.name[5:])}


def check_directories(configs: Mapping[int, Config], out: Path, resume: bool) -> None:
    """Checks the directories of all seeds before the first run.

    Raises:
      UsageError: One holds another experiment, or a single run, or, unless `resume`, there is
        something in the way.
    """
    begun = [seed for seed in configs if (_directory(out, seed) / "config.toml").exists()]
    if resume:
        require(
            not (out / "config.toml").exists(),
            f"{out} holds one run, not one for each seed: continue it without --seeds, or begin "
            "others with another --out",
        )
        others = sorted({*_numbered(out)} - {*configs})
        require(
            not others,
            f"{out} also holds runs of seeds {', '.join(map(str, others))}, which its tables would "
            "lose: give the first seed and a --seeds that include them",
        )
        for seed in begun:
            RunWriter.resume(_directory(out, seed), resolved(configs[seed]))
        return
    require(
        not begun,
        f"{out} holds runs of these seeds already: continue them with "
        f"--seeds {len(configs)} --resume {out}, or choose another --out",
    )
    refuse_occupied(out, next(iter(configs.values())))


def simulate_seeds(
    config: Config | Mapping[str, Any] | Path | str,
    count: int,
    out: Path | str | None = None,
    *,
    resume: bool = False,
    watch: Callable[[int], Sequence[Callback]] = lambda seed: (),
    command: Sequence[str] = (),
) -> dict[int, Run]:
    """Runs an experiment with several seeds, which share images and compiled functions.

    Args:
      config: The experiment; its seed is the first.
      count: Number of seeds.
      out: Folder for the run directories and both tables; nothing is written without it.
      resume: Whether to continue what is there; seeds that are missing are run.
      watch: Seed → callbacks of its run.
      command: As for `tffl.simulate`.

    Returns:
      Seed → run, ascending.

    Raises:
      UsageError: The experiment is impossible, or a directory holds something else.
      TfflError: A run failed; with `resume`, it and those after it are continued.
    """
    configs = seed_configs(as_config(config), count)
    if out is None:
        return _run_all(configs, None, watch, command)
    out = Path(out)
    check_directories(configs, out, resume)
    make_folder(out)
    with locked(out):
        return _run_all(configs, out, watch, command)


def _run_all(
    configs: Mapping[int, Config],
    out: Path | None,
    watch: Callable[[int], Sequence[Callback]],
    command: Sequence[str],
) -> dict[int, Run]:
    from tffl import simulate
    from tffl.simulation.shared_resources import SharedResources
    from tffl.simulation.simulation import carry_out

    shared = SharedResources()
    runs: dict[int, Run] = {}
    for seed, config in configs.items():
        folder = None if out is None else _directory(out, seed)
        resume = folder is not None and (folder / "config.toml").exists()
        # `simulate` warns of settings without effect; once is enough.
        run = carry_out if runs else simulate
        runs[seed] = run(
            config, folder, resume=resume, callbacks=watch(seed), command=command, shared=shared
        )
        if out is not None:
            write_tables(out, figures_by_seed(runs))
    return runs


def figures_by_seed(runs: Mapping[int, Run]) -> list[dict[str, Any]]:
    """Returns the rows of `seeds.csv`; undefined figures are None."""
    return [
        {"seed": seed, **{name: run.summary[key] for name, key in FIGURES.items()}}
        for seed, run in runs.items()
    ]


def write_tables(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes `seeds.csv` and `summary.json`.

    Raises:
      TfflError: A file cannot be written.
    """
    write_text(out / "seeds.csv", to_csv(("seed", *FIGURES), rows))
    write_json(out / "summary.json", summarize_seeds(rows))


def summarize_seeds(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns means over seeds and the half widths of their 95 % confidence intervals.

    Args:
      rows: As `figures_by_seed` returns them.

    Returns:
      `seeds`; `ruined`, the number of runs whose final model has no accuracy: such runs are in no
      mean; `mean` and `interval`: figure → number, None where undefined.
    """
    found = {name: interval(defined(rows, name)) for name in FIGURES}
    return {
        "seeds": [row["seed"] for row in rows],
        "ruined": ruined([{**row, "error": ""} for row in rows]),
        "mean": {name: _known(mean) for name, (mean, _) in found.items()},
        "interval": {name: _known(half) for name, (_, half) in found.items()},
    }


def _known(value: float) -> float | None:
    return value if value == value else None  # NaN equals nothing


def _directory(out: Path, seed: int) -> Path:
    return out / f"seed-{seed}"
