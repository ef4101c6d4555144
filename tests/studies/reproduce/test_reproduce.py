"""`tffl reproduce`, on a made-up paper of seconds: running, resuming, recording, the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tffl.core.errors import TfflError, UsageError
from tffl.record.tables import read_rows
from tffl.simulation import simulation
from tffl.studies.benchmark import Cell
from tffl.studies.reproduce import catalogue, cost, measure, page
from tffl.studies.reproduce.plan import SCALES
from tffl_cli.main import cli

ROOT = Path(__file__).parents[3]
PLAN = """
title = "made up"
extra = ["median"]
attacks = ["sign-flip"]
defenses = ["median", { name = "gradcam-ae", epochs = 2, label = "gradcam-ae" }]
[experiment.data]
train_limit = 150
test_limit = 50
[experiment.federation]
clients = 6
malicious = 0.34
rounds = 9
[experiment.model]
name = "lenet5"
[settings.iid]
[scales.smoke]
seeds = [0]
"federation.rounds" = 2
[scales.small]
seeds = [0, 1]
"federation.rounds" = 1
[scales.paper]
[[items]]
name = "table-1"
title = "Detection rates"
shows = "detection"
[[items.claims]]
text = "Everybody is found."
scales = ["smoke", "small", "paper"]
checks = [{ metric = "recall", defense = "gradcam-ae", operator = ">=", value = 0.0 }]
[[items.claims]]
text = "At full size only."
scales = ["paper"]
checks = [{ metric = "accuracy", defense = "median", operator = ">=", value = 0.0 }]
[[items]]
name = "figure-2"
title = "Accuracy by round"
shows = "accuracy"
defenses = ["median"]
references = true
[[items]]
name = "figure-3"
title = "Scores"
shows = "scores"
defenses = ["gradcam-ae"]
[[items]]
name = "figure-4"
title = "Heat maps"
shows = "maps"
defenses = ["gradcam-ae"]
"""


def call(folder: Path, *arguments: object, out: str = "out", runs: str = "runs") -> Any:
    told = ["--configs", folder / "configs", "--out", folder / out, "--runs", folder / runs]
    return CliRunner().invoke(cli, ["reproduce", *map(str, arguments), *map(str, told)])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reproduction that was interrupted before its second run, and continued."""
    folder = tmp_path_factory.mktemp("reproduce")
    path = folder / "configs" / "made_up" / "tiny.toml"
    path.parent.mkdir(parents=True)
    path.write_text(PLAN)
    experiment = catalogue.read_experiment(path)

    def stop(done: int, cell: Cell | None, error: str) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure.reproduce(
            experiment,
            experiment.spec.items[:1],
            "smoke",
            folder / "out",
            folder / "runs",
            progress=stop,
        )
    assert len(measure.read_record(folder / "out" / "smoke", "tiny").runs) == 1
    result = call(folder, "made-up", "table-1", "--scale", "smoke", "--json")
    assert result.exit_code == 0, result.exception
    (folder / "table_1.json").write_text(result.stdout)
    return folder


def test_paper_against_ours_and_verdicts(made: Path) -> None:
    (told,) = json.loads((made / "table_1.json").read_text())
    assert (told["item"], told["seeds"], told["missing"]) == ("table-1", [0], 0)
    assert [row[0] for row in told["tables"]["iid"]["rows"]] == ["median\\*", "gradcam-ae"]
    assert [claim["verdict"] for claim in told["claims"]] == ["holds", "undecided"]
    assert told["claims"][1]["numbers"] == "only at scale paper"
    assert "recall of gradcam-ae" in told["claims"][0]["numbers"]


