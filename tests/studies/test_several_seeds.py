"""One command, several seeds: their runs, the table of means, and how it is continued."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

import tffl
from tffl.callbacks import Callback, Round
from tffl.config import Config
from tffl.core.errors import UsageError
from tffl.engine.training import Trainer
from tffl.studies.several_seeds import (
    FIGURES,
    first_directory,
    seed_configs,
    simulate_seeds,
    summarize_seeds,
)
from tffl_cli.main import cli

SMALL: dict[str, Any] = {
    "seed": 3,
    "data": {"train_limit": 100, "test_limit": 50},
    "federation": {"clients": 4, "malicious": 1, "rounds": 2},
    "model": {"name": "logistic"},
    "attack": {"name": "sign-flip"},
    "defense": {"name": "median"},
    "record": {"tensorboard": False, "export": False, "figures": False},
}


def figures(seed: int, accuracy: float | None) -> dict[str, Any]:
    return {**dict.fromkeys(FIGURES), "seed": seed, "accuracy": accuracy, "rejected": 2}


def test_means_and_intervals_over_seeds() -> None:
    found = summarize_seeds([figures(1, 0.4), figures(2, 0.5), figures(3, 0.6), figures(4, None)])
    assert found["seeds"] == [1, 2, 3, 4] and found["ruined"] == 1
    assert found["mean"]["accuracy"] == pytest.approx(0.5)
    # Student's t with two degrees of freedom: 4.303 · 0.1 / √3
    assert found["interval"]["accuracy"] == pytest.approx(4.30265 * 0.1 / math.sqrt(3), rel=1e-5)
    assert found["mean"]["loss"] is None and found["interval"]["loss"] is None
    assert summarize_seeds([figures(1, 0.4)])["interval"]["accuracy"] is None


def test_seeds_end_before_the_largest() -> None:
    assert list(seed_configs(Config(seed=2**32 - 2), 2)) == [2**32 - 2, 2**32 - 1]
    with pytest.raises(UsageError, match=r"seed = 4294967294 is not allowed for 3 seeds"):
        seed_configs(Config(seed=2**32 - 2), 3)


class Kill(Callback):
    def round(self, round: Round) -> None:
        raise KeyboardInterrupt


def table(path: Path) -> str:
    frame = pd.read_csv(path / "rounds.csv", dtype=str)
    return frame.loc[:, ~frame.columns.str.endswith("_seconds")].to_csv()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds, interrupted in the second and continued."""
    out = tmp_path_factory.mktemp("seeds") / "out"
    with pytest.raises(KeyboardInterrupt):
        simulate_seeds(SMALL, 3, out, watch=lambda seed: [Kill()] if seed == 4 else [])
    assert pd.read_csv(out / "seeds.csv")["seed"].tolist() == [3]
    simulate_seeds(SMALL, 3, out, resume=True)
    return out


def test_each_seed_has_its_own_run_as_if_it_were_alone(folder: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in folder.glob("seed-*")) == ["seed-3", "seed-4", "seed-5"]
    tffl.simulate({**SMALL, "seed": 4}, tmp_path / "run")
    assert table(folder / "seed-4") == table(tmp_path / "run")
    assert table(folder / "seed-5") != table(tmp_path / "run")


def test_the_table_holds_the_summaries(folder: Path) -> None:
    rows = pd.read_csv(folder / "seeds.csv")
    runs = [json.loads((folder / f"seed-{i}" / "summary.json").read_text()) for i in (3, 4, 5)]
    assert rows["seed"].tolist() == [3, 4, 5]
    assert rows["accuracy"].tolist() == pytest.approx([run["accuracy"] for run in runs])
    assert rows["fpr"].tolist() == pytest.approx([run["mean_fpr"] for run in runs])
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["mean"]["accuracy"] == pytest.approx(rows["accuracy"].mean())


def test_all_seeds_share_the_compiled_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = Trainer.__init__

    def counted(self: Trainer, *values: Any, **more: Any) -> None:
        made.append(self)
        original(self, *values, **more)

    monkeypatch.setattr(Trainer, "__init__", counted)
    runs = simulate_seeds(SMALL, 2)
    assert list(runs) == [3, 4] and len(made) == 1


def test_a_folder_of_seeds_is_continued_and_not_begun_again(folder: Path) -> None:
    assert first_directory(folder) == folder / "seed-3"
    with pytest.raises(UsageError, match=r"continue them with --seeds 2 --resume"):
        simulate_seeds(SMALL, 2, folder)
    other = {**SMALL, "defense": {"name": "multi-krum", "malicious": 0}}
    with pytest.raises(UsageError, match="holds another experiment"):
        simulate_seeds(other, 3, folder, resume=True)


def test_a_single_run_is_not_overwritten_by_several_seeds(folder: Path) -> None:
    run = folder / "seed-3"
    before = (run / "summary.json").read_bytes()
    with pytest.raises(UsageError, match="holds one run, not one for each seed"):
        simulate_seeds(SMALL, 2, run, resume=True)
    assert (run / "summary.json").read_bytes() == before and not list(run.glob("seed*"))


def test_a_table_loses_no_seed(folder: Path) -> None:
    before = (folder / "seeds.csv").read_bytes()
    with pytest.raises(UsageError, match="also holds runs of seeds 5, which its tables would lose"):
        simulate_seeds(SMALL, 2, folder, resume=True)
    assert (folder / "seeds.csv").read_bytes() == before


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(cli, ["simulate", *map(str, arguments)])


def test_the_command_prints_one_table(folder: Path) -> None:
    result = invoke("--seeds", 3, "--resume", folder)
    assert result.exit_code == 0, result.output
    mean = next(line for line in result.stdout.splitlines() if line.strip().startswith("mean"))
    assert " ± " in mean and "Student's t" in result.stdout
    result = invoke("--seeds", 3, "--resume", folder, "--json")
    printed = json.loads(result.stdout)
    assert [run["seed"] for run in printed.pop("runs")] == [3, 4, 5]
    assert printed == json.loads((folder / "summary.json").read_text())


def test_what_the_command_refuses(folder: Path) -> None:
    result = invoke("--resume", folder)
    assert result.exit_code == 2 and "give --seeds too" in result.output
    result = invoke("--seeds", 2, "--compare")
    assert result.exit_code == 2 and "exclude each other" in result.output
