"""Names, options and seeds."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tffl.attacks import attacks
from tffl.core import seeds
from tffl.core.errors import UsageError
from tffl.data import datasets
from tffl.defenses import defenses
from tffl.models import models


@pytest.mark.parametrize("registry", [attacks, defenses, models, datasets], ids=lambda r: r.kind)
def test_every_entry_describes_itself(registry) -> None:
    for name in registry:
        entry = registry.describe(name)
        assert entry["name"] == name
        assert len(entry["summary"]) > 10 and entry["summary"].endswith(".")
        assert entry["reference"] or name in ("none", "digits")


def test_unknown_names_list_the_nearest_and_all() -> None:
    with pytest.raises(UsageError) as caught:
        defenses["bias_anomaly"]
    message = str(caught.value)
    assert "did you mean 'bias-anomaly'?" in message and "none" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scal": 2}, "unknown option of attack label-flip 'scal': did you mean 'scale'?"),
        ({"scale": "banana"}, "attack.scale = 'banana' is not allowed"),
        ({"scale": float("inf")}, "attack.scale = inf is not allowed"),
    ],
)
def test_options_are_validated(options: dict, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        attacks.create("label-flip", options)
    assert message in str(caught.value)


def test_names_and_help_need_no_tensorflow() -> None:
    code = (
        "import sys, tffl, tffl.attacks, tffl.defenses, tffl.models, tffl.data\n"
        "for r in (tffl.attacks.attacks, tffl.defenses.defenses, tffl.models.models,\n"
        "          tffl.data.datasets):\n"
        "    [r.describe(name) for name in r]\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.integers(0, 2**32 - 1), st.integers(0, 1000), st.integers(0, 10**6))
def test_seeds_depend_on_every_part(seed: int, round: int, client: int) -> None:
    def draw(*parts) -> list[int]:
        return seeds.generator(*parts).integers(2**62, size=2).tolist()

    first = draw(seed, "training", round, client)
    assert first == draw(seed, "training", round, client)
    others = [
        draw(seed + 1, "training", round, client),
        draw(seed, "attack", round, client),
        draw(seed, "training", round + 1, client),
        draw(seed, "training", round, client + 1),
    ]
    assert first not in others


def test_seed_integers_fit_plain_libraries() -> None:
    values = [seeds.integer(seed, "model") for seed in range(100)]
    assert len(set(values)) == 100
    assert all(0 <= value < 2**31 for value in values)
    assert np.random.RandomState(values[0]) is not None
