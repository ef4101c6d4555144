"""Plans of reproductions: what a scale may change, who needs which runs, what is listed."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tffl.core.errors import UsageError
from tffl.studies.reproduce.catalogue import PAPERS, load, read_experiment
from tffl.studies.reproduce.page import METRICS, printed, sizes
from tffl.studies.reproduce.plan import PAPER, SCALES, SIZES

ROOT = Path(__file__).parents[3]
EXPECTED = {
    "gradcam-ae": [*(f"table-{n}" for n in range(1, 7)), *(f"figure-{n}" for n in range(4, 16))],
    "gcama": ["figure-2", "figure-3"],
    "fedcamae": ["figure-3", "figure-4"],
    "bias-anomaly": ["figure-4", "figure-5", "figure-6"],
    "pdgan": ["table-1", *(f"figure-{n}" for n in range(5, 11))],
}
"""Every table and figure of the papers that shows a measurement."""

PLAN = """
title = "tiny"
attacks = ["label-flip", { name = "distance-constrained", batch = 256, label = "near" }]
defenses = ["median", { name = "gan-audit", images = 20, label = "audit" }]
[experiment.federation]
clients = 10
malicious = 0.2
rounds = 50
[settings.a]
[settings.b]
"data.partition" = "dirichlet"
[scales.small]
seeds = [3, 4]
"federation.rounds" = 2
"defense.images" = 5
"attack.batch" = 8
[scales.small.settings.b]
"federation.rounds" = 1
[scales.paper]
[[items]]
name = "table-1"
title = "one"
shows = "detection"
settings = ["a"]
[[items]]
name = "figure-2"
title = "two"
shows = "accuracy"
attacks = ["label-flip"]
defenses = ["median"]
references = true
stand_ins = { a = "b" }
"""


def written(folder: Path, text: str = PLAN) -> Path:
    path = folder / "configs" / "some_paper" / "tiny.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_every_table_and_figure_is_listed() -> None:
    catalogue = load(ROOT / "configs")
    assert list(catalogue.papers) == list(PAPERS) == list(EXPECTED)
    assert {p: [e.name for e in catalogue.of(p)] for p in catalogue.papers} == EXPECTED
    for entry in catalogue.entries:
        told = entry.elsewhere
        assert set(entry.scales) or (told and told.about)
        assert all((ROOT / path).is_file() or Path(path).is_file() for path in entry.configs)


def test_all_runs_of_all_plans_exist_at_all_scales() -> None:
    """Building a run resolves its attack and defense, and checks every option."""
    for entry in load(ROOT / "configs").entries:
        for experiment, item in entry.parts:
            for scale in experiment.scales:
                assert experiment.cells([item], scale), (entry.name, scale)
        assert entry.elsewhere or set(SCALES) - set(entry.scales) <= {"small"}


def test_printed_numbers_are_of_runs_that_the_plans_show() -> None:
    catalogue = load(ROOT / "configs")
    for paper in catalogue.papers:
        for item, setting, attack, defense, metric in printed(paper):
            (entry,) = catalogue.of(paper, item)
            assert any(
                experiment.wants(part, PAPER, setting, attack or tried, defense)
                and metric in METRICS[part.shows]
                for experiment, part in entry.parts
                for tried in experiment.attacks
            ), (paper, item, setting, attack, defense, metric)


@pytest.mark.parametrize("table", ["table-1", "table-2", "table-3", "table-4"])
def test_papers_numbers_by_hand(table: str) -> None:
    assert len([key for key in printed("gradcam-ae") if key[0] == table]) == 6 * 5 * 2
    numbers = printed("gradcam-ae")
    told = numbers["table-1", "CIFAR-10 Dirichlet 0.5", "", "gradcam-ae", "precision"]
    assert (told.value, told.source) == (0.943, "Table 1")
    odd = numbers["table-3", "CIFAR-10 Dirichlet 0.5", "", "trimmed-mean", "recall"]
    assert odd.value == 0.5 and "0.08" in odd.note
    assert printed("pdgan")["table-1", "MNIST, 3 attackers", "", "gan", "late_accuracy"].value == (
        0.9185
    )


def test_every_number_has_a_source() -> None:
    for path in (ROOT / "tffl/reproduce/papers").glob("*.csv"):
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        assert rows and all(row["source"].strip() for row in rows)


def test_a_page_tells_what_its_scale_changes(tmp_path: Path) -> None:
    told = {key: change for key, *change in sizes(read_experiment(written(tmp_path)), "small")}
    assert told["federation.rounds"] == ["50", "2"]
    assert told["federation.rounds, b"][1] == "1"
    assert told["images, audit"] == ["20", "5"]
    assert told["batch, near"] == ["256", "8"]
    assert told["seeds"] == ["0", "3, 4"]


def test_a_scale_changes_sizes(tmp_path: Path) -> None:
    experiment = read_experiment(written(tmp_path))
    first, second = experiment.spec.items
    cells = experiment.cells([first], "small")
    assert sorted(cell.key["seed"] for cell in cells) == [3] * 4 + [4] * 4
    assert {cell.config.federation.rounds for cell in cells} == {2}
    images = {cell.defense: cell.config.defense.options.get("images") for cell in cells}
    assert images == {"median": None, "audit": 5}
    assert {cell.config.federation.rounds for cell in experiment.cells([first], PAPER)} == {50}
    batches = {cell.attack: cell.config.attack.options.get("batch") for cell in cells}
    assert batches == {"label-flip": None, "near": 8}
    # Stand-ins, with sizes of their own, and references: attack-free and undefended.
    shown = experiment.cells([second], "small")
    assert {cell.setting for cell in shown} == {"b"}
    assert {cell.config.federation.rounds for cell in shown} == {1}
    assert {(cell.attack, cell.defense) for cell in shown} == {
        ("none", "none"),
        ("label-flip", "none"),
        ("label-flip", "median"),
    }
    assert {cell.setting for cell in experiment.cells([second], PAPER)} == {"a", "b"}
    together = experiment.cells([first, second], PAPER)
    apart = [*experiment.cells([first], PAPER), *experiment.cells([second], PAPER)]
    assert {cell.path for cell in together} == {cell.path for cell in apart}
    assert len(together) == len({cell.path for cell in apart}) < len(apart)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"federation.rounds" = 2', '"attack.scale" = 2', "sets attack.scale, but a scale changes"),
        ('"federation.rounds" = 2', '"data.partition" = "iid"', "sets data.partition"),
        ('"federation.rounds" = 2', '"federation.malicious" = 2', "give a fraction"),
        ("[scales.small]", "[scales.tiny]", "unknown scale 'tiny'"),
        ("[scales.small.settings.b]", "[scales.small.settings.c]", "unknown setting 'c'"),
        ('settings = ["a"]', 'settings = ["x"]', "unknown setting 'x'"),
        ('defenses = ["median"]', 'defenses = ["mean"]', "unknown defense 'mean'"),
        ('shows = "accuracy"', 'shows = "charm"', "shows"),
        ('name = "table-1"', 'name = "Table 1"', "name"),
    ],
)
def test_a_wrong_plan_is_refused_in_one_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in PLAN
    with pytest.raises(UsageError, match=message) as error:
        read_experiment(written(tmp_path, PLAN.replace(old, new)))
    assert "\n" not in str(error.value)


def test_no_size_is_a_method() -> None:
    assert {key for key in SIZES if key.startswith("attack.")} == {"attack.batch"}
    assert not {"data.dataset", "data.partition", "data.beta", "training.optimizer"} & SIZES


def test_unknown_names_say_which_there_are(tmp_path: Path) -> None:
    written(tmp_path)
    catalogue = load(tmp_path / "configs")
    assert catalogue.papers == ("some-paper",)
    assert [entry.name for entry in catalogue.of("some-paper")] == ["table-1", "figure-2"]
    with pytest.raises(UsageError, match="unknown paper 'some-papr': did you mean 'some-paper'"):
        catalogue.of("some-papr")
    with pytest.raises(UsageError, match=r"unknown item of some-paper 'table-2'.*table-1"):
        catalogue.of("some-paper", "table-2")
    with pytest.raises(UsageError, match=r"no folder .*--configs"):
        load(tmp_path / "nowhere")
