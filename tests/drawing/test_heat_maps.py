"""What was seen in a round, and pictures of it."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from tffl.core.verdict import HeatMaps
from tffl.drawing import heat_maps as pictures
from tffl.drawing.explanation import Explanation, distances


def a_round(n: int = 12, p: int = 2, rebuilt: bool = False, **changes: object) -> Explanation:
    """Clients 0 and 5 are malicious, and 0 and 1 are flagged."""
    rng = np.random.default_rng(0)
    maps = (rng.random((p, 4, 4)) + rng.normal(0, 0.05, (n, p, 4, 4))).clip(0.01)
    clients = np.arange(n)
    made = Explanation(
        round=3,
        title="lie against gradcam-ae",
        score_name="reconstruction error",
        client_ids=clients,
        malicious=np.isin(clients, [0, 5]),
        flagged=np.isin(clients, [0, 1]),
        scores=np.where(clients < 2, 0.5, 0.1 + clients / 1000),
        threshold=0.3,
        heat_maps=HeatMaps(
            maps=maps.astype(np.float32),
            probes=rng.integers(0, 256, (min(p, 4), 8, 8, 3), dtype=np.uint8),
            inputs=maps / maps.max() if rebuilt else None,
            rebuilt=maps / maps.max() * 0.9 if rebuilt else None,
        ),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def dots(figure: Figure) -> dict[str, list[list[float]]]:
    return {
        str(drawn.get_label()): np.asarray(drawn.get_offsets()).tolist()
        for drawn in figure.axes[0].collections
    }


def test_distances_are_euclidean_means_over_probes_of_the_median_map() -> None:
    maps = np.zeros((6, 2, 1, 2))  # the median map is 0 everywhere
    maps[1, 0, 0] = 3, 4  # 5 and 0 from it: 2.5 on average
    maps[2, :, 0] = 6, 8  # 10
    maps[3, 1, 0, 0] = -1  # 0.5
    maps[4, 0, 0, 1] = -4  # 2
    maps[5, 0, 0, 0] = np.nan
    assert distances(maps).tolist() == [0, 2.5 / 2, 5, 0.25, 1, np.inf]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0, 0, 0], [1, 1, 1, 1]),
        ([0, 0, 0, 7], [1, 1, 1, np.inf]),
        ([np.nan, np.inf], [np.inf, np.inf]),
    ],
)
def test_distances_are_defined_where_most_or_no_clients_agree(
    values: list[float], expected: list[float]
) -> None:
    maps = np.array(values, np.float32).reshape(-1, 1, 1, 1)
    assert distances(maps).tolist() == expected


def test_rows_count_dead_maps_and_those_that_are_not_finite() -> None:
    seen = a_round()
    seen.maps[2, 1], seen.maps[3, 0, 0, 0] = 0, np.inf
    rows = seen.rows()
    assert [row["client"] for row in rows] == list(range(12))
    assert (rows[2]["dead_maps"], rows[3]["non_finite_maps"], rows[3]["distance"]) == (1, 1, np.inf)
    assert rows[1]["flagged"] and not rows[1]["malicious"]
    assert rows[4]["dead_maps"] == rows[4]["non_finite_maps"] == 0


def test_all_flagged_and_malicious_are_drawn_and_others_up_to_a_limit() -> None:
    clients = np.arange(100)
    seen = a_round(100, malicious=clients >= 98, flagged=clients % 30 == 29)
    rows = pictures.chosen(seen)
    assert rows.tolist() == [*range(19), 29, 59, 89, 98, 99]
    caption = texts(pictures.heat_maps(seen))
    assert "24 of 100 clients; the 76 left out are neither flagged nor malicious." in caption
    everyone = a_round(100, flagged=clients >= 0)
    assert len(pictures.chosen(everyone)) == 100
    assert not any("left out" in line for line in texts(pictures.heat_maps(everyone)))


def test_maps_are_enlarged_and_normalized_as_tf_keras_vis_does() -> None:
    import keras
    from tf_keras_vis.gradcam import Gradcam

    keras.utils.set_random_seed(1)
    image = keras.Input((12, 12, 1))
    x = keras.layers.Conv2D(3, 3, strides=2, activation="relu", name="conv")(image)
    out = keras.layers.Dense(2)(keras.layers.Flatten()(x))
    model = keras.Model(image, out)
    images = np.random.default_rng(0).random((3, 12, 12, 1), np.float32)
    draw = Gradcam(model, clone=False)
    raw = np.asarray(
        draw(lambda output: output[:, 0], images, expand_cam=False, normalize_cam=False)
    )
    drawn = draw(lambda output: output[:, 0], images)
    assert raw.shape == (3, 5, 5) and raw.any()
    np.testing.assert_allclose(pictures.enlarge(raw, (12, 12)), drawn, atol=1e-6)


@pytest.mark.parametrize("rebuilt", [False, True])
@pytest.mark.parametrize("p", [1, 2, 6])
def test_a_client_is_framed_and_named(rebuilt: bool, p: int) -> None:
    seen = a_round(p=p, rebuilt=rebuilt)
    figure = pictures.heat_maps(seen)
    (axes,) = figure.axes
    said = texts(figure)
    assert {"client 0 malicious", "client 5 malicious", "client 1", "client 2"} <= set(said)
    colors = {text.get_text(): text.get_color() for text in axes.texts}
    assert colors["client 5 malicious"] != colors["client 1"] == "black"
    assert said.count("0.5 flagged") == 2
    assert sum(not patch.get_fill() for patch in axes.patches) == 2  # type: ignore[attr-defined]
    cells = 3 if rebuilt else min(p, 4)
    assert len(axes.images) == 12 * cells + (2 if rebuilt else 2 * cells)


def test_dead_maps_and_those_that_are_not_finite_are_named() -> None:
    seen = a_round(p=1, rebuilt=True)
    inputs, rebuilt = seen.heat_maps.inputs, seen.heat_maps.rebuilt
    assert inputs is not None and rebuilt is not None
    seen.maps[3], seen.maps[7] = 0, np.nan
    inputs[7] = rebuilt[7] = np.nan
    said = texts(pictures.heat_maps(seen))
    assert (said.count("dead"), said.count("not finite"), said.count("–")) == (1, 1, 2)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e38])
@pytest.mark.parametrize("probes", [False, True])
def test_nothing_breaks_a_picture(tmp_path: Path, value: float, probes: bool) -> None:
    images = a_round().heat_maps.probes if probes else None
    maps = np.full((12, 2, 4, 4), value, np.float32)
    seen = a_round(heat_maps=HeatMaps(maps, images))
    for scores in (np.full(12, np.nan), np.full(12, np.inf), np.r_[np.inf, -1e30, np.zeros(10)]):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            written = pictures.write(replace(seen, scores=scores, threshold=np.inf), tmp_path)
        assert len(written) == (2 if np.isnan(scores).all() else 3)
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_a_picture_is_the_same_every_time(tmp_path: Path) -> None:
    first, second = (pictures.write(a_round(), tmp_path / name) for name in "ab")
    assert [path.name for path in first] == [
        "heat_maps_round_0003.png",
        "consensus_round_0003.png",
        "errors_round_0003.png",
    ]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    part = a_round(heat_maps=HeatMaps(a_round().maps, part="krum/"))
    assert pictures.write(part, tmp_path)[0].name == "heat_maps_krum_round_0003.png"


def test_errors_show_everyone_and_the_threshold() -> None:
    seen = a_round()
    figure = pictures.errors(seen)
    drawn = dots(figure)
    assert drawn["malicious"] == [[0, 0.5], [5, seen.scores[5]]]
    assert drawn["flagged"] == [[0, 0.5], [1, 0.5]]
    assert len(drawn["benign"]) == 10
    (line,) = figure.axes[0].lines
    assert line.get_label() == "threshold" and set(line.get_ydata()) == {0.3}  # type: ignore[arg-type]
    assert figure.axes[0].get_ylabel() == "reconstruction error"


def test_a_chart_puts_the_infinite_at_its_edge_and_squeezes_nobody() -> None:
    seen = a_round()
    seen.maps[4] = np.nan
    seen.maps[0] *= 1e6
    figure = pictures.consensus(seen)
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    triangles = [c for c in axes.collections if np.asarray(c.get_offsets()).tolist() == [[4, 0.95]]]
    assert len(triangles) == 1
    assert "infinite" in dots(figure)
    assert "threshold" not in {line.get_label() for line in axes.lines}
    assert pictures.consensus(a_round()).axes[0].get_yscale() == "linear"
    steep = a_round(scores=np.r_[-1, np.zeros(10), 99])
    assert pictures.errors(steep).axes[0].get_yscale() == "symlog"
