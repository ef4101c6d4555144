"""tffl's defenses in a Flower server: every reply is checked and judged before it is averaged.

    replies → checked replies → updates → verdict → the next global model

`DefendedStrategy` takes the place of Flower's `FedAvg` in a ServerApp, with the same options:

    strategy = DefendedStrategy("multi-krum", {"malicious": 3}, model=model, out=Path("run"))
    strategy.start(grid, ArrayRecord(model.get_weights()), num_rounds=10)

A node's reply is worth what its bytes are. It is malformed unless it holds one array per variable
of the global model, float32, of its shape and finite, and one plausible number of samples. To the
defense such a reply is a row of NaN, which it rejects and holds against the node; where a defense
averages even that, it does not see the row. Nodes that report an error, or nothing, take no part in
the round. None of them stops it.

Integer and boolean variables, such as counters, are the server's own: what a reply says of them is
passed over, and the next global model has the server's values. Flower takes arrays only, and Keras
gives plain numbers for scalars: `ArrayRecord([np.asarray(w) for w in model.get_weights()])`.
"""

from __future__ import annotations

try:
    import flwr.app
    import flwr.serverapp.strategy  # noqa: F401
except ImportError as error:  # pragma: no cover
    raise ImportError(f"tffl.integrations.flower needs pip install 'tffl[flower]': {error}") from (
        error
    )

from tffl.integrations.flower.metrics import average
from tffl.integrations.flower.strategy import DefendedStrategy

__all__ = ["DefendedStrategy", "average"]
