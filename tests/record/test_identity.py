"""What makes two runs one, also after a later version has added keys to the config."""

from __future__ import annotations

from pathlib import Path

import pytest

from tffl.config import Config, build
from tffl.record.identity import FIRST_KEYS, deciding_keys, differences, identity
from tffl.studies.reproduce.catalogue import read_experiment
from tffl.studies.reproduce.measure import fingerprint, key_of, read_record

ROOT = Path(__file__).parents[2]


def test_a_later_key_at_its_default_changes_no_identity() -> None:
    found = identity(Config())
    for section, first in FIRST_KEYS.items():
        assert tuple(found[section]) == first


@pytest.mark.parametrize("name", ["pdgan/mnist", "gradcam-ae/resnet18", "fedcamae/resnet50"])
def test_recorded_results_are_still_known(name: str) -> None:
    experiment = read_experiment(ROOT / "configs" / f"{name}.toml")
    cells = experiment.cells(experiment.spec.items, "small")
    record = read_record(ROOT / "results" / Path(name).parent / "small", experiment.name)
    recorded = {key_of(row): row["fingerprint"] for row in record.runs}
    known = {key_of(cell.key): fingerprint(cell) for cell in cells}
    assert recorded and recorded == {key: known[key] for key in recorded}


@pytest.mark.parametrize("table", ["", "bias-anomaly"])
def test_a_later_option_counts_where_it_is_set(table: str) -> None:
    options = {"name": "any-of", "of": "bias-anomaly,median"} if table else {"name": "bias-anomaly"}
    set_layer = {table: {"layer": "dense"}} if table else {"layer": "dense"}
    unset, changed = build({"defense": options}), build({"defense": options | set_layer})
    assert "layer" not in str(identity(unset)) and "'layer': 'dense'" in str(identity(changed))


def test_a_later_option_with_a_default_counts_where_it_differs() -> None:
    name = {"name": "update-consensus"}
    unset, changed = build({"defense": name}), build({"defense": name | {"opposed": False}})
    assert "opposed" not in str(identity(unset))
    assert "'opposed': False" in str(identity(changed))


def test_a_later_key_counts_where_it_is_set() -> None:
    rotated = build({"data": {"shift": "rotation"}})
    assert identity(rotated) != identity(Config())
    assert deciding_keys(Config())["data"]["shift"] == "none"
    assert differences(Config(), rotated) == "data.shift is 'none' there, 'rotation' here"
