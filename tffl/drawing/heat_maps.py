"""Pictures of a round's heat maps.

    heat_maps   each client's map over the probe, its reconstruction, and the error
    errors      each client's score and the threshold
    consensus   each client's distance to the clients' median map

The first two are Figures 9 and 8 of the paper; maps are enlarged and normalized as tf-keras-vis
does it, with its functions. Malicious clients are named as such: a picture knows the truth, a
defense does not.

GradCAM-AE: A New Shield Defense against Poisoning Attacks on Federated Learning
    Jingjing Zheng, Kai Li, Xin Yuan, Wei Ni, Eduardo Tovar. Section 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core.verdict import HeatMaps
from tffl.drawing import figures
from tffl.drawing import guard as drawing
from tffl.drawing.explanation import Explanation, distances, finite
from tffl.drawing.figures import BLUE, GRAY, RED
from tffl.explain.probes import PICTURED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 24
"""Clients in a picture of heat maps, unless more are flagged or malicious."""

MOST = 240
"""Clients in it, at most: a picture has no room for more."""

CELLS_ACROSS = 12
"""Small images side by side in it."""

LETTERS = 16
"""Of a client's name that have room above one small image."""

ENLARGED = 8
"""How many times larger than its maps a picture without probes is."""

EMPTY = "#EEEEEE"


@dataclass(frozen=True)
class Cell:
    """A small image, or a word in its place.

    Attributes:
      image: float `[height, width, 3]` in 0 … 1.
      word: Why there is none.
    """

    image: np.ndarray | None
    word: str = ""


@dataclass(frozen=True)
class Panel:
    """The cells of one client, with what is written above them.

    Attributes:
      cells: The client's map, its reconstruction and the error; or its maps of several probes.
      name: Who it is.
      note: Its score and verdict.
      color: Of the name.
      framed: Whether the client was flagged.
    """

    cells: list[Cell]
    name: str
    note: str = ""
    color: str = "black"
    framed: bool = False


def write(seen: Explanation, folder: Path) -> list[Path]:
    """Writes the pictures of a round, such as `heat_maps_round_0003.png`, and returns the paths.

    There is no picture of scores where the defense has none, nor one that cannot be drawn.

    Raises:
      TfflError: A picture cannot be written.
    """
    draw = {"heat_maps": heat_maps, "consensus": consensus}
    if seen.scored:
        draw["errors"] = errors
    part = f"_{seen.part}" if seen.part else ""
    paths = {folder / f"{name}{part}_round_{seen.round:04d}.png": draw[name] for name in draw}
    return [path for path, picture in paths.items() if drawing.write(path, picture, seen)]


def heat_maps(seen: Explanation) -> Figure:
    """Draws the heat maps of flagged and malicious clients, and of some others.

    Where the detector rebuilds maps, it is the first probe's map, its reconstruction and the error;
    else it is the maps of the first probes.
    """
    return _draw(*panels(seen))


def panels(seen: Explanation) -> tuple[list[Panel], list[str]]:
    """Returns what `heat_maps` draws: what clients are compared with, clients, and the caption."""
    rows = chosen(seen)
    scale = _error_scale(seen.heat_maps, rows)
    found = [*_references(seen.heat_maps), *(_client(seen, row, scale) for row in rows)]
    return found, _caption(seen, rows, scale)


def errors(seen: Explanation) -> Figure:
    """Draws each client's score, and the threshold."""
    return _chart(seen, seen.scores, seen.score_name, seen.threshold)


def consensus(seen: Explanation) -> Figure:
    """Draws each client's distance to the clients' median map."""
    label = "distance to the median map\n(of the median client: 1)"
    figure = _chart(seen, distances(seen.maps), label, np.nan)
    figure.axes[0].axhline(1, color=GRAY, linewidth=0.8, zorder=0)
    return figure


def chosen(seen: Explanation) -> np.ndarray:
    """Returns the rows to draw, int64: flagged, then malicious ones, and others up to `SHOWN`.

    Of more than `MOST` flagged and malicious ones, the first are drawn.
    """
    notable = np.concatenate(
        [np.flatnonzero(seen.flagged), np.flatnonzero(seen.malicious & ~seen.flagged)]
    )
    others = np.flatnonzero(~(seen.flagged | seen.malicious))[: max(0, SHOWN - len(notable))]
    return np.sort(np.concatenate([notable[:MOST], others]))


