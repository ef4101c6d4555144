"""`tffl data check`: what data hold, and what is wrong with them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from tffl.config import DataConfig
from tffl.core.errors import UsageError
from tffl.data.check import check
from tffl_cli.main import cli


def test_a_folder_s_broken_images_and_duplicates_are_found(save, folder: Path) -> None:
    (folder / "cat" / "9.png").write_bytes(b"nothing")
    save(folder / "dog" / "clear.png", 3, mode="RGBA")
    found = check(DataConfig(dataset=str(folder)))
    assert len(found.faults) == 2 and found.dataset is not None
    assert "cat/9.png cannot be read" in found.faults[0]
    assert found.faults[1].endswith(
        "dog/clear.png is transparent in places: save it without an " + "alpha channel"
    )
    assert found.figures()["classes"] == {
        "cat": {"train": 4, "test": 1},
        "dog": {"train": 4, "test": 1},
    }


def test_test_samples_among_the_training_samples_are_a_note(folder: Path, tmp_path: Path) -> None:
    for part in ("train", "test"):
        shutil.copytree(folder, tmp_path / "all" / part)
    assert check(DataConfig(dataset=str(tmp_path / "all"))).notes == (
        "10 of 10 test samples are also training samples",
        "5 of 10 training samples repeat another one",
    )


def test_missing_values_are_a_note_and_a_foreign_class_a_fault(tmp_path: Path) -> None:
    table = pd.DataFrame({"size": [1.0, None] * 6, "kind": ["a", "b"] * 5 + ["c", "c"]})
    table["part"] = ["train"] * 10 + ["test"] * 2
    table.to_csv(tmp_path / "t.csv", index=False)
    config = DataConfig(dataset=str(tmp_path / "t.csv"), label="kind")
    (note, *_) = check(config).notes
    assert "6 values are missing (size 6)" in note
    (fault,) = check(config.model_copy(update={"split": "part"})).faults
    assert "only the test part has samples of class c" in fault
    with pytest.raises(UsageError, match="there is no file or folder"):
        check(DataConfig(dataset="./nowhere"))


def test_the_command_ends_with_2_if_there_are_faults(folder: Path) -> None:
    done = CliRunner().invoke(cli, ["data", "check", str(folder)])
    assert done.exit_code == 0 and "5 x 6 x 1 images, uint8 from 0 to 4" in done.output
    assert "Channels, from black (0) to white (1): mean 0." in done.output
    assert done.output.endswith("No faults.\n")
    (folder / "cat" / "9.png").write_bytes(b"nothing")
    done = CliRunner().invoke(cli, ["data", "check", str(folder), "--json"])
    told = json.loads(done.output)
    assert done.exit_code == 2 and "9.png cannot be read" in told["faults"][0]
    assert told["sample_shape"] == [5, 6, 1] and told["clients"] is None


def test_show_names_the_clients_and_says_how_they_differ(tmp_path: Path) -> None:
    labels, clients = np.repeat([0, 1], 10), np.array(["north"] * 8 + ["south"] * 12)
    x = np.zeros((20, 3), np.float32)
    np.savez(
        tmp_path / "d.npz", x_train=x, y_train=labels, x_test=x, y_test=labels, clients=clients
    )
    command = ["data", "show", str(tmp_path / "d.npz"), "--partition", "natural", "--clients", "2"]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert "north" in done.output and "natural" not in done.output.split("\n")[0]
    # north has class 0 only: ½; south 2 and 10 of 12: ⅓.
    assert "class shares from everyone's: 0.417" in done.output
    assert "Sizes spread by 20% of their mean" in done.output
