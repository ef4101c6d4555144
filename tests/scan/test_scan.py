"""Folders of clients' models, good, poisoned and hostile, and what `tffl scan` says of them."""

from __future__ import annotations

import csv
import gc
import json
import re
import shutil
import tracemalloc
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import tffl
from tffl.core.errors import TfflError, UsageError
from tffl.data.samples import Samples
from tffl.defenses import create_defense, defenses
from tffl.record.export import export
from tffl.scan.image_source import ImageSource, image_source
from tffl.scan.preparation import choose_defenses
from tffl.scan.scanner import Scanner, check_defense
from tffl.untrusted import ExpectedVariables
from tffl.untrusted.global_model import load_global
from tffl.untrusted.model_folder import read_folder
from tffl_cli.main import cli

HONEST, POISONED = 8, 2
SIZE = {"image_size": 16, "train_limit": 400, "test_limit": 100}


@pytest.fixture(scope="session")
def round_of_clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`global.keras` and `clients/`: ten real clients, the last two poisoned and scaled."""
    folder = tmp_path_factory.mktemp("scan")
    config = {
        "data": SIZE,
        "federation": {"clients": HONEST + POISONED, "malicious": POISONED, "rounds": 2},
        "model": {"name": "lenet5"},
        "attack": {"name": "label-flip+scaling", "scale": 5.0},
        "record": {"store_updates": "2", "export": False, "figures": False, "tensorboard": False},
    }
    run = tffl.simulate(config, folder / "run")
    from tffl.record.run_directory import RunDirectory

    (updates,) = RunDirectory.open(folder / "run").updates()
    guilty = run.clients.query("round == 2").set_index("client")["malicious"] == 1
    order = sorted(range(len(updates)), key=lambda row: bool(guilty[updates.client_ids[row]]))
    (folder / "clients").mkdir()
    for number, row in enumerate(order):
        _set(run.model, updates.layout, updates.weights(row))
        run.model.save(folder / "clients" / f"client-{number}.keras")
    _set(run.model, updates.layout, updates.start)
    run.model.save(folder / "global.keras")
    return folder


def _set(model: keras.Model, layout: Any, weights: np.ndarray) -> None:
    model.set_weights(layout.unflatten(weights))


@pytest.fixture
def folder(round_of_clients: Path, tmp_path: Path) -> Path:
    return shutil.copytree(round_of_clients / "clients", tmp_path / "clients")


def digits() -> ImageSource:
    found = image_source("digits")
    assert found is not None
    return found


def scan(base: Path, clients: Path, *arguments: object) -> Any:
    options = ["--global", base / "global.keras", "--updates", clients, *arguments]
    return CliRunner().invoke(cli, ["scan", *map(str, options)])


BAD = {f"client-{number}.keras" for number in range(HONEST, HONEST + POISONED)}


def test_only_poisoned_models_are_suspect(round_of_clients, folder):
    result = scan(round_of_clients, folder, "--json", "--set", "defense.k=8")
    assert result.exit_code == 3, result.output
    report = json.loads(result.stdout)
    assert set(report["suspects"]) == BAD
    for file in report["files"]:
        (opinion,) = file["opinions"]
        assert opinion["defense"] == "update-consensus" and opinion["threshold"] == 8
        assert opinion["suspect"] == file["suspect"] == (opinion["score"] > 8)
        assert bool(opinion["reason"]) == file["suspect"]


def test_files_hold_the_updates_of_the_run(round_of_clients, folder):
    from tffl.record.run_directory import RunDirectory

    (updates,) = RunDirectory.open(round_of_clients / "run").updates()
    model = load_global(round_of_clients / "global.keras")
    expected = ExpectedVariables.of(model)
    start = expected.layout.flatten(model.get_weights())
    inbox = read_folder(folder, expected, start)
    rows = {row.tobytes() for row in inbox.updates.start + inbox.updates.deltas}
    for row in range(len(updates)):
        weights = updates.weights(row)
        assert min(np.abs(np.frombuffer(r, np.float32) - weights).max() for r in rows) < 1e-6


def test_hostile_files_are_listed_and_do_not_change_other_verdicts(round_of_clients, folder):
    before = json.loads(scan(round_of_clients, folder, "--json", "--set", "defense.k=8").stdout)
    (folder / "bomb.npz").write_bytes(b"PK\x03\x04nothing")
    (folder / "empty.keras").touch()
    (folder / "link.keras").symlink_to("/etc/passwd")
    (folder / "red\x1b[31m[bold].weights.h5").write_bytes(b"no")
    (folder / "folder").mkdir()
    result = scan(round_of_clients, folder, "--json", "--set", "defense.k=8")
    assert result.exit_code == 3
    report = json.loads(result.stdout)
    unreadable = {f["file"]: f for f in report["files"] if not f["readable"]}
    assert len(unreadable) == 5 and set(report["suspects"]) == BAD | set(unreadable)
    assert unreadable["empty.keras"]["opinions"][0]["reason"] == "is empty"
    assert [f for f in report["files"] if f["readable"]] == before["files"]

    table = scan(round_of_clients, folder, "--set", "defense.k=8")
    assert table.exit_code == 3
    assert "\x1b" not in table.stdout and "[bold]" in table.stdout
    assert "7 of 15 files suspect." in table.stdout


def test_the_exit_code_is_zero_without_suspects(round_of_clients, folder):
    for name in BAD:
        (folder / name).unlink()
    result = scan(
        round_of_clients, folder, "--set", "defense.k=100", "--set", "defense.duplicate=0"
    )
    assert result.exit_code == 0, result.output
    assert "0 of 8 files suspect." in result.stdout


def test_several_defenses_give_one_verdict_on_each_file(round_of_clients, folder, tmp_path):
    (folder / "empty.npz").touch()
    names = ["update-consensus", "multi-krum", "nnm+krum"]
    given = [part for name in names for part in ("--defense", name)]
    given += ["--set", "defense.malicious=2", "--set", "defense.k=8", "--seed", "1"]
    result = scan(round_of_clients, folder, *given, "--json", "--out", tmp_path / "out")
    assert result.exit_code == 3, result.output
    report = json.loads(result.stdout)
    with (tmp_path / "out" / "scan.csv").open(newline="") as table:
        rows = {row["file"]: row for row in csv.DictReader(table)}
    verdicts = {file["file"]: file["verdict"] for file in report["files"]}
    assert verdicts.pop("empty.npz") == rows.pop("empty.npz")["verdict"] == "refused"
    assert {*rows} == {*verdicts} and {*verdicts.values()} == {"ok", "suspect"}
    opinions = {file["file"]: file["opinions"] for file in report["files"]}
    for name, row in rows.items():
        assert [opinion["defense"] for opinion in opinions[name]] == names
        blamed_by = [o["defense"] for o in opinions[name] if o["suspect"]]
        assert row["verdict"] == verdicts[name] == ("suspect" if blamed_by else "ok")
        assert row["defense"] == ", ".join(blamed_by)
        assert [float(row[f"{o['defense']} score"]) for o in opinions[name]] == pytest.approx(
            [o["score"] for o in opinions[name]], rel=1e-4
        )
        assert all(f"{defense}: " in row["reason"] for defense in blamed_by)
    assert {name for name in rows if opinions[name][1]["suspect"]} == BAD

    printed = scan(round_of_clients, folder, *given).stdout.splitlines()
    words = [line.split()[1] for line in printed if ".keras" in line or ".npz" in line]
    assert words == ["suspect" if n in BAD else verdicts[n] for n in sorted(rows)] + ["refused"]
    assert len([line for line in printed if "nnm+krum" in line]) == len(rows)


def test_one_suspecting_defense_is_enough(with_batchnorm, tmp_path):
    result = scan(with_batchnorm, with_batchnorm / "clients", "--out", tmp_path / "out")
    assert result.exit_code == 3 and "1 of 6 files suspect." in result.stdout
    with (tmp_path / "out" / "scan.csv").open(newline="") as table:
        suspects = [row for row in csv.DictReader(table) if row["verdict"] == "suspect"]
    assert [row["defense"] for row in suspects] == ["statistics-consensus"]
    assert suspects[0]["reason"].startswith(
        "statistics-consensus: its bn/moving_variance is off by"
    )


def test_shield_judges_by_default_where_there_are_images(round_of_clients, folder):
    result = scan(round_of_clients, folder, "--dataset", "digits", "--seed", 3, "--json")
    assert result.exit_code == 3, result.output
    report = json.loads(result.stdout)
    assert report["seed"] == 3 and set(report["suspects"]) >= BAD
    assert {o["defense"] for f in report["files"] for o in f["opinions"]} == {"shield"}


def test_images_scaled_outside_the_model_need_a_pixel_range(round_of_clients, folder, tmp_path):
    scaled = keras.layers.Rescaling
    old = load_global(round_of_clients / "global.keras")
    assert any(isinstance(layer, scaled) for layer in old.layers)
    inputs = keras.Input(old.input_shape[1:])
    x = inputs
    for layer in old.layers[1:]:
        x = x if isinstance(layer, scaled) else layer(x)
    model = keras.Model(inputs, x)
    model.save(tmp_path / "global.keras")
    for path in folder.iterdir():
        client = load_global(path)
        model.set_weights(client.get_weights())
        model.save(path)
    options = ("--dataset", "digits", "--seed", 3, "--defense", "probe-loss", "--json")
    blind = scan(tmp_path, folder, *options)
    assert blind.exit_code == 2 and "as pixels (0,1)" in blind.stderr, blind.output
    assert len(blind.stderr.strip().splitlines()) == 1
    before = json.loads(scan(round_of_clients, round_of_clients / "clients", *options).stdout)
    seeing = json.loads(scan(tmp_path, folder, *options, "--pixels", "0,1").stdout)
    one, two = ([f["opinions"][0]["score"] for f in report["files"]] for report in (before, seeing))
    np.testing.assert_allclose(one, two, rtol=1e-3)
    assert before["warnings"] == seeing["warnings"]
    wrong = json.loads(scan(tmp_path, folder, *options, "--pixels", "0,255").stdout)
    assert "as pixels (0,1)" in wrong["warnings"][0]


@pytest.fixture(scope="module")
def with_batchnorm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with BatchNorm, and six clients, of which the last multiplies its variances."""
    folder = tmp_path_factory.mktemp("with_batchnorm")
    rng = np.random.default_rng(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.BatchNormalization(name="bn")(keras.layers.Conv2D(4, 3, name="conv")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    model.save(folder / "global.keras")
    (folder / "clients").mkdir()
    weights = model.get_weights()
    for number in range(6):
        own = [w + 0.1 * rng.uniform(size=w.shape).astype(np.float32) for w in weights]
        if number == 5:
            own[5] = own[5] * 100
        model.set_weights(own)
        model.save(folder / "clients" / f"{number}.keras")
    return folder


def test_the_softmax_of_a_global_model_is_left_out(tmp_path):
    """Nothing is trained; files and verdicts are those of the same model with logits."""
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(keras.layers.Rescaling(1 / 255)(inputs)))
    dense = keras.layers.Dense(10)
    logits = keras.Model(inputs, dense(x))
    softmax = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))
    scores = []
    for name, model in (("logits", logits), ("softmax", softmax)):
        rng = np.random.default_rng(0)
        start = [rng.normal(size=w.shape) / 10 for w in model.get_weights()]
        (tmp_path / name / "clients").mkdir(parents=True)
        model.set_weights(start)
        model.save(tmp_path / name / "global.keras")
        for number in range(4):
            model.set_weights([w + rng.normal(size=w.shape) / 10 for w in start])
            model.save(tmp_path / name / "clients" / f"{number}.keras")
        options = ("--dataset", "digits", "--seed", 1, "--defense", "probe-loss", "--json")
        report = json.loads(scan(tmp_path / name, tmp_path / name / "clients", *options).stdout)
        scores.append([file["opinions"][0]["score"] for file in report["files"]])
        said = "the global model ends in softmax: defenses see what goes into it"
        assert (said in report["warnings"]) == (name == "softmax")
    np.testing.assert_allclose(*scores, rtol=1e-4)


