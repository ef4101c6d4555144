"""Folders as a report reads them, and what is said of wrong ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from report_data import benchmark_rows

from tffl.core.errors import TfflError, UsageError
from tffl.report.sources import (
    RecordedBenchmark,
    baselines,
    distinct_names,
    read_folders,
    read_runs,
)


def test_a_run_is_read(make_run: Callable[..., Path]) -> None:
    (run,) = read_runs([make_run()])
    assert (run.name, run.finished, run.warning, run.scored) == ("run", True, "", True)
    assert run.rounds["accuracy"].iloc[-1] == 0.9
    assert run.split[0] == {"client": 0, "class": "cat", "samples": 5, "trained": 4}
    assert run.environment["cores"] == 2


def test_an_unfinished_run_says_so(make_run: Callable[..., Path]) -> None:
    (run,) = read_runs([make_run(planned=9)])
    assert not run.finished
    assert "unfinished (3 of 9 rounds): tffl simulate --resume" in run.warning
    (run.path / "rounds.csv").unlink()
    (run.path / "clients.csv").unlink()
    assert "no round yet" in read_runs([run.path])[0].warning


def test_clients_of_a_round_that_was_cut_off_do_not_count(make_run: Callable[..., Path]) -> None:
    path = make_run(planned=9)
    lines = (path / "rounds.csv").read_text().splitlines(keepends=True)
    (path / "rounds.csv").write_text("".join(lines[:-1]))
    (run,) = read_runs([path])
    assert run.clients["round"].max() == 2


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("rounds.csv", "round,accuracy\n1,0.5\n", "is not a table with columns round,accuracy"),
        ("summary.json", "{", "summary.json is not valid JSON"),
        ("environment.json", "[1]", "environment.json is damaged: it holds no JSON object"),
        ("split.csv", "client,class,samples,trained\nx,a,1,1\n", "split.csv is not a table"),
        ("config.toml", "[data]\nset = 1\n", "unknown config key 'data.set'"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(
    make_run: Callable[..., Path], file: str, content: str, message: str
) -> None:
    path = make_run()
    (path / file).write_text(content)
    with pytest.raises(TfflError, match=message) as error:
        read_folders([path])
    assert "\n" not in str(error.value)


def test_a_word_among_numbers_is_damage(make_run: Callable[..., Path]) -> None:
    path = make_run()
    text = (path / "clients.csv").read_text()
    (path / "clients.csv").write_text(text.replace("2.0", "two", 1))
    with pytest.raises(TfflError, match="score is two, which is no number"):
        read_folders([path])


def test_other_folders_are_refused(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    run = make_run("deep/run")
    with pytest.raises(UsageError, match=r"neither a run .* did you mean .*deep/run"):
        read_folders([tmp_path / "deep"])
    with pytest.raises(UsageError, match="there is no folder"):
        read_folders([tmp_path / "nothing"])
    with pytest.raises(UsageError, match="is a file"):
        read_folders([run / "config.toml"])
    with pytest.raises(UsageError, match="is named twice"):
        read_folders([run, run.parent / "run"])


def test_siblings_are_found(make_run: Callable[..., Path]) -> None:
    path = make_run()
    make_run("run/attack-free")
    assert [run.name for run in baselines(read_runs([path])[0])] == ["run: attack-free"]


def test_a_benchmark_is_read(bench: Path) -> None:
    (found,) = read_folders([bench])
    assert isinstance(found, RecordedBenchmark)
    assert found.settings == ["iid & small"]
    assert found.rows[0]["accuracy"] == 0.9 and found.rows[0]["attack_success"] is None
    assert found.warning == "1 of 12 runs of bench failed"
    with pytest.raises(UsageError, match="is a benchmark, not a run"):
        read_runs([bench])


def test_an_interrupted_benchmark_is_read_from_its_cells(bench: Path) -> None:
    (bench / "results.csv").unlink()
    for row in benchmark_rows()[:3]:
        file = bench / "cells" / "iid" / row["attack"] / row["defense"] / f"seed-{row['seed']}.json"
        file.parent.mkdir(parents=True)
        result = {"accuracy": row["accuracy"], "seconds": 1.0}
        file.write_text(json.dumps({"identity": {}, "row": result, "error": ""}))
    (found,) = read_folders([bench])
    assert found.warning == "bench is unfinished: only 3 runs are recorded so far"
    told = {(row["attack"], row["defense"]): row["accuracy"] for row in found.rows}
    assert told == {("none", "none"): 0.9, ("none", "median"): 0.8, ("lie", "none"): 0.4}
    file.write_text("{}")
    with pytest.raises(TfflError, match="holds no result of a run"):
        read_folders([bench])


def test_a_damaged_or_empty_benchmark(bench: Path) -> None:
    text = (bench / "results.csv").read_text()
    (bench / "results.csv").write_text(text.replace("0.9", "high", 1))
    with pytest.raises(TfflError, match=r"results.csv is damaged"):
        read_folders([bench])
    (bench / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(TfflError, match="other columns"):
        read_folders([bench])
    (bench / "results.csv").write_text(text.splitlines()[0])
    with pytest.raises(UsageError, match="without any recorded run"):
        read_folders([bench])


def test_names_are_as_short_as_they_can_be() -> None:
    assert distinct_names([Path("/a/b"), Path("/a/c")]) == ["b", "c"]
    assert distinct_names([Path("/x/a/run"), Path("/y/a/run")]) == ["x/a/run", "y/a/run"]
