"""tffl's defenses in a Flower server, which checks and judges every reply before averaging it.

    replies → checked replies → updates → verdict → the next global model

`DefendedStrategy` takes the place of Flower's `FedAvg` in a ServerApp, with the same options:

    strategy = DefendedStrategy("multi-krum", {"malicious": 3}, model=model, out=Path("run"))
    strategy.start(grid, ArrayRecord(model.get_weights()), num_rounds=10)

A valid reply holds one finite float32 array of the right shape for each variable of the global
model, and one plausible number of samples; any other reply is malformed. The defense sees a
malformed reply as a row of NaN, which it rejects and counts against the node. A defense that would
average NaN does not see the row at all. Nodes that report an error or do not reply are left out of
the round. No reply can stop the server.

Integer and boolean variables, such as counters, belong to the server: a reply's values for them are
ignored, and the next global model keeps the server's. Flower accepts only arrays, but Keras returns
plain numbers for scalars: use `ArrayRecord([np.asarray(w) for w in model.get_weights()])`.
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
