"""Pictures of coalitions: who is drawn where, framed and named, and where their maps differ."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tffl.config import build
from tffl.core.verdict import CoalitionPlane, HeatMaps
from tffl.drawing import coalitions as drawing
from tffl.drawing.coalition_maps import DRAWS, common_maps, deviation, rarity, shapes
from tffl.drawing.coalitions import ALONE, GROUPS, PRESENT, SeenCoalition
from tffl.drawing.figures import GRAY

N = 12
CLIENTS = np.arange(N)
LOOK_ELSEWHERE = np.isin(CLIENTS, [0, 1, 2])


def maps_of(n: int = N, p: int = 6) -> HeatMaps:
    """All look at the left half, and clients 0 to 2 at the right one."""
    rng = np.random.default_rng(0)
    maps = rng.random((n, p, 4, 4)).astype(np.float32) * 0.3
    maps[..., :2] += np.where(np.arange(n) < 3, 0, 1)[:, None, None, None]
    maps[..., 2:] += np.where(np.arange(n) < 3, 1, 0)[:, None, None, None]
    return HeatMaps(maps, rng.integers(0, 256, (min(p, 4), 8, 8, 3), dtype=np.uint8))


def a_round(round: int = 3, groups: object = "000......1.", **changes: object) -> SeenCoalition:
    """Clients 0 to 2 are convicted together, client 9 alone; client 5 is rejected otherwise."""
    numbers = [-1 if letter == "." else int(letter) for letter in str(groups).ljust(N, ".")]
    plane = CoalitionPlane(
        coherence=np.where(LOOK_ELSEWHERE, 0.8, -0.4) + CLIENTS / 100,
        cost=np.where(LOOK_ELSEWHERE, 3.0, 0.0) + CLIENTS / 10,
        groups=np.array(numbers),
        suspects=LOOK_ELSEWHERE,
        evidence=np.where(LOOK_ELSEWHERE, 1.25, 0.5) + (CLIENTS == 9),
    )
    made = SeenCoalition(
        round=round,
        title="lie against shield",
        client_ids=CLIENTS + 10,
        malicious=np.isin(CLIENTS, [0, 1, 2, 3]),
        rejected=(plane.groups >= 0) | (CLIENTS == 5),
        plane=plane,
        heat_maps=maps_of(),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


NOBODY = a_round(groups="", rejected=np.zeros(N, dtype=bool))


def points(figure: Figure) -> dict[str, np.ndarray]:
    return {
        str(drawn.get_label()): np.asarray(drawn.get_offsets())
        for drawn in figure.axes[0].collections
    }


def test_the_plane_shows_everyone_and_frames_the_convicted() -> None:
    seen = a_round()
    figure = drawing.plane(seen)
    found, place = points(figure), np.stack([seen.plane.coherence, seen.plane.cost], axis=1)
    expected = {
        "benign": place[4:],
        "malicious": place[:4],
        "convicted in group 1 (3 clients), 1.25 times the limit": place[:3],
        "convicted alone, 1.5 times the limit": place[[9]],
        "rejected for another reason": place[[5]],
    }
    assert found.keys() == expected.keys()
    for name, offsets in expected.items():
        np.testing.assert_array_equal(found[name], offsets)
    (axes,) = figure.axes
    assert axes.get_title() == "Round 3: lie against shield"
    assert [text.get_text() for text in axes.texts] == [str(client) for client in seen.client_ids]


def test_who_was_not_convicted_is_said_to_be_most_suspicious() -> None:
    text = "most suspicious, 1.25 times the limit, not convicted"
    assert points(drawing.plane(NOBODY)).keys() == {"benign", "malicious", text}
    assert NOBODY.sentences() == ["none; most suspicious: clients 10, 11, 12, 1.25 times the limit"]
    assert a_round().sentences() == [
        "clients 10, 11, 12 push together: 1.25 times the limit",
        "client 19 costs the server's images alone: 1.5 times the limit",
    ]


def test_a_client_that_was_not_judged_is_nowhere_in_the_plane() -> None:
    seen = a_round()
    seen.plane.coherence[6] = seen.plane.cost[6] = np.nan
    figure = drawing.plane(seen)
    assert len(points(figure)["benign"]) == 7
    assert "16" not in [text.get_text() for text in figure.axes[0].texts]


def test_cells_have_the_colors_of_groups_and_numbers() -> None:
    later = a_round(4, "1.0...0...1.", client_ids=CLIENTS + 11)
    figure = drawing.by_round([a_round(), later])
    (axes,) = figure.axes
    cells = [[to_hex(cell).upper() for cell in line] for line in axes.images[0].get_array()]
    here = {row: line[0] for row, line in enumerate(cells)}
    assert here == {
        **dict.fromkeys(range(N), PRESENT),
        **dict.fromkeys([0, 1, 2], GROUPS[0]),
        **{5: GRAY, 9: ALONE, 12: "#FFFFFF"},
    }
    there = {row: line[1] for row, line in enumerate(cells) if line[1] in GROUPS}
    assert there == {1: GROUPS[1], 3: GROUPS[0], 7: GROUPS[0], 11: GROUPS[1]}
    assert [text.get_text() for text in axes.get_xticklabels()] == ["3", "4"]
    names = {text.get_text(): text.get_color() for text in axes.get_yticklabels()}
    assert list(names) == [f"client {client}" for client in range(10, 23)]
    assert names["client 10"] == names["client 13"] != names["client 15"] == "black"
    written = sorted(text.get_text() for text in axes.texts)
    assert written == ["1"] * 5 + ["2"] * 3 + ["×"] * 2


def test_where_there_is_no_room_the_convicted_and_malicious_come_first() -> None:
    n = 100
    plane = CoalitionPlane(
        coherence=np.zeros(n),
        cost=np.zeros(n),
        groups=np.where(np.arange(n) >= 95, 0, -1),
        suspects=np.arange(n) >= 95,
        evidence=np.ones(n),
    )
    seen = SeenCoalition(
        *(1, "lie against coalition", np.arange(n), np.arange(n) == 80, plane.groups >= 0, plane)
    )
    (axes,) = drawing.by_round([seen]).axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert len(names) == 60 and names[-6:] == [f"client {c}" for c in (80, *range(95, 100))]
    assert "40 of 100 clients are left out" in axes.get_title()
    assert not list(drawing.plane(seen).axes[0].texts)


def test_a_group_that_looks_elsewhere_deviates_and_others_do_not() -> None:
    maps = shapes(maps_of().maps)
    apart, others = deviation(maps, LOOK_ELSEWHERE), deviation(maps, ~LOOK_ELSEWHERE)
    assert apart[..., :2].max() < -0.4 < 0.4 < apart[..., 2:].min()
    assert np.abs(others).max() < 0.2
    assert rarity(maps, LOOK_ELSEWHERE) >= DRAWS - 5
    same = np.repeat(maps[-1:], N, axis=0)
    assert rarity(same, LOOK_ELSEWHERE) == 0


def test_maps_are_scaled_and_damaged_ones_left_out() -> None:
    maps = maps_of().maps * np.float32(1e3)
    maps[4, 0, 0, 0] = np.nan
    found = shapes(maps)
    assert np.isnan(found[4]).all()
    np.testing.assert_allclose(found[5], shapes(maps_of().maps)[5], atol=1e-5)


def words(figure: Figure) -> list[str]:
    return [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]


@pytest.mark.parametrize("probes", [False, True])
def test_the_common_map_of_a_group_is_beside_that_of_the_others(probes: bool) -> None:
    source = maps_of() if probes else HeatMaps(maps_of().maps)
    source.maps[11] = np.nan
    others = [np.isin(CLIENTS, [9]), np.isin(CLIENTS, [7, 8, 11])]
    figure = common_maps("Round 3: lie against shield", source, [LOOK_ELSEWHERE, *others])
    named = words(figure)
    assert named[-1].startswith("mean map less median map")
    assert named[:-1] == [
        *(["probe"] if probes else []),
        "median of\n11 clients",
        "group 1,\n3 clients",
        "group 3,\n2 clients",
        "others,\n5 clients",
    ]
    caption = figure.get_suptitle()
    assert "Orange: a group looks there more" in caption and "group 2" not in caption
    many = common_maps("", maps_of(), [pair == CLIENTS // 2 for pair in range(5)])
    assert "There is no room for 2 more groups." in many.get_suptitle()


@pytest.mark.parametrize("value", [0.0, np.nan, 1e38])
def test_nothing_breaks_a_picture(tmp_path: Path, value: float) -> None:
    maps = HeatMaps(np.full((N, 2, 4, 4), value, np.float32))
    count = 2 if np.isfinite(value) else 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(drawing.write(a_round(heat_maps=maps), tmp_path)) == count
        assert len(drawing.write(replace(NOBODY, heat_maps=maps), tmp_path)) == 1
        assert drawing.write_rounds([NOBODY], tmp_path) == [tmp_path / "coalition_rounds.png"]


def test_what_was_recorded_is_joined_with_the_truth() -> None:
    seen = a_round()
    part = replace(seen.plane, part="shield/coalition/")
    clients = pd.DataFrame(
        {
            "round": np.repeat([2, 3], N),
            "client": np.tile(seen.client_ids[::-1], 2),
            "malicious": np.tile(seen.malicious[::-1], 2).astype(int),
            "accepted": np.r_[np.ones(N), ~seen.rejected[::-1]].astype(int),
        }
    )
    config = build({"attack": {"name": "lie"}, "defense": {"name": "shield"}})
    shown = (part, seen.heat_maps)
    (found,) = drawing.recorded(config, 3, clients, seen.client_ids, shown)  # type: ignore[arg-type]
    assert found.rows() == seen.rows()
    assert found.title == seen.title and found.heat_maps is seen.heat_maps
    assert found.part == "shield-coalition"
    rows = found.rows()
    assert [row["group"] for row in rows] == [1, 1, 1, *[None] * 6, 2, None, None]
    assert rows[5] == {
        **{"client": 15, "malicious": False, "group": None, "suspect": False, "rejected": True},
        **{"coherence": pytest.approx(-0.35), "cost": 0.5, "excess": 0.5},
    }
    assert drawing.recorded(config, 3, clients, seen.client_ids, shown[1:]) == []  # type: ignore[arg-type]
