"""What detectors that rebuild heat maps by autoencoders leave to a server without tffl."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tffl.defenses.base import State
from tffl.defenses.cam_detector import THRESHOLD, CamDetector
from tffl.defenses.exports import DetectorExport, Endpoint
from tffl.defenses.server import Server

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

Serve = Callable[["tf.Tensor", Mapping[str, "keras.Model"], int], "dict[str, tf.Tensor]"]
"""(Raw maps float32 `[n, p, h, w]`, networks by name, height and width of the probes) →
`reconstruction`, of what the networks saw, and `score`, float32 `[n]`."""


def map_export(
    detector: CamDetector,
    server: Server,
    state: State,
    networks: Mapping[str, keras.Model],
    serve: Serve,
) -> dict[str, DetectorExport]:
    """Returns a detector's autoencoders as `detector`; nothing if it has none.

    Args:
      detector: Whose options make the maps.
      server: Whose probes and layer they are made of.
      state: After the last round.
      networks: The autoencoders that it holds, by name.
      serve: What the export computes.
    """
    if not networks or server.explainer is None:
        return {}
    probes = detector.draw_probes(server, 0)
    layer = server.explainer.layer_name(detector.layer or None)
    size = probes.images.shape[1]
    shape = (None, len(probes), *server.explainer.map_size(layer, size))

    def endpoint(maps: tf.Tensor) -> dict[str, tf.Tensor]:
        return serve(maps, networks, size)

    export = DetectorExport(
        networks,
        {"serving_default": Endpoint(endpoint, {"maps": (shape, "float32")})},
        {"probes": probes.images},
        {
            "maps": detector.method,
            "layer": layer,
            "class_rule": detector.class_rule,
            "classes": probes.classes.tolist(),
            "image_size": size,
            "threshold": float(state[THRESHOLD][0]),
            "probes_redrawn_every_round": detector.redraw,
        },
    )
    return {"detector": export}
