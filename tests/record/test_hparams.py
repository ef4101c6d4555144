"""TensorBoard: score histograms of a run and the sessions of a benchmark, read back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, get_experiment
from tensorboard.plugins.hparams import metadata as plugin
from tensorboard.plugins.hparams.backend_context import Context

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
        assert start.tag == plugin.SESSION_START_INFO_TAG
        assert end.tag == plugin.SESSION_END_INFO_TAG
        read = plugin.parse_session_start_info_plugin_data(start.metadata.plugin_data.content)
        attack, defense = name.split()
        assert read.hparams["attack"].string_value == attack
        assert read.hparams["defense"].string_value == defense
        assert read.hparams["seed"].number_value == 0
        assert read.group_name == f"all/{attack}/{defense}/0"
        ended = plugin.parse_session_end_info_plugin_data(end.metadata.plugin_data.content)
        assert api_pb2.Status.Name(ended.status) == (
            "STATUS_FAILURE" if name == "none none" else "STATUS_SUCCESS"
        )
        assert [value.tag for _, value in metrics] == ["accuracy"]


def test_tensorboard_lists_what_was_varied(sessions: dict[str, Any], tmp_path: Path) -> None:
    folder = str(tmp_path / "tensorboard")
    events = EventMultiplexer().AddRunsFromDirectory(folder)
    events.Reload()
    context = Context(TBContext(data_provider=MultiplexerDataProvider(events, folder)))
    request = api_pb2.GetExperimentRequest()
    shown = get_experiment.Handler(RequestContext(), context, "", request).run()
    assert {info.name for info in shown.hparam_infos} == {"setting", "attack", "defense", "seed"}
    assert [info.name.tag for info in shown.metric_infos] == ["accuracy"]
