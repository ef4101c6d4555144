"""Explanations of recorded rounds: heat maps of clients' models, and coalitions of clients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tffl.core.errors import require
from tffl.core.process import silence
from tffl.core.verdict import CoalitionPlane, HeatMaps
from tffl.drawing import coalitions, heat_maps
from tffl.drawing.coalitions import SeenCoalition
from tffl.drawing.explanation import Explanation, described, recorded
from tffl.engine.observer import Observer
from tffl.explain.probes import draw, drawn_images
from tffl.record.identity import resolved
from tffl.record.run_directory import (
    FIGURES,
    PICTURES,
    UPDATES,
    RunDirectory,
    load_updates,
    round_files,
)

if TYPE_CHECKING:
    from tffl.config import Config
    from tffl.core.updates import Updates

PROBES = 16
"""The number of probes for maps of stored updates."""

LARGEST_PROBE = 256
"""The largest size to which probes are enlarged for networks with maps of a single pixel."""


@dataclass(frozen=True)
class Drawn:
    """What was explained of a run, and the paths of its pictures.

    Attributes:
      explanations: What detectors saw in heat maps, a round and detector each.
      coalitions: What `coalition` saw, a round and detector each.
      overview: Pictures of all rounds.
    """

    explanations: list[tuple[Explanation, list[Path]]] = field(default_factory=list)
    coalitions: list[tuple[SeenCoalition, list[Path]]] = field(default_factory=list)
    overview: list[Path] = field(default_factory=list)


def explain_rounds(
    run: RunDirectory | Path | str, rounds: Sequence[int] = ()
) -> Iterator[Explanation]:
    """Yields one explanation per round and detector of a recorded run.

    If the defense used no heat maps, LayerCAM maps of the stored updates are computed. A round with
    neither, in which only coalitions were looked for, has no explanation.

    Args:
      run: A run directory.
      rounds: The rounds; by default the last one that has maps, coalitions or stored updates.

    Raises:
      UsageError: There is no such run, or a round has neither maps nor updates.
      TfflError: A file is damaged.
    """
    directory = run if isinstance(run, RunDirectory) else RunDirectory.open(Path(run))
    wanted = _choose_rounds(directory, rounds)
    silence()
    for round in wanted:
        yield from _explain(directory, round)


def draw_rounds(run: Path, rounds: Sequence[int] = ()) -> Drawn:
    """Explains rounds as `explain_rounds` does, and draws them into the run's `figures/`.

    So are the coalitions that the defense saw, with an overview of all rounds.

    Args:
      run: A run directory.
      rounds: As for `explain_rounds`.

    Raises:
      UsageError: As `explain_rounds`.
      TfflError: A file is damaged, or a picture cannot be written.
    """
    directory, folder = RunDirectory.open(run), run / FIGURES
    wanted = _choose_rounds(directory, rounds)
    silence()
    drawn = Drawn()
    for round in wanted:
        found = _explain(directory, round)
        drawn.explanations.extend((each, heat_maps.write(each, folder)) for each in found)
        maps = found[0].heat_maps if found else None
        seen = _coalitions(directory, round, maps)
        drawn.coalitions.extend((each, coalitions.write(each, folder)) for each in seen)
    if drawn.coalitions:
        drawn.overview.extend(_draw_overview(directory))
    return drawn


def _draw_overview(run: RunDirectory) -> list[Path]:
    """Draws who was convicted in all rounds, a picture per detector."""
    finished = run.frames()[0]["round"].tolist()
    seen = [each for round in finished for each in _coalitions(run, round)]
    parts = dict.fromkeys(each.part for each in seen)
    return [
        path
        for part in parts
        for path in coalitions.write_rounds(
            [each for each in seen if each.part == part], run.path / FIGURES
        )
    ]


def report(run: Path, drawn: Drawn) -> dict[str, Any]:
    """Returns the result of `draw_rounds` for JSON."""
    explanations = [
        {
            "round": found.round,
            "detector": found.part or None,
            "score": found.score_name,
            "threshold": found.threshold,
            "clients": found.rows(),
            "pictures": pictures,
        }
        for found, pictures in drawn.explanations
    ]
    if not drawn.coalitions:
        return {"run": run, "explanations": explanations}
    seen = [
        {
            "round": found.round,
            "detector": found.part or None,
            "clients": found.rows(),
            "pictures": pictures,
        }
        for found, pictures in drawn.coalitions
    ]
    return {
        "run": run,
        "explanations": explanations,
        "coalitions": seen,
        "pictures": drawn.overview,
    }


def recorded_explanations(run: RunDirectory, round: int) -> list[Explanation]:
    """Explains what the detectors of a run saw in a round; nothing if they saw no heat maps."""
    return recorded(run.config, round, *run.frames(round), *run.shown(round))


def _explain(run: RunDirectory, round: int) -> list[Explanation]:
    """Explains recorded heat maps, or else those of stored updates, if there are any."""
    found = recorded_explanations(run, round)
    if found or round not in round_files(run.path / UPDATES):
        return found
    return [_explain_updates(run, round)]


def _coalitions(run: RunDirectory, round: int, maps: HeatMaps | None = None) -> list[SeenCoalition]:
    """Returns what each `coalition` saw in a round; with heat maps, if none were recorded."""
    client_ids, shown = run.shown(round)
    return coalitions.recorded(run.config, round, run.frames(round)[1], client_ids, shown, maps)


def _explain_updates(run: RunDirectory, round: int) -> Explanation:
    """Explains the stored updates of a round by LayerCAM maps."""
    updates = load_updates(round_files(run.path / UPDATES)[round])
    maps = _layer_cam_maps(run.config, updates)
    found = described(run.config, round, *run.frames(round), updates.client_ids, maps)
    return replace(found, title=f"{found.title} (LayerCAM)")


def _layer_cam_maps(config: Config, updates: Updates) -> HeatMaps:
    """Computes LayerCAM maps of updates for which no defense has made maps."""
    from tffl.simulation.experiment import Experiment

    server = Experiment(resolved(config), Observer()).server
    assert server.samples is not None and server.explainer is not None
    size = server.samples.images.shape[1]
    while server.explainer.map_size(size=size) == (1, 1) and size < LARGEST_PROBE:
        size *= 2
    count = min(PROBES, len(server.samples.labels))
    probes = draw(server.samples, count, server.seed, size=size)
    maps = server.explainer.maps(updates, probes, "layer-cam")
    return HeatMaps(maps, drawn_images(probes, server.explainer.pixels))


def _choose_rounds(run: RunDirectory, rounds: Sequence[int]) -> list[int]:
    """Returns the rounds to explain, all of which have maps, coalitions or stored updates."""
    finished = run.frames()[0]["round"].tolist()
    require(bool(finished), f"{run.path} has no finished round: continue it with --resume")
    for round in rounds:
        require(
            round in finished,
            f"{run.path} has no round {round}: choose one of {finished[0]} to {finished[-1]}",
        )
    pictured = list(round_files(run.path / PICTURES))
    kinds = (HeatMaps, CoalitionPlane)
    if pictured and not any(isinstance(part, kinds) for part in run.shown(pictured[-1])[1]):
        pictured = []  # the defense made other pictures
    possible = {*pictured, *round_files(run.path / UPDATES)} & {*finished}
    wanted = list(dict.fromkeys(rounds)) or sorted(possible)[-1:]
    choices = ", ".join(map(str, sorted(possible)))
    hint = f"choose another round ({choices}), or " if possible else ""
    for round in wanted or finished[-1:]:
        require(
            round in possible,
            f"{run.path} has neither heat maps nor updates of round {round}: {hint}run it again "
            "with a defense that uses heat maps, such as --defense shield, or with "
            f"--store-updates {round}",
        )
    return wanted
