"""`tffl data`."""

import dataclasses
import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from tffl.core.errors import UsageError
from tffl_cli.data import data


def call(*arguments):
    result = CliRunner().invoke(data, [str(a) for a in arguments], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def rows(output):
    """Reads the table of `tffl data show`: first cell → numbers."""
    found = {}
    for line in output.splitlines():
        match = re.fullmatch(r"\s*(client \d+|server|all)((?:\s+\d+)+)\s*", line)
        if match:
            found[match[1]] = [int(number) for number in match[2].split()]
    return found


def test_show_takes_the_name_as_prepare_does():
    options = ("--clients", "3", "--train-limit", "60")
    assert call("show", "digits", *options) == call("show", "--dataset", "digits", *options)


def test_list_tells_what_is_prepared_and_where(tmp_path):
    for folder in ("mnist/3.0.1", "gtsrb/64x64-crop/1.0.0"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "dataset_info.json").write_text("{}")
    entries = {e["name"]: e for e in json.loads(call("list", "--json", "--data-dir", tmp_path))}
    assert entries["mnist"]["location"] == str(tmp_path / "mnist" / "3.0.1")
    assert entries["digits"]["prepared"] is True
    assert entries["gtsrb"] == {**entries["gtsrb"], "prepared": False, "location": None}
    assert entries["gtsrb/64x64-crop"]["prepared"] is True
    table = call("list", "--data-dir", tmp_path)
    assert all(name in table for name in entries)
    assert "not prepared" in table


def test_show_adds_up():
    table = rows(call("show", "--clients", "3", "--partition", "dirichlet", "--beta", "0.5"))
    holders = np.array([table[f"client {index}"] for index in range(3)])
    assert np.array_equal(holders.sum(axis=0), table["all"])
    assert np.array_equal(holders[:, :-1].sum(axis=1), holders[:, -1])


def test_show_is_the_split_of_the_experiment():
    from tffl.config import build
    from tffl.data.build import build_federation, load_dataset

    experiment = build(
        {
            "seed": 4,
            "data": {"partition": "shards", "train_limit": 200, "server_shard": True},
            "federation": {"clients": 3},
        }
    )
    dataset = load_dataset(experiment.data)
    federation = build_federation(experiment, dataset, np.empty(0, dtype=np.int64))
    table = rows(
        call(
            "show", "--partition", "shards", "--seed", "4", "--train-limit", "200",
            "--clients", "3", "--set", "data.server_shard=true",
        )
    )  # fmt: skip
    for index, counts in enumerate(federation.class_counts()):
        assert table[f"client {index}"][:-1] == counts.tolist()
    assert table["server"][-1] == len(federation.server)


def test_show_draws_a_picture(tmp_path):
    from matplotlib.image import imread

    out = tmp_path / "new" / "split.png"
    assert str(out) in call("show", "--clients", "4", "--out", out)
    pixels = imread(out)
    assert min(pixels.shape[:2]) > 300
    assert pixels[..., :3].std() > 0.05


def test_class_names_are_no_formulas(tmp_path, monkeypatch):
    from tffl.data import build

    load = build.load_dataset

    def renamed(*arguments):
        dataset = load(*arguments)
        names = (r"$5 \frac{$", "$", "_x", "<b>", "a\nb", "\u202eb", *dataset.class_names[6:])
        return dataclasses.replace(dataset, class_names=names)

    monkeypatch.setattr(build, "load_dataset", renamed)
    for suffix in ("png", "svg"):
        out = tmp_path / f"split.{suffix}"
        told = call("show", "--dataset", "digits", "--clients", 3, "--out", out)
        assert "The picture is in" in told and out.exists()


def test_show_prints_many_clients_in_few_lines():
    output = call("show", "--clients", "300")
    assert "… 260 more" in output
    assert len(output.splitlines()) < 60
    assert "1442 training images in 300 shards" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "--beta", "0"), "data.beta = 0.0 is not allowed"),
        (("show", "--clients", "0"), "federation.clients = 0 is not allowed"),
        (("show", "--clients", "5000"), "too few for 5000 shards"),
        (("show", "digits", "--dataset", "mnist"), "digits and --dataset mnist name two datasets"),
        (("show", "--out", "split.gif"), "should end in .png"),
        (("show", "--partition", "dirichlet", "--beta", "0.001"), "would work"),
        (("prepare", "digits", "mnits"), "did you mean 'mnist'"),
    ],
)
def test_errors_say_what_is_wrong(arguments, message):
    with pytest.raises(UsageError) as error:
        call(*arguments)
    assert message in str(error.value)


def test_prepare_says_where(tmp_path):
    assert "digits was already prepared in" in call("prepare", "digits", "--data-dir", tmp_path)
