"""The common heat map of groups of clients, beside that of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tffl.core.verdict import HeatMaps
from tffl.drawing import guard as drawing
from tffl.drawing.explanation import finite
from tffl.drawing.heat_maps import enlarge, gray, map_size, overlay
from tffl.explain.maps import scaled
from tffl.explain.probes import PICTURED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = "PuOr_r"

BEYOND = 0.005
"""Share of the pixels that may differ more than the colors tell."""

SHOWN = 3
"""Groups in a picture, at most."""

DRAWS = 100
"""How many random groups a group is compared with."""


def shapes(maps: np.ndarray) -> np.ndarray:
    """Returns each map scaled to 0 … 1, as `cam-consensus` does it, float32 `[n, p, h, w]`.

    Those of clients whose maps are not finite are NaN.

    Args:
      maps: Raw, float32 `[n, p, h, w]`.
    """
    usable = finite(maps)
    result = np.full(maps.shape, np.nan, np.float32)
    result[usable] = scaled(maps[usable])
    return result


def deviation(shapes: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Returns the mean map of a group less the clients' median map, `[p, h, w]`.

    Args:
      shapes: Finite, `[n, p, h, w]`.
      group: bool `[n]`.

    >>> rows = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.5]]).reshape(3, 1, 1, 2)
    >>> deviation(rows, np.array([False, True, True])).ravel()
    array([ 0.5 , -0.25])
    """
    return np.asarray(shapes[group].mean(axis=0) - np.median(shapes, axis=0))


def rarity(shapes: np.ndarray, group: np.ndarray) -> int:
    """Returns how many of `DRAWS` random groups of a group's size deviate less than it does.

    Args:
      shapes: Finite, `[n, p, h, w]`.
      group: bool `[n]`, of at least one client.
    """
    order = np.tile(np.arange(len(group)), (DRAWS, 1))
    random = np.random.default_rng(0).permuted(order, axis=1) < group.sum()
    weights = np.concatenate([group[None], random]) / group.sum()
    squares = np.zeros(DRAWS + 1)
    for probe in shapes.swapaxes(0, 1).reshape(shapes.shape[1], len(group), -1):
        apart = weights @ probe - np.median(probe, axis=0)
        squares += np.einsum("ki,ki->k", apart, apart)
    return int((squares[1:] < squares[0]).sum())


def in_common(source: HeatMaps, groups: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the groups with maps in common: those of at least 2 clients whose maps are finite.

    Args:
      source: The maps of n clients.
      groups: Each bool `[n]`.

    Returns:
      Name → bool `[n]`, without clients whose maps are not finite.
    """
    usable = finite(source.maps)
    found = {f"group {number}": group & usable for number, group in enumerate(groups, 1)}
    return {name: group for name, group in found.items() if group.sum() > 1}


def common_maps(heading: str, source: HeatMaps, groups: Sequence[np.ndarray]) -> Figure:
    """Draws how the mean map of each group, and of who is in none, differs from the median map.

    Args:
      heading: Of the picture.
      source: The maps of n clients.
      groups: Each bool `[n]`; at least one has maps `in_common`.
    """
    usable = finite(source.maps)
    maps = shapes(source.maps)[usable]
    named = {name: group[usable] for name, group in in_common(source, groups).items()}
    drawn = dict(list(named.items())[:SHOWN])
    others = ~np.any(groups, axis=0)[usable]
    rows = {**drawn, "others": others} if others.any() else drawn
    apart = {name: deviation(maps, group) for name, group in rows.items()}
    figure, grid = _grid(source, 1 + len(apart))
    lines = grid[len(grid) - len(apart) :]
    _draw_median(grid[len(grid) - len(apart) - 1], source, np.median(maps, axis=0), len(maps))
    largest = _usual_largest([each[: grid.shape[1]] for each in apart.values()])
    for line, (name, each) in zip(lines, apart.items(), strict=True):
        count = int(rows[name].sum())
        _name(line, f"{name},", f"{count} client{'s' * (count > 1)}")
        for probe, axes in enumerate(line):
            axes.imshow(_tinted(source, each, probe, largest))
    _add_scale(figure, lines, largest)
    caption = [drawing.label(heading, 100), *_caption(maps, drawn, len(named) - len(drawn))]
    figure.suptitle("\n".join(caption), fontsize=9)
    return figure


def _usual_largest(apart: list[np.ndarray]) -> float:
    """Returns at which difference colors end: few pixels are beyond it."""
    sizes = np.abs(np.concatenate([each.ravel() for each in apart]))
    return float(np.quantile(sizes, 1 - BEYOND) or sizes.max() or 1.0)


def _caption(maps: np.ndarray, groups: Mapping[str, np.ndarray], left: int) -> list[str]:
    """Says what the colors mean, and how unusual the maps of each group are."""
    lines = ["Orange: a group looks there more than the median client does; purple: less."]
    for name, group in groups.items():
        count = rarity(maps, group)
        than = f"all {DRAWS}" if count == DRAWS else f"{count} of {DRAWS}"
        lines.append(f"With all probes, {name} differs more than {than} random groups of its size.")
    if left:
        lines.append(f"There is no room for {left} more group{'s' * (left > 1)}.")
    return lines


def _grid(source: HeatMaps, rows: int) -> tuple[Figure, np.ndarray]:
    """Returns a figure and axes `[rows, probes]`, with a row more for probes if they are known."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    known = [] if source.probes is None else [gray(probe) for probe in source.probes]
    columns = min(source.maps.shape[1], len(known) or PICTURED)
    rows += bool(known)
    figure = Figure(figsize=(max(6.5, 1.5 * columns + 2.2), 1.5 * rows + 1), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    if known:
        _name(grid[0], "probe")
        for axes, image in zip(grid[0], known, strict=False):
            axes.imshow(image)
    return figure, grid


def _draw_median(line: np.ndarray, source: HeatMaps, median: np.ndarray, clients: int) -> None:
    """Draws the clients' median map `[p, h, w]` over the probes."""
    _name(line, "median of", f"{clients} clients")
    for probe, axes in enumerate(line):
        one = enlarge(median[probe : probe + 1], map_size(source))[0]
        axes.imshow(overlay(source, one, probe))


def _tinted(source: HeatMaps, apart: np.ndarray, probe: int, largest: float) -> np.ndarray:
    """Colors a difference, the stronger the less of the pale probe is seen."""
    import matplotlib
    from scipy.ndimage import zoom

    factors = np.divide(map_size(source), apart.shape[1:])
    values = np.clip(zoom(apart[probe].astype(np.float64), factors, order=1) / largest, -1, 1)
    colors = np.asarray(matplotlib.colormaps[COLORS]((values + 1) / 2)[..., :3])
    if source.probes is None:
        return colors
    pale = 0.75 + 0.25 * gray(source.probes[probe])
    opacity = np.minimum(np.abs(values) * 2, 1)[..., None]
    return np.asarray(opacity * colors + (1 - opacity) * pale)


def _add_scale(figure: Figure, lines: np.ndarray, largest: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colors = ScalarMappable(Normalize(-largest, largest), COLORS)
    label = "mean map less median map,\neach scaled to 0 … 1"
    figure.colorbar(colors, ax=lines.ravel().tolist(), label=label, aspect=30, extend="both")


def _name(line: np.ndarray, *words: str) -> None:
    """Names a row of pictures."""
    first: Axes = line[0]
    first.set_ylabel("\n".join(words), rotation=0, ha="right", va="center", fontsize=9)
