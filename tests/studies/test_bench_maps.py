"""`tffl bench maps`, and what the page of speed makes of it."""

from __future__ import annotations

import pytest

from tffl.defenses import AnyOf
from tffl.studies.bench import maps
from tffl.studies.pages import speed


def test_growth_is_told_with_what_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = AnyOf(of=("update-consensus", "multi-krum"))
    monkeypatch.setattr("tffl.defenses.Shield", lambda tables: quick)
    monkeypatch.setattr(maps, "ROUNDS", 2)
    monkeypatch.setattr(maps, "WARM_UP", 1)
    growth = maps._growth()
    figures = {
        **{"clients": 10, "model": "lenet5", "probes": 16, "seconds": {}},
        **{"detectors_against_training": {}, "maps_against_tf_keras_vis": 2.0, "growth": growth},
    }
    *_, last = speed.maps(figures)
    assert "Over 2 rounds judged by update-consensus, multi-krum together" in last
