"""Every random choice of an experiment, derived from its purpose.

A generator depends on (experiment seed, purpose, round, client) and on nothing else: not on the
order of calls, the number of devices, or the clock. Hence a run on one device, on several, or
resumed after an interruption draws the same numbers.
"""

from __future__ import annotations

import zlib

import numpy as np


def sequence(seed: int, purpose: str, round: int = 0, client: int = 0) -> np.random.SeedSequence:
    """Returns the seed sequence of one random choice."""
    return np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), round, client])


def generator(seed: int, purpose: str, round: int = 0, client: int = 0) -> np.random.Generator:
    """Returns the NumPy generator of one random choice.

    >>> a, b = (generator(1, "shuffle", round=2, client=3).integers(1000) for _ in range(2))
    >>> bool(a == b)
    True
    """
    return np.random.default_rng(sequence(seed, purpose, round, client))


def integer(seed: int, purpose: str, round: int = 0, client: int = 0) -> int:
    """Returns one 31-bit integer, for libraries that want a plain seed."""
    return int(sequence(seed, purpose, round, client).generate_state(1)[0] & 0x7FFFFFFF)
