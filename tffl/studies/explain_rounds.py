"""Rounds of a recorded run as a heat-map detector saw them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tffl.core.errors import require
from tffl.core.process import silence
from tffl.core.verdict import HeatMaps
from tffl.drawing import heat_maps
from tffl.drawing.explanation import Explanation, described, recorded
from tffl.engine.observer import Observer
from tffl.explain.probes import PICTURED, draw
from tffl.record.identity import resolved
from tffl.record.run_directory import FIGURES, PICTURES, RunDirectory, load_updates, round_files

if TYPE_CHECKING:
    from tffl.config import Config
    from tffl.core.updates import Updates

PROBES = 16
"""Probes for maps of stored updates, which no defense has looked at."""

LARGEST_PROBE = 256
"""Where enlarging the probes ends, if a network has no larger maps than one pixel."""


def explain(run: RunDirectory | Path | str, rounds: Sequence[int] = ()) -> Iterator[Explanation]:
    """Explains rounds of a recorded run: yields one explanation per round and detector.

    Where no defense saw heat maps, LayerCAM maps of the stored updates are made.

    Args:
      run: A run directory.
      rounds: Which rounds; if none are named, the last one that has maps or updates.

    Raises:
      UsageError: There is no such run, or a round has neither maps nor updates.
      TfflError: A file is damaged.
    """
    directory = run if isinstance(run, RunDirectory) else RunDirectory.open(Path(run))
    wanted = _chosen(directory, rounds)
    silence()
    for round in wanted:
        yield from recorded_in(directory, round) or [_made(directory, round)]


def draw_rounds(run: Path, rounds: Sequence[int] = ()) -> list[tuple[Explanation, list[Path]]]:
    """Does what `explain` does, and draws each explanation into the run's `figures/`.

    Returns:
      The explanations, each with the paths of its pictures.

    Raises:
      UsageError: As `explain`.
      TfflError: A file is damaged, or a picture cannot be written.
    """
    return [(found, heat_maps.write(found, run / FIGURES)) for found in explain(run, rounds)]


def report(run: Path, drawn: Sequence[tuple[Explanation, Sequence[Path]]]) -> dict[str, Any]:
    """Returns what `draw_rounds` returned, for JSON."""
    explanations = [
        {
            "round": found.round,
            "detector": found.part or None,
            "score": found.score_name,
            "threshold": found.threshold,
            "clients": found.rows(),
            "pictures": pictures,
        }
        for found, pictures in drawn
    ]
    return {"run": run, "explanations": explanations}


def recorded_in(run: RunDirectory, round: int) -> list[Explanation]:
    """Explains what the detectors of a run saw in a round; nothing if they saw no heat maps."""
    return recorded(run.config, round, *run.frames(round), *run.shown(round))


def _made(run: RunDirectory, round: int) -> Explanation:
    """Makes LayerCAM maps of the updates that a run has stored."""
    updates = load_updates(round_files(run.path / "updates")[round])
    maps = _make(run.config, updates)
    found = described(run.config, round, *run.frames(round), updates.client_ids, maps)
    return replace(found, title=f"{found.title} (LayerCAM)")


def _make(config: Config, updates: Updates) -> HeatMaps:
    """Makes LayerCAM maps, as no defense did."""
    from tffl.simulation.experiment import Experiment

    server = Experiment(resolved(config), Observer()).server
    assert server.samples is not None and server.explainer is not None
    size = server.samples.images.shape[1]
    while server.explainer.map_size(size=size) == (1, 1) and size < LARGEST_PROBE:
        size *= 2
    count = min(PROBES, len(server.samples.labels))
    probes = draw(server.samples, count, server.seed, size=size)
    maps = server.explainer.maps(updates, probes, "layer-cam")
    return HeatMaps(maps, probes.images[:PICTURED])


def _chosen(run: RunDirectory, rounds: Sequence[int]) -> list[int]:
    """Returns the rounds to look at, all of which have maps or updates."""
    finished = run.frames()[0]["round"].tolist()
    require(bool(finished), f"{run.path} has no finished round: continue it with --resume")
    for round in rounds:
        require(
            round in finished,
            f"{run.path} has no round {round}: choose one of {finished[0]} to {finished[-1]}",
        )
    pictured = list(round_files(run.path / PICTURES))
    if pictured and not any(isinstance(one, HeatMaps) for one in run.shown(pictured[-1])[1]):
        pictured = []  # of a defense without heat maps
    there = {*pictured, *round_files(run.path / "updates")} & {*finished}
    wanted = list(dict.fromkeys(rounds)) or sorted(there)[-1:]
    known = f"choose another round ({', '.join(map(str, sorted(there)))}), or " if there else ""
    for round in wanted or finished[-1:]:
        require(
            round in there,
            f"{run.path} has neither heat maps nor updates of round {round}: {known}run it again "
            "with a defense that looks at heat maps, such as --defense shield, or with "
            f"--store-updates {round}",
        )
    return wanted
