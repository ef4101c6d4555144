"""What a server owns, and a defense may use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tffl.core.errors import require
from tffl.core.layout import WeightLayout
from tffl.data.samples import RootData, Samples

if TYPE_CHECKING:
    import keras

    from tffl.explain.maps import Explainer


MOST_CLIENTS = 1 << 30
"""More than any server registers; defenses keep a row of memory for each."""


@dataclass(frozen=True)
class Server:
    """What a real server owns, and nothing more: never the ground truth.

    Attributes:
      model: The global network, for its structure; its weights are those of the round's start.
        None where a rule judges plain rows.
      layout: Columns of the update matrix.
      clients: Number of registered clients; ids are below it.
      seed: The experiment's seed; draw through `tffl.core.seeds`.
      root: Its own samples, if the experiment grants it any.
      learning_rate: What it multiplies an aggregated update by.
      samples: Labeled images to try clients' models on: its root samples if it has any, else
        the test set, as in the papers.
      explainer: Makes class activation maps of clients' models.
      rounds: Number of the last round; None where nobody has said it.

    >>> from tffl.core.updates import Updates
    >>> layout = Updates.of_rows(np.zeros((1, 4))).layout
    >>> Server(None, layout, clients=5, seed=0).samples is None
    True
    """

    model: keras.Model | None
    layout: WeightLayout
    clients: int
    seed: int
    root: RootData | None = None
    learning_rate: float = 1.0
    samples: Samples | None = None
    explainer: Explainer | None = None
    rounds: int | None = None


def make_server(
    layout: WeightLayout,
    clients: int,
    *,
    seed: int = 0,
    learning_rate: float = 1.0,
    model: keras.Model | None = None,
    images: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    root_update: np.ndarray | Callable[[np.ndarray, int], np.ndarray] | None = None,
) -> Server:
    """Builds a server from what its owner has, for defenses that judge without an experiment.

    Args:
      layout: Columns of the update matrix.
      clients: Number of registered clients; ids are below it.
      seed: Of what the defense draws.
      learning_rate: What the server multiplies an aggregated update by.
      model: The global network.
      images: uint8 `[m, height, width, channels]`, to try clients' models on; or float32, which
        they get as they are, in any range.
      labels: int `[m]`, their classes.
      root_update: The update float32 `[d]` that training on the server's own, trusted data yields
        in the round, or a function (start `[d]`, round) → that update.

    Raises:
      UsageError: Images come without a model or without as many labels, the model is another, or
        client ids are too high.
    """
    require(
        clients <= MOST_CLIENTS,
        f"client id {clients - 1} is not allowed: number the clients from 0 on",
    )
    if model is not None:
        _check_model(WeightLayout.of(model), layout)
    require(
        images is None or (model is not None and labels is not None and len(images) == len(labels)),
        "images need model= and as many labels=",
    )
    if model is None:
        return Server(None, layout, clients, seed, _root(root_update, layout.size), learning_rate)

    from tffl.core.pixels import pixel_range
    from tffl.explain.maps import Explainer
    from tffl.explain.samples import check_samples

    shown = np.empty((0, 1, 1, 1), np.uint8) if images is None else np.asarray(images)
    classes = np.empty(0, np.int32) if labels is None else np.asarray(labels)
    samples = Samples(shown, classes, int(model.output_shape[-1]))
    if images is not None:
        check_samples(model, f"model {model.name}", samples, None)
    return Server(
        model,
        layout,
        clients,
        seed,
        _root(root_update, layout.size),
        learning_rate,
        samples,
        Explainer(model, pixel_range(shown)),
    )


def of_model(
    model: keras.Model, layout: WeightLayout | None, start: np.ndarray | None
) -> tuple[WeightLayout, np.ndarray]:
    """Returns layout and start weights float32 `[d]`: the model's own where they are None.

    Raises:
      UsageError: The layout is another model's.
    """
    own = WeightLayout.of(model)
    _check_model(own, layout or own)
    weights = own.flatten(model.get_weights()) if start is None else start
    return layout or own, weights


def _check_model(own: WeightLayout, layout: WeightLayout) -> None:
    require(
        own.size == layout.size,
        f"model has {own.size} weights, and the rows {layout.size} columns: give the model that "
        "the clients train",
    )


def _root(
    update: np.ndarray | Callable[[np.ndarray, int], np.ndarray] | None, size: int
) -> RootData | None:
    if update is None:
        return None

    def train(start: np.ndarray, round: int) -> np.ndarray:
        found = np.asarray(update(start, round) if callable(update) else update, np.float32)
        require(found.shape == (size,), f"root_update has shape {found.shape}: give ({size},)")
        return found

    return RootData(np.empty((0, 1, 1, 1), np.uint8), np.empty(0, np.int32), train)
