"""Updates of a tiny network whose final bias is all that matters."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest

from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.defenses import Server

LAYOUT = WeightLayout(
    (
        Entry("conv/kernel", (2, 2), True),
        Entry("bn/moving_mean", (2,), False),
        Entry("logits/kernel", (2, 3), True),
        Entry("logits/bias", (3,), True),
    )
)


@pytest.fixture
def layout() -> WeightLayout:
    return LAYOUT


@pytest.fixture
def server() -> Server:
    return Server(model=cast("object", None), layout=LAYOUT, clients=6, seed=0)


@pytest.fixture
def updates() -> Callable[..., Updates]:
    def make(bias: object, ids: object = None, counts: object = None, round: int = 1) -> Updates:
        bias = np.asarray(bias, dtype=np.float32)
        n = len(bias)
        deltas = np.full((n, LAYOUT.size), 0.5, dtype=np.float32)
        deltas[:, LAYOUT.final_bias] = bias
        return Updates(
            round=round,
            client_ids=np.arange(n) if ids is None else np.asarray(ids),
            sample_counts=np.ones(n, np.int64) if counts is None else np.asarray(counts),
            start=np.zeros(LAYOUT.size, dtype=np.float32),
            matrix=deltas,
            layout=LAYOUT,
        )

    return make