def test_nothing_is_run_twice(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    real = simulation.simulate

    def watched(config: Any, *arguments: Any, **options: Any) -> Any:
        called.append((config.attack.name, config.defense.name))
        return real(config, *arguments, **options)

    monkeypatch.setattr(simulation, "simulate", watched)
    result = call(made, "made-up", "--scale", "smoke")
    assert result.exit_code == 0, result.exception
    # The table's two runs serve the figures, too: only their references are missing.
    assert called == [("none", "none"), ("sign-flip", "none")]
    called.clear()
    # A fresh clone has the tables, and no work folder.
    clone = made / "clone"
    shutil.copytree(made / "out", clone)
    result = call(made, "made-up", "--scale", "smoke", out="clone", runs="other runs")
    assert result.exit_code == 0, result.exception
    assert called == []
    for name in ("tiny.csv", "tiny_rounds.csv", "tiny_clients.csv", "tiny.json"):
        same = [(made / out / "smoke" / name).read_bytes() for out in ("out", "clone")]
        assert same[0] == same[1]
    assert (clone / "README.md").read_bytes() == (made / "out" / "README.md").read_bytes()
    shutil.rmtree(clone)


def test_tables_hold_what_the_runs_say(made: Path) -> None:
    runs = read_rows(made / "out" / "smoke" / "tiny.csv")
    rounds = read_rows(made / "out" / "smoke" / "tiny_rounds.csv")
    assert {(row["attack"], row["defense"]) for row in runs} >= {
        ("sign-flip", "median"),
        ("sign-flip", "gradcam-ae"),
    }
    for row in runs:
        mine = [r for r in rounds if all(r[key] == row[key] for key in measure.KEY)]
        assert [line["round"] for line in mine] == ["1", "2"]
        assert float(mine[-1]["accuracy"]) == pytest.approx(float(row["accuracy"]), abs=1e-6)
        if row["recall"]:
            values = [float(line["recall"]) for line in mine]
            assert sum(values) / 2 == pytest.approx(float(row["recall"]), abs=1e-6)
    clients = read_rows(made / "out" / "smoke" / "tiny_clients.csv")
    scored = [row for row in clients if row["defense"] == "gradcam-ae"]
    assert len(scored) == 6 and sum(int(row["malicious"]) for row in scored) == 2


def test_the_page_is_made_of_the_tables(made: Path) -> None:
    result = call(made, "made-up", "--scale", "smoke", "--no-run")
    assert result.exit_code == 0, result.exception
    assert "holds: Everybody is found." in result.stdout
    text = (made / "out" / "README.md").read_text()
    assert "### table-1: Detection rates" in text
    assert "| Everybody is found. | **holds** |" in text
    assert "| federation.rounds | 9 | 2 |" in text
    assert "`tffl reproduce made-up table-1 --scale smoke`; seed 0." in text
    assert "\\* not in the paper" in text
    assert "(smoke/tiny_figure-3.png)" in text
    assert "heat_maps" in text
    for picture in ("tiny_figure-2.png", "tiny_figure-3.png"):
        assert (made / "out" / "smoke" / picture).read_bytes().startswith(b"\x89PNG")
    check_folder(catalogue.load(made / "configs"), "made-up", made / "out")


def test_the_list(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measured(workload: cost.Workload) -> cost.Rate:
        asked.append(workload)
        return cost.Rate(train=100.0, test=1000.0, compile=7.0)

    monkeypatch.setattr(cost, "measure", measured)
    monkeypatch.setenv("XDG_CACHE_HOME", str(made / "cache"))
    result = call(made, "--list", "--json")
    assert result.exit_code == 0, result.exception
    lines = {line["item"]: line for line in json.loads(result.stdout)}
    assert list(lines) == ["table-1", "figure-2", "figure-3", "figure-4"]
    scales = {one["scale"]: one for one in lines["table-1"]["scales"]}
    assert (scales["smoke"]["runs"], scales["smoke"]["recorded"]) == (2, 2)
    assert scales["smoke"]["seconds_left"] == 0
    # Four runs of one round: 150 images at 100 a second, 50 at 1000 a second; compiled once.
    assert scales["small"]["seconds"] == pytest.approx(4 * (1.5 + 0.05) + 7)
    assert scales["paper"]["seconds"] == pytest.approx(2 * 9 * (1.5 + 0.05) + 7)
    assert len(asked) == 1
    assert call(made, "--list").exit_code == 0 and len(asked) == 1  # from the cache
    assert "table-1" in call(made, "made-up", "--list", "--no-times").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["made-upp"], "unknown paper 'made-upp': did you mean 'made-up'?"),
        (["made-up", "table-7"], "unknown item of made-up 'table-7'"),
        (["made-up", "table-1", "--scale", "huge"], "unknown scale 'huge'"),
    ],
)
def test_wrong_names_are_one_line(made: Path, arguments: list[str], message: str) -> None:
    result = call(made, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr and result.stderr.count("\n") == 1


def test_rates_are_measured_with_the_engine() -> None:
    workload = cost.Workload("lenet5", 28, 1, 10, 8, "sgd", "float32")
    rate = cost.measure(workload)
    assert rate.train > 10 and rate.test > 10 and rate.compile > 0


def test_what_has_commands_of_its_own_names_them() -> None:
    told = ["reproduce", "bias-anomaly", "figure-4", "--configs", str(ROOT / "configs")]
    result = CliRunner().invoke(cli, told)
    assert result.exit_code == 2
    assert "bash results/bias_anomaly/run.sh" in result.stderr


def check_folder(plans: catalogue.Catalogue, paper: str, folder: Path) -> None:
    """Checks that a paper's recorded files agree with each other, and with its configs' names."""
    found = []
    for scale in SCALES:
        experiments = {e.name: (e, items) for e, items in plans.experiments(paper)}
        for file in (folder / scale).glob("*.json"):
            experiment, items = experiments[file.stem]
            known = measure.read_record(folder / scale, experiment.name)
            wanted = {measure.key_of(cell.key) for cell in experiment.cells(items, scale)}
            recorded = {measure.key_of(row) for row in known.runs}
            assert recorded <= wanted, (file, recorded - wanted)
            assert set(known.rounds) <= recorded and set(known.clients) <= recorded
            rounds = experiment.plan(scale).experiment["federation"]["rounds"]
            for row in known.runs:
                curve = known.curve(row, "accuracy")
                assert row["error"] or len(curve) in (rounds, 0)
                assert not curve or curve[-1] == pytest.approx(row["accuracy"], abs=1e-5)
                assert not curve or max(curve) == pytest.approx(row["best_accuracy"], abs=1e-5)
        found += page.reports(plans.of(paper), folder, scale)
    claims = [
        {"item": report.entry.name, "scale": report.scale, "claim": judged.text,
         "verdict": judged.verdict, "numbers": judged.numbers}
        for report in found
        for judged in report.judged
    ]  # fmt: skip
    assert read_rows(folder / "claims.csv") == claims
    assert (folder / "README.md").read_text(encoding="utf-8") == page.page(paper, found, folder)


@pytest.mark.parametrize("paper", list(catalogue.PAPERS))
def test_what_is_committed_agrees_with_itself_and_the_configs(paper: str) -> None:
    folder = ROOT / "results" / paper
    if not (folder / "claims.csv").exists():
        pytest.skip(f"nothing of {paper} is recorded yet")
    check_folder(catalogue.load(ROOT / "configs"), paper, folder)


def test_a_damaged_table_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("setting,attack\n1,2\n")
    with pytest.raises(TfflError, match=r"x\.csv is not a table with columns"):
        measure.read_record(tmp_path, "x")
    assert measure.read_record(tmp_path, "y").runs == []
    with pytest.raises(UsageError, match="no folder"):
        catalogue.load(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["{", "[]", '{"machine": "x86_64"}'])
def test_a_damaged_environment_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(TfflError, match=r"x\.json is (not valid JSON|damaged: it lacks)") as error:
        measure.read_record(tmp_path, "x")
    assert "\n" not in str(error.value)
