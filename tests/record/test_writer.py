import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tffl.callbacks import Group, Round
from tffl.config import (
    ComponentConfig,
    Config,
    FederationConfig,
    RecordConfig,
    TrainingConfig,
    load,
)
from tffl.core.errors import TfflError, UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.core.tensors import read_tensors, write_tensors
from tffl.core.updates import Updates
from tffl.defenses import FedAvg
from tffl.record.recorder import Recorder
from tffl.record.run_directory import RunDirectory, load_updates
from tffl.record.store_size import check_store_size
from tffl.record.writer import RunWriter

CONFIG = Config(record=RecordConfig(tensorboard=False))
LAYOUT = WeightLayout((Entry("dense/kernel", (3, 2), True), Entry("norm/mean", (2,), False)))


def rows(round: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    clients = [
        {"round": round, "client": c, "score": c / 3, "malicious": c == 0, "reason": "far, or not"}
        for c in range(3)
    ]
    return {"round": round, "accuracy": round / 7, "attack_success": None}, clients


def write(run: Recorder, round: int) -> None:
    row, client_rows = rows(round)
    sent = updates(round)
    verdict = FedAvg().judge_rows(sent.deltas)
    groups = [Group(0, sent, verdict, np.zeros(3, bool))]
    weights, labels = np.zeros((1, 8), np.float32), np.zeros(1, np.int32)
    played = Round(round, groups, weights, row, client_rows, labels, lambda: np.zeros((1, 2)))
    for callback in run.callbacks:
        callback.round(played)


def play(run: Recorder, first: int, last: int) -> None:
    for round in range(first, last + 1):
        write(run, round)
        run.save_checkpoint(round, np.full(4, round, np.float32), {"votes": np.arange(round)})


def tables(path: Path) -> tuple[bytes, bytes]:
    return (path / "rounds.csv").read_bytes(), (path / "clients.csv").read_bytes()


def start(path: Path, config: Config = CONFIG) -> RunWriter:
    return RunWriter.create(path, config, ["tffl", "simulate"], {"defense": ["root data"]})


def updates(round: int = 1) -> Updates:
    generator = np.random.default_rng(round)
    return Updates(
        round,
        np.array([1, 4, 5]),
        np.array([10, 20, 30]),
        generator.normal(size=8).astype(np.float32),
        generator.normal(size=(3, 8)).astype(np.float32),
        LAYOUT,
    )


def test_create_describes_the_run(tmp_path: Path) -> None:
    config = Config(
        seed=7, attack=ComponentConfig.model_validate({"name": "label-flip", "scale": 2.5})
    )
    start(tmp_path / "deep" / "run", config)
    assert load(tmp_path / "deep" / "run" / "config.toml") == config
    environment = json.loads((tmp_path / "deep" / "run" / "environment.json").read_text())
    assert environment["command"] == ["tffl", "simulate"]
    assert environment["granted"] == {"defense": ["root data"]}
    assert environment["versions"]["numpy"] == np.__version__
    assert environment["devices"]


def test_create_refuses_what_is_in_the_way(tmp_path: Path) -> None:
    start(tmp_path / "run")
    with pytest.raises(UsageError, match="holds this run already: continue it with --resume"):
        start(tmp_path / "run")
    with pytest.raises(UsageError, match="another experiment: seed is 0 there, 5 here"):
        start(tmp_path / "run", CONFIG.model_copy(update={"seed": 5}))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("")
    with pytest.raises(UsageError, match="not empty and holds no run"):
        start(tmp_path / "photos")
    with pytest.raises(UsageError, match="is a file"):
        start(tmp_path / "photos" / "cat.png")
    with pytest.raises(UsageError, match=r"lies in .*cat\.png, which is a file"):
        start(tmp_path / "photos" / "cat.png" / "run")
    assert os.listdir(tmp_path / "photos") == ["cat.png"]


def test_create_takes_what_a_killed_create_left(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text("{}")
    (tmp_path / ".tmp-config.toml").write_text("see")
    assert start(tmp_path).config == CONFIG


def test_resume_refuses_another_experiment_and_no_run(tmp_path: Path) -> None:
    start(tmp_path / "run")
    other = Config(seed=1, federation=FederationConfig(rounds=3, clients=4), data={"beta": 2})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"seed is 0 there, 1 here; data\.beta .*; and 2 more"):
        RunWriter.resume(tmp_path / "run", other)
    with pytest.raises(UsageError, match=r"holds no run.*did you mean .*run\?"):
        RunWriter.resume(tmp_path)
    with pytest.raises(UsageError, match="holds no run"):
        RunDirectory.open(tmp_path / "absent")


def test_resume_ignores_what_changes_no_number(tmp_path: Path) -> None:
    start(tmp_path)
    same = Config(runtime={"devices": 3}, federation={"malicious": 2})  # type: ignore[arg-type]
    assert RunWriter.resume(tmp_path, same).config == CONFIG


def test_resumed_tables_are_byte_identical(tmp_path: Path) -> None:
    whole = start(tmp_path / "whole")
    play(whole, 1, 5)

    play(start(tmp_path / "cut"), 1, 3)
    killed = RunWriter.resume(tmp_path / "cut")
    killed.load_checkpoint(pytest.fail)
    killed.write_round(*rows(4))  # killed before its checkpoint
    (tmp_path / "cut" / ".tmp-12ab34cd-rounds.csv").write_text("rou")

    resumed = RunWriter.resume(tmp_path / "cut", CONFIG)
    found = resumed.load_checkpoint(pytest.fail)
    assert found is not None
    round, weights, state = found
    assert round == 3
    np.testing.assert_array_equal(weights, np.full(4, 3, np.float32))
    np.testing.assert_array_equal(state["votes"], np.arange(3))
    assert len(tables(tmp_path / "cut")[0].splitlines()) == 1 + 3
    play(resumed, 4, 5)
    assert tables(tmp_path / "cut") == tables(tmp_path / "whole")
    assert not list((tmp_path / "cut").glob(".tmp-*"))


def test_kept_rows_stay_even_if_another_version_wrote_them_otherwise(tmp_path: Path) -> None:
    play(start(tmp_path), 1, 2)
    text = (tmp_path / "rounds.csv").read_text().replace("0.142857143", "1.42857143e-1")
    (tmp_path / "rounds.csv").write_text(text)
    resumed = RunWriter.resume(tmp_path)
    resumed.load_checkpoint(pytest.fail)
    play(resumed, 3, 3)
    assert (tmp_path / "rounds.csv").read_text().startswith(text)


@pytest.mark.parametrize("damage", ["truncate", "header", "middle", "last", "empty", "foreign"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    play(start(tmp_path), 1, 4)
    file = tmp_path / "checkpoints" / "round-000004.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "foreign":
        content[:] = (tmp_path / "rounds.csv").read_bytes()
    elif damage in ("truncate", "empty"):
        content = content[: len(content) // 2 if damage == "truncate" else 0]
    else:
        content[{"header": 30, "middle": len(content) - 20, "last": -1}[damage]] ^= 0x10
    file.write_bytes(content)

    warnings: list[str] = []
    found = RunWriter.resume(tmp_path).load_checkpoint(warnings.append)
    assert found is not None and found[0] == 3
    assert len(warnings) == 1 and "round-000004" in warnings[0] and "\n" not in warnings[0]
    assert "using the checkpoint before it" in warnings[0]
    assert len(tables(tmp_path)[0].splitlines()) == 1 + 3
    assert not file.exists()


def test_without_any_valid_checkpoint_the_run_starts_over(tmp_path: Path) -> None:
    play(start(tmp_path), 1, 2)
    for file in (tmp_path / "checkpoints").iterdir():
        file.write_bytes(b"nothing")
    warnings: list[str] = []
    resumed = RunWriter.resume(tmp_path)
    assert resumed.load_checkpoint(warnings.append) is None
    assert len(warnings) == 2 and "starting over" in warnings[-1]
    assert [len(frame) for frame in resumed.frames()] == [0, 0]
    play(resumed, 1, 1)
    assert len(tables(tmp_path)[0].splitlines()) == 2


def test_missing_rows_are_told(tmp_path: Path) -> None:
    play(start(tmp_path), 1, 2)
    (tmp_path / "clients.csv").unlink()
    with pytest.raises(TfflError, match=r"clients\.csv lacks round 1"):
        RunWriter.resume(tmp_path).load_checkpoint(pytest.fail)


def test_two_checkpoints_are_kept(tmp_path: Path) -> None:
    play(start(tmp_path), 1, 5)
    names = sorted(file.name for file in (tmp_path / "checkpoints").iterdir())
    assert names == ["round-000004.safetensors", "round-000005.safetensors"]


def test_a_checkpoint_keeps_every_kind_of_state(tmp_path: Path) -> None:
    state = {
        "scalar": np.asarray(3),
        "empty": np.zeros((0, 4)),
        "flags": np.array([[True, False]]),
        "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "model/weights": np.ones(2, np.float16),
    }
    run = start(tmp_path)
    run.write_round(*rows(1))
    run.save_checkpoint(1, np.zeros(4, np.float32), state)
    found = RunWriter.resume(tmp_path).load_checkpoint(pytest.fail)
    assert found is not None and found[2].keys() == state.keys()
    for name, array in state.items():
        assert found[2][name].dtype == array.dtype
        np.testing.assert_array_equal(found[2][name], array)


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(tmp_path)
    play(run, 1, 2)
    before = tables(tmp_path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(TfflError, match="No space left on device"):
            run.write_round(*rows(3))
        with pytest.raises(TfflError, match=r"round-000003.*No space left on device"):
            run.save_checkpoint(3, np.zeros(4, np.float32), {})
    assert tables(tmp_path) == before
    found = RunWriter.resume(tmp_path).load_checkpoint(pytest.fail)
    assert found is not None and found[0] == 2


def test_updates_come_back_bit_by_bit(tmp_path: Path) -> None:
    run = start(tmp_path, Config(record=RecordConfig(store_updates="2-3")))
    for round in (1, 2, 3):
        run.store_updates(updates(round))
    files = sorted((tmp_path / "updates").iterdir())
    assert [file.name[:12] for file in files] == ["round-000002", "round-000003"]
    back, original = load_updates(files[0]), updates(2)
    assert (back.round, back.layout) == (2, LAYOUT)
    for name in ("client_ids", "sample_counts", "start", "deltas"):
        np.testing.assert_array_equal(getattr(back, name), getattr(original, name))
    files[0].write_bytes(files[0].read_bytes()[:-1] + b"!")
    with pytest.raises(TfflError, match="round-000002"):
        load_updates(files[0])


def test_resuming_drops_later_updates_and_deviations(tmp_path: Path) -> None:
    run = start(tmp_path, Config(record=RecordConfig(store_updates="all", tensorboard=False)))
    play(run, 1, 2)
    write(run, 3)
    assert [deviation.round for deviation in run.run.deviations()] == [1, 2, 3]
    resumed = RunWriter.resume(tmp_path)
    resumed.load_checkpoint(pytest.fail)
    assert [update.round for update in resumed.run.updates()] == [1, 2]
    stored = resumed.run.deviations()
    assert [deviation.round for deviation in stored] == [1, 2]
    assert stored[0].names == ("dense/kernel", "norm/mean")
    assert stored[0].values.shape == (3, 2, 2, 2)


def test_the_store_limit_tells_both_sizes() -> None:
    config = Config(record=RecordConfig(store_updates="1-4", store_limit_gib=0.5))
    check_store_size(config, 9, 2**30 // 4 // 40 // 2)
    with pytest.raises(UsageError, match=r"4 rounds takes 1 GiB, the limit is 0\.5 GiB"):
        check_store_size(config, 9, 2**30 // 4 // 40)


def events(path: Path) -> list[tuple[int, str]]:
    files = list((path / "tensorboard").iterdir())
    assert len(files) == 1
    records = tf.data.TFRecordDataset([str(file) for file in files]).as_numpy_iterator()
    read = [tf.compat.v1.Event.FromString(record) for record in records]
    return [(event.step, value.tag) for event in read for value in event.summary.value]


def test_tensorboard_has_every_round_once_after_resuming(tmp_path: Path) -> None:
    play(start(tmp_path, Config()), 1, 3)
    resumed = RunWriter.resume(tmp_path)
    resumed.load_checkpoint(pytest.fail)
    write(resumed, 4)
    tags = ("accuracy", "scores/honest", "scores/malicious")
    assert events(tmp_path) == [(round, tag) for round in (1, 2, 3, 4) for tag in tags]


def test_memory_gives_the_same_frames_as_a_folder(tmp_path: Path) -> None:
    memory, folder = Recorder(), start(tmp_path)
    play(memory, 1, 3)
    play(folder, 1, 3)
    for kept, written in zip(memory.frames(), RunDirectory.open(tmp_path).frames(), strict=True):
        assert kept.equals(written) and len(kept)
    assert memory.load_checkpoint(pytest.fail) is None


def test_tensors_of_another_version_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tffl.core.tensors.FORMAT", "9")
    write_tensors(tmp_path / "a", {"x": np.zeros(2)}, {})
    assert read_tensors(tmp_path / "a")[1]["format"] == "9"
    monkeypatch.undo()
    with pytest.raises(TfflError, match="has format 9, this version reads 1"):
        read_tensors(tmp_path / "a")


def with_rounds(rounds: int, **training: Any) -> Config:
    changes = {
        "federation": FederationConfig(rounds=rounds),
        "training": TrainingConfig(**training),
    }
    return CONFIG.model_copy(update=changes)


def test_another_end_is_the_same_experiment(tmp_path: Path) -> None:
    play(start(tmp_path, with_rounds(4)), 1, 3)
    for rounds in (3, 4, 9):
        longer = RunWriter.resume(tmp_path, with_rounds(rounds))
        assert longer.config.federation.rounds == rounds
    assert load(tmp_path / "config.toml") == with_rounds(4)
    longer.write_config()
    assert load(tmp_path / "config.toml") == with_rounds(9)
    with pytest.raises(UsageError, match="has played 3 rounds already, which --rounds 2 cannot"):
        RunWriter.resume(tmp_path, with_rounds(2))
    with pytest.raises(UsageError, match=f"continue it with --resume {tmp_path} --rounds 12$"):
        start(tmp_path, with_rounds(12))


def test_an_end_on_which_learning_rates_depend_is_another_experiment(tmp_path: Path) -> None:
    start(tmp_path, with_rounds(4, schedule="cosine"))
    RunWriter.resume(tmp_path, with_rounds(4, schedule="cosine"))
    told = r"rounds is 4 there, 5 here \(training.schedule = 'cosine' depends on the number"
    for resume in (RunWriter.resume, start):
        with pytest.raises(UsageError, match=told):
            resume(tmp_path, with_rounds(5, schedule="cosine"))


def test_a_round_parses_no_round_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    read_csv = pd.read_csv

    def read(text: Any, **options: Any) -> pd.DataFrame:
        frame = read_csv(text, **options)
        parsed.append(len(frame))
        return frame

    run = start(tmp_path, Config())
    play(run, 1, 2)
    monkeypatch.setattr(pd, "read_csv", read)
    play(run, 3, 9)
    assert parsed == [1, 3] * 7  # a row of the round, and one of each client
    assert [frame["round"].tolist() for frame in run.frames(9)] == [[9], [9, 9, 9]]
    assert len({step for step, _ in events(tmp_path)}) == 9
