"""Names, options and seeds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tffl.attacks import attacks
from tffl.core import seeds
from tffl.core.errors import TfflError, TfflWarning, UsageError
from tffl.core.registry import Registry
from tffl.data import datasets
from tffl.defenses import Defense, defenses
from tffl.models import models
from tffl_cli.main import cli


@pytest.mark.parametrize("registry", [attacks, defenses, models, datasets], ids=lambda r: r.kind)
def test_every_entry_describes_itself(registry) -> None:
    for name in registry:
        entry = registry.describe(name)
        assert entry["name"] == name
        assert len(entry["summary"]) > 10 and entry["summary"].endswith(".")
        assert entry["reference"] or name in ("none", "digits")


def test_unknown_names_list_the_nearest_and_all() -> None:
    with pytest.raises(UsageError) as caught:
        defenses["bias_anomaly"]
    message = str(caught.value)
    assert "did you mean 'bias-anomaly'?" in message and "none" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scal": 2}, "unknown option of attack label-flip 'scal': did you mean 'scale'?"),
        ({"scale": "banana"}, "attack.scale = 'banana' is not allowed"),
        ({"scale": float("inf")}, "attack.scale = inf is not allowed"),
    ],
)
def test_options_are_validated(options: dict, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        attacks.create("label-flip", options)
    assert message in str(caught.value)


def test_names_and_help_need_no_tensorflow() -> None:
    code = (
        "import sys, tffl, tffl.attacks, tffl.defenses, tffl.models, tffl.data\n"
        "for r in (tffl.attacks.attacks, tffl.defenses.defenses, tffl.models.models,\n"
        "          tffl.data.datasets):\n"
        "    [r.describe(name) for name in r]\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.integers(0, 2**32 - 1), st.integers(0, 1000), st.integers(0, 10**6))
def test_seeds_depend_on_every_part(seed: int, round: int, client: int) -> None:
    def draw(*parts) -> list[int]:
        return seeds.generator(*parts).integers(2**62, size=2).tolist()

    first = draw(seed, "training", round, client)
    assert first == draw(seed, "training", round, client)
    others = [
        draw(seed + 1, "training", round, client),
        draw(seed, "attack", round, client),
        draw(seed, "training", round + 1, client),
        draw(seed, "training", round, client + 1),
    ]
    assert first not in others


def test_seed_integers_fit_plain_libraries() -> None:
    values = [seeds.integer(seed, "model") for seed in range(100)]
    assert len(set(values)) == 100
    assert all(0 <= value < 2**31 for value in values)
    assert np.random.RandomState(values[0]) is not None


PLUGINS = """
from dataclasses import dataclass
from typing import Annotated, ClassVar
from pydantic import Field
from tffl.attacks.base import Attack
from tffl.defenses.detector import Detector

@dataclass(frozen=True)
class Sound(Detector):
    \"\"\"Rejects updates by their norms.

    Attributes:
      factor: How much longer than the others
        an update may be.
    \"\"\"
    factor: Annotated[float, Field(gt=1)] = 3.0
    def score(self, updates, server): return updates.norms()
    def threshold(self, scores): return self.factor

class Forgotten(Detector):
    \"\"\"Lacks the decorator.\"\"\"
    words: ClassVar[int] = 2
    factor: float = 3.0
    limit: int = 4

class Bare(Sound):
    \"\"\"Has no options of its own, and needs no decorator.\"\"\"

def function(updates): return updates

@dataclass(frozen=True)
class Odd(Sound):
    \"\"\"Fails when it is made, and when it is described.\"\"\"
    @property
    def needs(self): return ()
    def __post_init__(self): raise KeyError("odd")
