"""TensorBoard: score histograms of a run and the sessions of a benchmark, read back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tffl.record import hparams
from tffl.record.run_directory import RunDirectory
from tffl.studies import benchmark

PLAN = 'attacks = ["lie"]\ndefenses = ["median"]\n'


def values(folder: Path) -> list[tuple[int, Any]]:
    """Reads step and value of every event of a folder's only file."""
    (file,) = [path for path in folder.iterdir() if path.is_file()]
    records = tf.data.TFRecordDataset([str(file)]).as_numpy_iterator()
    events = [tf.compat.v1.Event.FromString(record) for record in records]
    return [(event.step, value) for event in events for value in event.summary.value]


def test_histograms_hold_the_scores(compared: Path) -> None:
    clients = RunDirectory.open(compared).frames()[1]
    found = {
        (step, value.tag): tf.make_ndarray(value.tensor)
        for step, value in values(compared / "tensorboard")
        if value.metadata.plugin_data.plugin_name == "histograms"
    }
    kinds = ("scores/honest", "scores/malicious")
    assert set(found) == {(round, kind) for round in (1, 2) for kind in kinds}
    for (round, kind), buckets in found.items():
        mine = (clients["round"] == round) & (clients["malicious"] == (kind == kinds[1]))
        scores = clients.loc[mine, "score"].to_numpy()
        assert buckets.shape == (30, 3)
        assert buckets[:, 2].sum() == np.isfinite(scores).sum()
        assert (buckets[1:, 0] == buckets[:-1, 1]).all()
        assert (buckets[0, 0], buckets[-1, 1]) == (scores.min(), scores.max())


@pytest.fixture
def sessions(tmp_path: Path) -> dict[str, list[Any]]:
    (tmp_path / "plan.toml").write_text(PLAN)
    cells = benchmark.load(tmp_path / "plan.toml")
    for number, cell in enumerate(cells):
        file = tmp_path / "cells" / cell.path.with_suffix(".json")
        file.parent.mkdir(parents=True, exist_ok=True)
        row = {"accuracy": 0.25 * number, "attack_success": None, "auc": math.nan}
        error = "" if number else "it broke"
        file.write_text(json.dumps({"identity": {}, "row": row, "error": error}))
    benchmark.collect(cells, tmp_path)
    benchmark.collect(cells, tmp_path)  # writes anew, not again
    folders = [tmp_path / "tensorboard" / "all" / c.attack / c.defense / "0" for c in cells]
    return {f"{f.parent.parent.name} {f.parent.name}": values(f) for f in folders}


def test_sessions_say_what_was_varied_and_what_came_of_it(sessions: dict[str, Any]) -> None:
    assert list(sessions) == ["none none", "none median", "lie none", "lie median"]
    for name, found in sessions.items():
        (_, start), *metrics, (_, end) = found
        attack, defense = name.split()
        assert (start.tag, end.tag) == (hparams.START, hparams.END)
        told = hparams.message()
        told.ParseFromString(start.metadata.plugin_data.content)
        varied = told.session_start_info.hparams
        assert varied["attack"].string_value == attack
        assert varied["defense"].string_value == defense
        assert varied["seed"].number_value == 0
        told.ParseFromString(end.metadata.plugin_data.content)
        assert told.session_end_info.status == (2 if name == "none none" else 1)
        assert [value.tag for _, value in metrics] == ["accuracy"]


def test_tensorboard_reads_the_sessions(sessions: dict[str, Any]) -> None:
    metadata = pytest.importorskip("tensorboard.plugins.hparams.metadata")
    (_, start), *_, (_, end) = sessions["lie median"]
    parsed = metadata.parse_session_start_info_plugin_data(start.metadata.plugin_data.content)
    assert parsed.hparams["defense"].string_value == "median"
    assert parsed.group_name == "all/lie/median/0"
    from tensorboard.plugins.hparams import api_pb2

    ended = metadata.parse_session_end_info_plugin_data(end.metadata.plugin_data.content)
    assert ended.status == api_pb2.Status.Value("STATUS_SUCCESS")