def test_ruined_batchnorm_statistics_are_suspect_without_images(with_batchnorm):
    result = scan(with_batchnorm, with_batchnorm / "clients", "--json")
    assert result.exit_code == 3, result.output
    report = json.loads(result.stdout)
    assert report["suspects"] == ["5.keras"] and report["warnings"] == []
    (suspect,) = (file for file in report["files"] if file["suspect"])
    weights, statistics = suspect["opinions"]
    assert not weights["suspect"] and weights["defense"] == "update-consensus"
    assert statistics["defense"] == "statistics-consensus"
    assert "bn/moving_variance is off by a factor of" in statistics["reason"]


def test_a_scan_warns_that_statistics_were_not_judged(
    with_batchnorm, round_of_clients, folder, tmp_path
):
    options = ("--defense", "update-consensus", "--out", tmp_path / "out")
    result = scan(with_batchnorm, with_batchnorm / "clients", *options)
    assert result.exit_code == 0
    assert "Warning: BatchNorm statistics" in result.stdout
    assert "BatchNorm statistics and other" in (tmp_path / "out" / "scan.html").read_text()
    assert "BatchNorm" not in scan(round_of_clients, folder).stdout  # it has none


def test_a_scan_warns_of_unjudged_graphs(round_of_clients, folder):
    client = load_global(folder / "client-0.keras")
    (folder / "client-0.keras").unlink()
    client.export(str(folder / "client-0"), verbose=False)
    report = json.loads(scan(round_of_clients, folder, "--json").stdout)
    assert all(file["readable"] for file in report["files"])
    assert ["graphs were not checked" in text for text in report["warnings"]] == [True]


