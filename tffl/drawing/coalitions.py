"""Pictures of coalitions: who pushes together, what that costs, and what their models look at.

    coalition          coherence and cost of each client in a round
    coalition_maps     where heat maps of a coalition differ from the clients' median, and of others
    coalition_rounds   who was convicted with whom, by round

Malicious clients are named as such: a picture knows the truth, a defense does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core.verdict import CoalitionPlane, HeatMaps, Shown
from tffl.drawing import figures
from tffl.drawing import guard as drawing
from tffl.drawing.coalition_maps import common_maps, in_common
from tffl.drawing.explanation import title_of
from tffl.drawing.figures import BLUE, GRAY, RED

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tffl.config import Config

GROUPS = ("#EE7733", "#AA3377", "#009988", "#CCBB44")
"""Colors of groups, in the order in which they were found; more begin again."""

ALONE, PRESENT = "#333333", "#E4E4E4"
"""Colors of who was convicted alone, and of who was not convicted."""

NAMED = 60
"""Clients in a round, at most, that have room for their numbers; and rows of `by_round`."""

MOST = 240
"""Rows of `by_round`, at most, if more are convicted or malicious."""

NUMBERED = 40
"""Rounds, at most, that have room for the number of a group."""


@dataclass(frozen=True)
class SeenCoalition:
    """What `coalition` saw among the n clients of a round, and what is known of them.

    Attributes:
      round: 1-based.
      title: In words, such as `"lie against shield"`.
      client_ids: int64 `[n]`.
      malicious: bool `[n]`, the truth.
      rejected: bool `[n]`, by whatever part of the defense.
      plane: What it saw.
      heat_maps: Of the same clients, if there are any.
    """

    round: int
    title: str
    client_ids: np.ndarray
    malicious: np.ndarray
    rejected: np.ndarray
    plane: CoalitionPlane
    heat_maps: HeatMaps | None = None

    @property
    def part(self) -> str:
        """Name of the detector, where several saw the same round; else empty."""
        return self.plane.part.strip("/").replace("/", "-")

    @property
    def groups(self) -> list[np.ndarray]:
        """The convicted groups in the order in which they were found, each bool `[n]`."""
        return [self.plane.groups == number for number in range(self.plane.groups.max() + 1)]

    @property
    def rejected_otherwise(self) -> np.ndarray:
        """Who was rejected and is in no group, bool `[n]`."""
        return self.rejected & (self.plane.groups < 0)

    def excess(self, group: np.ndarray) -> float:
        """Returns what a group costs relative to the limit."""
        return float(self.plane.evidence[group].max())

    def sentences(self) -> list[str]:
        """Says of each group who belongs to it; or of the suspects, if nobody was convicted."""
        if not self.groups:
            suspects, excess = self.plane.suspects, self.excess(self.plane.suspects)
            named = _names(self.client_ids[suspects])
            return [f"none; most suspicious: {named}, {excess:.3g} times the limit"]
        return [
            f"{_names(self.client_ids[group])} {_deed(group)}: "
            f"{self.excess(group):.3g} times the limit"
            for group in self.groups
        ]

    def rows(self) -> list[dict[str, Any]]:
        """Returns a row per client; groups count from 1, and are None for clients in none."""
        plane = self.plane
        return [
            {
                "client": int(client),
                "malicious": bool(self.malicious[row]),
                "group": int(plane.groups[row]) + 1 or None,
                "suspect": bool(plane.suspects[row]),
                "coherence": float(plane.coherence[row]),
                "cost": float(plane.cost[row]),
                "excess": float(plane.evidence[row]),
                "rejected": bool(self.rejected[row]),
            }
            for row, client in enumerate(self.client_ids)
        ]


def recorded(
    config: Config,
    round: int,
    clients: pd.DataFrame,
    client_ids: np.ndarray,
    shown: Sequence[Shown],
    heat_maps: HeatMaps | None = None,
) -> list[SeenCoalition]:
    """Returns what each `coalition` of a run saw in a round.

    Args:
      config: Of the run.
      round: 1-based.
      clients: The columns of `clients.csv`.
      client_ids: int64 `[n]`.
      shown: What the defense showed.
      heat_maps: Of the same clients, if the defense showed none.
    """
    mine = clients[clients["round"] == round].set_index("client").loc[client_ids]
    maps = next((one for one in shown if isinstance(one, HeatMaps)), heat_maps)
    return [
        SeenCoalition(
            round=round,
            title=title_of(config),
            client_ids=client_ids,
            malicious=mine["malicious"].to_numpy(bool),
            rejected=~mine["accepted"].to_numpy(bool),
            plane=one,
            heat_maps=maps,
        )
        for one in shown
        if isinstance(one, CoalitionPlane)
    ]


def write(seen: SeenCoalition, folder: Path) -> list[Path]:
    """Writes the pictures of a round, such as `coalition_round_0003.png`, and returns the paths.

    Raises:
      TfflError: A picture cannot be written.
    """
    end = f"{_part(seen)}_round_{seen.round:04d}.png"
    path = folder / f"coalition{end}"
    written = [path] if drawing.write(path, plane, seen) else []
    if seen.heat_maps is None or not in_common(seen.heat_maps, seen.groups):
        return written
    path = folder / f"coalition_maps{end}"
    heading = f"Round {seen.round}: {seen.title}"
    drawn = drawing.write(path, common_maps, heading, seen.heat_maps, seen.groups)
    return [*written, path] if drawn else written


def write_rounds(seen: Sequence[SeenCoalition], folder: Path) -> list[Path]:
    """Writes `coalition_rounds.png` from what one detector saw, and returns the path.

    Raises:
      TfflError: The picture cannot be written.
    """
    path = folder / f"coalition_rounds{_part(seen[0])}.png"
    return [path] if drawing.write(path, by_round, seen) else []


def plane(seen: SeenCoalition) -> Figure:
    """Draws coherence and cost of each client, and frames those who were convicted."""
    figure, axes = figures.canvas(7, 5.5)
    x, y = seen.plane.coherence, seen.plane.cost
    judged = np.isfinite(x) & np.isfinite(y)
    for mine, color, marker, who in (
        (~seen.malicious & judged, BLUE, "o", "benign"),
        (seen.malicious & judged, RED, "X", "malicious"),
    ):
        if mine.any():
            axes.scatter(x[mine], y[mine], 32, color=color, marker=marker, label=who, zorder=3)
    for color, marker, mine, text in _frames(seen):
        # A diamond has room for a square.
        style: dict[str, Any] = {"facecolors": "none", "linewidths": 1.8 if marker == "s" else 1.2}
        size = 130 if marker == "s" else 280
        axes.scatter(x[mine], y[mine], size, marker=marker, edgecolors=color, label=text, **style)
    beside: dict[str, Any] = {"xytext": (6, 5), "textcoords": "offset points"}
    for row in np.flatnonzero(judged) if len(x) <= NAMED else ():
        client = str(seen.client_ids[row])
        axes.annotate(client, (x[row], y[row]), fontsize=7, color=GRAY, **beside)
    axes.axhline(0, color=GRAY, linewidth=0.6, zorder=0)
    axes.axvline(0, color=GRAY, linewidth=0.6, zorder=0)
    axes.margins(0.1)
    axes.set_title(f"Round {seen.round}: {drawing.label(seen.title, 100)}", fontsize=10)
    axes.set_xlabel(
        "coherence\n(mean cosine with the most suspicious group, less that with the others)"
    )
    axes.set_ylabel(
        "cost to the server's images, mean over classes and rounds\n"
        "(robust standard deviations from the median)"
    )
    figures.legend(figure, columns=2, fontsize=9)
    return figure


def by_round(seen: Sequence[SeenCoalition]) -> Figure:
    """Draws clients × rounds, in the colors of the groups with which clients were convicted.

    Args:
      seen: What one detector saw, a round each, in order.
    """
    from matplotlib.colors import to_rgb

    clients, malicious, everyone = _rows_by_round(seen)
    colors = np.full((len(clients), len(seen), 3), np.nan)
    height = 0.19 * len(clients) + 1.6
    figure, axes = figures.canvas(min(12.0, max(5.0, 0.32 * len(seen) + 2)), height)
    legend = {}
    for column, one in enumerate(seen):
        place = {client: row for row, client in enumerate(clients)}
        for row, client in enumerate(one.client_ids.tolist()):
            if client not in place:
                continue
            color, letter, text = _cell(one, row)
            colors[place[client], column] = to_rgb(color)
            legend[text] = color
            if letter and len(seen) <= NUMBERED:
                ink = "white" if color in (ALONE, GRAY, GROUPS[1], GROUPS[2]) else "black"
                where = (column, place[client])
                axes.text(*where, letter, color=ink, fontsize=7, ha="center", va="center")
    if np.isnan(colors).any():
        legend["did not take part"] = "white"
    axes.imshow(np.nan_to_num(colors, nan=1), aspect="auto", interpolation="none")
    _label_cells(axes, seen, clients, malicious)
    for text in sorted(legend):
        edge = GRAY if legend[text] == "white" else legend[text]
        style: dict[str, Any] = {"facecolors": legend[text], "edgecolors": edge}
        axes.scatter([], [], 60, marker="s", label=text, **style)
    axes.set_title("\n".join(_title_by_round(seen, malicious, everyone)), fontsize=9)
    figures.legend(figure, columns=3, fontsize=9)
    return figure


def _title_by_round(
    seen: Sequence[SeenCoalition], malicious: np.ndarray, everyone: int
) -> list[str]:
    """Says what is drawn, and what colors and the legend do not say."""
    lines = [drawing.label(seen[0].title, 100)]
    if any(len(one.groups) > 1 for one in seen):
        lines.append("Groups are numbered anew in each round.")
    if malicious.any():
        lines.append("Red name: malicious, which only the picture knows.")
    if everyone > len(malicious):
        lines.append(f"{everyone - len(malicious)} of {everyone} clients are left out.")
    return lines


def _label_cells(
    axes: Axes, seen: Sequence[SeenCoalition], clients: np.ndarray, malicious: np.ndarray
) -> None:
    """Names rows and columns, and separates cells."""
    step = -(-len(seen) // 25)
    rounds = [str(one.round) for one in seen]
    axes.set_xticks(range(0, len(seen), step), rounds[::step], fontsize=8)
    names = [f"client {client}" for client in clients]
    axes.set_yticks(range(len(clients)), names, fontsize=8)
    for text, wrong in zip(axes.get_yticklabels(), malicious, strict=True):
        text.set(color=RED if wrong else "black", weight="bold" if wrong else "normal")
    axes.set_xlabel("round")
    axes.set_xticks(np.arange(len(seen) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(clients) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8 if len(seen) <= 100 else 0.1)
    axes.tick_params(which="minor", length=0)


def _rows_by_round(seen: Sequence[SeenCoalition]) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns clients to draw int64 `[k]`, who of them is malicious bool `[k]`, and all's number.

    Convicted and malicious ones come before others where there is no room for all.
    """
    ids = np.concatenate([one.client_ids for one in seen])
    wrong = np.concatenate([one.malicious for one in seen])
    notable = wrong | np.concatenate([one.rejected | (one.plane.groups >= 0) for one in seen])
    known, first = np.unique(ids, return_index=True)
    chosen = np.unique(ids[notable])[:MOST]
    others = np.setdiff1d(known, ids[notable])[: max(0, NAMED - len(chosen))]
    clients = np.sort(np.concatenate([chosen, others]))
    return clients, wrong[first[np.searchsorted(known, clients)]], len(known)


