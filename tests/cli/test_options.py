"""Single options, `--set` and the config file become one experiment."""

import click
import pytest
from click.testing import CliRunner

from tffl.config import build
from tffl.config.command_line import KEYS, assemble
from tffl_cli.main import cli
from tffl_cli.simulate import simulate


def test_later_ones_win():
    base = {"seed": 1, "federation": {"rounds": 7, "clients": 5}}
    values = assemble(base, {"rounds": 8, "seed": None}, ["federation.clients=6", "seed=3"])
    assert values == {"seed": 3, "federation": {"rounds": 8, "clients": 6}}
    assert base["federation"] == {"rounds": 7, "clients": 5}


def test_every_shorthand_sets_a_key_that_exists():
    options = {option.name for option in simulate.params if isinstance(option, click.Option)}
    assert set(KEYS) <= options
    for name, key in KEYS.items():
        *section, field = key.split(".")
        config = build({})
        holder = getattr(config, section[0]) if section else config
        assert field in type(holder).model_fields, name


def test_counts_and_fractions():
    for text, count in (("2", 2), ("0.3", 3), ("30%", 3)):
        assert build(assemble({}, {"malicious": text}, [])).federation.malicious_count == count


def test_same_attack_keeps_the_options_of_the_file():
    base = {"attack": {"name": "label-flip", "scale": 3}}
    assert assemble(base, {"attack": "label-flip"}, []) == base


def test_other_attack_drops_them_but_keeps_set():
    base = {"attack": {"name": "label-flip", "scale": 3}}
    values = assemble(base, {"attack": "patch-backdoor"}, ["attack.rate=0.5"])
    assert values == {"attack": {"name": "patch-backdoor", "rate": 0.5}}


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("list models --channels 1", "--channels belongs to --image-size"),
        ("list models cnn --classes 3", "--classes belongs to --image-size"),
        ("scan --global g.keras --updates . --interval 5", "--interval belongs to --watch"),
        ("scan --global g.keras --updates . --data-dir .", "--data-dir belongs to --dataset"),
        ("reproduce pdgan --no-times", "--no-times belongs to --list"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(line, other):
    result = CliRunner().invoke(cli, line.split())
    assert result.exit_code == 2
    assert result.stderr == f"Error: {other}: give that too, or leave it out\n"
