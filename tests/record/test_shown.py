"""What a defense showed, in a run's file: its names and arrays are those of older runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tffl.config import build
from tffl.core.tensors import write_tensors
from tffl.core.verdict import AuditImages, CoalitionPlane, HeatMaps, Shown
from tffl.record.run_directory import PICTURES, RunDirectory, round_file
from tffl.record.shown import from_arrays, to_arrays
from tffl.record.tables import RunTables

MAPS = HeatMaps(
    maps=np.array([[0.0, 1.0], [0.0, np.nan]], np.float32).reshape(2, 2, 1, 1),
    probes=np.zeros((2, 4, 4, 1), np.uint8),
    inputs=np.ones((2, 2, 1, 1), np.float32),
    rebuilt=np.ones((2, 2, 1, 1), np.float32),
    best=np.array([1, np.nan], np.float32),
)
IMAGES = AuditImages(
    images=np.zeros((2, 4, 4, 1), np.uint8),
    labels=np.array([3, 1]),
    support=np.array([1.0, 0.5]),
    kept=np.array([True, False]),
    label_counts=np.array([0, 1, 0, 1]),
    accuracies=np.array([1.0, 0.0]),
    confusions=np.zeros((2, 4, 4), np.int64),
    auxiliary=np.zeros((1, 4, 4, 1), np.uint8),
)
PLANE = CoalitionPlane(
    coherence=np.array([0.5, np.nan]),
    cost=np.array([-2.0, np.nan]),
    groups=np.array([0, -1]),
    suspects=np.array([True, False]),
    evidence=np.array([1.5, np.nan]),
)
HEAT = {"maps", "probes", "inputs", "rebuilt", "best", "dead", "non_finite"}
AUDIT = {
    *("audit_images", "audit_labels", "audit_support", "audit_kept", "audit_accuracies"),
    *("label_counts", "confusions", "auxiliary_images"),
}


def test_arrays_have_the_names_that_files_have_always_had() -> None:
    arrays = to_arrays([MAPS, IMAGES])
    assert set(arrays) == HEAT | AUDIT
    assert arrays["dead"].tolist() == [1, 1] and arrays["non_finite"].tolist() == [0, 1]
    assert set(to_arrays([PLANE])) == {f"coalition_{name}" for name in vars(PLANE)} - {
        "coalition_part"
    }
    assert set(to_arrays([HeatMaps(MAPS.maps)])) == {"maps", "dead", "non_finite"}


@pytest.mark.parametrize(
    "shown",
    [
        (),
        (MAPS, IMAGES),
        (PLANE, MAPS, replace(PLANE, part="shield/coalition/")),
        (HeatMaps(MAPS.maps, part="a/"), HeatMaps(MAPS.maps, best=MAPS.best, part="b/c/")),
    ],
)
def test_a_run_directory_reads_what_was_stored(shown: tuple[Shown, ...], tmp_path: Path) -> None:
    ids, stored = np.array([4, 7]), to_arrays(shown)
    run = RunDirectory(tmp_path, build({}), RunTables())
    if shown:
        write_tensors(round_file(tmp_path / PICTURES, 3), {"client_ids": ids, **stored}, {})
    client_ids, found = run.shown(3)
    assert client_ids.tolist() == (ids.tolist() if shown else [])
    assert {type(one) for one in found} == {type(one) for one in shown}
    again = to_arrays(found)
    assert again.keys() == stored.keys()
    for name, array in stored.items():
        np.testing.assert_array_equal(again[name], array)
        assert again[name].dtype == array.dtype


def test_arrays_of_unknown_names_are_passed_over() -> None:
    assert from_arrays({"client_ids": np.arange(2), "label_counts": np.arange(2)}) == ()