def enlarge(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns maps `[p, h, w]` enlarged bilinearly to `[p, *size]` and scaled to 0 … 1."""
    from scipy.ndimage import zoom
    from tf_keras_vis.utils import normalize, zoom_factor

    maps = maps.astype(np.float64)
    factors = zoom_factor(maps.shape, (len(maps), *size))
    return np.asarray(normalize(zoom(maps, factors, order=1)))


def _references(source: HeatMaps) -> list[Panel]:
    """Returns what clients are to be compared with: the bare probes, and the median maps."""
    usable = finite(source.maps)
    count = _width(source)
    median = np.median(source.maps[usable], axis=0) if usable.any() else source.maps[0] * np.nan
    if _rebuilds(source):
        bare = [Cell(None, "no image") if source.probes is None else Cell(gray(source.probes[0]))]
        return [Panel([*bare, _map_cell(source, median, 0)], "probe, median of all maps")]
    medians = Panel([_map_cell(source, median, probe) for probe in range(count)], "median of all")
    if source.probes is None:
        return [medians]
    return [Panel([Cell(gray(probe)) for probe in source.probes[:count]], "probes"), medians]


def _client(seen: Explanation, row: int, scale: float) -> Panel:
    maps = seen.maps[row]
    if _rebuilds(seen.heat_maps):
        cells = [_map_cell(seen.heat_maps, maps, 0), *_rebuilt_cells(seen.heat_maps, row, scale)]
    else:
        cells = [_map_cell(seen.heat_maps, maps, probe) for probe in range(_width(seen.heat_maps))]
    name = seen.name(row)
    score = seen.scores[row]
    notes = [] if np.isnan(score) else [f"{score:.3g}"]
    return Panel(
        cells,
        f"{name} malicious" if seen.malicious[row] else name,
        " ".join([*notes, "flagged"] if seen.flagged[row] else notes),
        RED if seen.malicious[row] else "black",
        bool(seen.flagged[row]),
    )


def _map_cell(source: HeatMaps, maps: np.ndarray, probe: int) -> Cell:
    """Lays a client's map `[p, h, w]` of a probe over the probe, or says why there is none."""
    one = maps[probe : probe + 1]
    if not np.isfinite(one).all():
        return Cell(None, "not finite")
    if not one.any():
        return Cell(None, "dead")
    return Cell(overlay(source, enlarge(one, map_size(source))[0], probe))


def _rebuilt_cells(source: HeatMaps, row: int, scale: float) -> list[Cell]:
    """Shows the reconstruction of a client's first map, and where it is wrong."""
    import matplotlib
    from scipy.ndimage import zoom

    assert source.inputs is not None and source.rebuilt is not None
    before, after = source.inputs[row, 0], source.rebuilt[row, 0]
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return [Cell(None, "–"), Cell(None, "–")]
    factors = np.divide(map_size(source), after.shape)
    shown = np.clip(zoom(after.astype(np.float64), factors, order=1), 0, 1)
    wrong = matplotlib.colormaps["Reds"](np.abs(before - after) / scale)[..., :3]
    return [Cell(overlay(source, shown, 0)), Cell(wrong)]


def overlay(source: HeatMaps, values: np.ndarray, probe: int) -> np.ndarray:
    """Colors values `[height, width]` in 0 … 1, the stronger the less of the probe is seen."""
    import matplotlib

    colors = np.asarray(matplotlib.colormaps["inferno"](values)[..., :3])
    if source.probes is None:
        return colors
    opacity = (0.35 + 0.4 * values)[..., None]
    return np.asarray(opacity * colors + (1 - opacity) * gray(source.probes[probe]))


def gray(image: np.ndarray) -> np.ndarray:
    """Returns an image uint8 `[height, width, channels]` in gray, so that colors are the map's."""
    values = image.astype(np.float64) / 255
    weights = [0.299, 0.587, 0.114] if image.shape[2] == 3 else np.full(image.shape[2], 1.0)
    gray = np.average(values, axis=2, weights=weights)
    return np.repeat(gray[..., None], 3, axis=2)


def _rebuilds(source: HeatMaps) -> bool:
    return source.inputs is not None and source.rebuilt is not None


def _width(source: HeatMaps) -> int:
    """Returns the number of cells of a client."""
    known = PICTURED if source.probes is None else len(source.probes)
    return 3 if _rebuilds(source) else min(source.maps.shape[1], known)


def map_size(source: HeatMaps) -> tuple[int, int]:
    """Returns the size to which maps are enlarged: that of the probes, if they are known."""
    if source.probes is not None:
        return source.probes.shape[1], source.probes.shape[2]
    return source.maps.shape[2] * ENLARGED, source.maps.shape[3] * ENLARGED


def _error_scale(source: HeatMaps, rows: np.ndarray) -> float:
    """Returns the largest error of a pixel that is drawn."""
    if source.inputs is None or source.rebuilt is None:
        return 1.0
    wrong = np.abs(source.inputs[rows, 0].astype(np.float64) - source.rebuilt[rows, 0])
    return float(max(1e-9, np.max(wrong, where=np.isfinite(wrong), initial=0.0)))


def _caption(seen: Explanation, rows: np.ndarray, scale: float) -> list[str]:
    left = len(seen.maps) - len(rows)
    notable = int((seen.flagged | seen.malicious).sum()) > MOST
    truth = "" if seen.names else "Red name: malicious, which only the picture knows. "
    lines = [
        f"Heat maps of {seen.heading}",
        f"Red frame: flagged. {truth}Bright is where a model looks; each map is scaled by itself.",
    ]
    if _rebuilds(seen.heat_maps):
        lines.append(
            f"From left to right: the map of probe 1 of {seen.maps.shape[1]}, what the "
            f"autoencoder rebuilds, and the error, from 0 (white) to {scale:.2g} (dark red)."
        )
    if notable:
        kind = "files" if seen.names else "clients"
        lines.append(f"{len(rows)} of {len(seen.maps)} {kind}; there is no room for the others.")
    elif left and seen.names:
        lines.append(f"{len(rows)} of {len(seen.maps)} files; the {left} left out are not flagged.")
    elif left:
        lines.append(
            f"{len(rows)} of {len(seen.maps)} clients; the {left} left out are neither flagged "
            "nor malicious."
        )
    return lines


def _draw(panels: list[Panel], caption: list[str]) -> Figure:
    """Draws panels in rows on one pair of axes, whose unit is a cell: fast, and nothing moves."""
    width = max(len(panel.cells) for panel in panels)
    across = min(8 if width == 1 else CELLS_ACROSS // width, len(panels))
    step_x, step_y = width + 0.35, 1.45
    top = 0.35 + 0.24 * len(caption)
    right = max(across * step_x, 8.8) + 0.1
    bottom = top + -(-len(panels) // across) * step_y
    inch = 0.95 if width > 1 else 1.1
    figure, axes = figures.canvas(right * inch, bottom * inch)
    figure.set_layout_engine("none")
    axes.set_position((0, 0, 1, 1))
    axes.set_axis_off()
    for number, line in enumerate(caption):
        size, weight = (11, "bold") if number == 0 else (8, "normal")
        shown = drawing.label(line, 300)
        axes.text(0.2, 0.3 + 0.24 * number, shown, fontsize=size, weight=weight, va="center")
    for index, panel in enumerate(panels):
        row, column = divmod(index, across)
        _draw_panel(axes, panel, 0.2 + column * step_x, top + 0.3 + row * step_y, width)
    axes.set(xlim=(0, right), ylim=(bottom, 0), aspect="auto")
    return figure


def _draw_panel(axes: Axes, panel: Panel, x: float, y: float, width: int) -> None:
    from matplotlib.patches import Rectangle

    weight = "bold" if panel.color == RED else "normal"
    style: dict[str, Any] = {"fontsize": 8, "va": "bottom", "color": panel.color, "weight": weight}
    room = int(LETTERS * (width + 0.35)) - (len(panel.note) if width > 1 else 0)
    name = drawing.label(panel.name, room)
    if width > 1:
        axes.text(x, y - 0.06, name, **style)
        axes.text(x + width - 0.04, y - 0.06, panel.note, fontsize=8, va="bottom", ha="right")
    else:
        axes.text(x, y - 0.2, name, **style)
        axes.text(x, y - 0.05, panel.note, fontsize=7, va="bottom")
    for index, cell in enumerate(panel.cells):
        left, right = x + index, x + index + 0.96
        if cell.image is not None:
            extent = (left, right, y + 0.96, y)
            axes.imshow(cell.image, extent=extent, interpolation="nearest", vmin=0, vmax=1)
            continue
        axes.add_patch(Rectangle((left, y), 0.96, 0.96, color=EMPTY))
        axes.text(left + 0.48, y + 0.48, cell.word, fontsize=9, ha="center", va="center")
    if panel.framed:
        size = (len(panel.cells) + 0.02, 1.02)  # around cells and the gaps between them
        frame = Rectangle((x - 0.03, y - 0.03), *size, fill=False, edgecolor=RED, linewidth=2.5)
        axes.add_patch(frame)


def _chart(seen: Explanation, values: np.ndarray, label: str, threshold: float) -> Figure:
    """Draws a value of each client; infinite ones as triangles at the edges."""
    figure, axes = figures.canvas(8, 4)
    clients, known = seen.client_ids, np.isfinite(values)
    drawing.set_scale(axes, values)
    shown = drawing.drawable(values)
    groups = ((~seen.malicious, BLUE, "o", "benign"), (seen.malicious, RED, "X", "malicious"))
    for mine, color, marker, name in groups:
        dots: dict[str, Any] = {"s": 32, "color": color, "zorder": 3}
        legend = name if mine.any() else None
        axes.scatter(clients[mine], shown[mine], marker=marker, label=legend, **dots)
        figures.mark_infinite(axes, clients[mine], values[mine], **dots)
    ring: dict[str, Any] = {"s": 110, "marker": "s", "facecolors": "none", "edgecolors": "black"}
    ringed = seen.flagged & known
    legend = "flagged" if seen.flagged.any() else None
    axes.scatter(clients[ringed], shown[ringed], label=legend, **ring)
    figures.mark_infinite(axes, clients[seen.flagged], values[seen.flagged], **ring)
    if np.isinf(values).any():
        axes.margins(y=0.15)
        axes.scatter([], [], marker="^", color=GRAY, label="infinite")
    if np.isfinite(threshold):
        level = float(drawing.drawable(threshold))
        axes.axhline(level, linestyle="--", color=GRAY, label="threshold")
    if not known.any():
        axes.set_yticks([])
    axes.set_title(f"Round {seen.round}: {drawing.label(seen.title, 100)}", fontsize=10)
    axes.set(xlabel="client", ylabel=label)
    figures.finish(figure, axes, columns=5)
    return figure
