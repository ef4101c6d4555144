"""Integers and booleans among the variables of a file."""

from __future__ import annotations

import numpy as np


def is_server_variable(dtype: np.dtype) -> bool:
    """Returns whether an array holds integers or booleans, which are the server's own matter.

    A file may have more or fewer of them than the global model, as versions of Keras differ in
    what they count: they are passed over.
    """
    return dtype.kind in "iub"
