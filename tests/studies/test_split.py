"""How a split is counted and described."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tffl.config import build
from tffl.core.errors import UsageError
from tffl.data.listing import prepare_datasets
from tffl.studies.split import Split, check_picture


def test_everybody_who_holds_images_is_counted() -> None:
    config = build({"data": {"server_shard": True}, "federation": {"clients": 3}, "seed": 2})
    split = Split.of(config)
    assert split.holders == ["server", "client 0", "client 1", "client 2"]
    assert split.counts.shape == (4, 10)
    assert split.counts.sum() == split.training_images == 1442
    assert split.title == "digits, iid, seed 2"
    assert split.sentence().startswith("1442 training images in 4 shards, each with ")


def test_sampled_clients_share_images() -> None:
    values = {"data": {"partition": "sampled"}, "federation": {"clients": 4}}
    split = Split.of(build(values))
    assert split.sampled and "4 clients who share 1442 training images" in split.sentence()
    values["federation"]["clients"] = 10_001
    with pytest.raises(UsageError, match="too many to show"):
        Split.of(build(values))


def test_a_sentence_names_the_range() -> None:
    split = Split(["a", "b"], np.array([[1, 0], [2, 3]]), ("x", "y"), "", 6, 7, False)
    assert split.sentence() == (
        "6 training images in 2 shards, each with 1 to 5 images of 1 to 2 classes; 7 test images."
    )


def test_pictures_have_a_known_format() -> None:
    check_picture(None)
    check_picture(Path("a.PNG"))
    with pytest.raises(UsageError, match=r"should end in \.png, \.svg, \.pdf"):
        check_picture(Path("a.gif"))


def test_a_misspelled_last_name_is_refused_before_the_first_download(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'mnist'"):
        next(prepare_datasets(["cifar10", "mnits"], tmp_path))
    assert not list(tmp_path.iterdir())
