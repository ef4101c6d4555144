"""The naive versions that the benchmark measures compute the same as tffl's rules."""

from __future__ import annotations

import numpy as np
import pytest

from tffl.core.layout import Entry, WeightLayout
from tffl.studies.bench.defenses import NEED_NETWORK, RandomRound, prepare
from tffl.studies.bench.naive import NAIVE

LAYOUT = WeightLayout(
    (
        Entry("conv/kernel", (10, 20), True),
        Entry("logits/kernel", (10, 10), True),
        Entry("logits/bias", (10,), True),
    )
)
ROUND = RandomRound(clients=30, layout=LAYOUT)  # f = 3, so that no step of Bulyan's ends in a tie
MEANS = {"none", "bucketing"}


@pytest.mark.parametrize("name", [name for name in NAIVE if name not in NEED_NETWORK])
def test_both_make_the_same_of_a_round(name: str) -> None:
    defense, case = prepare(name, ROUND)
    case.rows[1] += 9 * case.rows[0]  # two that FoolsGold takes for one
    case.rows[1] /= 10
    verdict, _ = defense.judge(case.updates, case.server, case.state)
    naive = NAIVE[name](case)
    np.testing.assert_allclose(naive, verdict.aggregate, rtol=1e-4, atol=1e-7)
    plain = case.rows.mean(axis=0)
    assert np.allclose(verdict.aggregate, plain, atol=1e-6) == (name in MEANS)