def _cell(seen: SeenCoalition, row: int) -> tuple[str, str, str]:
    """Returns color, number and meaning of what a round decided about a client."""
    number = int(seen.plane.groups[row])
    if number < 0:
        rejected = bool(seen.rejected[row])
        return (GRAY, "×", "rejected for another reason") if rejected else (PRESENT, "", "accepted")
    if seen.groups[number].sum() == 1:
        return ALONE, str(number + 1), "convicted alone"
    return GROUPS[number % len(GROUPS)], str(number + 1), f"convicted in group {number + 1}"


def _part(seen: SeenCoalition) -> str:
    return f"_{seen.part}" if seen.part else ""


def _names(clients: np.ndarray) -> str:
    return f"client{'s' * (len(clients) > 1)} {', '.join(map(str, clients.tolist()))}"


def _deed(group: np.ndarray) -> str:
    several = group.sum() > 1
    return "push together" if several else "costs the server's images alone"


def _frames(seen: SeenCoalition) -> list[tuple[str, str, np.ndarray, str]]:
    """Returns color, marker, members and meaning of each frame."""
    frames = []
    for group in seen.groups:
        color, _, text = _cell(seen, int(np.flatnonzero(group)[0]))
        size = f" ({group.sum()} clients)" if group.sum() > 1 else ""
        frames.append(
            (color, "s", group, f"{text}{size}, {seen.excess(group):.3g} times the limit")
        )
    if not frames and seen.plane.suspects.any():
        excess = seen.excess(seen.plane.suspects)
        text = f"most suspicious, {excess:.3g} times the limit, not convicted"
        frames.append((GRAY, "s", seen.plane.suspects, text))
    if seen.rejected_otherwise.any():
        frames.append((GRAY, "D", seen.rejected_otherwise, "rejected for another reason"))
    return frames