def test_the_printed_seed_repeats_a_scan(round_of_clients, folder):
    options = ("--defense", "signguard", "--json")
    first = json.loads(scan(round_of_clients, folder, *options).stdout)
    again = json.loads(scan(round_of_clients, folder, *options, "--seed", first["seed"]).stdout)
    assert again == first
    assert "(Repeat this scan with --seed 7.)" in scan(round_of_clients, folder, "--seed", 7).stdout


def test_probes_cannot_be_known_in_advance(round_of_clients):
    model = load_global(round_of_clients / "global.keras")
    seeds = {Scanner(model, {}).seed for _ in range(3)}
    assert len(seeds) == 3


def test_too_few_files_are_neither_judged_nor_passed(round_of_clients, folder):
    for path in sorted(folder.iterdir())[2:]:
        path.unlink()
    result = scan(round_of_clients, folder)
    assert result.exit_code == 2
    assert "not judged" in result.stdout
    assert "update-consensus could not judge: update-consensus needs at least 3" in result.stderr
    (folder / "bad.npz").touch()
    result = scan(round_of_clients, folder)
    assert result.exit_code == 3 and "is empty" in result.stdout


def test_an_empty_or_absent_folder_is_an_error(round_of_clients, tmp_path):
    (tmp_path / "none").mkdir()
    result = scan(round_of_clients, tmp_path / "none")
    assert result.exit_code == 2 and "holds no model that could be read" in result.stderr
    result = scan(round_of_clients, tmp_path / "absent")
    assert result.exit_code == 2 and "cannot read the folder" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--defense", "none"], "none names no suspects"),
        (["--defense", "fldetector"], "fldetector needs the history of a federation"),
        (["--defense", "flcert+krum"], "needs the history of a federation"),
        (["--set", "defense.window=3", "--set", "defense.votes=2"], "needs the history"),
        (["--defense", "fltrust"], "fltrust trains on samples of the server's own"),
        (["--set", "defense.reference_point=root"], "trains on samples of the server's own"),
        (["--defense", "shield"], "shield needs images: give a dataset"),
        (["--defense", "krumm"], "unknown defense 'krumm'"),
        (["--set", "defense.kk=3"], "unknown option of defense"),
        (["--set", "attack.k=3"], "--set attack.k is not allowed: set defense.KEY"),
        (["--dataset", "digitz"], "unknown dataset 'digitz'"),
        (["--pixels", "0,1"], "--pixels belongs to --dataset"),
    ],
)
def test_impossible_arguments_are_refused(arguments, reason, round_of_clients, folder):
    result = scan(round_of_clients, folder, *arguments)
    assert result.exit_code == 2, result.output
    assert reason in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_global_model_must_load_in_safe_mode(tmp_path):
    images = keras.Input((6, 6, 1))
    flat = keras.layers.Flatten()(keras.layers.Lambda(lambda x: x)(images))
    keras.Model(images, keras.layers.Dense(3)(flat)).save(tmp_path / "lambda.keras")
    (tmp_path / "damaged.keras").write_bytes(b"PK")
    for name, reason in {
        "lambda.keras": "cannot load the global model",
        "damaged.keras": "cannot load the global model",
        "absent.keras": "there is no global model",
        ".": "nor a run that has exported its model",
    }.items():
        with pytest.raises(UsageError, match=reason) as error:
            load_global(tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_scanner_checks_its_samples(round_of_clients):
    model = load_global(round_of_clients / "global.keras")
    samples = digits().load(model)
    floats = replace(samples, images=samples.images / 255)
    with pytest.raises(UsageError, match=r"samples\.images are float64: they should be uint8"):
        Scanner(model, {}, floats)


def test_a_run_directory_names_its_exported_model(round_of_clients, tmp_path):
    model = load_global(round_of_clients / "global.keras")
    export(model, tmp_path / "run" / "export")
    for path in (tmp_path / "run", tmp_path / "run" / "export"):
        for a, b in zip(load_global(path).get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_dataset_of_another_image_size_is_refused(round_of_clients):
    model = load_global(round_of_clients / "global.keras")
    found = digits().load(model)
    assert found.images.shape[1:] == (16, 16, 1)
    images = keras.Input((16, 16, 3))
    other = keras.Model(images, keras.layers.Dense(10)(keras.layers.Flatten()(images)))
    with pytest.raises(UsageError, match="choose the dataset that it was made for"):
        digits().load(other)


def test_watching_scans_after_a_change_is_complete(round_of_clients, folder):
    model = load_global(round_of_clients / "global.keras")
    scanner = Scanner(model, {"update-consensus": create_defense("update-consensus", {})})
    scans = scanner.watch(folder, interval=0.01)
    first = next(scans)
    assert len(first.files) == HONEST + POISONED
    (folder / "late.npz").write_bytes(b"half of a f")
    second = next(scans)
    assert second.folder.refused.keys() == {"late.npz"}
    (folder / "late.npz").unlink()
    assert not next(scans).folder.refused


def test_watching_leaks_neither_memory_nor_open_files(with_batchnorm, tmp_path):
    """A folder that changes all the time; the last scans need no more than the first ones."""
    folder = shutil.copytree(with_batchnorm / "clients", tmp_path / "clients")
    model = load_global(with_batchnorm / "global.keras")
    model.export(str(folder / "saved"), verbose=False)
    names = ("update-consensus", "statistics-consensus")
    scanner = Scanner(model, {name: create_defense(name, {}) for name in names})
    scans = scanner.watch(folder, interval=0.001)
    tracemalloc.start()
    try:
        before = [_held(folder, scans, number) for number in range(3)][-1]
        after = [_held(folder, scans, number) for number in range(3, 13)][-1]
    finally:
        tracemalloc.stop()
    # Other threads of the process, such as TensorFlow's, allocate too.
    assert after[0] < before[0] + 500_000, "bytes"
    assert after[1] <= before[1], "open files"


def _held(folder: Path, scans: Any, number: int) -> tuple[int, int]:
    """Returns bytes and open files that Python holds after one more scan."""
    (folder / "bad.npz").write_bytes(bytes(number + 1))
    assert next(scans).folder.refused.keys() == {"bad.npz"}
    gc.collect()
    descriptors = Path("/proc/self/fd")
    held = len(list(descriptors.iterdir())) if descriptors.exists() else 0
    return tracemalloc.get_traced_memory()[0], held


def test_ctrl_c_ends_watching_with_the_last_exit_code(round_of_clients, folder, monkeypatch):
    def once(self: Scanner, folder: Path, interval: float) -> Any:
        yield self.scan(folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(Scanner, "watch", once)
    result = scan(round_of_clients, folder, "--watch", "--json")
    assert result.exit_code == 3
    assert len(result.stdout.splitlines()) == 1 and json.loads(result.stdout)["suspects"]
    assert result.stderr == "Stopped.\n"


STRANGE = ("<script>alert(1)<script>.npz", "=1+1.npz", "<img src=x onerror=alert(1)>.keras")


def test_the_report_lists_every_file_and_trusts_no_name(round_of_clients, folder, tmp_path):
    out = tmp_path / "new" / "report"
    for name in STRANGE[:2]:
        (folder / name).write_bytes(b"no model")
    (folder / "client-0.keras").rename(folder / STRANGE[2])
    (folder / "client-1.keras").rename(folder / r"$\frac{$.keras")
    options = ("--dataset", "digits", "--seed", 3, "--defense", "shield")
    options += ("--defense", "update-consensus", "--set", "defense.k=8", "--json")
    result = scan(round_of_clients, folder, *options, "--out", out)
    assert result.exit_code == 3, result.output
    assert {path.name for path in out.iterdir()} == {
        "scan.html", "scan.csv", "scan.json", "heat_maps"
    }  # fmt: skip
    told = json.loads(result.stdout)
    assert json.loads((out / "scan.json").read_text()) == told
    assert len(told["files"]) == 12 and {*told["suspects"]} >= BAD | {*STRANGE[:2]}

    with (out / "scan.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    refused = {row["file"]: row["reason"] for row in rows if row["verdict"] == "refused"}
    assert {*refused} == {STRANGE[0], f"'{STRANGE[1]}"} and all(refused.values())
    suspects = {row["file"] for row in rows if row["verdict"] == "suspect"}
    assert {*refused} | suspects == {name.replace("=1", "'=1") for name in told["suspects"]}

    page = Page((out / "scan.html").read_text())
    assert {*page.text} >= {*STRANGE, r"$\frac{$.keras", *BAD}
    assert all(source.startswith("data:image/") for source in page.images) and page.images
    assert page.scripts == ["part-1-0", "part-2-0", None, None]  # two charts, plotly and our own

    (picture,) = (out / "heat_maps").iterdir()
    assert picture.name == "shield.png" and picture.read_bytes().startswith(b"\x89PNG")


class Page(HTMLParser):
    """What a browser would make of a page: texts, sources of images, scripts by their figure."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.images: list[str] = []
        self.scripts: list[str | None] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert not any(name.startswith("on") for name in given), attrs
        if tag == "img":
            self.images.append(given["src"] or "")
        if tag == "script":
            self.scripts.append(given.get("data-figure"))

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())


def test_watching_keeps_the_report_up_to_date(round_of_clients, folder, tmp_path, monkeypatch):
    out = tmp_path / "report"
    pages = []

    def twice(self: Scanner, folder: Path, interval: float) -> Any:
        yield self.scan(folder)
        pages.append((out / "scan.html").read_text())
        (out / "heat_maps").mkdir()  # as if an earlier scan had looked at maps
        (folder / "late.npz").touch()
        yield self.scan(folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(Scanner, "watch", twice)
    result = scan(round_of_clients, folder, "--watch", "--out", out)
    assert result.exit_code == 3
    assert result.stdout.count(f"The report is in {out / 'scan.html'}") == 2
    pages.append((out / "scan.html").read_text())
    assert ["late.npz" in page for page in pages] == [False, True]
    assert {path.name for path in out.iterdir()} == {"scan.html", "scan.csv", "scan.json"}
    again = scan(round_of_clients, folder, "--out", out)
    assert again.exit_code == 3


def test_a_page_that_fails_hides_no_suspect(round_of_clients, folder, tmp_path, monkeypatch):
    def fail(*_: Any) -> Any:
        raise ValueError("no way")

    out = tmp_path / "out"
    monkeypatch.setattr("tffl.scan.output.html_page", fail)
    result = scan(round_of_clients, folder, "--out", out)
    assert result.exit_code == 3 and all(name in result.stdout for name in BAD)
    assert result.stderr == (
        f"Warning: {out / 'scan.html'} is left out, as it cannot be drawn: ValueError: no way\n"
    )
    assert (out / "scan.csv").exists() and not (out / "scan.html").exists()


def test_a_full_disk_hides_no_suspect(round_of_clients, folder, tmp_path, monkeypatch):
    def full(*_: Any) -> Any:
        raise TfflError("cannot write scan.csv: No space left on device")

    monkeypatch.setattr("tffl.scan.output.write_text", full)
    result = scan(round_of_clients, folder, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "No space left" in result.stderr
    assert all(name in result.stdout for name in BAD)


def test_a_report_of_unjudged_files(round_of_clients, folder, tmp_path):
    for path in sorted(folder.iterdir())[2:]:
        path.unlink()
    result = scan(round_of_clients, folder, "--out", tmp_path / "out")
    assert result.exit_code == 2
    text = Page((tmp_path / "out" / "scan.html").read_text()).text
    assert text.count("not judged") >= 2
    assert any("Not judged by update-consensus" in " ".join(text[i:]) for i in range(len(text)))


def test_a_report_overwrites_only_an_older_report(round_of_clients, folder, tmp_path):
    for out in (folder, folder / "report", tmp_path):
        result = scan(round_of_clients, folder, "--out", out)
        assert result.exit_code == 2 and "contain each other" in result.stderr
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").touch()
    result = scan(round_of_clients, folder, "--out", other)
    assert result.exit_code == 2 and "is not empty and holds no scan" in result.stderr
    result = scan(round_of_clients, folder, "--out", other / "thesis.tex")
    assert result.exit_code == 2 and "is a file" in result.stderr


def test_default_defenses_exist_and_can_judge():
    samples = Samples(np.zeros((4, 6, 6, 1), np.uint8), np.zeros(4, np.int32), 2)
    for given in (None, samples):
        for name, defense in choose_defenses((), (), given is not None).items():
            check_defense(name, defense, given)


NEEDED = {"any-of": {"of": "krum,dnc"}, "all-of": {"of": "krum,dnc"}}
REFUSED = re.compile("names no suspects|needs the history|trains on samples|needs images")


def test_every_defense_judges_a_folder_or_says_why_not(round_of_clients):
    """Without images: those that look at some are refused here, and tried above and elsewhere."""
    model = load_global(round_of_clients / "global.keras")
    judged = {}
    for name in sorted({*defenses} - {"gan-audit"}):
        defense = create_defense(name, NEEDED.get(name, {}))
        try:
            check_defense(name, defense, None)
        except UsageError as error:
            assert REFUSED.search(str(error)), error
            continue
        judged[name] = defense
    found = Scanner(model, judged, seed=1).scan(round_of_clients / "clients")
    assert not found.unjudged and len(judged) >= 10
    for name, verdict in found.verdicts.items():
        assert verdict.convicted.shape == (HONEST + POISONED,), name


def test_help_needs_no_tensorflow():
    import subprocess
    import sys

    code = "import sys; sys.argv=['tffl','scan','--help']; from tffl_cli.main import cli\n"
    code += "try: cli.main()\nexcept SystemExit: pass\nassert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
