"""The config: accepted values, errors, and the round trip through TOML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tffl.attacks import attacks
from tffl.config import Config, build, load, override, parse_setting, read
from tffl.core.errors import UsageError
from tffl.defenses import defenses
from tffl.record.identity import identity, resolved
from tffl.studies import benchmark


def changed(**changes: Any) -> Config:
    return build(override({}, {key.replace("__", "."): value for key, value in changes.items()}))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("federation.malicious", 11, "federation.malicious = 11 is not allowed with 10 clients"),
        ("federation.malicious", -1, "a count from 0 to 10"),
        ("federation.malicious", 1.5, "a fraction up to 1.0"),
        ("federation.malicious", "banana", "a count such as 2, or a fraction such as 0.2"),
        ("federation.participants", 0, "a count from 1 to 10"),
        ("federation.rounds", 0, "federation.rounds = 0 is not allowed"),
        ("federation.server_epochs", 2, "set data.server_shard = true"),
        ("data.beta", 0, "data.beta = 0 is not allowed: it should be greater than 0"),
        (
            "data.partition",
            "dirichlets",
            "'iid', 'dirichlet', 'dirichlet-size', 'shards', 'round-robin', 'natural' or",
        ),
        ("training.learning_rate", float("nan"), "a finite number"),
        ("training.learning_rat", 1, "did you mean 'training.learning_rate'?"),
        ("nonsense.key", 1, "unknown config key 'nonsense'"),
        ("data", 3, "data is a section"),
        ("record.store_updates", "1,x", "give 'all' or rounds such as '1,5,10-12'"),
        ("seed", -1, "seed = -1 is not allowed"),
    ],
)
def test_error_names_the_allowed_values(key: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(None, {key: value})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("malicious", "count"), [(3, 3), (0.3, 3), ("30%", 3), ("0.25", 3), ("4", 4), (0, 0), (1.0, 10)]
)
def test_counts_and_fractions(malicious: Any, count: int) -> None:
    assert changed(federation__malicious=malicious).federation.malicious_count == count


def test_all_clients_participate_by_default() -> None:
    assert changed().federation.participant_count == 10
    assert changed(federation__participants=0.01).federation.participant_count == 1


@given(
    seed=st.integers(0, 2**32 - 1),
    beta=st.floats(1e-3, 1e3),
    clients=st.integers(3, 500),
    rate=st.floats(1e-6, 10),
    partition=st.sampled_from(["iid", "dirichlet", "shards", "round-robin", "sampled"]),
)
def test_toml_round_trip(seed: int, beta: float, clients: int, rate: float, partition: str) -> None:
    import tomli_w  # noqa: F401 (the writer under test)

    from tffl.config.reading import tomllib

    config = changed(
        seed=seed, data__beta=beta, data__partition=partition, federation__clients=clients,
        training__learning_rate=rate, attack={"name": "patch-backdoor", "scale": 2.5},
    )  # fmt: skip
    assert build(tomllib.loads(config.to_toml())) == config


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "experiment.toml"
    path.write_text('seed = 3\n[federation]\nrounds = 7\n[attack]\nname = "label-flip"\n')
    config = load(path, {"federation.rounds": 9, "attack.scale": 2})
    assert (config.seed, config.federation.rounds) == (3, 9)
    assert config.attack.options == {"scale": 2}


@pytest.mark.parametrize("content", [b"rounds = [\n", b"\xff\xfe", b"rounds"])
def test_invalid_file_gives_a_one_line_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not valid TOML"):
        load(path)
    with pytest.raises(UsageError, match="cannot read config"):
        load(tmp_path / "none.toml")


def test_resolved_config_has_all_attack_and_defense_options() -> None:
    config = changed(attack={"name": "label-flip"}, defense={"name": "bias-anomaly", "k": 2})
    whole = resolved(config)
    assert whole.attack.options["scale"] == 1.0
    assert whole.defense.options["k"] == 2 and whole.defense.options["enforce"] is True
    assert identity(whole) == identity(config)
    assert identity(build(whole.model_dump(exclude_none=True))) == identity(config)


def test_identity_ignores_runtime_and_record() -> None:
    same = changed(runtime__devices=3, record__export=False, data__data_dir="elsewhere")
    assert identity(same) == identity(changed())
    assert identity(changed(federation__malicious=2)) == identity(changed())  # 20 % of 10
    assert identity(changed(data__beta=0.4)) != identity(changed())


@pytest.mark.parametrize("text", ["seed", "=3", " =3"])
def test_setting_requires_a_key_and_a_value(text: str) -> None:
    with pytest.raises(UsageError, match=r"section\.key=value"):
        parse_setting(text)


def test_setting_is_toml_or_else_text() -> None:
    assert parse_setting("a.b=[1, 2]") == ("a.b", [1, 2])
    assert parse_setting("a.b=true") == ("a.b", True)
    assert parse_setting("a.b=racing-stripes") == ("a.b", "racing-stripes")
    assert parse_setting("a.b=") == ("a.b", "")


def test_override_sets_nested_tables_without_changing_its_input() -> None:
    values = {"defense": {"name": "any-of", "krum": {"k": 1}}}
    changed = override(values, {"defense.krum.malicious": 2, "defense.median.k": 3})
    assert changed["defense"]["krum"] == {"k": 1, "malicious": 2}
    assert changed["defense"]["median"] == {"k": 3}
    assert values == {"defense": {"name": "any-of", "krum": {"k": 1}}}
    with pytest.raises(UsageError, match=r"defense\.krum\.k\.x cannot be set: k is not a section"):
        override(values, {"defense.krum.k.x": 1})


def test_stored_rounds() -> None:
    record = changed(record__store_updates="1, 3-4,9").record
    assert record.stored_rounds(5) == {1, 3, 4}
    assert changed(record__store_updates="all").record.stored_rounds(2) == {1, 2}
    assert changed().record.stored_rounds(9) == frozenset()


@pytest.mark.parametrize(
    ("every", "figures", "drawn"),
    [(0, True, {7}), (0, False, set()), (3, True, {3, 6, 7}), (3, False, {3, 6}), (9, True, {7})],
)
def test_which_rounds_draw_heat_maps(every: int, figures: bool, drawn: set[int]) -> None:
    record = changed(record__pictures_every=every, record__figures=figures).record
    assert {round for round in range(1, 8) if record.draws_pictures(round, 7)} == drawn


@pytest.mark.parametrize("path", sorted(Path("configs").rglob("*.toml")), ids=str)
def test_every_config_in_configs_is_valid(path: Path) -> None:
    content = read(path)
    if "elsewhere" in content or "title" in content:
        return  # for tffl reproduce, whose tests build every run of every plan
    if "experiment" in content:
        assert benchmark.load(path)
    elif "attacks" in content:  # for tffl replay --grid
        for section, registry in (("attacks", attacks), ("defenses", defenses)):
            named = benchmark.labeled(content[section]).values()
            assert all(registry.create_parts(one.name, one.options) for one in named)
    else:
        assert resolved(load(path)).federation.rounds > 0
