"""How many digits a table keeps."""

from __future__ import annotations

import numpy as np


def nine_digits(value: float | np.floating) -> float:
    """Returns a number as tables have it: nine significant digits, more than a float32 holds.

    >>> nine_digits(0.8100000023841858)
    0.810000002
    """
    return float(f"{value:.9g}")
