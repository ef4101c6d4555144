"""Single options, `--set` and the config file become one experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tffl.config import build, part_options, read_experiment
from tffl.config.command_line import KEYS, assemble
from tffl.core.errors import UsageError


def test_later_ones_override_earlier_ones() -> None:
    base = {"seed": 1, "federation": {"rounds": 7, "clients": 5}}
    values = assemble(base, {"rounds": 8, "seed": None}, ["federation.clients=6", "seed=3"])
    assert values == {"seed": 3, "federation": {"rounds": 8, "clients": 6}}
    assert base["federation"] == {"rounds": 7, "clients": 5}


@pytest.mark.parametrize("key", KEYS.values())
def test_every_option_sets_a_key_that_exists(key: str) -> None:
    *section, field = key.split(".")
    config = build({})
    holder = getattr(config, section[0]) if section else config
    assert field in type(holder).model_fields


def test_counts_and_fractions() -> None:
    for text, count in (("2", 2), ("0.3", 3), ("30%", 3)):
        assert build(assemble({}, {"malicious": text}, [])).federation.malicious_count == count


def test_same_attack_keeps_the_options_of_the_file() -> None:
    base = {"attack": {"name": "label-flip", "scale": 3}}
    assert assemble(base, {"attack": "label-flip"}, []) == base


def test_other_attack_drops_them_but_keeps_set() -> None:
    base = {"attack": {"name": "label-flip", "scale": 3}}
    values = assemble(base, {"attack": "patch-backdoor"}, ["attack.rate=0.5"])
    assert values == {"attack": {"name": "patch-backdoor", "rate": 0.5}}


def test_naming_workers_places_clients_on_them() -> None:
    values = assemble({}, {"workers": ("a:1",)}, [])
    assert values == {"runtime": {"workers": ("a:1",), "placement": "cluster"}}


@pytest.mark.parametrize(
    ("settings", "sections", "options"),
    [
        ([], ("defense",), {"defense": {}}),
        (["defense.k=2", "defense.k=3"], ("defense",), {"defense": {"k": 3}}),
        (["attack.z=1"], ("attack", "defense"), {"attack": {"z": 1}, "defense": {}}),
        (["defense.krum.malicious=1"], ("defense",), {"defense": {"krum": {"malicious": 1}}}),
    ],
)
def test_settings_of_attacks_and_defenses(
    settings: list[str], sections: tuple[str, ...], options: dict[str, Any]
) -> None:
    assert part_options(settings, *sections) == options


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("attack.k=2", "--set attack.k is not allowed: set defense.KEY"),
        ("defense=2", "--set defense is not allowed: set defense.KEY"),
        ("defense.k", "section.key=value"),
    ],
)
def test_settings_of_other_sections_are_refused(setting: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        part_options([setting], "defense")


def test_a_run_is_continued_with_its_own_config_and_changes(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("seed = 4\n[federation]\nrounds = 2\n")
    config = read_experiment(None, {"rounds": 5}, [], resumed=tmp_path)
    assert (config.seed, config.federation.rounds) == (4, 5)


def test_what_has_left_no_config_begins_again_only_from_its_options(tmp_path: Path) -> None:
    assert read_experiment(None, {"rounds": 5}, [], tmp_path).federation.rounds == 5
    with pytest.raises(UsageError, match=r"holds no config\.toml"):
        read_experiment(None, {"rounds": None}, [], tmp_path)


def test_a_file_replaces_the_base(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("seed = 4\n")
    base = {"federation": {"rounds": 2}}
    assert read_experiment(None, {}, [], base=base).federation.rounds == 2
    assert read_experiment(file, {}, [], base=base).federation.rounds != 2


def test_another_model_drops_the_options_of_the_file_s_but_not_its_imports():
    base = {"model": {"name": "mlp", "hidden": [3], "weights": "a.npz", "imports": ["layers"]}}
    assert assemble(base, {"model": "cnn"}, []) == {"model": {"imports": ["layers"], "name": "cnn"}}
    assert assemble(base, {"model": "mlp"}, ["model.hidden=[4]"])["model"]["weights"] == "a.npz"
    assert assemble({"model": {"weights": "a.npz"}}, {"model": "cnn"}, [])["model"]["weights"]
