"""Every page of `results/`: made again from its tables it is the same; and what runs give it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

import tffl
from tffl.core.errors import TfflError, UsageError
from tffl.studies.pages import PAGES, bias_anomaly, find, flower, gan_audit, heat_maps
from tffl.studies.pages.bias_anomaly_claims import Evidence, claims
from tffl.studies.pages.builder import CONSENSUS_TESTS, Page, make, measured_with, read_table
from tffl.studies.pages.grid import draw_grids
from tffl.studies.pages.reliability import fault_claims, input_claims
from tffl_cli.main import cli

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "results"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_made_again_is_the_committed_one(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(RESULTS / name, folder)
    (folder / "README.md").unlink()
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert not make(find(name), folder, tmp_path / "no runs", draw=False)
    committed = (RESULTS / name / "README.md").read_text(encoding="utf-8")
    assert (folder / "README.md").read_text(encoding="utf-8") == committed
    (folder / "README.md").unlink()
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("name", PAGES)
def test_pages_show_the_figures_that_they_draw(name: str) -> None:
    text = (RESULTS / name / "README.md").read_text(encoding="utf-8")
    for figure, drawn in find(name).figures(RESULTS / name).items():
        assert f"({figure})" in text and (RESULTS / name / figure).exists()
        assert drawn.axes


def test_results_hold_data_pages_and_one_command_each() -> None:
    kinds = {file.suffix for file in RESULTS.rglob("*") if file.is_file()}
    assert kinds <= {".csv", ".json", ".png", ".md", ".sh"}
    for name in PAGES:
        script = RESULTS / name / "run.sh"
        assert subprocess.run(["bash", "-n", script]).returncode == 0
        assert f"page {name}" in script.read_text()


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*arguments: object) -> Any:
        return CliRunner().invoke(cli, ["page", *map(str, arguments)])

    assert [line.split()[0] for line in call().stdout.splitlines()] == list(PAGES)
    shutil.copytree(RESULTS / "flower", tmp_path / "flower")
    monkeypatch.chdir(tmp_path)  # where there is no runs/flower
    done = call("flower", "--out", "flower", "--no-figures")
    assert done.exit_code == 0 and "from the recorded tables" in done.stdout
    wrong = call("flour")
    assert wrong.exit_code == 2 and "unknown page 'flour': did you mean 'flower'?" in wrong.stderr
    (tmp_path / "bare").mkdir()
    for runs in ("none", "bare"):
        given = call("flower", "--out", "flower", "--runs", runs)
        assert given.exit_code == 2 and f"there are no runs in {runs}" in given.stderr
    empty = call("flower", "--out", "empty")
    assert empty.exit_code == 2 and "results/flower/run.sh" in empty.stderr
    assert empty.stderr.count("\n") == 1


# --- the builder ---------------------------------------------------------------------------------


def page(found: Mapping[str, Any], **more: Any) -> Page:
    def body(folder: Path) -> Iterator[str]:
        yield f"{len(read_table(folder / 'a.csv'))} rows"

    return Page("made", "Made up", lambda folder: "So.", body, lambda runs: found, **more)


def test_what_runs_have_measured_is_recorded(tmp_path: Path) -> None:
    runs, folder = tmp_path / "runs", tmp_path / "out"
    (runs / "one").mkdir(parents=True)
    about = {"versions": {"numpy": "9"}, "machine": "abacus", "devices": ["beads"]}
    (runs / "one" / "environment.json").write_text(json.dumps(about))
    (runs / "one" / "drawn.png").write_bytes(b"picture")
    table = pd.DataFrame({"run": ["b"], "x": [0.25]})
    made = page({"a.csv": table, "b.json": {"y": 1}}, copies={"c.png": "one/drawn.png"})
    assert make(made, folder, runs)
    assert (folder / "a.csv").read_text() == "run,x\nb,0.25\n"
    assert json.loads((folder / "b.json").read_text()) == {"y": 1}
    assert (folder / "c.png").read_bytes() == b"picture"
    assert measured_with(folder) == "Measured with numpy 9 on abacus."
    text = (folder / "README.md").read_text()
    assert text.startswith("# Made up\n\nSo.\n\n```sh\nbash results/made/run.sh  #")
    assert text.endswith("\n\n1 rows\n")


def test_rows_of_runs_that_are_not_collected_again_stay(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for run, value in (("b", 1), ("a", 2), ("b", 3)):
        table = pd.DataFrame({"run": [run], "x": [value]})
        make(page({"a.csv": table}, keys=("run",)), tmp_path / "out", tmp_path / "runs")
    assert (tmp_path / "out" / "a.csv").read_text() == "run,x\na,2\nb,3\n"


def test_names_are_no_missing_values_and_damage_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("attack,x\nnone,1\nnan,\n")
    table = read_table(tmp_path / "a.csv")
    assert table["attack"].tolist() == ["none", "nan"] and np.isnan(table["x"][1])
    (tmp_path / "b.csv").write_text("a,b\n1,2\n1,2,3\n")
    with pytest.raises(TfflError, match=r"b\.csv is damaged") as error:
        read_table(tmp_path / "b.csv")
    assert "\n" not in str(error.value)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "runs.csv").write_text("attack,defense\nnan,shield\n")
    with pytest.raises(TfflError, match=r"tables in .*torn: KeyError: 'where'"):
        make(find("flower"), tmp_path / "torn", tmp_path / "no runs", draw=False)
    with pytest.raises(UsageError, match="no tables"):
        make(page({}), tmp_path / "empty", tmp_path / "no runs")


def test_grids() -> None:
    table = pd.DataFrame([[0.0, np.nan], [-0.2, 99.6]], index=["a", "b"], columns=["c", "d"])
    figure = draw_grids({"one": table, "two": table, "three": table}, **GRID)
    panels = [axes for axes in figure.axes if axes.texts]
    assert [text.get_text() for text in panels[0].texts] == ["0", "–", "0", "100"]
    assert [axes.get_title() for axes in panels] == ["one", "two", "three"]
    assert panels[0].texts[0].get_color() == "white" and panels[0].texts[3].get_color() == "black"
    draw_grids({}, **GRID)


GRID: dict[str, Any] = {"colors": "cividis", "limits": (0, 100), "columns": 2}


# --- what the pages collect ----------------------------------------------------------------------


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(list(rows)).to_csv(path, index=False)
    return path


def test_heat_maps_collect_replays(tmp_path: Path) -> None:
    def line(attack: str, number: int, blamed: int = 0, **more: float) -> dict[str, Any]:
        known = dict.fromkeys(heat_maps.FIGURES, 0.5) | more
        counted = {"false_positives": blamed, "true_negatives": 10 - blamed}
        return {"attack": attack, "defense": "shield", "round": number, **known, **counted}

    for malicious in (2, 5):
        rows = (line("none", 3, 1), line("none", 6), line("lie", 3), line("lie", 6, recall=1.0))
        write(tmp_path / "cifar10_iid_4" / f"grid_{malicious}.csv", *rows)
    found = heat_maps.collect(tmp_path)
    assert set(found) == {"replay.csv", "alarms.csv"}
    replay = found["replay.csv"].set_index(["attack", "malicious"])
    assert list(replay.index) == [("none", 0), ("lie", 2), ("lie", 5)]
    assert replay.loc[("lie", 5), "recall"] == 0.75 and set(replay["seed"]) == {4}
    alarms = found["alarms.csv"].to_dict("records")
    told = {"setting": "cifar10_iid", "seed": 4, "defense": "shield", "blamed": 1, "honest": 20}
    assert alarms == [told]


def test_the_gan_audit_collects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = dict.fromkeys(gan_audit.FIGURES + gan_audit.RATES, 0.5)
    rows = [
        {"attack": "flip", "defense": "gan", "round": number, "threshold": told, **rates}
        for number, told in ((8, None), (9, 0.1))
    ]
    write(tmp_path / "mnist_iid_1" / "grid_3.csv", rows[0] | {"auc": 0.0}, rows[1])
    run = tmp_path / "whole" / "mnist.gan"
    seconds = {"defense_seconds": 4.0, "train_seconds": 2.0}
    rounds = [
        {"round": n, "accuracy": n / 10, "attack_success": 0.5, **rates, **seconds} for n in (8, 9)
    ]
    write(run / "rounds.csv", *rounds)
    (run / "summary.json").write_text("{}")
    (run / "heat_maps").mkdir()
    audit = {
        "audit_images": np.zeros((4, 2, 2, 1), np.float32),
        "audit_labels": np.array([0, 0, 1, 2]),
        "label_counts": np.array([3, 1] + [0] * 9),
    }
    for number in (8, 9):
        save_file(audit, run / "heat_maps" / f"round-{number:06}.safetensors")
    zeros = lambda dataset: lambda images: np.zeros(len(images), int)  # noqa: E731
    monkeypatch.setattr(gan_audit, "train_judge", zeros)
    found = gan_audit.collect(tmp_path)
    (replay,) = found["replay.csv"].to_dict("records")
    assert (replay["setting"], replay["seed"], replay["malicious"]) == ("mnist_iid", 1, 3)
    assert replay["auc"] == 0.5  # round 8 is not audited
    assert found["whole.csv"]["accuracy"].tolist() == [0.9]
    (quality,) = found["quality.csv"].to_dict("records")
    assert (quality["agreement"], quality["classes"], quality["rounds"]) == (0.5, 2, 1)


def test_flower_collects(tmp_path: Path) -> None:
    for name, judges in (("nan_shield", True), ("label-flip_flower-fedavg", False)):
        run = tmp_path / name
        write(run / "accuracy.csv", {"round": 1, "accuracy": 0.5}, {"round": 2, "accuracy": 0.75})
        large = 2**63 + 11  # a node's id needs all 64 bits
        write(run / "truth.csv", *({"node": large + n, "malicious": int(n == 0)} for n in range(3)))
        if judges:
            rows = ({"round": 1, "client": n, "accepted": int(n == 2)} for n in range(3))
            write(run / "clients.csv", *rows)
            write(run / "nodes.csv", *({"node": large + n, "client": n} for n in range(3)))
    table = flower.collect(tmp_path)["runs.csv"]
    assert table["attack"].tolist() == ["label-flip", "nan"]
    row = table.iloc[1]
    assert (row["caught"], row["attacks"], row["blamed"], row["honest"]) == (1, 1, 1, 2)
    assert row["accuracy"] == 0.75 and row["rounds"] == 2
    (tmp_path / "nan_shield" / "truth.csv").write_text("node,malicious\n1,0\n")
    with pytest.raises(TfflError, match=r"nodes that truth\.csv does not have"):
        flower.collect(tmp_path)


def test_the_page_of_flower_tells_shield_from_the_tests_that_it_was(tmp_path: Path) -> None:
    recorded = (RESULTS / "flower" / "runs.csv").read_text()
    assert "tffl's consensus tests" in "".join(flower.body(RESULTS / "flower"))
    (tmp_path / "runs.csv").write_text(recorded.replace(CONSENSUS_TESTS, "shield"))
    text = "".join(flower.body(tmp_path))
    assert "tffl's shield" in text and CONSENSUS_TESTS not in text


def test_bias_anomaly_collects(tmp_path: Path) -> None:
    config = {
        "data": {"train_limit": 100, "test_limit": 20},
        "federation": {"clients": 4, "malicious": 1, "rounds": 1},
        "model": {"name": "lenet5"},
        "attack": {"name": "patch-backdoor"},
        "defense": {"name": "bias-anomaly"},
        "record": {"export": False, "figures": False, "tensorboard": False},
    }
    tffl.simulate(config, tmp_path / "figure_4a_seed0")
    found = bias_anomaly.collect(tmp_path)
    assert set(found) == {"curves.csv", "deviations.csv", "variables.csv", "detection.csv"}
    # 5b is the same experiment as 4a.
    assert set(found["curves.csv"]["figure"]) == {"4a", "5b"}
    assert found["curves.csv"].columns[:5].tolist() == [
        "figure",
        "seed",
        "round",
        "accuracy",
        "loss",
    ]
    assert found["deviations.csv"]["malicious"].sum() == 2 and len(found["deviations.csv"]) == 8
    assert set(found["detection.csv"]["rule"]) == {"median-mad", "mean-std"}


# --- claims where nothing is recorded ------------------------------------------------------------


def test_claims_about_curves_that_have_not_been_run_are_undecided() -> None:
    tables = (
        read_table(RESULTS / "bias_anomaly" / f"{name}.csv").iloc[:0]
        for name in ("curves", "deviations", "variables")
    )
    found = list(claims(Evidence(*tables)))
    assert len(found) == 10 and {claim.verdict for claim in found} == {"undecided"}


def test_faults_that_were_left_out_are_undecided() -> None:
    rows = pd.DataFrame({"fault": ["stdout", "stdout"], "held": [1, 0]})
    verdicts = [claim.verdict for claim in fault_claims(rows)]
    assert verdicts.count("fails") == 1 and set(verdicts) == {"fails", "undecided"}
    whole = read_table(RESULTS / "reliability" / "fuzz.csv")
    assert {claim.verdict for claim in input_claims(whole)} == {"holds"}
    whole.loc[whole["target"] == "krum", "crashes"] = 1
    assert [claim.verdict for claim in input_claims(whole)].count("fails") == 1
    grown = whole[whole["kind"] != "grown"]
    assert [claim.verdict for claim in input_claims(grown)][-1] == "undecided"


def test_listing_pages_needs_no_tensorflow() -> None:
    code = "import sys, tffl_cli.page, tffl.studies.pages; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