"""


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Registry]:
    """Makes the registry of defenses with plug-ins, name → attribute of a module."""
    (tmp_path / "plugged_in.py").write_text(PLUGINS)
    (tmp_path / "broken_plugin.py").write_text("import no_such_module")
    (tmp_path / "leaving_plugin.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)

    def install(**targets: str) -> Registry:
        points = [
            EntryPoint(name, value if ":" in value else f"plugged_in:{value}", "tffl.defenses")
            for name, value in targets.items()
        ]
        monkeypatch.setattr("tffl.core.registry.entry_points", lambda group: points)
        registry = Registry("defense", dict(defenses.builtin), defenses.base)
        monkeypatch.setattr("tffl.defenses.defenses", registry)
        return registry

    return install


BROKEN = {
    "broken_plugin:X": "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'",
    "leaving_plugin:X": "cannot be loaded: SystemExit: 3",
    "plugged_in:Absent": "cannot be loaded: AttributeError",
    "plugged_in:Forgotten": "would lose its options factor, limit: decorate it with @dataclass",
    "plugged_in:function": "is not a subclass of tffl.defenses.base:Defense, as every defense is",
}


@pytest.mark.parametrize("target", BROKEN)
def test_a_broken_plugin_is_named_and_leaves_listings_be(plugged: Any, target: str) -> None:
    registry = plugged(mine=target, sound="Sound")
    with pytest.warns(TfflWarning) as warned:
        names = [entry["name"] for entry in registry.describe_all()]
    assert names == sorted([*defenses.builtin, "sound"])
    (warning,) = warned
    assert str(warning.message).startswith(f"the plug-in defense mine ({target}) {BROKEN[target]}")
    with pytest.raises(TfflError) as error:
        registry.create("mine", {})
    assert str(error.value) == str(warning.message)


def test_sound_plugins_work(plugged: Any) -> None:
    registry = plugged(sound="Sound", bare="Bare")
    assert registry.create("sound", {"factor": 2}).factor == 2.0
    assert registry.create("bare", {"factor": 2}).factor == 2.0
    (option,) = [o for o in registry.explain("sound")["options"] if o["name"] == "factor"]
    assert option == {
        "name": "factor",
        "meaning": "How much longer than the others an update may be.",
        "allowed": "number > 1",
        "default": 3.0,
        "required": False,
    }


def test_a_plugin_that_fails_later_is_named(plugged: Any) -> None:
    registry = plugged(odd="Odd", sound="Sound")
    with pytest.raises(TfflError, match=r"defense odd \(plugged_in:Odd\) cannot be made: KeyError"):
        registry.create("odd", {})
    with pytest.raises(TfflError, match=r"defense odd \(plugged_in:Odd\) cannot be described"):
        registry.explain("odd")
    with pytest.raises(UsageError, match=r"defense.factor = 0 is not allowed"):
        registry.create("sound", {"factor": 0})


def test_a_plugin_with_a_taken_name_is_said(plugged: Any) -> None:
    registry = plugged(krum="Sound")
    with pytest.warns(TfflWarning, match=r"plug-in defense krum \(plugged_in:Sound\) is ignored"):
        assert registry["krum"].__name__ == "Krum"


def test_listings_go_on_without_a_broken_plugin(plugged: Any) -> None:
    plugged(mine="broken_plugin:X")
    result = CliRunner().invoke(cli, ["list", "defenses", "--json"])
    assert result.exit_code == 0
    assert len(json.loads(result.stdout)) == len(defenses.builtin)
    assert result.stderr.startswith("Warning: the plug-in defense mine (broken_plugin:X) cannot")
    assert len(result.stderr.splitlines()) == 1
    result = CliRunner().invoke(cli, ["list", "defenses", "mine"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: the plug-in defense mine (broken_plugin:X) cannot")


def test_the_list_of_data_goes_on_without_a_broken_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", "no_such_module:X", "tffl.datasets")
    monkeypatch.setattr("tffl.core.registry.entry_points", lambda group: [point])
    registry = Registry("dataset", dict(datasets.builtin))
    monkeypatch.setattr("tffl.data.datasets", registry)
    monkeypatch.setattr("tffl.data.build.datasets", registry)
    monkeypatch.setattr("tffl.data.listing.datasets", registry)
    result = CliRunner().invoke(cli, ["data", "list", "--json"])
    assert result.exit_code == 0
    assert {entry["name"] for entry in json.loads(result.stdout)} >= set(datasets.builtin)
    assert "the plug-in dataset mine (no_such_module:X) cannot be loaded" in result.stderr


@pytest.mark.parametrize("registry", [attacks, defenses, datasets], ids=lambda r: r.kind)
def test_every_option_has_a_meaning_and_a_range(registry) -> None:
    for name in registry:
        for option in registry.explain(name)["options"]:
            assert option["meaning"].endswith("."), (name, option)
            assert option["allowed"], (name, option)


@dataclass(frozen=True)
class Odd(Defense):
    """Has options whose names mean something to other classes.

    Attributes:
      tables: A number of tables.
      malicious: A number without a meaning.
    """

    tables: int = 1
    malicious: int = 0

    def judge(self, updates: Any, server: Any, state: Any) -> Any:
        """Does nothing."""


def test_no_option_is_special_for_its_name_alone() -> None:
    defenses.register("odd", Odd)
    try:
        assert defenses.create("odd", {"tables": 3}) == Odd(tables=3)
        assert [option["name"] for option in defenses.explain("odd")["options"]] == [
            "tables",
            "malicious",
        ]
        with pytest.raises(UsageError, match="unknown option of defense odd 'krum'"):
            defenses.create("odd", {"krum": {}})
    finally:
        defenses.forget("odd")
    assert Odd(malicious=2).declared_knowledge() == () and Odd(malicious=2).for_round(10) == Odd(
        malicious=2
    )


def test_an_option_goes_to_every_entry_that_has_it() -> None:
    options = {"malicious": 2, "max_norm": 3.0}
    shared = defenses.shared_options(["krum", "norm-clipping", "none", "krum"], options)
    assert shared["krum"]["malicious"] == 2 and "max_norm" not in shared["krum"]
    assert shared["norm-clipping"]["max_norm"] == 3.0
    assert shared["none"] == {} and list(shared) == ["krum", "norm-clipping", "none"]
    parts = attacks.shared_options(["label-flip+scaling"], {"factor": 2, "source": 1})
    assert parts == {"label-flip+scaling": {"factor": 2, "source": 1}}
    with pytest.raises(UsageError, match="unknown option of defense median, krum 'malcious': did"):
        defenses.shared_options(["median", "krum"], {"malcious": 1})
    with pytest.raises(UsageError, match="did you mean 'krum'"):
        defenses.shared_options(["kurm"], {})
