"""Variables in a client's file that belong to the server alone."""

from __future__ import annotations

import numpy as np


def is_server_variable(dtype: np.dtype) -> bool:
    """Returns whether an array holds integers or booleans, which clients do not train.

    Versions of Keras differ in the counters that they store, so a file may hold more or fewer of
    them than the global model has. Readers ignore them.
    """
    return dtype.kind in "iub"
